/*
 * The file descriptors that a combination holds, by the names that the script gives them.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "guest.h"

#define MAX_NAMES 256

static struct {
	char name[32];
	int fd;
} named[MAX_NAMES];
static int count;

void name_fd(const char *name, int fd)
{
	if (count == MAX_NAMES) {
		close(fd);
		return;
	}
	snprintf(named[count].name, sizeof(named[count].name), "%s", name);
	named[count++].fd = fd;
}

int fd_named(const char *name)
{
	for (int i = count - 1; i >= 0; i--)
		if (name && named[i].fd >= 0 && strcmp(named[i].name, name) == 0)
			return named[i].fd;
	return -ENOENT;
}

/* close NAME: what it held is let go, a link's program is detached. */
int cmd_close(const struct command *command)
{
	int fd = fd_named(command->words[1]);

	if (fd < 0)
		return fd;
	for (int i = 0; i < count; i++)
		if (named[i].fd == fd)
			named[i].fd = -1;
	return close(fd) < 0 ? -errno : 0;
}

void close_all(void)
{
	while (count > 0)
		if (named[--count].fd >= 0)
			close(named[count].fd);
}
