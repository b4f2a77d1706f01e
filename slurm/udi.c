/*
 * The SPANK plugin of shifter-xc: the tasks of a Slurm job run inside the image that the job asked for.
 *
 * At submission, as the user, it offers --image, --volume and --module, lets udi-slurm-submit judge them, and hands what was
 * asked for to Prolog. On a node it goes by the note that Prolog has left for the job: each task enters the root that
 * the note names, once the kernel's own table shows that it is this job's, and gets the image's environment.
 *
 * It never lets a task start on the host where an image was asked for: whatever is missing, forged or not understood
 * ends the task. It never starts a program as root, never acts as root on a path that a user or an image can bend, and
 * changes nothing of a job without an image: such a step costs one open() that finds nothing. In plugstack.conf:
 *     required udi.so submit=/PROGRAM notes=/DIRECTORY batch=inside|outside|alps seconds=N [home=yes]
 */
#define _GNU_SOURCE
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <slurm/slurm.h>
#include <slurm/spank.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

SPANK_PLUGIN(udi, 1)

#define UNUSED __attribute__((unused))
#define SITE_FAULT "; this is a fault of the site"
#define DIRECTORY (O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
enum { NOTE_BYTES = 64 << 10, RUN_BYTES = 8 << 20, ANSWER_BYTES = 256 << 10, VALUE_BYTES = 128 << 10, TEXT = 4096 };

/* What plugstack.conf says. `wrong` is set where an argument was not understood. */
static struct site {
	const char *submit, *notes, *batch;
	unsigned seconds;
	int wrong, home;
} site = {.wrong = 1};

/* The options as they were written; NULL where they were not. */
static char *image_text, *volumes_text, *modules_text;
#define IS_OUTSIDE (image_text && !strcmp(image_text, "none"))

/* What Prolog wrote about this job: the value behind each keyword, empty where it has none. */
enum field { UID, STATE, ROOT, LABEL, IMAGE, GIVEN, ID, WHY, START, FIELDS };
static const char *const names[] = {"uid ", "state ", "root ", "label ", "image ", "given ", "id ", "why ", "start "};
typedef char note_t[FIELDS][TEXT];

/* What becomes of the tasks of this step; decided once, before they are forked. */
enum verdict { UNDECIDED, STAY, ENTER, ENTERED, REFUSE };
static struct {
	enum verdict verdict;
	char why[2 * TEXT], directory[TEXT];
	uint32_t job, number;
	uid_t uid;
	note_t note;
} step = {.why = "nothing was decided about this step"};

/* One line for the user and the log, in which no control character is left; -1, for the caller to return. */
__attribute__((format(printf, 1, 2))) static int give_up(const char *format, ...)
{
	char line[4 * TEXT];
	va_list values;
	va_start(values, format);
	vsnprintf(line, sizeof line, format, values);
	va_end(values);
	for (char *at = line; *at; at++)
		if ((unsigned char)*at < ' ' || *at == 0x7f)
			*at = '?';
	slurm_error("udi: %s", line);
	return -1;
}

/* Ends the task itself: a plugin's error is not obeyed where plugstack.conf says `optional`. */
#define refuse(...) (give_up(__VA_ARGS__), _exit(1))
#define because(...) (snprintf(step.why, sizeof step.why, __VA_ARGS__), REFUSE)

static void read_arguments(int count, char **words)
{
	char rest;
	site = (struct site){"/opt/udi/bin/udi-slurm-submit", "/var/run/udi-slurm", "inside", 3600, 0, 0};
	for (int at = 0; at < count; at++) {
		const char *word = words[at];
		if (!strncmp(word, "submit=/", 8))
			site.submit = word + 7;
		else if (!strncmp(word, "notes=/", 7))
			site.notes = word + 6;
		else if (!strcmp(word, "batch=inside") || !strcmp(word, "batch=outside") || !strcmp(word, "batch=alps"))
			site.batch = word + 6;
		else if (!strcmp(word, "home=yes"))
			site.home = 1;
		else if (sscanf(word, "seconds=%6u%c", &site.seconds, &rest) != 1 || site.seconds - 1 > 999998)
			site.wrong = 1;
	}
}

