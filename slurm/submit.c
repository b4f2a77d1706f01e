/*
 * Submission, as the user: what was asked for is judged by udi-slurm-submit, and handed to Prolog.
 *
 * Part of udi.c, which includes it, so that a plugin exports Slurm's entry points and nothing else.
 */

/* The lists that are the whole job's, and the variable in which it keeps what it was given. */
enum { LISTS = 2, PARTS = 5, SPANK = sizeof "SLURM_SPANK_" - 1 };
static const struct list {
	char **text, *name, *given;
} lists[LISTS] = {{&volumes_text, "volume", "SLURM_SPANK_UDI_GIVEN_VOLUMES"},
                  {&modules_text, "module", "SLURM_SPANK_UDI_GIVEN_MODULES"}};

/* What a job is submitted with: the keyword of udi-slurm-submit's answer, and the job's variable. */
static const char *const parts[PARTS][2] = {{"image ", "SLURM_SPANK_UDI_IMAGE"}, {"id ", "SLURM_SPANK_UDI_ID"},
	{"volumes ", "SLURM_SPANK_UDI_VOLUMES"}, {"modules ", "SLURM_SPANK_UDI_MODULES"},
	{"run ", "SLURM_SPANK_UDI_RUN"}};

/* What udi-slurm-submit answers: the parts, `end`, and no more. Zero where it is something else. */
static int parse_answer(char *text, char *values[PARTS])
{
	for (size_t at = 0; at < PARTS; at++)
		if (!(values[at] = take_line(&text, parts[at][0])))
			return 0;
	const char *end = take_line(&text, "end");
	return *values[1] && end && !*end && !*text;
}

/* In the child: the program, with a deadline and with no descriptor but the three. */
static void become_submit(char *const *arguments, int answers)
{
	sigset_t all;
	sigfillset(&all);
	if (!freopen("/dev/null", "r", stdin) || dup2(answers, 1) < 0 || sigprocmask(SIG_UNBLOCK, &all, NULL) < 0)
		_exit(127);
	for (int descriptor = 3; descriptor < sysconf(_SC_OPEN_MAX) && descriptor < 65536; descriptor++)
		close(descriptor);
	signal(SIGALRM, SIG_DFL);
	alarm(site.seconds);
	execv(site.submit, arguments);
	dprintf(2, "udi: %s cannot be started: %s" SITE_FAULT "\n", site.submit, strerror(errno));
	_exit(127);
}

/* Lets udi-slurm-submit judge what was asked for; -1 where nothing must be submitted, and the user knows why. */
static int run_submit(char *const *arguments, char *answer)
{
	int ends[2], status = -1;
	pid_t child;
	FILE *answers;
	if (pipe2(ends, O_CLOEXEC) < 0 || (child = fork()) < 0 || (child && !(answers = fdopen(ends[0], "r"))))
		return give_up("%s cannot be started: %s", site.submit, strerror(errno));
	if (child == 0)
		become_submit(arguments, ends[1]);
	close(ends[1]);
	answer[fread(answer, 1, ANSWER_BYTES, answers)] = 0;
	fclose(answers);
	while (waitpid(child, &status, 0) < 0 && errno == EINTR)
		continue;
	if (WIFSIGNALED(status))
		return give_up("%s was terminated: %s", site.submit, strsignal(WTERMSIG(status)));
	return status ? -1 : 0;
}

/* Whether a list is what an srun has inherited from its job: all or the last that the job was given. */
static int is_inherited(const char *list, const char *of_job)
{
	size_t length = strlen(list), whole = of_job ? strlen(of_job) : 0;
	return length && whole >= length && !strcmp(of_job + whole - length, list) &&
	       (whole == length || of_job[whole - length - 1] == ';');
}

/* Whether the site honors ~/.chos, and the user has one: udi-slurm-submit reads what it names. */
static int has_home_file(void)
{
	char path[TEXT];
	struct stat status;
	const char *home = getenv("HOME");
	return site.home && home && *home == '/' && snprintf(path, TEXT, "%s/.chos", home) < TEXT && !lstat(path, &status);
}

static int lacks_image(const struct list *list)
{
	return give_up("--%s needs --image, since %ss are inside an image", list->name, list->name);
}

static int submit(spank_t spank)
{
	static char at_home[] = "~/.chos";
	char *job = spank_context() == S_CTX_LOCAL ? getenv("SLURM_JOB_ID") : NULL, *of_job = getenv("SLURM_SPANK_UDI_IMAGE");
	if (site.wrong)
		return give_up("an argument in plugstack.conf is not understood" SITE_FAULT);
	for (size_t at = 0; at < PARTS; at++) { /* a node's first step brings them, without Alloc; a new job has its own */
		const char *name = parts[at][1];
		job ? (int)spank_job_control_setenv(spank, name + SPANK, getenv(name) ?: "", 1) : unsetenv(name);
	}
	if (!image_text && getenv("_SLURM_SPANK_OPTION_udi_image")) /* for which Slurm does not call take_option */
		take_option(0, getenv("_SLURM_SPANK_OPTION_udi_image"), 0);
	if (!image_text && !job && has_home_file())
		image_text = at_home;
	for (const struct list *one = lists; one < lists + LISTS; one++)
		if (*one->text && job && !IS_OUTSIDE && !is_inherited(*one->text, getenv(one->given)))
			return give_up("%ss are the whole job's: give --%s to sbatch, to salloc, or to an srun outside of a job",
			               one->name, one->name);
		else if (*one->text && !job && (!image_text || IS_OUTSIDE))
			return lacks_image(one);
	if (!image_text || IS_OUTSIDE)
		return 0;
	if (job && (!of_job || !strcmp(of_job, image_text) || access(site.submit, X_OK) != 0))
		return 0; /* it is the job's own, or the nodes say that it is not */
	char *pairs[][2] = {{"--job", job}, {"--job-image", job ? of_job : NULL}, {"--volumes", job ? NULL : volumes_text},
	                    {"--modules", job ? NULL : modules_text}};
	char *arguments[12] = {"udi-slurm-submit", "--image", image_text}, **next = arguments + 3, *values[PARTS];
	for (size_t at = 0; at < sizeof pairs / sizeof *pairs; at++)
		if (pairs[at][1])
			*next++ = pairs[at][0], *next++ = pairs[at][1];
	static char answer[ANSWER_BYTES + 1];
	if (run_submit(arguments, answer) < 0)
		return -1;
	if (!parse_answer(answer, values))
		return give_up("what %s answers is not understood" SITE_FAULT, site.submit);
	if (!strcmp(image_text, at_home)) { /* typed so, too */
		if (image_text != at_home)
			free(image_text);
		image_text = values[0];
	}
	for (const struct list *one = lists; IS_OUTSIDE && one < lists + LISTS; one++)
		if (*one->text)
			return lacks_image(one);
	if (IS_OUTSIDE)
		return 0;
	values[0] = image_text;
	for (size_t at = 0; !job && at < PARTS + LISTS; at++) {
		const char *name = at < PARTS ? parts[at][1] : lists[at - PARTS].given;
		if (spank_job_control_setenv(spank, name + SPANK, at < PARTS ? values[at] : *lists[at - PARTS].text ?: "", 1))
			return give_up("Slurm does not take %s" SITE_FAULT, name + SPANK);
	}
	return 0;
}
