/*
 * What udi-run must know of the job is in one file of the root (udi/rundata.py writes it): records that NUL ends, each a
 * keyword, a blank and a value that is taken byte for byte. The first is the version, the last is "end".
 */
#include "udi-run.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#ifndef DATA
#define DATA "/opt/udi/etc/run"
#endif
#define FORMAT "udi-run 1"
#define DATA_BYTES (8 << 20)

static char *read_data(size_t *length)
{
	struct stat status;
	int descriptor = open(DATA, O_RDONLY | O_CLOEXEC);
	if (descriptor < 0 || fstat(descriptor, &status) < 0)
		fail(OWN_FAILURE, "%s: %s; this is a fault of the site", DATA, strerror(errno));
	if (!S_ISREG(status.st_mode) || status.st_size > DATA_BYTES)
		fail(OWN_FAILURE, "%s is not a file of at most %d bytes; this is a fault of the site", DATA, DATA_BYTES);
	char *data = allocate((size_t)status.st_size, 1);
	ssize_t got = 1;
	for (*length = 0; got > 0 && *length < (size_t)status.st_size; *length += got > 0 ? (size_t)got : 0)
		got = read(descriptor, data + *length, (size_t)status.st_size - *length);
	if (got < 0)
		fail(OWN_FAILURE, "%s: %s; this is a fault of the site", DATA, strerror(errno));
	close(descriptor);
	return data;
}

static const char *const keywords[] = {"set", "unset", "prepend", "append", "shell"};

/* One record: its keyword, and the value behind it. Zero where there is no such record. */
static int take(struct job *job, char *record)
{
	char *value = strchr(record, ' ');
	if (!value)
		return 0;
	*value++ = 0;
	if (!strcmp(record, "entrypoint")) {
		add(&job->entrypoint, value);
		return 1;
	}
	if (!strcmp(record, "cmd")) {
		add(&job->cmd, value);
		return 1;
	}
	if (!strcmp(record, "workdir")) {
		job->workdir = value;
		return 1;
	}
	for (size_t number = 0; number < sizeof keywords / sizeof *keywords; number++)
		if (!strcmp(record, keywords[number])) {
			const char *equals = strchr(value, '=');
			if (!*value || equals == value || (!equals && strcmp(record, "unset") && strcmp(record, "shell")))
				return 0;
			add(&job->changes, keywords[number]);
			add(&job->changes, value);
			return 1;
		}
	return 0;
}

struct job read_job(void)
{
	struct job job = {0};
	size_t length, records = 0;
	char *data = read_data(&length), *end = data + length, *next = data;
	for (size_t at = 0; at < length; at++)
		records += !data[at];
	job.changes.items = allocate(2 * records, sizeof(char *));
	job.entrypoint.items = allocate(records, sizeof(char *));
	job.cmd.items = allocate(records, sizeof(char *));
	while (next < end && memchr(next, 0, (size_t)(end - next))) {
		char *record = next;
		next += strlen(record) + 1;
		if (record == data ? !strcmp(record, FORMAT) : next < end && take(&job, record))
			continue;
		if (record != data && next == end && !strcmp(record, "end") && job.workdir)
			return job;
		break;
	}
	fail(OWN_FAILURE, "%s is not what this udi-run (%s) reads; this is a fault of the site", DATA, VERSION);
}
