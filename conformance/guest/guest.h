/*
 * The init program of a conformance run: the guest's side.
 *
 * It is process 1 of a kernel under test. It reads /script, one command a line, carries the commands out
 * with raw bpf(2) and other system calls, reads the kernel's memory through /proc/kcore, and says what it
 * found as JSON lines to qemu's debug port. It judges nothing: every comparison is made outside.
 *
 *   init.c      start, end, the commands one after the other
 *   say.c       output
 *   names.c     the file descriptors of a combination, by name
 *   kcore.c     the kernel's memory
 *   kallsyms.c  addresses of the kernel's functions
 *   btf.c       type numbers, prototypes, and places of fields in structs
 *   program.c   maps, BTF, programs, links
 *   image.c     trace sites and trampoline images
 *   struct-ops.c  structs of operations whose members are programs
 *   call.c      system calls, made here or by another task
 */
#ifndef GUEST_H
#define GUEST_H

#include <stddef.h>
#include <stdint.h>

typedef uint8_t u8;
typedef uint32_t u32;
typedef uint64_t u64;

/* One line of the script: words[0] is the command. */
struct command {
	int count;
	char **words;
};

/* The value of `key=value` among the words, or NULL. */
const char *option(const struct command *command, const char *key);
/* The same as a number, decimal or hex, possibly negative; 0 when it is not there. */
u64 number_option(const struct command *command, const char *key);
u64 number(const char *text);
/* Bytes of hex text in memory that stays until the end of the combination; the length in *size. */
void *bytes_of_hex(const char *text, size_t *size);
/* Memory until the end of the combination, all zeros. */
void *scratch(size_t size);

/* A system call as the kernel answers it: a negative errno on failure. */
long kernel(long number, u64 a, u64 b, u64 c, u64 d, u64 e, u64 f);

/* say.c */
void say_start(void);
/* printf, to the port. */
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
void say_hex(const void *bytes, size_t size);
/* As a JSON string, quotes included. */
void say_text(const char *text);

/* names.c */
void name_fd(const char *name, int fd);
/* A negative errno when there is none. */
int fd_named(const char *name);
int cmd_close(const struct command *command);
void close_all(void);

/* kcore.c */
int kcore_start(void);
/* Bytes read; what is not mapped reads as zeros. */
size_t kernel_memory(u64 address, void *to, size_t size);

/* kallsyms.c */
/* Says the address of each named symbol and keeps it. */
int cmd_symbols(const struct command *command);
/* 0 when it is not known. */
u64 symbol(const char *name);
/*
 * The address that a word stands for: sym:NAME, before:BYTES:NAME, prog:P, sub:P:N, image:TAG or a number;
 * 0 when there is none.
 */
u64 address_of(const char *word);
/* Makes a word stand for an address. */
void name_address(const char *word, u64 address);

/* btf.c */
int btf_start(void);
/* Type number of a function or struct; 0 when there is none. */
u32 btf_function(const char *name);
u32 btf_struct(const char *name);
/* Of a struct: bytes; place of a field in bytes, and its number, both negative when it is not there. */
u32 btf_size(const char *name);
long btf_offset(const char *name, const char *member);
long btf_index(const char *name, const char *member);
int cmd_offset(const struct command *command);
int cmd_model(const struct command *command);

/* program.c */
int cmd_map(const struct command *command);
int cmd_btf(const struct command *command);
int cmd_prog(const struct command *command);
int cmd_link(const struct command *command);
int cmd_delete(const struct command *command);
int cmd_record(const struct command *command);
int cmd_info(const struct command *command);
/*
 * A new map, or a negative errno. `value_type` is the number of its values' type in the kernel's BTF, or 0; when
 * it is not, the kernel also wants BTF of any kind from whoever makes the map.
 */
int new_map(u32 type, u32 key, u32 value, u32 entries, u32 value_type, int btf);
int set_element(int map, u32 index, const void *value);
int delete_element(int map, u32 index);
int cmd_testrun(const struct command *command);
/* Entry of a program's machine code, or of one of its subprograms; 0 on failure. */
u64 jited_address(int fd, u32 subprogram);

/* image.c */
int cmd_site(const struct command *command);
/* Says an image and what it names. */
void say_image(const char *tag, u64 image);
int cmd_image(const struct command *command);
int cmd_settle(const struct command *command);
int cmd_memory(const struct command *command);

/* struct-ops.c */
int cmd_register(const struct command *command);
int cmd_members(const struct command *command);
int cmd_unregister(const struct command *command);

/* call.c */
/* One millisecond. */
void wait_a_moment(void);
int cmd_call(const struct command *command);
int cmd_open(const struct command *command);
int cmd_pipe(const struct command *command);
int cmd_spawn(const struct command *command);
int cmd_asleep(const struct command *command);
int cmd_join(const struct command *command);

#endif
