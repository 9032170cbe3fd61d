/*
 * The memory that the runner (runner.ts, in the child process) and TypeScript share, and where it lies in
 * the child:
 *
 *   7d0000000000  the runner's text and constants: one page
 *   7d0010000000  64 slots, one per vCPU, SLOT_BYTES each:
 *
 *     slot + 0      control block, laid out as Slot
 *          + 4096   the thread's signal stack, up to the end of the slot. When a guest is stopped, the
 *                   kernel's signal frame is there: all its registers (Frame), vector registers included.
 *
 * A vCPU is a thread that is always in a signal handler when it does not run guest code. Whose turn it is
 * says the word `turn`: HOST, and TypeScript reads and writes registers; RUNNER, and the thread obeys
 * `command`, then gives the turn back.
 */
export const RUNNER_TEXT = 0x7d0000000000n;
export const RUNNER_TEXT_BYTES = 4096;
export const SLOTS = 0x7d0010000000n;
/** A power of two: the runner finds its slot by cutting rsp. */
export const SLOT_BYTES = 0x2_0000;
export const NR_SLOTS = 64;
/** Where the signal stack begins in a slot. */
export const SIGNAL_STACK = 4096;
/** Byte offsets in a control block. Those up to 127 are reached by 8-bit displacements. */
export const Slot = {
    /** u32: Turn; also the futex that both sides wait on. */
    turn: 0,
    /** u32: the side waits in the kernel and must be woken. */
    runnerSleeps: 4,
    hostSleeps: 8,
    /** u32: Command. */
    command: 12,
    /** u32: how often the runner looks for its turn before it sleeps. */
    spins: 16,
    /** u32: Reason. */
    reason: 20,
    /** u32: the number of the signal that stopped the guest. */
    signal: 24,
    /** u32: not 0 when instructions are counted, by the trap flag. */
    stepping: 28,
    /** u32: not 0 when the guest has set its trap flag itself, while stepping. */
    ownTrap: 32,
    /** u32: not 0 when the host wants the guest to stop. */
    interrupt: 36,
    /** u32: the process that the runner works for. */
    hostPid: 40,
    /** u64: instructions that may still be executed, while stepping. */
    budget: 48,
    /** u64: the address to stop before, while stepping. */
    stopAt: 56,
    /** u64: the instruction that is executed now, while stepping. */
    lastRip: 64,
    /** u64: where in the child the signal's ucontext lies, and its siginfo. */
    frame: 72,
    info: 80,
    /** u64: the system call's number, then its result; u64 each: its arguments. */
    call: 88,
    arg0: 96,
    arg1: 104,
    arg2: 112,
    arg3: 120,
    arg4: 128,
    arg5: 136,
    /** stack_t: address, flags, bytes. */
    altStack: 144,
    /** What else a system call needs in memory. */
    scratch: 256,
};
export const Turn = { HOST: 0, RUNNER: 1 };
/** `RUN`: on with the guest. `CALL`: a system call, made by the thread. */
export const Command = { RUN: 0, CALL: 1 };
/** Why the guest stopped: a signal; or, while stepping, what the runner found out by itself. */
export const Reason = { SIGNAL: 0, HALTED: 1, BUDGET: 2, STOP_AT: 3 };
/** Byte offsets in a ucontext. Kernel: struct ucontext, struct sigcontext_64. */
export const Frame = {
    r8: 40,
    r9: 48,
    r10: 56,
    r11: 64,
    r12: 72,
    r13: 80,
    r14: 88,
    r15: 96,
    rdi: 104,
    rsi: 112,
    rbp: 120,
    rbx: 128,
    rdx: 136,
    rax: 144,
    rcx: 152,
    rsp: 160,
    rip: 168,
    eflags: 176,
    /** u16 each: cs, gs, fs, ss. */
    segments: 184,
    /** u64 each: error code, vector, (signal mask), address of the last page fault. */
    err: 192,
    trapno: 200,
    cr2: 216,
    /** Where the vector registers' part of the frame lies. */
    fpstate: 224,
    /** The first byte behind what a context consists of. */
    end: 224,
};
/** In the vector registers' part: u32, its bytes. Kernel: struct _fpx_sw_bytes, extended_size. */
export const FPSTATE_SIZE_OFFSET = 468;
/** cs and ss of user space, gs and fs null. */
export const USER_SEGMENTS = [0x33, 0, 0, 0x2b];
/** The trap flag in eflags: an exception after the next instruction. */
export const TRAP_FLAG = 0x100n;
//# sourceMappingURL=control-block.js.map