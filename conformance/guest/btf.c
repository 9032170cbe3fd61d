/*
 * The kernel's own types, from /sys/kernel/btf/vmlinux: numbers of functions and structs, sizes of a
 * function's arguments, places of fields.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/btf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "guest.h"

static u8 *data;
static const char *strings;
static u32 strings_size;
static const struct btf_type **types;
static u32 type_count;

static int read_all(const char *path, u8 **bytes)
{
	size_t size = 0, room = 1 << 20;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	*bytes = malloc(room);
	for (;;) {
		ssize_t got = read(fd, *bytes + size, room - size);

		if (got <= 0)
			break;
		size += got;
		if (size == room)
			*bytes = realloc(*bytes, room *= 2);
	}
	close(fd);
	return size > sizeof(struct btf_header) ? 0 : -EIO;
}

/* Bytes that follow the three words which every type has. */
static size_t tail(const struct btf_type *type)
{
	u32 items = BTF_INFO_VLEN(type->info);

	switch (BTF_INFO_KIND(type->info)) {
	case BTF_KIND_INT:
	case BTF_KIND_VAR:
	case BTF_KIND_DECL_TAG:
		return 4;
	case BTF_KIND_ARRAY:
		return sizeof(struct btf_array);
	case BTF_KIND_STRUCT:
	case BTF_KIND_UNION:
		return items * sizeof(struct btf_member);
	case BTF_KIND_ENUM:
		return items * sizeof(struct btf_enum);
	case BTF_KIND_FUNC_PROTO:
		return items * sizeof(struct btf_param);
	case BTF_KIND_DATASEC:
		return items * sizeof(struct btf_var_secinfo);
	case BTF_KIND_ENUM64:
		return items * 12;
	default:
		return 0;
	}
}

int btf_start(void)
{
	int error = read_all("/sys/kernel/btf/vmlinux", &data);

	if (error)
		return error;
	const struct btf_header *header = (const void *)data;
	const u8 *at = data + header->hdr_len + header->type_off;
	const u8 *end = at + header->type_len;

	strings = (const char *)data + header->hdr_len + header->str_off;
	strings_size = header->str_len;
	types = malloc(sizeof(*types) * (header->type_len / sizeof(struct btf_type) + 1));
	types[type_count++] = NULL; /* 0 is void */
	while (at < end) {
		const struct btf_type *type = (const void *)at;

		types[type_count++] = type;
		at += sizeof(*type) + tail(type);
	}
	return 0;
}

/* Where a text stands among the strings, each of which is there once; 0 when it is not. */
static u32 string_offset(const char *text)
{
	size_t size = strlen(text) + 1;
	const char *at = strings, *end = strings + strings_size;

	while ((at = memmem(at, end - at, text, size))) {
		if (at > strings && at[-1] == 0)
			return at - strings;
		at++;
	}
	return 0;
}

static u32 find(const char *name, u32 kind)
{
	u32 offset = string_offset(name);

	for (u32 id = 1; offset && id < type_count; id++)
		if (types[id]->name_off == offset && BTF_INFO_KIND(types[id]->info) == kind)
			return id;
	return 0;
}

u32 btf_function(const char *name)
{
	return find(name, BTF_KIND_FUNC);
}

u32 btf_struct(const char *name)
{
	return find(name, BTF_KIND_STRUCT);
}

/* The type behind typedefs and qualifiers; NULL for void. */
static const struct btf_type *bare(u32 id)
{
	while (id) {
		switch (BTF_INFO_KIND(types[id]->info)) {
		case BTF_KIND_TYPEDEF:
		case BTF_KIND_VOLATILE:
		case BTF_KIND_CONST:
		case BTF_KIND_RESTRICT:
		case BTF_KIND_TYPE_TAG:
			id = types[id]->type;
			break;
		default:
			return types[id];
		}
	}
	return NULL;
}

