/*
 * What the kernel's selftests trace, for the lab: functions of their names and signatures, and what calls them.
 * Compiled like a piece of the kernel (scripts/fixture-build.mjs).
 *
 * Callers and callees stand in one file, so nothing may be known across calls: hence noipa, not only noinline.
 */
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define traced __attribute__((noipa))
#define EINTR 4
#define EINVAL 22

/* -- fentry, fexit: each sums its arguments up ------------------------------------------------ */

traced int bpf_fentry_test1(int a)
{
	return a + 1;
}

traced int bpf_fentry_test2(int a, u64 b)
{
	return (int)(a + b);
}

traced int bpf_fentry_test3(char a, int b, u64 c)
{
	return (int)(a + b + c);
}

traced int bpf_fentry_test4(void *a, char b, int c, u64 d)
{
	return (int)((u64)a + b + c + d);
}

traced int bpf_fentry_test5(u64 a, void *b, short c, int d, u64 e)
{
	return (int)(a + (u64)b + c + d + e);
}

traced int bpf_fentry_test6(u64 a, void *b, short c, int d, void *e, u64 f)
{
	return (int)(a + (u64)b + c + d + (u64)e + f);
}

struct bpf_fentry_test_t {
	struct bpf_fentry_test_t *a;
};

traced int bpf_fentry_test7(struct bpf_fentry_test_t *arg)
{
	return (int)(u64)arg;
}

traced int bpf_fentry_test8(struct bpf_fentry_test_t *arg)
{
	return (int)(u64)arg->a;
}

/* As a test run of an fentry or fexit program: each function once. How many returned something else than the sum. */
traced int run_fentry_tests(void)
{
	struct bpf_fentry_test_t empty = { 0 };
	int wrong = 0;

	wrong += bpf_fentry_test1(1) != 2;
	wrong += bpf_fentry_test2(2, 3) != 5;
	wrong += bpf_fentry_test3(4, 5, 6) != 15;
	wrong += bpf_fentry_test4((void *)7, 8, 9, 10) != 34;
	wrong += bpf_fentry_test5(11, (void *)12, 13, 14, 15) != 65;
	wrong += bpf_fentry_test6(16, (void *)17, 18, 19, (void *)20, 21) != 111;
	wrong += bpf_fentry_test7((struct bpf_fentry_test_t *)0) != 0;
	wrong += bpf_fentry_test8(&empty) != 0;
	return wrong;
}

/* -- fmod_ret: one that leaves a trace when it runs --------------------------------------------- */

traced int bpf_modify_return_test(int a, int *b)
{
	++*b;
	return a + *b;
}

/* As a test run of an fmod_ret program: the result in the lower half, in the upper whether the function ran. */
traced u32 run_modify_return_test(void)
{
	int b = 2;
	u16 ret = (u16)bpf_modify_return_test(1, &b);

	return (u32)(b != 2) << 16 | ret;
}

/* -- structs by value ----------------------------------------------------------------------------- */

struct bpf_testmod_struct_arg_1 {
	int a;
};

struct bpf_testmod_struct_arg_2 {
	long a;
	long b;
};

traced int bpf_testmod_test_struct_arg_1(struct bpf_testmod_struct_arg_2 a, int b, int c)
{
	return (int)(a.a + a.b + b + c);
}

traced int bpf_testmod_test_struct_arg_2(int a, struct bpf_testmod_struct_arg_2 b, int c)
{
	return (int)(a + b.a + b.b + c);
}

traced int bpf_testmod_test_struct_arg_3(int a, int b, struct bpf_testmod_struct_arg_2 c)
{
	return (int)(a + b + c.a + c.b);
}

traced int bpf_testmod_test_struct_arg_4(struct bpf_testmod_struct_arg_1 a, int b, int c, int d,
					 struct bpf_testmod_struct_arg_2 e)
{
	return (int)(a.a + b + c + d + e.a + e.b);
}

traced int bpf_testmod_test_struct_arg_5(void)
{
	return 1;
}

/* As a read of the test module's file. */
traced void run_struct_tests(void)
{
	struct bpf_testmod_struct_arg_1 one = { 10 };
	struct bpf_testmod_struct_arg_2 two = { 2, 3 };

	bpf_testmod_test_struct_arg_1(two, 1, 4);
	bpf_testmod_test_struct_arg_2(1, two, 4);
	bpf_testmod_test_struct_arg_3(1, 4, two);
	bpf_testmod_test_struct_arg_4(one, 1, 2, 3, two);
	bpf_testmod_test_struct_arg_5();
}

/* -- a system call that sleeps --------------------------------------------------------------------- */

/* The kernel's: the task sleeps until it is woken. */
extern void schedule(void);

struct timespec {
	long tv_sec;
	long tv_nsec;
};

/* What a system call sees of its caller's registers: rdi is the fifteenth word. */
struct pt_regs {
	u64 before[14];
	u64 di;
	u64 behind[6];
};

/* Set by who kills the sleeping task. */
int fatal_signal;

/* There is no timer here: whoever runs the task wakes it. */
traced long __x64_sys_nanosleep(const struct pt_regs *regs)
{
	const struct timespec *request = (const struct timespec *)regs->di;

	if (request->tv_sec < 0 || request->tv_nsec < 0)
		return -EINVAL;
	schedule();
	return fatal_signal ? -EINTR : 0;
}

/* As user space makes the system call. */
traced long run_nanosleep(long sec, long nsec)
{
	struct timespec request = { sec, nsec };
	struct pt_regs regs = { .di = (u64)&request };

	return __x64_sys_nanosleep(&regs);
}
