/*
 * Maps, programs and links, made with bpf(2) alone.
 */
#include <errno.h>
#include <linux/bpf.h>
#include <linux/btf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>

#include "guest.h"

static int bpf(int what, union bpf_attr *attr)
{
	return kernel(__NR_bpf, what, (u64)attr, sizeof(*attr), 0, 0, 0);
}

/* Keeps a new file descriptor under the name that the command gives it. */
static int keep(const struct command *command, int fd)
{
	if (fd < 0)
		return fd;
	name_fd(command->words[1], fd);
	return 0;
}

int new_map(u32 type, u32 key, u32 value, u32 entries, u32 value_type, int btf)
{
	union bpf_attr attr = {
		.map_type = type,
		.key_size = key,
		.value_size = value,
		.max_entries = entries,
		.btf_fd = btf,
		.btf_vmlinux_value_type_id = value_type,
	};

	return bpf(BPF_MAP_CREATE, &attr);
}

int set_element(int map, u32 index, const void *value)
{
	union bpf_attr attr = {};

	attr.map_fd = map;
	attr.key = (u64)&index;
	attr.value = (u64)value;
	return bpf(BPF_MAP_UPDATE_ELEM, &attr);
}

/* map M type=N key=BYTES value=BYTES entries=N */
int cmd_map(const struct command *command)
{
	return keep(command, new_map(number_option(command, "type"), number_option(command, "key"),
				     number_option(command, "value"), number_option(command, "entries"), 0, 0));
}

/* btf B HEX: type information for programs */
int cmd_btf(const struct command *command)
{
	size_t size;
	union bpf_attr attr = {};

	attr.btf = (u64)bytes_of_hex(command->words[2], &size);
	attr.btf_size = size;
	return keep(command, bpf(BPF_BTF_LOAD, &attr));
}

/* A load of a map's file descriptor or value names the map by its place in `maps`: fd in its stead. */
static int insert_maps(struct bpf_insn *insns, u32 count, const char *maps)
{
	for (u32 i = 0; i < count; i++) {
		char name[32] = "";
		const char *at = maps;

		if (insns[i].code != (BPF_LD | BPF_IMM | BPF_DW) || !insns[i].src_reg)
			continue;
		for (int skip = insns[i].imm; at && skip > 0; skip--)
			at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL;
		if (at)
			snprintf(name, sizeof(name), "%.*s", (int)strcspn(at, ","), at);
		int fd = fd_named(name);

		if (fd < 0)
			return fd;
		insns[i++].imm = fd;
	}
	return 0;
}

/* What the program is for: a function of the kernel, one of another program, a member of a struct. */
static int set_target(const struct command *command, union bpf_attr *attr)
{
	const char *function = option(command, "func"), *program = option(command, "tprog");
	const char *ops = option(command, "ops");

	if (ops) {
		long member = btf_index(ops, option(command, "member"));

		attr->attach_btf_id = btf_struct(ops);
		attr->expected_attach_type = member;
		return member < 0 ? member : 0;
	}

	if (function) {
		attr->attach_btf_id = btf_function(function);
		return attr->attach_btf_id ? 0 : -ESRCH;
	}
	if (program) {
		int fd = fd_named(program);

		attr->attach_prog_fd = fd;
		attr->attach_btf_id = number_option(command, "tid");
		return fd < 0 ? fd : 0;
	}
	return 0;
}

/*
 * prog P type=N attach=N flags=N insns=HEX [maps=M,..] [func=F | tprog=P tid=N | ops=S member=M] [btf=B funcinfo=HEX]
 * When the verifier refuses, its last words are said.
 */
int cmd_prog(const struct command *command)
{
	static char log[1 << 16];
	size_t size = 0, info_size = 0;
	const char *hex = option(command, "insns"), *info = option(command, "funcinfo");
	struct bpf_insn *insns = hex ? bytes_of_hex(hex, &size) : NULL;
	union bpf_attr attr = {
		.prog_type = number_option(command, "type"),
		.expected_attach_type = number_option(command, "attach"),
		.prog_flags = number_option(command, "flags"),
		.insns = (u64)insns,
		.insn_cnt = size / sizeof(*insns),
		.license = (u64) "GPL",
	};
	int error = insert_maps(insns, attr.insn_cnt, option(command, "maps"));

	if (!error)
		error = set_target(command, &attr);
	if (error)
		return error;
	snprintf(attr.prog_name, sizeof(attr.prog_name), "%s", command->words[1]);
	if (info) {
		attr.prog_btf_fd = fd_named(option(command, "btf"));
		attr.func_info = (u64)bytes_of_hex(info, &info_size);
		attr.func_info_rec_size = sizeof(struct bpf_func_info);
		attr.func_info_cnt = info_size / sizeof(struct bpf_func_info);
	}
	int fd = bpf(BPF_PROG_LOAD, &attr);

	if (fd < 0) {
		/* Again, for the reason. */
		attr.log_level = 1;
		attr.log_size = sizeof(log);
		attr.log_buf = (u64)log;
		log[0] = 0;
		bpf(BPF_PROG_LOAD, &attr);
		size_t length = strlen(log);

		say("{\"at\":\"log\",\"name\":\"%s\",\"text\":", command->words[1]);
		say_text(length > 600 ? log + length - 600 : log);
		say("}\n");
	}
	return keep(command, fd);
}

