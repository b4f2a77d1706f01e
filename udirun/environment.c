/* The environment: the job's own, over it the image's, the site's and what udi-run itself sets, then the user's. */
#include "udi-run.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A variable; text is NAME=VALUE, or NULL where it is unset. */
struct variable {
	const char *name;
	size_t length;
	char *text;
};

/* A hash table: an image may have as many variables as its configuration has room for. */
static struct variable *variables;
static size_t variable_count, *slots, slot_mask;

/* The variable of that name, which is unset where there was none. */
static struct variable *find(const char *name, size_t length)
{
	size_t at = 2166136261u;
	for (size_t number = 0; number < length; number++)
		at = (at ^ (unsigned char)name[number]) * 16777619u;
	for (at &= slot_mask; slots[at]; at = (at + 1) & slot_mask) {
		struct variable *found = &variables[slots[at] - 1];
		if (found->length == length && !memcmp(found->name, name, length))
			return found;
	}
	slots[at] = variable_count + 1;
	variables[variable_count] = (struct variable){name, length, NULL};
	return &variables[variable_count++];
}

const char *value(const char *name)
{
	const struct variable *found = find(name, strlen(name));
	return found->text ? found->text + found->length + 1 : NULL;
}

/* NAME=VALUE. A text without a name is nothing that a program could look up. */
static void set(char *text)
{
	const char *equals = strchr(text, '=');
	if (equals && equals != text)
		find(text, (size_t)(equals - text))->text = text;
}

void set_value(const char *name, const char *content)
{
	set(joined(name, strlen(name), "=", content));
}

void unset(const char *name)
{
	find(name, strlen(name))->text = NULL;
}

/* NAME=VALUE, where VALUE joins a list. An empty one gets no colon: an empty element would be the current directory. */
static void extend(char *text, int in_front)
{
	size_t name = (size_t)(strchr(text, '=') - text);
	struct variable *found = find(text, name);
	const char *now = found->text ? found->text + name + 1 : "";
	if (!*now)
		found->text = text;
	else if (in_front)
		found->text = joined(text, strlen(text), ":", now);
	else
		found->text = joined(found->text, strlen(found->text), ":", text + name + 1);
}

/* The user's own shell, where the image has it. */
static void set_shell(const char *shell)
{
	if (access(shell, X_OK) != 0 && access("/bin/sh", X_OK) == 0)
		shell = "/bin/sh";
	set_value("SHELL", shell);
}

void prepare_environment(const struct job *job, const struct options *options)
{
	size_t most = job->changes.count + options->changes.count + 16, size = 64;
	for (char **one = environ; *one; one++)
		most++;
	while (size < 2 * most)
		size *= 2;
	variables = allocate(most, sizeof *variables);
	slots = allocate(size, sizeof *slots);
	slot_mask = size - 1;
	for (char **one = environ; *one && !options->clear; one++) {
		const char *equals = strchr(*one, '=');
		if (equals && !find(*one, (size_t)(equals - *one))->text)
			set(*one);
	}
	for (size_t at = 0; at < job->changes.count; at += 2) {
		char *kind = job->changes.items[at], *text = job->changes.items[at + 1];
		if (!strcmp(kind, "set"))
			set(text);
		else if (!strcmp(kind, "unset"))
			unset(text);
		else if (!strcmp(kind, "shell"))
			set_shell(text);
		else
			extend(text, *kind == 'p');
	}
}

/* What the user said. `--env NAME` takes the job's own value. */
void change_environment(const struct options *options)
{
	for (size_t at = 0; at < options->changes.count; at += 2) {
		char *text = options->changes.items[at + 1];
		const char *inherited;
		if (*options->changes.items[at] == '-')
			unset(text);
		else if (strchr(text, '='))
			set(text);
		else if ((inherited = getenv(text)))
			set_value(text, inherited);
	}
}

char **environment(void)
{
	struct list list = {allocate(variable_count, sizeof(char *)), 0};
	for (size_t at = 0; at < variable_count; at++)
		if (variables[at].text)
			add(&list, variables[at].text);
	return list.items;
}
