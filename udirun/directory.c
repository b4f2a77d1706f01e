/* The working directory. */
#include "udi-run.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Zero, or why the user cannot work there. A directory outside the root has no path. */
static int enter(const char *directory)
{
	char path[PATH_MAX];
	if (chdir(directory) < 0)
		return errno;
	return getcwd(path, sizeof path) || errno == ERANGE ? 0 : ENOENT;
}

/* `start` is the directory in which udi-run was started. A launcher that cannot enter the job's uses / instead. */
static void enter_directory_of_job(int start)
{
	const char *pwd = getenv("PWD"), *home = value("HOME");
	char path[PATH_MAX];
	if (start >= 0 && fchdir(start) == 0 && getcwd(path, sizeof path) && strcmp(path, "/") != 0)
		return;
	if (pwd && *pwd == '/' && enter(pwd) == 0)
		return;
	if (home && *home == '/' && enter(home) == 0)
		return;
	if (enter("/") != 0)
		fail(OWN_FAILURE, "the root directory: %s", strerror(errno));
}

void choose_directory(const struct job *job, const struct options *options)
{
	int start = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC), error;
	char path[PATH_MAX];
	if (options->workdir) {
		if ((error = enter(options->workdir)))
			fail(OWN_FAILURE, "--workdir %s: %s", options->workdir, strerror(error));
	} else if ((error = enter(job->workdir))) {
		enter_directory_of_job(start);
		warn("warning: the image's working directory %s cannot be entered (%s); starting in %s", job->workdir,
		     strerror(error), getcwd(path, sizeof path) ? path : "the job's directory");
	}
	if (getcwd(path, sizeof path))
		set_value("PWD", path);
	else
		unset("PWD");
}