/* link L P attach=N [cookie=N] [target=FD]: a refusal is a result like any other, and said */
int cmd_link(const struct command *command)
{
	int program = fd_named(command->words[2]);
	union bpf_attr attr = {};

	if (program < 0)
		return program;
	attr.link_create.prog_fd = program;
	attr.link_create.attach_type = number_option(command, "attach");
	attr.link_create.tracing.cookie = number_option(command, "cookie");
	if (option(command, "target"))
		attr.link_create.target_fd = fd_named(option(command, "target"));
	int error = keep(command, bpf(BPF_LINK_CREATE, &attr));

	say("{\"at\":\"link\",\"tag\":\"%s\",\"error\":%d}\n", command->words[1], error);
	return 0;
}

int delete_element(int map, u32 index)
{
	union bpf_attr attr = {};

	attr.map_fd = map;
	attr.key = (u64)&index;
	return bpf(BPF_MAP_DELETE_ELEM, &attr);
}

/* delete TAG M: takes the first element out of a map, which an array refuses */
int cmd_delete(const struct command *command)
{
	int map = fd_named(command->words[2]);

	if (map < 0)
		return map;
	say("{\"at\":\"call\",\"tag\":\"%s\",\"result\":%d}\n", command->words[1], delete_element(map, 0));
	return 0;
}

/* record TAG M SIZE: the first element of an array */
int cmd_record(const struct command *command)
{
	u32 index = 0;
	size_t size = number(command->words[3]);
	int map = fd_named(command->words[2]);
	void *value = scratch(size);
	union bpf_attr attr = {};

	if (map < 0)
		return map;
	attr.map_fd = map;
	attr.key = (u64)&index;
	attr.value = (u64)value;
	int error = bpf(BPF_MAP_LOOKUP_ELEM, &attr);

	if (error)
		return error;
	say("{\"at\":\"record\",\"tag\":\"%s\",\"bytes\":\"", command->words[1]);
	say_hex(value, size);
	say("\"}\n");
	return 0;
}

static int get_info(int fd, struct bpf_prog_info *info)
{
	union bpf_attr attr = {};

	attr.info.bpf_fd = fd;
	attr.info.info_len = sizeof(*info);
	attr.info.info = (u64)info;
	return bpf(BPF_OBJ_GET_INFO_BY_FD, &attr);
}

u64 jited_address(int fd, u32 subprogram)
{
	u64 entries[32] = {};
	struct bpf_prog_info info = { .nr_jited_ksyms = 32, .jited_ksyms = (u64)entries };

	if (fd < 0 || subprogram >= 32 || get_info(fd, &info) < 0)
		return 0;
	return entries[subprogram];
}

/* info TAG P */
int cmd_info(const struct command *command)
{
	struct bpf_prog_info info = {};
	int fd = fd_named(command->words[2]);
	int error = fd < 0 ? fd : get_info(fd, &info);

	if (error)
		return error;
	say("{\"at\":\"info\",\"tag\":\"%s\",\"prog\":\"%s\",\"entry\":\"0x%lx\",\"runs\":\"%llu\",\"misses\":\"%llu\"}\n",
	    command->words[1], command->words[2], jited_address(fd, 0), info.run_cnt, info.recursion_misses);
	return 0;
}

/* testrun TAG P [data=HEX]: BPF_PROG_TEST_RUN */
int cmd_testrun(const struct command *command)
{
	static u8 out[4096];
	size_t size = 0;
	const char *data = option(command, "data");
	int fd = fd_named(command->words[2]);
	union bpf_attr attr = {};

	if (fd < 0)
		return fd;
	attr.test.prog_fd = fd;
	if (data) {
		attr.test.data_in = (u64)bytes_of_hex(data, &size);
		attr.test.data_size_in = size;
		attr.test.data_out = (u64)out;
		attr.test.data_size_out = sizeof(out);
	}
	int error = bpf(BPF_PROG_TEST_RUN, &attr);

	say("{\"at\":\"call\",\"tag\":\"%s\",\"result\":%d,\"retval\":%u}\n", command->words[1], error,
	    attr.test.retval);
	return 0;
}
