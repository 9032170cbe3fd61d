/*
 * Trace sites and the trampoline images that they call, as they stand in the kernel's memory.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "guest.h"

/* Room of an image: no kernel makes a longer one. */
#define IMAGE_BYTES 4096
#define SITE_BYTES 16
/* Of a struct that an image names. */
#define POINTEE_BYTES 128
/* Of the struct bpf_tramp_image: its symbol's name is in it. */
#define TRAMP_IMAGE_BYTES 1024
#define MAX_POINTEES 128

static int is_endbr(const u8 *at)
{
	static const u8 kinds[][4] = { { 0xf3, 0x0f, 0x1e, 0xfa }, { 0xf3, 0x0f, 0x1e, 0xfb }, { 0x66, 0x0f, 0x1f, 0x00 } };

	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if (memcmp(at, kinds[i], 4) == 0)
			return 1;
	return 0;
}

/* site TAG WHERE */
int cmd_site(const struct command *command)
{
	u8 bytes[SITE_BYTES];
	u64 address = address_of(command->words[2]);

	if (!address)
		return -ESRCH;
	kernel_memory(address, bytes, sizeof(bytes));
	say("{\"at\":\"site\",\"tag\":\"%s\",\"address\":\"0x%lx\",\"bytes\":\"", command->words[1], address);
	say_hex(bytes, sizeof(bytes));
	say("\"}\n");
	return 0;
}

static void say_memory(u64 address, size_t size)
{
	u8 bytes[IMAGE_BYTES];

	size = kernel_memory(address, bytes, size < sizeof(bytes) ? size : sizeof(bytes));
	say_hex(bytes, size);
}

/* What the 64-bit immediates of an image point to: programs, and the image's own struct. */
static void say_pointees(u64 image, const u8 *bytes)
{
	u64 seen[MAX_POINTEES];
	int count = 0;

	for (int i = 0; i + 10 <= IMAGE_BYTES && count < MAX_POINTEES; i++) {
		u64 value, first;
		int known = 0;

		/* mov r64, imm64 */
		if ((bytes[i] != 0x48 && bytes[i] != 0x49) || (bytes[i + 1] & 0xf8) != 0xb8)
			continue;
		memcpy(&value, bytes + i + 2, sizeof(value));
		for (int k = 0; k < count; k++)
			known |= seen[k] == value;
		if (known || value < 0xffff800000000000 || kernel_memory(value, &first, 8) != 8)
			continue;
		seen[count++] = value;
		say("%s{\"address\":\"0x%lx\",\"bytes\":\"", count > 1 ? "," : "", value);
		say_memory(value, first == image ? TRAMP_IMAGE_BYTES : POINTEE_BYTES);
		say("\"}");
	}
}

void say_image(const char *tag, u64 image)
{
	u8 bytes[IMAGE_BYTES];
	char name[32];
	size_t size = kernel_memory(image, bytes, sizeof(bytes));

	say("{\"at\":\"image\",\"tag\":\"%s\",\"address\":\"0x%lx\",\"bytes\":\"", tag, image);
	say_hex(bytes, size);
	say("\",\"pointees\":[");
	say_pointees(image, bytes);
	say("]}\n");
	/* image:TAG means this address from now on */
	snprintf(name, sizeof(name), "image:%s", tag);
	name_address(name, image);
}

/* image TAG WHERE: the image that the site at an address calls; address null when it calls nothing. */
int cmd_image(const struct command *command)
{
	u8 site[SITE_BYTES];
	u64 address = address_of(command->words[2]);
	int distance;

	if (!address)
		return -ESRCH;
	kernel_memory(address, site, sizeof(site));
	int at = is_endbr(site) ? 4 : 0;

	if (site[at] != 0xe8) {
		say("{\"at\":\"image\",\"tag\":\"%s\",\"address\":null}\n", command->words[1]);
		return 0;
	}
	memcpy(&distance, site + at + 1, sizeof(distance));
	say_image(command->words[1], address + at + 5 + distance);
	return 0;
}

/* settle WHERE: waits until the site calls nothing, or no longer */
int cmd_settle(const struct command *command)
{
	u8 site[SITE_BYTES];
	u64 address = address_of(command->words[1]);

	for (int left = 1000; left > 0; left--) {
		kernel_memory(address, site, sizeof(site));
		if (site[is_endbr(site) ? 4 : 0] != 0xe8)
			break;
		wait_a_moment();
	}
	return 0;
}

/* memory TAG WHERE SIZE */
int cmd_memory(const struct command *command)
{
	u64 address = address_of(command->words[2]);

	if (!address)
		return -ESRCH;
	say("{\"at\":\"memory\",\"tag\":\"%s\",\"address\":\"0x%lx\",\"bytes\":\"", command->words[1], address);
	say_memory(address, number(command->words[3]));
	say("\"}\n");
	return 0;
}
