/* Messages and memory. */
#include "udi-run.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* One line to stderr, by one call, since many ranks share it. Control characters of an image's or a user's text do not
 * reach the terminal. */
static void complain(const char *format, va_list values)
{
	char line[6000] = "udi-run: ";
	const size_t start = strlen(line), room = sizeof line - start - 1;
	int length = vsnprintf(line + start, room, format, values);
	size_t end = start + (length < 0 ? 0 : (size_t)length < room ? (size_t)length : room - 1);
	for (size_t at = start; at < end; at++)
		if ((unsigned char)line[at] < ' ' || line[at] == 0x7f)
			line[at] = '?';
	line[end] = '\n';
	if (write(2, line, end + 1) < 0)
		return; /* nobody is there to read it */
}

void warn(const char *format, ...)
{
	va_list values;
	va_start(values, format);
	complain(format, values);
	va_end(values);
}

void fail(int code, const char *format, ...)
{
	va_list values;
	va_start(values, format);
	complain(format, values);
	va_end(values);
	exit(code);
}

void *allocate(size_t count, size_t size)
{
	void *memory = calloc(count + 1, size);
	if (!memory)
		fail(OWN_FAILURE, "not enough memory");
	return memory;
}

void add(struct list *list, const char *item)
{
	list->items[list->count++] = (char *)item;
}

char *joined(const char *first, size_t length, const char *second, const char *third)
{
	size_t second_length = strlen(second), third_length = strlen(third);
	char *text = allocate(length + second_length + third_length, 1);
	memcpy(text, first, length);
	memcpy(text + length, second, second_length);
	memcpy(text + length + second_length, third, third_length);
	return text;
}
