/*
 * Addresses of the kernel's symbols. /proc/kallsyms is long and slow to make, so it is read once, for all
 * names that the script asks for.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "guest.h"

#define BUCKETS 1024

struct wanted {
	struct wanted *next;
	char *name;
	u64 address;
	int times;
};

static struct wanted *buckets[BUCKETS];

static struct wanted **bucket(const char *name, size_t size)
{
	u32 hash = 5381;

	for (size_t i = 0; i < size; i++)
		hash = hash * 33 + (u8)name[i];
	return &buckets[hash % BUCKETS];
}

static struct wanted *find(const char *name, size_t size)
{
	for (struct wanted *one = *bucket(name, size); one; one = one->next)
		if (strncmp(one->name, name, size) == 0 && one->name[size] == 0)
			return one;
	return NULL;
}

/* A line is `ffffffff81000000 T name` and perhaps a tab and [module]. */
static void read_all(void)
{
	FILE *file = fopen("/proc/kallsyms", "re");
	char line[1024];

	if (!file)
		return;
	while (fgets(line, sizeof(line), file)) {
		char *name = strchr(line, ' ');

		if (!name || !name[1] || name[2] != ' ')
			continue;
		name += 3;
		struct wanted *one = find(name, strcspn(name, "\t\n"));

		if (one && one->times++ == 0)
			one->address = strtoull(line, NULL, 16);
	}
	fclose(file);
}

/* symbols NAME... */
int cmd_symbols(const struct command *command)
{
	for (int i = 1; i < command->count; i++) {
		size_t size = strlen(command->words[i]);
		struct wanted **list = bucket(command->words[i], size);
		struct wanted *one = calloc(1, sizeof(*one));

		one->name = strdup(command->words[i]);
		one->next = *list;
		*list = one;
	}
	read_all();
	for (int i = 1; i < command->count; i++) {
		const char *name = command->words[i];
		const struct wanted *one = find(name, strlen(name));

		say("{\"at\":\"symbol\",\"name\":\"%s\",\"address\":\"0x%lx\",\"times\":%d}\n", name, one->address,
		    one->times);
	}
	return 0;
}

u64 symbol(const char *name)
{
	const struct wanted *one = find(name, strlen(name));

	return one ? one->address : 0;
}

#define MAX_ADDRESSES 64

static struct {
	char word[40];
	u64 address;
} addresses[MAX_ADDRESSES];
static int address_count;

/* The latest ones are kept: a script looks at what it has just made. */
void name_address(const char *word, u64 address)
{
	int at = address_count++ % MAX_ADDRESSES;

	snprintf(addresses[at].word, sizeof(addresses[at].word), "%s", word);
	addresses[at].address = address;
}

static u64 named_address(const char *word)
{
	for (int i = address_count - 1; i >= 0 && i >= address_count - MAX_ADDRESSES; i--)
		if (strcmp(addresses[i % MAX_ADDRESSES].word, word) == 0)
			return addresses[i % MAX_ADDRESSES].address;
	return 0;
}

u64 address_of(const char *word)
{
	char name[64];
	u32 subprogram = 0, distance = 0;

	if (!word)
		return 0;
	if (strncmp(word, "sym:", 4) == 0)
		return symbol(word + 4);
	if (strncmp(word, "prog:", 5) == 0)
		return jited_address(fd_named(word + 5), 0);
	if (sscanf(word, "sub:%63[^:]:%u", name, &subprogram) == 2)
		return jited_address(fd_named(name), subprogram);
	if (sscanf(word, "before:%u:%63s", &distance, name) == 2)
		return symbol(name) ? symbol(name) - distance : 0;
	if (strncmp(word, "image:", 6) == 0)
		return named_address(word);
	return number(word);
}