/* An image replaces the one before; what is given one by one is a list. Slurm may call twice for one option. */
static int take_option(int value, const char *text, int remote UNUSED)
{
	char **const texts[] = {&image_text, &volumes_text, &volumes_text, &modules_text}, **known = texts[value], *before = *known;
	int joins = value && before && strcmp(before, text) != 0;
	if (asprintf(known, "%s%s%s", joins ? before : "", joins ? ";" : "", text) < 0)
		refuse("not enough memory");
	free(before);
	return 0;
}

static struct spank_option options[] = {
	{"image", "NAME", "container image to run in; none: a step outside of its job's image", 1, 0, take_option},
	{"imagevolume", "FROM:TO[:ro][;...]", "show directories inside the image", 1, 1, take_option},
	{"volume", "FROM:TO[:ro][;...]", "the same as --imagevolume", 1, 2, take_option},
	{"module", "NAME[;...]", "what the site offers to go with an image: udi modules", 1, 3, take_option},
};

/* The value behind `keyword` in the line at *text, which becomes the next line; NULL where the line is another. */
static char *take_line(char **text, const char *keyword)
{
	size_t length = strlen(keyword);
	char *line = *text, *end = strchr(line, '\n');
	if (!end || strncmp(line, keyword, length) != 0)
		return NULL;
	*end = 0;
	*text = end + 1;
	return line + length;
}

#include "submit.c"

/* A file of at most `most` bytes that root alone can write; NULL with errno where there is none. */
static char *read_trusted(const char *path, size_t most, size_t *length)
{
	int file = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	FILE *stream = file < 0 ? NULL : fdopen(file, "r");
	struct stat status;
	if (!stream || fstat(file, &status) < 0)
		return NULL;
	int trusted = S_ISREG(status.st_mode) && status.st_uid == 0 && !(status.st_mode & 022);
	char *text = trusted && (size_t)status.st_size <= most ? calloc((size_t)status.st_size + 1, 1) : NULL;
	*length = text ? fread(text, 1, (size_t)status.st_size, stream) : 0;
	fclose(stream);
	errno = trusted ? EFBIG : EPERM;
	return text;
}

/* The text of which udiroot/fields.py made the field; -1 where it is none, or does not fit. */
static int unescape(const char *field, char *text)
{
	const char *last = text + TEXT - 1;
	for (const char *at = strcmp(field, "%") ? field : ""; *at; at++) {
		unsigned byte = (unsigned char)*at;
		int plain = byte > ' ' && byte <= '~', digits = isxdigit((unsigned char)at[1]) && isxdigit((unsigned char)at[2]);
		if (!plain || (byte == '%' && (!digits || sscanf(at + 1, "%2x", &byte) != 1)) || !byte || text == last)
			return -1;
		at += *at == '%' ? 2 : 0;
		*text++ = (char)byte;
	}
	*text = 0;
	return 0;
}

/* NULL, or what is wrong with the text of a note. */
static const char *parse_note(char *text, size_t length, note_t note)
{
	int seen[FIELDS] = {0}, at;
	char *word;
	memset(note, 0, sizeof(note_t));
	if (strlen(text) != length || !(word = take_line(&text, "udi-note 1")) || *word)
		return "it is not a note that this plugin understands";
	while (!(word = take_line(&text, "end"))) {
		for (at = 0; at < FIELDS && !(word = take_line(&text, names[at])); at++)
			continue;
		if (at == FIELDS || seen[at]++ || unescape(word, note[at]) < 0)
			return "it is incomplete, or has a line that is not understood";
	}
	int ready = !strcmp(note[STATE], "ready"), failed = !strcmp(note[STATE], "failed");
	if (*word || *text)
		return "something follows its end";
	if (!ready && !failed && strcmp(note[STATE], "wanted") != 0)
		return "its state is unknown";
	if (ready ? *note[ROOT] != '/' || !*note[LABEL] || !*note[IMAGE] || !*note[GIVEN] : failed && !*note[WHY])
		return "a line is missing";
	return NULL;
}

/* Whether the note, and the root that it names, are of this job and this user. */
static int is_of_job(note_t note, uint32_t job, uid_t uid)
{
	char user[32], label[64];
	size_t length = (size_t)snprintf(label, sizeof label, "udi:%u:%u:", job, uid);
	snprintf(user, sizeof user, "%u", uid);
	return !strcmp(note[UID], user) && (strcmp(note[STATE], "ready") != 0 || !strncmp(note[LABEL], label, length));
}

