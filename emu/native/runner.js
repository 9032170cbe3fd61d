/*
 * The program that runs guests on the host's CPU, as machine code: everything it can do is wait for its
 * turn, obey, and notice how the guest stopped. TypeScript does the rest (child.ts).
 *
 *   start          once: die with the host, map the slots, catch signals
 *   begin_thread   each thread: a signal stack; then int3, to be in the handler from the start
 *   handler        a signal: the guest has stopped. While stepping, the trap after each instruction is
 *                  dealt with here and the guest goes on at once
 *   publish        notes how it stopped
 *   give_turn      hands the turn to the host and waits for it: first looking, then sleeping
 *   obey           goes on with the guest by rt_sigreturn, which loads every register from the signal
 *                  frame; or makes a system call for the host
 *
 * rt_sigreturn ends in an iret, which serializes: text that the host changed meanwhile is seen.
 *
 *   rbx   the slot          rdx   the ucontext          edi   the signal          rsi   its siginfo
 */
import { Frame, NR_SLOTS, Reason, RUNNER_TEXT, SLOT_BYTES, SLOTS, Slot } from './control-block.js';
import { Nr, Signal } from './linux.js';
import { far, le, machineCode, to } from './machine-code.js';
const EXIT_BAD_START = 1;
const START = [
    'start:',
    ['mov edi, 1' /* PR_SET_PDEATHSIG */, 0xbf, ...le(1, 4)],
    ['mov esi, 9', 0xbe, ...le(Signal.KILL, 4)],
    ['mov eax, 157', 0xb8, ...le(Nr.prctl, 4)],
    ['syscall', 0x0f, 0x05],
    ['mov rbx, SLOTS', 0x48, 0xbb, ...le(SLOTS, 8)],
    ['mov rdi, rbx', 0x48, 0x89, 0xdf],
    ['mov esi, 0x800000', 0xbe, ...le(NR_SLOTS * SLOT_BYTES, 4)],
    ['mov edx, 3' /* read and write */, 0xba, ...le(3, 4)],
    ['mov r10d, 0x11' /* MAP_SHARED, MAP_FIXED */, 0x41, 0xba, ...le(0x11, 4)],
    ['mov r8d, 3' /* the file that child.ts put there */, 0x41, 0xb8, ...le(3, 4)],
    ['xor r9d, r9d', 0x45, 0x31, 0xc9],
    ['mov eax, 9', 0xb8, ...le(Nr.mmap, 4)],
    ['syscall', 0x0f, 0x05],
    ['cmp rax, rbx', 0x48, 0x39, 0xd8],
    ['jne give_up', 0x75, to('give_up')],
    // A host that died before the prctl would never be noticed.
    ['mov eax, 0x6e', 0xb8, ...le(Nr.getppid, 4)],
    ['syscall', 0x0f, 0x05],
    ['cmp eax, [rbx + hostPid]', 0x3b, 0x43, Slot.hostPid],
    ['jne give_up', 0x75, to('give_up')],
    ['lea r12, [signals]', 0x4c, 0x8d, 0x25, far('signals')],
    'next_signal:',
    ['movzx edi, byte [r12]', 0x41, 0x0f, 0xb6, 0x3c, 0x24],
    ['test edi, edi', 0x85, 0xff],
    ['je begin_thread', 0x74, to('begin_thread')],
    ['lea rsi, [action]', 0x48, 0x8d, 0x35, far('action')],
    ['xor edx, edx', 0x31, 0xd2],
    ['mov r10d, 8', 0x41, 0xba, ...le(8, 4)],
    ['mov eax, 0xd', 0xb8, ...le(Nr.rt_sigaction, 4)],
    ['syscall', 0x0f, 0x05],
    ['inc r12', 0x49, 0xff, 0xc4],
    ['jmp next_signal', 0xeb, to('next_signal')],
    'give_up:',
    ['mov edi, 1', 0xbf, ...le(EXIT_BAD_START, 4)],
    ['mov eax, 0xe7', 0xb8, ...le(Nr.exit_group, 4)],
    ['syscall', 0x0f, 0x05],
];
const BEGIN_THREAD = [
    'begin_thread:',
    ['lea rdi, [rbx + altStack]', 0x48, 0x8d, 0xbb, ...le(Slot.altStack, 4)],
    ['xor esi, esi', 0x31, 0xf6],
    ['mov eax, 0x83', 0xb8, ...le(Nr.sigaltstack, 4)],
    ['syscall', 0x0f, 0x05],
    // What made this thread was in a handler, where all signals are blocked.
    ['mov edi, 2' /* SIG_SETMASK */, 0xbf, ...le(2, 4)],
    ['lea rsi, [no_signals]', 0x48, 0x8d, 0x35, far('no_signals')],
    ['xor edx, edx', 0x31, 0xd2],
    ['mov r10d, 8', 0x41, 0xba, ...le(8, 4)],
    ['mov eax, 0xe', 0xb8, ...le(Nr.rt_sigprocmask, 4)],
    ['syscall', 0x0f, 0x05],
    ['int3', 0xcc],
];
const HANDLER = [
    'handler:',
    ['mov rbx, rsp', 0x48, 0x89, 0xe3],
    ['and rbx, -SLOT_BYTES', 0x48, 0x81, 0xe3, ...le(-SLOT_BYTES, 4)],
    ['cmp edi, 5', 0x83, 0xff, Signal.TRAP],
    ['jne not_trap', 0x0f, 0x85, far('not_trap')],
    ['cmp dword [rdx + trapno], 1' /* #DB */, 0x83, 0xba, ...le(Frame.trapno, 4), 1],
    ['jne report', 0x0f, 0x85, far('report')],
    ['cmp dword [rbx + stepping], 0', 0x83, 0x7b, Slot.stepping, 0],
    ['je report', 0x0f, 0x84, far('report')],
    ['cmp dword [rbx + ownTrap], 0', 0x83, 0x7b, Slot.ownTrap, 0],
    ['jne report', 0x0f, 0x85, far('report')],
    // One instruction is done. Those that have to do with the trap flag need care.
    ['mov rcx, [rbx + lastRip]', 0x48, 0x8b, 0x4b, Slot.lastRip],
    'next_byte:',
    ['movzx eax, byte [rcx]', 0x0f, 0xb6, 0x01],
    ['inc rcx', 0x48, 0xff, 0xc1],
    ['bt [prefixes], eax', 0x0f, 0xa3, 0x05, far('prefixes')],
    ['jb next_byte', 0x72, to('next_byte')],
    ['cmp al, 0x9c' /* pushf */, 0x3c, 0x9c],
    ['je pushed_flags', 0x74, to('pushed_flags')],
    ['cmp al, 0x9d' /* popf */, 0x3c, 0x9d],
    ['je popped_flags', 0x74, to('popped_flags')],
    ['cmp al, 0xf1' /* int1 */, 0x3c, 0xf1],
    ['je report', 0x0f, 0x84, far('report')],
    'count:',
    ['mov rax, [rdx + rip]', 0x48, 0x8b, 0x82, ...le(Frame.rip, 4)],
    ['mov [rbx + lastRip], rax', 0x48, 0x89, 0x43, Slot.lastRip],
    ['dec qword [rbx + budget]', 0x48, 0xff, 0x4b, Slot.budget],
    ['cmp rax, [rbx + stopAt]', 0x48, 0x3b, 0x43, Slot.stopAt],
    ['je report_stop_at', 0x0f, 0x84, far('report_stop_at')],
    ['cmp qword [rbx + budget], 0', 0x48, 0x83, 0x7b, Slot.budget, 0],
    ['je report_budget', 0x74, to('report_budget')],
    ['or dword [rdx + eflags], 0x100', 0x81, 0x8a, ...le(Frame.eflags, 4), ...le(0x100, 4)],
    'go_on:',
    ['mov rsp, rdx', 0x48, 0x89, 0xd4],
    ['mov eax, 0xf', 0xb8, ...le(Nr.rt_sigreturn, 4)],
    ['syscall', 0x0f, 0x05],
    // The guest shall not see our flag in what it pushed.
    'pushed_flags:',
    ['mov rcx, [rdx + rsp]', 0x48, 0x8b, 0x8a, ...le(Frame.rsp, 4)],
    ['and byte [rcx + 1], 0xfe', 0x80, 0x61, 1, 0xfe],
    ['jmp count', 0xeb, to('count')],
    // If it is set after this, the guest wanted it: the trap after the next instruction is its own.
    'popped_flags:',
    ['mov eax, [rdx + eflags]', 0x8b, 0x82, ...le(Frame.eflags, 4)],
    ['and eax, 0x100', 0x25, ...le(0x100, 4)],
    ['mov [rbx + ownTrap], eax', 0x89, 0x43, Slot.ownTrap],
    ['jmp count', 0xeb, to('count')],
    'not_trap:',
    ['cmp edi, 0xa', 0x83, 0xff, Signal.USR1],
    ['jne not_interrupt', 0x75, to('not_interrupt')],
    // The guest may have stopped by itself before the host's wish arrived.
    ['cmp dword [rbx + interrupt], 0', 0x83, 0x7b, Slot.interrupt, 0],
    ['je go_on', 0x74, to('go_on')],
    'not_interrupt:',
    ['cmp edi, 0xb', 0x83, 0xff, Signal.SEGV],
    ['jne report', 0x75, to('report')],
    ['cmp dword [rdx + trapno], 0xd' /* #GP */, 0x83, 0xba, ...le(Frame.trapno, 4), 13],
    ['jne report', 0x75, to('report')],
    // A #GP may come from hlt, the end of every call. What raised it can be read, unless it is no address.
    ['mov rcx, [rdx + rip]', 0x48, 0x8b, 0x8a, ...le(Frame.rip, 4)],
    ['mov rax, rcx', 0x48, 0x89, 0xc8],
    ['shr rax, 0x2f', 0x48, 0xc1, 0xe8, 47],
    ['jne report', 0x75, to('report')],
    ['cmp byte [rcx], 0xf4', 0x80, 0x39, 0xf4],
    ['jne report', 0x75, to('report')],
    ['inc qword [rdx + rip]', 0x48, 0xff, 0x82, ...le(Frame.rip, 4)],
    ['mov eax, 1', 0xb8, ...le(Reason.HALTED, 4)],
    ['jmp publish', 0xeb, to('publish')],
    'report_budget:',
    ['mov eax, 2', 0xb8, ...le(Reason.BUDGET, 4)],
    ['jmp publish', 0xeb, to('publish')],
    'report_stop_at:',
    ['mov eax, 3', 0xb8, ...le(Reason.STOP_AT, 4)],
    ['jmp publish', 0xeb, to('publish')],
    'report:',
    ['xor eax, eax' /* Reason.SIGNAL */, 0x31, 0xc0],
];
const WAIT = [
    'publish:',
    ['mov [rbx + reason], eax', 0x89, 0x43, Slot.reason],
    ['mov [rbx + signal], edi', 0x89, 0x7b, Slot.signal],
    ['mov [rbx + info], rsi', 0x48, 0x89, 0x73, Slot.info],
    ['mov [rbx + frame], rdx', 0x48, 0x89, 0x53, Slot.frame],
    'give_turn:',
    ['xor eax, eax' /* Turn.HOST */, 0x31, 0xc0],
    ['xchg [rbx], eax', 0x87, 0x03],
    ['cmp dword [rbx + hostSleeps], 0', 0x83, 0x7b, Slot.hostSleeps, 0],
    ['je look', 0x74, to('look')],
    ['mov rdi, rbx', 0x48, 0x89, 0xdf],
    ['mov esi, 1' /* FUTEX_WAKE */, 0xbe, ...le(1, 4)],
    ['mov edx, 1', 0xba, ...le(1, 4)],
    ['mov eax, 0xca', 0xb8, ...le(Nr.futex, 4)],
    ['syscall', 0x0f, 0x05],
    'look:',
    ['mov ecx, [rbx + spins]', 0x8b, 0x4b, Slot.spins],
    // No pause: hypervisors take a loop of them for waiting, and stop the CPU.
    'look_again:',
    ['cmp dword [rbx], 0', 0x83, 0x3b, 0],
    ['jne obey', 0x75, to('obey')],
    ['dec ecx', 0xff, 0xc9],
    ['jg look_again', 0x7f, to('look_again')],
    ['mov eax, 1', 0xb8, ...le(1, 4)],
    ['xchg [rbx + runnerSleeps], eax', 0x87, 0x43, Slot.runnerSleeps],
    'sleep:',
    ['cmp dword [rbx], 0', 0x83, 0x3b, 0],
    ['jne awake', 0x75, to('awake')],
    ['mov rdi, rbx', 0x48, 0x89, 0xdf],
    ['xor esi, esi' /* FUTEX_WAIT */, 0x31, 0xf6],
    ['xor edx, edx', 0x31, 0xd2],
    ['xor r10d, r10d', 0x45, 0x31, 0xd2],
    ['mov eax, 0xca', 0xb8, ...le(Nr.futex, 4)],
    ['syscall', 0x0f, 0x05],
    ['jmp sleep', 0xeb, to('sleep')],
    'awake:',
    ['mov dword [rbx + runnerSleeps], 0', 0xc7, 0x43, Slot.runnerSleeps, ...le(0, 4)],
];
const OBEY = [
    'obey:',
    ['mov rdx, [rbx + frame]', 0x48, 0x8b, 0x53, Slot.frame],
    ['cmp dword [rbx + command], 0', 0x83, 0x7b, Slot.command, 0],
    ['je go_on', 0x0f, 0x84, far('go_on')],
    ['mov rax, [rbx + call]', 0x48, 0x8b, 0x43, Slot.call],
    ['mov rdi, [rbx + arg0]', 0x48, 0x8b, 0x7b, Slot.arg0],
    ['mov rsi, [rbx + arg1]', 0x48, 0x8b, 0x73, Slot.arg1],
    ['mov rdx, [rbx + arg2]', 0x48, 0x8b, 0x53, Slot.arg2],
    ['mov r10, [rbx + arg3]', 0x4c, 0x8b, 0x53, Slot.arg3],
    ['mov r8, [rbx + arg4]', 0x4c, 0x8b, 0x83, ...le(Slot.arg4, 4)],
    ['mov r9, [rbx + arg5]', 0x4c, 0x8b, 0x8b, ...le(Slot.arg5, 4)],
    ['syscall', 0x0f, 0x05],
    // A thread that clone has just made finds itself with a stack in a slot of its own.
    ['mov rcx, rsp', 0x48, 0x89, 0xe1],
    ['and rcx, -SLOT_BYTES', 0x48, 0x81, 0xe1, ...le(-SLOT_BYTES, 4)],
    ['cmp rcx, rbx', 0x48, 0x39, 0xd9],
    ['jne new_thread', 0x75, to('new_thread')],
    ['mov [rbx + call], rax', 0x48, 0x89, 0x43, Slot.call],
    ['jmp give_turn', 0xe9, far('give_turn')],
    'new_thread:',
    ['mov rbx, rcx', 0x48, 0x89, 0xcb],
    ['jmp begin_thread', 0xe9, far('begin_thread')],
];
/** Bytes that may stand before an opcode: segments, operand and address size, lock, rep, REX. */
const PREFIXES = [
    ...[0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0x66, 0x67, 0xf0, 0xf2, 0xf3],
    ...Array.from({ length: 16 }, (_, i) => 0x40 + i),
];
function bitmap(members) {
    const bytes = Array(32).fill(0);
    for (const member of members)
        bytes[member >> 3] = (bytes[member >> 3] ?? 0) | (1 << (member & 7));
    return bytes;
}
const SA_SIGINFO = 4n;
const SA_RESTORER = 0x04000000n;
const SA_ONSTACK = 0x08000000n;
/** The runner, to be put at RUNNER_TEXT. Its entry is its first byte. */
export function makeRunner() {
    const rows = [...START, ...BEGIN_THREAD, ...HANDLER, ...WAIT, ...OBEY];
    const caught = [Signal.ILL, Signal.TRAP, Signal.BUS, Signal.FPE, Signal.USR1, Signal.SEGV, Signal.SYS];
    const constants = (handler) => ({
        signals: [...caught, 0],
        prefixes: bitmap(PREFIXES),
        no_signals: le(0, 8),
        // struct kernel_sigaction: handler, flags, restorer (never used: the handler does not return), mask
        action: [handler, SA_SIGINFO | SA_RESTORER | SA_ONSTACK, handler, -1n].flatMap((word) => le(word, 8)),
    });
    const offset = machineCode(rows, constants(0n)).places.get('handler');
    return machineCode(rows, constants(RUNNER_TEXT + BigInt(offset)));
}
//# sourceMappingURL=runner.js.map