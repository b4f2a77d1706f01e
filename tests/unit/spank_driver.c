/*
 * Drives the parts of the SPANK plugin that need no Slurm: the plugin itself, with stand-ins for what Slurm provides.
 * The first argument says which part; texts come from stdin. A refusal of the plugin is exit code 1.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

/* Files of whoever runs the test count as root's. */
static int own_fstat(int descriptor, struct stat *status)
{
	int result = fstat(descriptor, status);
	if (result == 0 && status->st_uid == getuid())
		status->st_uid = 0;
	return result;
}

static const char *run_data;

static int own_open(const char *path, int flags)
{
	return open(run_data ? run_data : path, flags);
}

#define fstat own_fstat
#define open own_open
#include "../../slurm/udi.c"

static spank_context_t context = S_CTX_REMOTE;
static char *of_step[2]; /* what the step runs */

spank_context_t spank_context(void)
{
	return context;
}

spank_err_t spank_option_register(spank_t spank, struct spank_option *option)
{
	(void)spank;
	return option->cb ? ESPANK_SUCCESS : ESPANK_BAD_ARG;
}

spank_err_t spank_get_item(spank_t spank, spank_item_t item, ...)
{
	va_list places;
	(void)spank;
	va_start(places, item);
	if (item == S_JOB_ARGV) {
		*va_arg(places, int *) = 1;
		*va_arg(places, char ***) = of_step;
	} else
		*va_arg(places, uint32_t *) = item == S_JOB_ID ? 7 : item == S_JOB_UID ? getuid() : 0;
	va_end(places);
	return ESPANK_SUCCESS;
}

spank_err_t spank_getenv(spank_t spank, const char *name, char *text, int size)
{
	const char *value = getenv(name);
	(void)spank;
	if (!value)
		return ESPANK_ENV_NOEXIST;
	return snprintf(text, (size_t)size, "%s", value) < size ? ESPANK_SUCCESS : ESPANK_NOSPACE;
}

spank_err_t spank_setenv(spank_t spank, const char *name, const char *value, int overwrite)
{
	(void)spank;
	return setenv(name, value, overwrite) == 0 ? ESPANK_SUCCESS : ESPANK_ERROR;
}

spank_err_t spank_unsetenv(spank_t spank, const char *name)
{
	(void)spank;
	return unsetenv(name) == 0 ? ESPANK_SUCCESS : ESPANK_BAD_ARG;
}

spank_err_t spank_job_control_setenv(spank_t spank, const char *name, const char *value, int overwrite)
{
	(void)spank;
	(void)overwrite;
	printf("%s=%s\n", name, value);
	return ESPANK_SUCCESS;
}

void slurm_error(const char *format, ...)
{
	va_list values;
	va_start(values, format);
	vfprintf(stderr, format, values);
	va_end(values);
	fputc('\n', stderr);
}

static char text[1 << 20];

static size_t read_text(void)
{
	size_t length = fread(text, 1, sizeof text - 1, stdin);
	text[length] = 0;
	return length;
}

static int print_note(void)
{
	/* On the heap, in exactly its size, so that a read beyond it is seen. */
	size_t length = read_text();
	char *copy = memcpy(calloc(length + 1, 1), text, length);
	const char *wrong = parse_note(copy, length, step.note);
	free(copy);
	if (wrong) {
		printf("wrong: %s\n", wrong);
		return 0;
	}
	for (int at = 0; at < FIELDS; at++) {
		fputs(names[at], stdout);
		for (const char *byte = step.note[at]; *byte; byte++)
			printf("%02x", (unsigned char)*byte);
		putchar('\n');
	}
	return 0;
}

static int print_verdict(char **arguments)
{
	size_t length = read_text();
	site.batch = arguments[1];
	step.job = (uint32_t)atoi(arguments[2]);
	step.uid = (uid_t)atoi(arguments[3]);
	step.number = !strcmp(arguments[4], "batch") ? SLURM_BATCH_SCRIPT : 0;
	image_text = arguments[5];
	if (length && parse_note(text, length, step.note))
		return 2;
	enum verdict verdict = judge(length > 0);
	puts(verdict == STAY ? "stay" : verdict == ENTER ? "enter" : step.why);
	return 0;
}

static int print_environment(char **arguments)
{
	run_data = arguments[1];
	snprintf(step.directory, sizeof step.directory, "%s", arguments[2] ? arguments[2] : "/tmp");
	finish(NULL);
	for (char **one = environ; *one; one++)
		fwrite(*one, 1, strlen(*one) + 1, stdout);
	return 0;
}

static int print_submission(int count, char **arguments)
{
	context = !strcmp(arguments[1], "srun") ? S_CTX_LOCAL : S_CTX_ALLOCATOR;
	read_arguments(1, arguments + 2);
	for (int at = 3; at < count; at++) {
		char *value = strchr(arguments[at], '=');
		*value++ = 0;
		site.home |= !strcmp(arguments[at], "--home"); /* as home=yes of plugstack.conf */
		for (size_t option = 0; option < sizeof options / sizeof *options; option++)
			if (!strcmp(arguments[at] + 2, options[option].name))
				options[option].cb(options[option].val, value, 0);
	}
	return slurm_spank_init_post_opt(NULL, 0, NULL);
}

int main(int count, char **arguments)
{
	char *values[PARTS];
	const char *part = arguments[1];
	if (!strcmp(part, "note"))
		return print_note();
	if (!strcmp(part, "verdict"))
		return print_verdict(arguments + 1);
	if (!strcmp(part, "environment"))
		return print_environment(arguments + 1);
	if (!strcmp(part, "submit"))
		return print_submission(count - 1, arguments + 1);
	if (!strcmp(part, "source")) {
		char source[TEXT] = "";
		find_source(stdin, atoi(arguments[2]), source);
		puts(source);
		return 0;
	}
	if (!strcmp(part, "answer")) {
		size_t length = read_text();
		char *copy = memcpy(calloc(length + 1, 1), text, length);
		int right = parse_answer(copy, values);
		right ? printf("%s|%s|%s\n", values[1], values[2], values[3]) : puts("wrong||");
		free(copy);
		return 0;
	}
	if (!strcmp(part, "arguments")) {
		read_arguments(count - 2, arguments + 2);
		printf("%s|%s|%s|%u|%d\n", site.submit, site.notes, site.batch, site.seconds, site.wrong);
		return 0;
	}
	if (!strcmp(part, "shell")) { /* whether a step that is salloc's own, or another one, may run a program */
		step.number = !strcmp(arguments[2], "interactive") ? SLURM_INTERACTIVE_STEP : 0;
		of_step[0] = arguments[3];
		require_shell(NULL);
		return 0;
	}
	if (!strcmp(part, "refuse"))
		refuse("'%s'", arguments[2]);
	if (!strcmp(part, "step")) { /* what a task of a step does that is decided in the notes at arguments[2] */
		site.wrong = 0;
		site.notes = arguments[2];
		image_text = count > 3 ? arguments[3] : NULL;
		slurm_spank_init_post_opt(NULL, 0, NULL);
		puts(step.verdict == STAY ? "stay" : step.verdict == ENTER ? "enter" : step.why);
		return 0;
	}
	return 2;
}