/* Whether `text` names the job's image, in any of the ways in which users write it. */
static int names_image(const char *text, note_t note)
{
	char complete[TEXT + 8];
	if (!strcmp(text, note[GIVEN]) || !strcmp(text, note[IMAGE]))
		return 1;
	if (!strncmp(text, "id:", 3))
		return *note[ID] && !strcmp(text + 3, note[ID]);
	text += !strncmp(text, "docker://", 9) ? 9 : !strncmp(text, "docker:", 7) ? 7 : 0;
	const char *slash = strrchr(text, '/');
	snprintf(complete, sizeof complete, "%.4095s%s", text, strpbrk(slash ? slash : text, ":@") ? "" : ":latest");
	return !strcmp(complete, note[IMAGE]);
}

/* `noted` is whether the job has a note, which is then that of the step. */
static enum verdict judge(int noted)
{
	const char *node = getenv("SLURMD_NODENAME"), *asked = image_text;
	if (IS_OUTSIDE || (!noted && !asked))
		return STAY;
	if (!noted)
		return because("image '%s' was asked for, but node %s has prepared none for job %u", asked, node, step.job);
	if (!is_of_job(step.note, step.job, step.uid))
		return because("the note about job %u on node %s is another job's" SITE_FAULT, step.job, node);
	if (!strcmp(step.note[STATE], "failed"))
		return because("%s", step.note[WHY]);
	if (strcmp(step.note[STATE], "ready") != 0)
		return because("the image of job %u is not ready on node %s" SITE_FAULT, step.job, node);
	if (asked && !names_image(asked, step.note))
		return because("a step runs in the image of its job, %s, and not in '%s'", step.note[GIVEN], asked);
	return step.number == SLURM_BATCH_SCRIPT && !strcmp(site.batch, "outside") ? STAY : ENTER;
}

static enum verdict decide(spank_t spank)
{
	char path[TEXT];
	size_t length;
	if (site.wrong)
		return because("an argument in plugstack.conf is not understood" SITE_FAULT);
	if (spank_get_item(spank, S_JOB_ID, &step.job) || spank_get_item(spank, S_JOB_UID, &step.uid) ||
	    spank_get_item(spank, S_JOB_STEPID, &step.number))
		return because("Slurm does not say which job this is");
	snprintf(path, sizeof path, "%s/%u", site.notes, step.job);
	char *text = read_trusted(path, NOTE_BYTES, &length);
	if (!text && errno == ENOENT) {
		static char of_job[TEXT]; /* all that is left of a request after sbatch --export=NONE */
		if (!image_text && spank_getenv(spank, "SLURM_SPANK_UDI_IMAGE", of_job, sizeof of_job) == ESPANK_SUCCESS)
			image_text = of_job;
		return judge(0);
	}
	const char *wrong = text ? parse_note(text, length, step.note) : strerror(errno);
	free(text);
	return wrong ? because("%s: %s" SITE_FAULT, path, wrong) : judge(1);
}

/* The source of the mount with that number, in a table like /proc/self/mountinfo; empty where there is none, or where
 * it is of FUSE, for which users choose it. */
static void find_source(FILE *table, int number, char source[TEXT])
{
	char *line = NULL, *at;
	size_t room = 0;
	while (!*source && getline(&line, &room, table) > 0)
		if (strtol(line, &at, 10) == number && *at == ' ' && (at = strstr(at, " - ")) && strncmp(at + 3, "fuse", 4) != 0 &&
		    (at = strchr(at + 3, ' ')))
			snprintf(source, TEXT, "%.*s", (int)strcspn(at + 1, " \n"), at + 1);
	free(line);
}

