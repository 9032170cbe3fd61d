/*
 * Structs of operations: a map of a kind of its own, whose one element is a struct of the kernel. Where the
 * kernel's has functions, the script's has programs.
 */
#include <errno.h>
#include <linux/bpf.h>
#include <stdio.h>
#include <string.h>

#include "guest.h"

/*
 * register M STRUCT NAME BTF FIELD=PROGRAM...: the struct with this name, and programs as its functions
 */
int cmd_register(const struct command *command)
{
	const char *type = command->words[2];
	char value_type[64];

	snprintf(value_type, sizeof(value_type), "bpf_struct_ops_%s", type);
	u32 size = btf_size(value_type);
	long data = btf_offset(value_type, "data"), name = btf_offset(type, "name");
	u8 *value = scratch(size);

	if (data < 0 || name < 0)
		return -ESRCH;
	strcpy((char *)value + data + name, command->words[3]);
	for (int i = 5; i < command->count; i++) {
		char *word = command->words[i], *program = strchr(word, '=');

		if (!program)
			return -EINVAL;
		*program++ = 0;
		long member = btf_offset(type, word);
		int fd = fd_named(program);

		if (member < 0 || fd < 0)
			return member < 0 ? member : fd;
		memcpy(value + data + member, &fd, sizeof(fd));
	}
	int map = new_map(BPF_MAP_TYPE_STRUCT_OPS, 4, size, 1, btf_struct(value_type),
			  fd_named(command->words[4]));

	if (map < 0)
		return map;
	name_fd(command->words[1], map);
	return set_element(map, 0, value);
}

/* unregister M */
int cmd_unregister(const struct command *command)
{
	int map = fd_named(command->words[1]);

	return map < 0 ? map : delete_element(map, 0);
}

/*
 * members TAG LIST STRUCT NAME FIELD...: what the fields of the struct with this name in a list of the kernel's
 * point to, each as an image with the tag TAG-FIELD.
 */
int cmd_members(const struct command *command)
{
	const char *type = command->words[3];
	long list = btf_offset(type, "list"), name = btf_offset(type, "name");
	u64 head = symbol(command->words[2]), at;

	if (list < 0 || name < 0 || !head)
		return -ESRCH;
	for (kernel_memory(head, &at, 8); at && at != head; kernel_memory(at, &at, 8)) {
		char is[16], tag[64];

		kernel_memory(at - list + name, is, sizeof(is));
		if (strncmp(is, command->words[4], sizeof(is)) != 0)
			continue;
		for (int i = 5; i < command->count; i++) {
			u64 pointer;
			long member = btf_offset(type, command->words[i]);

			if (member < 0)
				return member;
			kernel_memory(at - list + member, &pointer, 8);
			snprintf(tag, sizeof(tag), "%s-%s", command->words[1], command->words[i]);
			say_image(tag, pointer);
		}
		return 0;
	}
	return -ENOENT;
}