/* As __get_type_size in kernel/bpf/btf.c sees it. */
static u32 size_of(u32 id)
{
	const struct btf_type *type = bare(id);

	if (!type)
		return 0;
	return BTF_INFO_KIND(type->info) == BTF_KIND_PTR ? sizeof(void *) : type->size;
}

static int is_struct(u32 id)
{
	const struct btf_type *type = bare(id);
	u32 kind = type ? BTF_INFO_KIND(type->info) : 0;

	return kind == BTF_KIND_STRUCT || kind == BTF_KIND_UNION;
}

/* Bits from the start of a struct to a field, also one of a member without a name; -1 when it is not there. */
static long field(const struct btf_type *type, u32 name)
{
	const struct btf_member *member = (const void *)(type + 1);

	for (u32 i = 0; i < BTF_INFO_VLEN(type->info); i++, member++) {
		long at = BTF_INFO_KFLAG(type->info) ? BTF_MEMBER_BIT_OFFSET(member->offset) : member->offset;

		if (member->name_off == name)
			return at;
		if (member->name_off == 0 && is_struct(member->type)) {
			long inside = field(bare(member->type), name);

			if (inside >= 0)
				return at + inside;
		}
	}
	return -1;
}

/* Place of a field in a struct, bytes; negative when it is not there. */
long btf_offset(const char *name, const char *member)
{
	u32 id = btf_struct(name), member_name = string_offset(member);
	long bits = id && member_name ? field(types[id], member_name) : -1;

	return bits < 0 ? -ESRCH : bits / 8;
}

long btf_index(const char *name, const char *member)
{
	u32 id = btf_struct(name), member_name = string_offset(member);
	const struct btf_member *members = (const void *)(types[id] + 1);

	for (u32 i = 0; id && i < BTF_INFO_VLEN(types[id]->info); i++)
		if (members[i].name_off == member_name)
			return i;
	return -ESRCH;
}

u32 btf_size(const char *name)
{
	u32 id = btf_struct(name);

	return id ? types[id]->size : 0;
}

/* offset STRUCT FIELD */
int cmd_offset(const struct command *command)
{
	long offset = btf_offset(command->words[1], command->words[2]);

	say("{\"at\":\"offset\",\"struct\":\"%s\",\"field\":\"%s\",\"offset\":%ld}\n", command->words[1],
	    command->words[2], offset < 0 ? -1 : offset);
	return 0;
}

/* Sizes of what a function takes and gives; nothing found is said as null. */
static void say_model(const char *name, u32 id, const struct btf_type *proto)
{
	const struct btf_param *param = (const void *)(proto + 1);

	say("{\"at\":\"model\",\"function\":\"%s\",\"id\":%u,\"args\":", name, id);
	if (!proto) {
		say("null}\n");
		return;
	}
	for (u32 i = 0; i < BTF_INFO_VLEN(proto->info); i++)
		say("%c{\"size\":%u,\"struct\":%s}", i ? ',' : '[', size_of(param[i].type),
		    is_struct(param[i].type) ? "true" : "false");
	say("%s],\"ret\":%u}\n", BTF_INFO_VLEN(proto->info) ? "" : "[", size_of(proto->type));
}

/* model FUNCTION, model STRUCT.FIELD: a function, or one that a struct points to */
int cmd_model(const struct command *command)
{
	char name[64] = "";
	const char *member = strchr(command->words[1], '.');

	if (!member) {
		u32 id = btf_function(command->words[1]);

		say_model(command->words[1], id, id ? types[types[id]->type] : NULL);
		return 0;
	}
	snprintf(name, sizeof(name), "%.*s", (int)(member - command->words[1]), command->words[1]);
	long index = btf_index(name, member + 1);
	const struct btf_type *proto = NULL;

	if (index >= 0) {
		const struct btf_member *members = (const void *)(types[btf_struct(name)] + 1);

		/* behind the pointer */
		proto = bare(bare(members[index].type)->type);
	}
	say_model(command->words[1], 0, proto);
	return 0;
}