/* The directory at that path. Ends the task where links, or whatever else, have led out of mounts with its label. */
static int open_labelled(int from, const char *path)
{
	char name[64], line[256], source[TEXT] = "";
	int number = -1, directory = openat(from, path, DIRECTORY);
	snprintf(name, sizeof name, "/proc/self/fdinfo/%d", directory);
	FILE *facts = fopen(name, "re"), *table = fopen("/proc/self/mountinfo", "re");
	while (facts && fgets(line, sizeof line, facts) && sscanf(line, "mnt_id: %d", &number) != 1)
		continue;
	if (facts && table)
		find_source(table, number, source);
	if (!*source || strcmp(source, step.note[LABEL]) != 0)
		refuse("%s is no directory in the root of job %u" SITE_FAULT, path, step.job);
	fclose(facts);
	fclose(table);
	return directory;
}

static void mount_at(int place, const char *source, const char *kind, unsigned long flags)
{
	char path[64];
	snprintf(path, sizeof path, "/proc/self/fd/%d", place);
	if (mount(source, path, kind, flags, kind ? "mode=0755,size=64k" : NULL) < 0)
		refuse("the batch script of job %u cannot be shown in its root: %s" SITE_FAULT, step.job, strerror(errno));
}

/* Shows the job's spool directory, and nothing else of the spool, read-only at its own path until the root goes. */
static void show_script(int root, const char *script)
{
	const unsigned long safe = MS_NOSUID | MS_NODEV, frozen = safe | MS_BIND | MS_REMOUNT | MS_RDONLY;
	const unsigned long flags[] = {MS_BIND, MS_PRIVATE, frozen};
	char spool[TEXT], name[32], source[64];
	size_t tail = (size_t)snprintf(name, sizeof name, "/job%05u/slurm_script", step.job), length = strlen(script);
	if (length <= tail || length >= sizeof spool || strcmp(script + length - tail, name) != 0)
		refuse("%s is not the script of job %u" SITE_FAULT, script, step.job);
	*strrchr(name, '/') = 0;
	snprintf(spool, sizeof spool, "%.*s", (int)(length - tail), script);
	snprintf(source, sizeof source, "/proc/self/fd/%d", openat(open(spool, O_PATH | O_CLOEXEC), name + 1, DIRECTORY));
	mount_at(open_labelled(root, spool + 1), step.note[LABEL], "tmpfs", safe);
	int shown = open_labelled(root, spool + 1);
	mkdirat(shown, name + 1, 0755);
	for (size_t at = 0; at < sizeof flags / sizeof *flags; at++)
		mount_at(openat(shown, name + 1, DIRECTORY), source, NULL, flags[at]);
	mount_at(shown, NULL, NULL, frozen);
}

static void enter(spank_t spank)
{
	const char *path = step.note[ROOT];
	int root = open_labelled(AT_FDCWD, path), null = open("/dev/null", O_WRONLY | O_CLOEXEC), count = 0;
	char **words = NULL;
	if (step.number == SLURM_BATCH_SCRIPT) {
		spank_get_item(spank, S_JOB_ARGV, &count, &words);
		show_script(root, count > 0 ? words[0] : "nothing");
	}
	tzset(); /* else the C library reads the image's /etc/localtime, when Slurm logs something before it is the user */
	if (!getcwd(step.directory, sizeof step.directory) || fchdir(root) < 0 || chroot(".") < 0)
		refuse("%s: %s" SITE_FAULT, path, strerror(errno));
	dup2(null, 2); /* Slurm says next that it cannot enter a working directory, then opens the task's own stderr */
	step.verdict = ENTERED;
}

/* How variables begin by which Slurm, its MPI and its devices speak to a task: such as there are stay as they are. */
static const char *const kept[] = {"SLURM", "_SLURM", "PMI", "CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"};

/* One record of the file that udi-run reads too (udirun/job.c). Zero where it is none, or cannot be done. */
static int apply(spank_t spank, char *record, const char **workdir)
{
	static char now[VALUE_BYTES], joined[2 * VALUE_BYTES];
	char *text = strchr(record, ' '), *value;
	if (!text)
		return 0;
	*text++ = 0;
	if (!strcmp(record, "workdir"))
		return *workdir = text, 1;
	if (!strcmp(record, "entrypoint") || !strcmp(record, "cmd"))
		return 1;
	if (!strcmp(record, "shell"))
		return !spank_setenv(spank, "SHELL", access(text, X_OK) && !access("/bin/sh", X_OK) ? "/bin/sh" : text, 1);
	if ((value = strchr(text, '=')))
		*value++ = 0;
	int known = !spank_getenv(spank, text, now, sizeof now), front = !strcmp(record, "prepend");
	for (size_t at = 0; known && at < sizeof kept / sizeof *kept; at++)
		if (!strncmp(text, kept[at], strlen(kept[at])))
			return 1;
	if (!strcmp(record, "unset"))
		return spank_unsetenv(spank, text) || 1;
	if (!value || value == text + 1 || (!front && strcmp(record, "append") != 0 && strcmp(record, "set") != 0))
		return 0;
	if (known && *now && *record != 's')
		snprintf(joined, sizeof joined, "%s:%s", front ? value : now, front ? now : value);
	return !spank_setenv(spank, text, known && *now && *record != 's' ? joined : value, 1);
}

