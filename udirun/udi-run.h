/* What the parts of udi-run share. */
#define _GNU_SOURCE
#include <stddef.h>

enum { OWN_FAILURE = 125, NOT_EXECUTABLE = 126, NOT_FOUND = 127 };

/* Texts, followed by NULL; whoever allocates it knows how many will come. */
struct list {
	char **items;
	size_t count;
};

/* What the user wants; NULL where he did not say. `changes` holds pairs: "=" and NAME=VALUE or NAME, "-" and NAME. */
struct options {
	struct list changes;
	const char *workdir, *entrypoint;
	int with_args, clear, session;
};

/* What is known of the job. `changes` holds pairs: the keyword of a record, and its value. */
struct job {
	struct list changes, entrypoint, cmd;
	const char *workdir;
};

/* message.c */
__attribute__((format(printf, 1, 2))) void warn(const char *format, ...);
__attribute__((noreturn, format(printf, 2, 3))) void fail(int code, const char *format, ...);
void *allocate(size_t count, size_t size);
void add(struct list *list, const char *item);
char *joined(const char *first, size_t length, const char *second, const char *third);

/* job.c */
struct job read_job(void);

/* environment.c: the environment that the program will get; getenv has the one that udi-run got. */
void prepare_environment(const struct job *job, const struct options *options);
void change_environment(const struct options *options);
const char *value(const char *name);
void set_value(const char *name, const char *content);
void unset(const char *name);
char **environment(void);

/* directory.c */
void choose_directory(const struct job *job, const struct options *options);

/* program.c: becomes the program. `who` says in messages what it is. */
__attribute__((noreturn)) void become(const char *who, char **arguments, char **new_environment);
