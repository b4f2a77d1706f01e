/*
 * udi-run: runs a program inside a job's image, in the environment and working directory that the image, the site and
 * the user want. docs/design.md describes it.
 *
 * It is static and starts no other program before the one it becomes, so that an image needs neither a shell nor a
 * library. It runs as the job's user, with no more rights than whoever started it.
 */
#include "udi-run.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char help[] =
"Usage: udi-run [OPTIONS] [COMMAND [ARG...]]\n"
"       udi-run [OPTIONS] --args [ARG...]\n"
"\n"
"Run COMMAND in the environment and working directory of the job's image. Without COMMAND, run the image's entry\n"
"point with the image's own arguments (CMD); with --args, run it with these ARGs instead.\n"
"\n"
"  --args             what follows are arguments of the entry point\n"
"  --entrypoint PROG  run PROG instead of the image's entry point; what follows are its arguments, and the image's\n"
"                     own are dropped; an empty PROG stands for no entry point\n"
"  --workdir DIR      start in DIR; a relative DIR is below the directory in which udi-run is started\n"
"  --env NAME=VALUE   set a variable; may be repeated\n"
"  --env NAME         the job's own value of that variable, over the image's and the site's\n"
"  --unset NAME       remove a variable; may be repeated\n"
"  --clear-env        start without the job's own environment\n"
"  --                 end of the options, needed where the next argument begins with -\n"
"  --help, --version  show this text, or the version\n"
"\n"
"Environment, each over the one before: the job's own; the image's ENV; what the site, then its modules set, prepend and\n"
"append; HOME, USER, LOGNAME and SHELL of the user, UDI_IMAGE, UDI_IMAGE_ID and PWD; --env and --unset, in their order.\n"
"COMMAND is looked up in the resulting PATH.\n"
"\n"
"Working directory: --workdir, or the image's WORKDIR, where a relative one is below /. If the user cannot enter the\n"
"image's WORKDIR, a warning names the reason, and the program starts in the job's directory: the one in which udi-run\n"
"was started, else PWD, else HOME, else /.\n"
"\n"
"Exit code: that of the program; 125 if udi-run failed, 126 if the program cannot be executed, 127 if it was not found.\n";

static void print_and_exit(const char *text)
{
	if (fputs(text, stdout) < 0 || fflush(stdout) != 0)
		fail(OWN_FAILURE, "cannot write to stdout: %s", strerror(errno));
	exit(0);
}

/* The value of the option `name` at argv[*at], as `name VALUE` or `name=VALUE`; NULL where it is another option. */
static char *value_of(const char *name, int argc, char **argv, int *at)
{
	size_t length = strlen(name);
	if (strncmp(argv[*at], name, length) != 0)
		return NULL;
	if (argv[*at][length] == '=')
		return argv[*at] + length + 1;
	if (argv[*at][length])
		return NULL;
	if (*at + 1 >= argc)
		fail(OWN_FAILURE, "option %s needs a value; see udi-run --help", name);
	return argv[++*at];
}

static void change(struct options *options, const char *kind, char *text, const char *option)
{
	if (!*text || *text == '=' || (*kind == '-' && strchr(text, '=')))
		fail(OWN_FAILURE, "%s '%s' does not name a variable; see udi-run --help", option, text);
	add(&options->changes, kind);
	add(&options->changes, text);
}

/* The index of the first argument that is not an option. */
static int parse(int argc, char **argv, struct options *options)
{
	int at;
	char *value;
	options->changes.items = allocate(2 * (size_t)argc, sizeof(char *));
	for (at = 1; at < argc && argv[at][0] == '-' && argv[at][1]; at++) {
		const char *word = argv[at];
		if (!strcmp(word, "--"))
			return at + 1;
		if (!strcmp(word, "--help"))
			print_and_exit(help);
		else if (!strcmp(word, "--version"))
			print_and_exit("udi-run, version " VERSION "\n");
		else if (!strcmp(word, "--args"))
			options->with_args = 1;
		else if (!strcmp(word, "--clear-env"))
			options->clear = 1;
		else if (!strcmp(word, "--session"))
			options->session = 1;
		else if ((value = value_of("--workdir", argc, argv, &at)))
			options->workdir = value;
		else if ((value = value_of("--entrypoint", argc, argv, &at)))
			options->entrypoint = value;
		else if ((value = value_of("--env", argc, argv, &at)))
			change(options, "=", value, "--env");
		else if ((value = value_of("--unset", argc, argv, &at)))
			change(options, "-", value, "--unset");
		else
			fail(OWN_FAILURE, "unknown option %s (-- ends the options); see udi-run --help", word);
	}
	return at < argc ? at : argc;
}

/* The arguments of the program to run, its name first. The private sshd starts `udi-run --session`, which is a shell. */
static struct list arguments_to_run(const struct job *job, const struct options *options, char **given, const char **who)
{
	struct list words = {0};
	const char *command = getenv("SSH_ORIGINAL_COMMAND");
	size_t count = 0;
	while (given[count])
		count++;
	words.items = allocate(job->entrypoint.count + job->cmd.count + count + 4, sizeof(char *));
	*who = "the command";
	if (options->session) {
		*who = "the shell of this session";
		add(&words, value("SHELL") ? value("SHELL") : "/bin/sh");
		add(&words, command && *command ? "-c" : "-l");
		if (command && *command)
			add(&words, command);
		return words;
	}
	if (options->entrypoint && *options->entrypoint) {
		*who = "--entrypoint";
		add(&words, options->entrypoint);
	} else if (!options->entrypoint && (options->with_args || !count)) {
		*who = "the image's entry point";
		if (options->with_args && !job->entrypoint.count)
			fail(OWN_FAILURE, "--args: this image has no entry point; name a command instead");
		for (size_t at = 0; at < job->entrypoint.count; at++)
			add(&words, job->entrypoint.items[at]);
		for (size_t at = 0; at < job->cmd.count && !options->with_args; at++)
			add(&words, job->cmd.items[at]);
		if (!words.count)
			fail(OWN_FAILURE, "this image has no entry point; name a command");
	}
	for (size_t at = 0; at < count; at++)
		add(&words, given[at]);
	if (!words.count)
		fail(OWN_FAILURE, "no entry point; name a command");
	return words;
}

int main(int argc, char **argv)
{
	struct options options = {0};
	const char *who;
	int first = parse(argc, argv, &options);
	struct job job = read_job();
	prepare_environment(&job, &options);
	choose_directory(&job, &options);
	change_environment(&options);
	struct list words = arguments_to_run(&job, &options, argv + first, &who);
	become(who, words.items, environment());
}
