/*
 * System calls: made here, or by another task that may sleep in them.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "guest.h"

#define MAX_TASKS 8
#define STACK_BYTES 65536
/* How long a task may take to fall asleep or to end, ms. */
#define PATIENCE 5000

long kernel(long number, u64 a, u64 b, u64 c, u64 d, u64 e, u64 f)
{
	long result;
	register u64 r10 __asm__("r10") = d;
	register u64 r8 __asm__("r8") = e;
	register u64 r9 __asm__("r9") = f;

	__asm__ volatile("syscall"
			 : "=a"(result)
			 : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return result;
}

/* A word as an argument: a number, fd:NAME, text:CHARACTERS, hex:BYTES, room:SIZE. */
static u64 argument(const char *word)
{
	size_t size;

	if (strncmp(word, "fd:", 3) == 0)
		return fd_named(word + 3);
	if (strncmp(word, "text:", 5) == 0)
		return (u64)(word + 5);
	if (strncmp(word, "hex:", 4) == 0)
		return (u64)bytes_of_hex(word + 4, &size);
	if (strncmp(word, "room:", 5) == 0)
		return (u64)scratch(number(word + 5));
	return number(word);
}

struct task {
	char name[32];
	pid_t pid;
	u64 arguments[7];
	volatile long result;
	volatile int ended;
	char *stack;
};

static void read_arguments(const struct command *command, u64 *arguments)
{
	for (int i = 0; i < 7; i++)
		arguments[i] = i + 2 < command->count ? argument(command->words[i + 2]) : 0;
}

static long make(const u64 *a)
{
	return kernel(a[0], a[1], a[2], a[3], a[4], a[5], a[6]);
}

static void say_call(const char *tag, long result)
{
	say("{\"at\":\"call\",\"tag\":\"%s\",\"result\":%ld}\n", tag, result);
}

/* call TAG NUMBER ARGUMENT... */
int cmd_call(const struct command *command)
{
	u64 arguments[7];

	read_arguments(command, arguments);
	say_call(command->words[1], make(arguments));
	return 0;
}

/* open NAME NUMBER ARGUMENT...: a system call that gives a file descriptor */
int cmd_open(const struct command *command)
{
	u64 arguments[7];

	read_arguments(command, arguments);
	long fd = make(arguments);

	if (fd < 0)
		return fd;
	name_fd(command->words[1], fd);
	return 0;
}

/* pipe NAME: NAME.r and NAME.w */
int cmd_pipe(const struct command *command)
{
	char name[32];
	int ends[2];

	if (pipe2(ends, O_CLOEXEC) < 0)
		return -errno;
	snprintf(name, sizeof(name), "%s.r", command->words[1]);
	name_fd(name, ends[0]);
	snprintf(name, sizeof(name), "%s.w", command->words[1]);
	name_fd(name, ends[1]);
	return 0;
}

static struct task tasks[MAX_TASKS];

static int run_task(void *of)
{
	struct task *task = of;

	task->result = make(task->arguments);
	task->ended = 1;
	kernel(__NR_exit, 0, 0, 0, 0, 0, 0);
	return 0;
}

static struct task *task_named(const char *name)
{
	for (int i = 0; i < MAX_TASKS; i++)
		if (tasks[i].pid && strcmp(tasks[i].name, name) == 0)
			return &tasks[i];
	return NULL;
}

/* spawn TAG NUMBER ARGUMENT...: the call, made by a new task that shares our memory and files */
int cmd_spawn(const struct command *command)
{
	struct task *task = tasks;

	while (task < tasks + MAX_TASKS && task->pid)
		task++;
	if (task == tasks + MAX_TASKS)
		return -EAGAIN;
	free(task->stack);
	*task = (struct task){ .stack = malloc(STACK_BYTES) };
	snprintf(task->name, sizeof(task->name), "%s", command->words[1]);
	read_arguments(command, task->arguments);
	task->pid = clone(run_task, task->stack + STACK_BYTES, CLONE_VM | CLONE_FILES | SIGCHLD, task);
	return task->pid < 0 ? -errno : 0;
}

void wait_a_moment(void)
{
	nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
}

static char state_of(pid_t pid)
{
	char path[32], text[256] = "";
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	file = fopen(path, "re");
	if (!file)
		return 0;
	if (!fgets(text, sizeof(text), file))
		text[0] = 0;
	fclose(file);
	const char *after = strrchr(text, ')');

	return after && after[1] ? after[2] : 0;
}

/* asleep TAG: waits until the task sleeps */
int cmd_asleep(const struct command *command)
{
	const struct task *task = task_named(command->words[1]);

	if (!task)
		return -ESRCH;
	for (int left = PATIENCE; left > 0; left--) {
		if (state_of(task->pid) == 'S')
			return 0;
		wait_a_moment();
	}
	return -ETIMEDOUT;
}

/* join TAG: waits until the task has ended, and says what its call gave */
int cmd_join(const struct command *command)
{
	struct task *task = task_named(command->words[1]);

	if (!task)
		return -ESRCH;
	for (int left = PATIENCE; left > 0 && !task->ended; left--)
		wait_a_moment();
	if (!task->ended)
		return -ETIMEDOUT;
	waitpid(task->pid, NULL, 0);
	task->pid = 0;
	say_call(command->words[1], task->result);
	return 0;
}
