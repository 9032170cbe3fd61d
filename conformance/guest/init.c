/*
 * Start, end, and the commands of the script one after the other.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <unistd.h>

#include "guest.h"

#define MAX_WORDS 192

const char *option(const struct command *command, const char *key)
{
	size_t size = strlen(key);

	for (int i = 1; i < command->count; i++)
		if (strncmp(command->words[i], key, size) == 0 && command->words[i][size] == '=')
			return command->words[i] + size + 1;
	return NULL;
}

u64 number(const char *text)
{
	if (!text)
		return 0;
	return *text == '-' ? (u64)strtoll(text, NULL, 0) : strtoull(text, NULL, 0);
}

u64 number_option(const struct command *command, const char *key)
{
	return number(option(command, key));
}

/* Memory of the combination under way. */
static u8 arena[8 << 20];
static size_t used;

void *scratch(size_t size)
{
	void *memory = arena + used;

	if (used + size > sizeof(arena)) {
		say("{\"at\":\"broken\",\"why\":\"the guest's memory is used up\"}\n");
		reboot(RB_AUTOBOOT);
	}
	used += (size + 63) & ~63ul;
	return memset(memory, 0, size);
}

static int digit(char c)
{
	return c <= '9' ? c - '0' : (c | 32) - 'a' + 10;
}

void *bytes_of_hex(const char *text, size_t *size)
{
	*size = strlen(text) / 2;
	u8 *bytes = scratch(*size);

	for (size_t i = 0; i < *size; i++)
		bytes[i] = digit(text[2 * i]) << 4 | digit(text[2 * i + 1]);
	return bytes;
}

static void write_to(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return;
	if (write(fd, text, strlen(text)) < 0)
		say("{\"at\":\"note\",\"path\":\"%s\",\"errno\":%d}\n", path, errno);
	close(fd);
}

static char *read_script(void)
{
	size_t size = 0, room = 1 << 20;
	char *text = malloc(room);
	int fd = open("/script", O_RDONLY | O_CLOEXEC);

	for (;;) {
		ssize_t got = read(fd, text + size, room - size - 1);

		if (got <= 0)
			break;
		size += got;
		if (size + 1 == room)
			text = realloc(text, room *= 2);
	}
	text[size] = 0;
	return text;
}

static const struct {
	const char *name;
	int (*run)(const struct command *);
	/* words that must be there, the command's own included */
	int words;
} commands[] = {
	{ "symbols", cmd_symbols, 1 }, { "offset", cmd_offset, 3 }, { "model", cmd_model, 2 },
	{ "map", cmd_map, 2 },         { "btf", cmd_btf, 3 },       { "prog", cmd_prog, 2 },
	{ "link", cmd_link, 3 },       { "close", cmd_close, 2 },
	{ "site", cmd_site, 3 },       { "image", cmd_image, 3 },   { "memory", cmd_memory, 4 },
	{ "record", cmd_record, 4 },   { "info", cmd_info, 3 },     { "testrun", cmd_testrun, 3 },
	{ "call", cmd_call, 3 },       { "open", cmd_open, 3 },     { "pipe", cmd_pipe, 2 },
	{ "spawn", cmd_spawn, 3 },     { "asleep", cmd_asleep, 2 }, { "join", cmd_join, 2 },
	{ "delete", cmd_delete, 3 },   { "settle", cmd_settle, 2 },
	{ "register", cmd_register, 5 }, { "members", cmd_members, 5 }, { "unregister", cmd_unregister, 2 },
};

static int run(const struct command *command)
{
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
		if (strcmp(commands[i].name, command->words[0]) == 0)
			return command->count < commands[i].words ? -EINVAL : commands[i].run(command);
	return -ENOSYS;
}

/*
 * begin NAME ... end is a combination: a command of it that fails is said, and the rest is skipped; what it
 * holds is let go at its end.
 */
static void run_script(char *text)
{
	char *words[MAX_WORDS], *rest = NULL;
	int skipping = 0;

	for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
		char *next = NULL;
		struct command command = { 0, words };

		for (char *word = strtok_r(line, " ", &next); word && command.count < MAX_WORDS;
		     word = strtok_r(NULL, " ", &next))
			words[command.count++] = word;
		if (command.count == 0)
			continue;
		if (strcmp(words[0], "begin") == 0) {
			say("{\"at\":\"begin\",\"name\":\"%s\"}\n", words[1]);
		} else if (strcmp(words[0], "end") == 0) {
			close_all();
			used = 0;
			skipping = 0;
			say("{\"at\":\"end\"}\n");
		} else if (!skipping) {
			int error = run(&command);

			if (error < 0) {
				say("{\"at\":\"error\",\"command\":\"%s\",\"name\":\"%s\",\"error\":%d}\n", words[0],
				    command.count > 1 ? words[1] : "", error);
				skipping = 1;
			}
		}
	}
}

int main(void)
{
	say_start();
	mount("proc", "/proc", "proc", 0, NULL);
	mount("sysfs", "/sys", "sysfs", 0, NULL);
	mount("cgroup2", "/cgroup", "cgroup2", 0, NULL);
	write_to("/proc/sys/kernel/kptr_restrict", "0");
	write_to("/proc/sys/kernel/bpf_stats_enabled", "1");
	write_to("/proc/sys/net/core/bpf_jit_enable", "1");
	write_to("/proc/sys/net/core/bpf_jit_harden", "0");
	write_to("/proc/sys/net/core/bpf_jit_kallsyms", "1");
	int kcore = kcore_start(), btf = btf_start();

	if (kcore < 0 || btf < 0)
		say("{\"at\":\"broken\",\"why\":\"/proc/kcore %d, /sys/kernel/btf/vmlinux %d\"}\n", kcore, btf);
	else
		run_script(read_script());
	say("{\"at\":\"done\"}\n");
	reboot(RB_AUTOBOOT);
	return 0;
}
