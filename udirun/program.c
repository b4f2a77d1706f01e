/* Becoming the program, or saying whose fault it is that this cannot be. */
#include "udi-run.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define DEFAULT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#define STRING_BYTES (128 << 10) /* MAX_ARG_STRLEN of the kernel, with pages of 4 KiB */

__attribute__((noreturn)) static void fail_by_size(const char *who, char **arguments, char **variables_of_it)
{
	size_t total = 0;
	for (char **one = arguments; *one; one++) {
		total += strlen(*one) + 1 + sizeof *one;
		if (strlen(*one) >= STRING_BYTES)
			fail(NOT_EXECUTABLE, "%s: an argument has %zu bytes, and the kernel takes at most %d", who, strlen(*one),
			     STRING_BYTES - 1);
	}
	for (char **one = variables_of_it; *one; one++) {
		total += strlen(*one) + 1 + sizeof *one;
		if (strlen(*one) >= STRING_BYTES)
			fail(NOT_EXECUTABLE, "%s: the variable %.*s has %zu bytes, and the kernel takes at most %d", who,
			     (int)strcspn(*one, "="), *one, strlen(*one), STRING_BYTES - 1);
	}
	fail(NOT_EXECUTABLE, "%s: arguments and environment have %zu bytes, more than the kernel takes", who, total);
}

/* Never returns: the line that says why the program at `path` was not started. */
__attribute__((noreturn)) static void fail_to_execute(const char *who, const char *path, int error)
{
	struct stat status;
	if (error == ENOEXEC)
		fail(NOT_EXECUTABLE, "%s: %s has no #! line and is not a program for this machine", who, path);
	if (stat(path, &status) < 0) {
		int missing = errno == ENOENT || errno == ENOTDIR;
		fail(missing ? NOT_FOUND : NOT_EXECUTABLE, "%s: %s: %s", who, path,
		     missing ? "not found in the image" : strerror(errno));
	}
	if (S_ISDIR(status.st_mode))
		fail(NOT_EXECUTABLE, "%s: %s is a directory", who, path);
	if (error == ENOENT)
		fail(NOT_EXECUTABLE, "%s: %s exists, but the image lacks the interpreter or loader that it names", who, path);
	if (error == EACCES && access(path, X_OK) == 0)
		fail(NOT_EXECUTABLE, "%s: the interpreter or loader of %s cannot be executed, or its file system has noexec", who,
		     path);
	fail(NOT_EXECUTABLE, "%s: %s: %s", who, path, strerror(error));
}

/* As execvpe of the C library, but with the new PATH, and with the first error worth reporting. */
__attribute__((noreturn)) static void search(const char *who, char **arguments, char **new_environment)
{
	const char *name = arguments[0], *list = value("PATH");
	char *refused = NULL;
	int error = 0;
	if (!list)
		list = DEFAULT_PATH;
	for (const char *at = list; *name; at++) {
		size_t length = strcspn(at, ":");
		char *path = joined(at, length, length ? "/" : "./", name);
		struct stat status;
		execve(path, arguments, new_environment);
		if (errno == E2BIG)
			fail_by_size(who, arguments, new_environment);
		if (errno == ENOEXEC || errno == ENOMEM || errno == ETXTBSY)
			fail_to_execute(who, path, errno);
		int now = errno;
		if (!refused && (now == ENOENT ? stat(path, &status) == 0 : now != ENOTDIR && now != ENAMETOOLONG)) {
			refused = path;
			error = now;
		}
		at += length;
		if (!*at)
			break;
	}
	if (refused)
		fail_to_execute(who, refused, error);
	fail(NOT_FOUND, "%s: '%s' was not found in PATH (%s)", who, name, list);
}

void become(const char *who, char **arguments, char **new_environment)
{
	if (!strchr(arguments[0], '/'))
		search(who, arguments, new_environment);
	execve(arguments[0], arguments, new_environment);
	if (errno == E2BIG)
		fail_by_size(who, arguments, new_environment);
	fail_to_execute(who, arguments[0], errno);
}
