export declare const RUNNER_TEXT = 137438953472000n;
export declare const RUNNER_TEXT_BYTES = 4096;
export declare const SLOTS = 137439221907456n;
/** A power of two: the runner finds its slot by cutting rsp. */
export declare const SLOT_BYTES = 131072;
export declare const NR_SLOTS = 64;
/** Where the signal stack begins in a slot. */
export declare const SIGNAL_STACK = 4096;
/** Byte offsets in a control block. Those up to 127 are reached by 8-bit displacements. */
export declare const Slot: {
    /** u32: Turn; also the futex that both sides wait on. */
    readonly turn: 0;
    /** u32: the side waits in the kernel and must be woken. */
    readonly runnerSleeps: 4;
    readonly hostSleeps: 8;
    /** u32: Command. */
    readonly command: 12;
    /** u32: how often the runner looks for its turn before it sleeps. */
    readonly spins: 16;
    /** u32: Reason. */
    readonly reason: 20;
    /** u32: the number of the signal that stopped the guest. */
    readonly signal: 24;
    /** u32: not 0 when instructions are counted, by the trap flag. */
    readonly stepping: 28;
    /** u32: not 0 when the guest has set its trap flag itself, while stepping. */
    readonly ownTrap: 32;
    /** u32: not 0 when the host wants the guest to stop. */
    readonly interrupt: 36;
    /** u32: the process that the runner works for. */
    readonly hostPid: 40;
    /** u64: instructions that may still be executed, while stepping. */
    readonly budget: 48;
    /** u64: the address to stop before, while stepping. */
    readonly stopAt: 56;
    /** u64: the instruction that is executed now, while stepping. */
    readonly lastRip: 64;
    /** u64: where in the child the signal's ucontext lies, and its siginfo. */
    readonly frame: 72;
    readonly info: 80;
    /** u64: the system call's number, then its result; u64 each: its arguments. */
    readonly call: 88;
    readonly arg0: 96;
    readonly arg1: 104;
    readonly arg2: 112;
    readonly arg3: 120;
    readonly arg4: 128;
    readonly arg5: 136;
    /** stack_t: address, flags, bytes. */
    readonly altStack: 144;
    /** What else a system call needs in memory. */
    readonly scratch: 256;
};
export declare const Turn: {
    readonly HOST: 0;
    readonly RUNNER: 1;
};
/** `RUN`: on with the guest. `CALL`: a system call, made by the thread. */
export declare const Command: {
    readonly RUN: 0;
    readonly CALL: 1;
};
/** Why the guest stopped: a signal; or, while stepping, what the runner found out by itself. */
export declare const Reason: {
    readonly SIGNAL: 0;
    readonly HALTED: 1;
    readonly BUDGET: 2;
    readonly STOP_AT: 3;
};
/** Byte offsets in a ucontext. Kernel: struct ucontext, struct sigcontext_64. */
export declare const Frame: {
    readonly r8: 40;
    readonly r9: 48;
    readonly r10: 56;
    readonly r11: 64;
    readonly r12: 72;
    readonly r13: 80;
    readonly r14: 88;
    readonly r15: 96;
    readonly rdi: 104;
    readonly rsi: 112;
    readonly rbp: 120;
    readonly rbx: 128;
    readonly rdx: 136;
    readonly rax: 144;
    readonly rcx: 152;
    readonly rsp: 160;
    readonly rip: 168;
    readonly eflags: 176;
    /** u16 each: cs, gs, fs, ss. */
    readonly segments: 184;
    /** u64 each: error code, vector, (signal mask), address of the last page fault. */
    readonly err: 192;
    readonly trapno: 200;
    readonly cr2: 216;
    /** Where the vector registers' part of the frame lies. */
    readonly fpstate: 224;
    /** The first byte behind what a context consists of. */
    readonly end: 224;
};
/** In the vector registers' part: u32, its bytes. Kernel: struct _fpx_sw_bytes, extended_size. */
export declare const FPSTATE_SIZE_OFFSET = 468;
/** cs and ss of user space, gs and fs null. */
export declare const USER_SEGMENTS: readonly number[];
/** The trap flag in eflags: an exception after the next instruction. */
export declare const TRAP_FLAG = 256n;
