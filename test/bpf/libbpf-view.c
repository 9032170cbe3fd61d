/*
 * What libbpf makes of an eBPF object: the programs and maps that it finds, and the instructions that it
 * would hand to the kernel. There is no kernel: the bpf system call is answered here.
 *
 *   libbpf-view names SECTION...        the kind of program that each section name means
 *   libbpf-view object FILE BTF SYMBOLS
 *
 * BTF stands for the kernel's types, SYMBOLS (lines as in /proc/kallsyms) for its symbols.
 */
#define _GNU_SOURCE
#include <bpf/libbpf.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static const char *types, *symbols;
static char map_names[1024][BPF_OBJ_NAME_LEN];

/* The files of a kernel are those that were given. */
static FILE *open_as(const char *function, const char *path, const char *mode)
{
	FILE *(*next)(const char *, const char *) = dlsym(RTLD_NEXT, function);

	if (types && !strcmp(path, "/sys/kernel/btf/vmlinux"))
		path = types;
	if (symbols && !strcmp(path, "/proc/kallsyms"))
		path = symbols;
	return next(path, mode);
}

FILE *fopen(const char *path, const char *mode)
{
	return open_as("fopen", path, mode);
}

FILE *fopen64(const char *path, const char *mode)
{
	return open_as("fopen64", path, mode);
}

/* Maps are shown by their names, everything else as it is. */
static void show_insns(const struct bpf_insn *insns, unsigned int count)
{
	for (unsigned int i = 0; i < count; i++) {
		const unsigned char *bytes = (const void *)&insns[i];

		if (insns[i].code == 0x18 && (insns[i].src_reg == 1 || insns[i].src_reg == 2)) {
			printf(" %d:%d:%s+%d", bytes[1], insns[i].off, map_names[insns[i].imm],
			       insns[i + 1].imm);
			i++;
			continue;
		}
		printf(" ");
		for (int k = 0; k < 8; k++)
			printf("%02x", bytes[k]);
	}
	printf("\n");
}

static void show_info(const char *what, __u64 records, unsigned int count, unsigned int bytes)
{
	printf("%s", what);
	for (unsigned int i = 0; i < count; i++) {
		const __u32 *record = (const void *)(records + i * bytes);

		if (bytes >= 16)
			printf(" %u:%u:%u", record[0], record[3] >> 10, record[3] & 1023);
		else
			printf(" %u:%u", record[0], record[1]);
	}
	printf("\n");
}

static long load(const union bpf_attr *attr, unsigned long bytes)
{
	/* libbpf also loads small programs to find out what a kernel can do: those say less of themselves. */
	if (bytes > offsetof(union bpf_attr, line_info_cnt) && attr->func_info_cnt) {
		printf("load %s", attr->prog_name);
		show_insns((const void *)attr->insns, attr->insn_cnt);
		show_info("func", attr->func_info, attr->func_info_cnt, attr->func_info_rec_size);
		show_info("line", attr->line_info, attr->line_info_cnt, attr->line_info_rec_size);
	}
	return open("/dev/null", O_RDWR | O_CLOEXEC);
}

static long answer(long command, union bpf_attr *attr, unsigned long bytes)
{
	long fd;

	switch (command) {
	case BPF_MAP_CREATE:
		fd = open("/dev/null", O_RDWR | O_CLOEXEC);
		if (fd >= 0 && fd < 1024)
			memcpy(map_names[fd], attr->map_name, BPF_OBJ_NAME_LEN);
		return fd;
	case BPF_BTF_LOAD:
		return open("/dev/null", O_RDWR | O_CLOEXEC);
	case BPF_PROG_LOAD:
		return load(attr, bytes);
	case BPF_MAP_UPDATE_ELEM:
	case BPF_MAP_FREEZE:
		return 0;
	default:
		errno = EINVAL;
		return -1;
	}
}

/* In place of the C library's: only the bpf system call is libbpf's to make. */
long syscall(long number, ...)
{
	va_list arguments;
	unsigned long bytes;
	long command;
	void *attr;

	va_start(arguments, number);
	command = va_arg(arguments, long);
	attr = va_arg(arguments, void *);
	bytes = va_arg(arguments, unsigned long);
	va_end(arguments);
	if (number == __NR_bpf)
		return answer(command, attr, bytes);
	errno = ENOSYS;
	return -1;
}

static int names(int count, char **sections)
{
	for (int i = 0; i < count; i++) {
		enum bpf_attach_type attach = 0;
		enum bpf_prog_type type = 0;

		if (libbpf_prog_type_by_name(sections[i], &type, &attach))
			printf("%s unknown\n", sections[i]);
		else
			printf("%s %s %s\n", sections[i], libbpf_bpf_prog_type_str(type),
			       libbpf_bpf_attach_type_str(attach));
	}
	return 0;
}

/* Without a kernel's tracepoints and programs to replace there is nothing that these attach to. */
static int needs_more(const char *section)
{
	return !strncmp(section, "tp_btf", 6) || !strncmp(section, "iter", 4) ||
	       !strncmp(section, "struct_ops", 10) || !strncmp(section, "freplace", 8);
}

static int view(const char *file)
{
	LIBBPF_OPTS(bpf_object_open_opts, options, .btf_custom_path = types);
	struct bpf_object *object = bpf_object__open_file(file, &options);
	struct bpf_program *program;
	struct bpf_map *map;

	if (!object)
		return 1;
	bpf_object__for_each_program(program, object) {
		const char *section = bpf_program__section_name(program);

		printf("program %s %s %s %s %d\n", bpf_program__name(program), section,
		       libbpf_bpf_prog_type_str(bpf_program__type(program)),
		       libbpf_bpf_attach_type_str(bpf_program__expected_attach_type(program)),
		       bpf_program__autoload(program));
		bpf_program__set_autoload(program, !needs_more(section));
	}
	bpf_object__for_each_map(map, object) {
		printf("map %s %s %u %u %u\n", bpf_map__name(map),
		       libbpf_bpf_map_type_str(bpf_map__type(map)), bpf_map__key_size(map),
		       bpf_map__value_size(map), bpf_map__max_entries(map));
		if (bpf_map__type(map) == BPF_MAP_TYPE_PERF_EVENT_ARRAY)
			bpf_map__set_max_entries(map, 1);
	}
	return bpf_object__load(object) ? 1 : 0;
}

int main(int count, char **arguments)
{
	if (count > 2 && !strcmp(arguments[1], "names"))
		return names(count - 2, arguments + 2);
	if (count != 5)
		return 2;
	types = arguments[3];
	symbols = arguments[4];
	return view(arguments[2]);
}