/* salloc without a command starts the user's own shell here, where the site has use_interactive_step. */
static void require_shell(spank_t spank)
{
	char **words = NULL;
	int count = 0;
	if (step.number == SLURM_INTERACTIVE_STEP && !spank_get_item(spank, S_JOB_ARGV, &count, &words) && count > 0 &&
	    *words[0] == '/' && access(words[0], X_OK) < 0)
		refuse("the image has no %s, which is your SHELL: for a shell in the image, SHELL=/bin/sh salloc ...; for one "
		       "outside of it, from which srun enters it, salloc ... bash",
		       words[0]);
}

/* As the user: the environment that udi-run gives, and another working directory where the image lacks the job's. */
static void finish(spank_t spank)
{
	char here[TEXT] = "", *record;
	const char *workdir = "/";
	size_t length, next = 0;
	char *data = read_trusted("/opt/udi/etc/run", RUN_BYTES, &length);
	if (!data)
		refuse("the environment of the image: %s" SITE_FAULT, strerror(errno));
	do {
		record = data + next;
		next += strlen(record) + 1;
		int last = next >= length, head = record == data && !last && !strcmp(record, "udi-run 1");
		if (record == data ? !head : last ? strcmp(record, "end") != 0 : !apply(spank, record, &workdir))
			refuse("the environment of the image is not what this plugin understands" SITE_FAULT);
	} while (next < length);
	int lost = getcwd(here, sizeof here) && !strcmp(here, "/tmp") && strcmp(step.directory, "/tmp") != 0;
	/* Slurm goes to /tmp where it cannot go to the job's directory. An image may name a descriptor of this process: what
	   lies outside of the root has no path in it. */
	if (lost && (chdir(workdir) < 0 || !getcwd(here, sizeof here) || *here != '/') && chdir("/") < 0)
		refuse("no working directory: %s", strerror(errno));
	if (getcwd(here, sizeof here))
		spank_setenv(spank, "PWD", here, 1);
	free(data);
	require_shell(spank);
}

int slurm_spank_init(spank_t spank, int count, char **words)
{
	read_arguments(count, words);
	for (size_t at = 0; at < sizeof options / sizeof *options; at++)
		if (spank_option_register(spank, &options[at]) != ESPANK_SUCCESS)
			return give_up("Slurm does not take the option --%s" SITE_FAULT, options[at].name);
	return 0;
}

int slurm_spank_init_post_opt(spank_t spank, int count UNUSED, char **words UNUSED)
{
	if (spank_context() == S_CTX_REMOTE)
		step.verdict = decide(spank); /* obeyed by each task, since Slurm would ignore an error here */
	else if (submit(spank) < 0)
		exit(255); /* the user knows why, and Slurm would add two lines */
	return 0;
}

int slurm_spank_task_init_privileged(spank_t spank, int count UNUSED, char **words UNUSED)
{
	int task = 0;
	spank_get_item(spank, S_TASK_ID, &task);
	if (step.verdict == ENTER && !strcmp(site.batch, "alps"))
		spank_setenv(spank, "CRAY_ROOTFS", "UDI", 1);
	else if (step.verdict == ENTER)
		enter(spank);
	else if (step.verdict != STAY && task)
		_exit(1); /* the first one on the node says why */
	else if (step.verdict != STAY)
		refuse("%s", step.why);
	return 0;
}

int slurm_spank_task_init(spank_t spank, int count UNUSED, char **words UNUSED)
{
	if (step.verdict == ENTERED)
		finish(spank);
	return 0;
}
