/*
 * The child process that guests run in: started, furnished and asked for system calls from here.
 *
 *   start      the runner's executable, from a file in memory; one thread, in slot 0
 *   furnish    nothing is mapped but the runner; system calls from elsewhere are a signal (seccomp)
 *   threads    one per further vCPU, each in its slot
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Bug, InputError } from '../../lib/index.js';
import { Command, NR_SLOTS, RUNNER_TEXT, RUNNER_TEXT_BYTES, SIGNAL_STACK, SLOT_BYTES, SLOTS, Slot, } from './control-block.js';
import { elfExecutable } from './elf.js';
import { endOf, forbidCoreFile, kill, killThread, memfdCreate, refused, spawn } from './host.js';
import { Errno, Nr, Signal } from './linux.js';
import { le } from './machine-code.js';
import { makeRunner } from './runner.js';
import { RunnerSlot } from './slot.js';
/** How long the runner may take for what it does at once. */
const ANSWER_MILLISECONDS = 10_000;
/** The first address that is not the user's. */
const USER_END = 0x800000000000n;
const PR_SET_NAME = 15n;
const PR_SET_NO_NEW_PRIVS = 38n;
const SECCOMP_SET_MODE_FILTER = 1n;
/** No mitigation of speculation for the sake of seccomp: guests are the user's own. */
const SECCOMP_FILTER_FLAG_SPEC_ALLOW = 4n;
/** VM, FS, FILES, SIGHAND, THREAD, SYSVSEM: what makes it a thread. */
const CLONE_THREAD_FLAGS = 0x50f00n;
export class Child {
    pid;
    slots;
    /** Thread ids by slot. */
    #tids = [];
    #end;
    /** @throws InputError when the host refuses something, saying what */
    constructor(memory, cpus) {
        this.slots = Array.from({ length: cpus }, (_, id) => new RunnerSlot(memory, id));
        for (const slot of this.slots)
            slot.prepare();
        this.pid = startRunner(memory.fd);
        try {
            forbidCoreFile(this.pid);
            this.#awaitThread(0, this.pid);
            this.#setName('tramplab-runner');
            this.#unmapOthers();
            this.#filterSystemCalls();
            for (let id = 1; id < cpus; id++)
                this.#startThread(id);
        }
        catch (error) {
            const ended = this.end !== undefined && !(error instanceof InputError);
            const thrown = ended ? this.#notStarted() : error;
            this.kill();
            throw thrown;
        }
    }
    #slot(id) {
        const slot = this.slots[id];
        if (slot === undefined)
            throw new Bug(`no slot ${id}`);
        return slot;
    }
    #awaitThread(id, tid) {
        const slot = this.#slot(id);
        if (!this.#answers(slot))
            throw this.#notStarted();
        slot.findFrame();
        this.#tids[id] = tid;
    }
    #startThread(id) {
        const stack = SLOTS + BigInt(id * SLOT_BYTES + SIGNAL_STACK);
        const tid = this.#prepare(Nr.clone, CLONE_THREAD_FLAGS, stack);
        if (tid < 0)
            throw refused('a thread', -tid);
        this.#awaitThread(id, tid);
    }
    /** What ps shows. */
    #setName(name) {
        const { address, bytes } = this.#slot(0).scratch;
        bytes.set(new TextEncoder().encode(`${name}\0`));
        this.#prepare(Nr.prctl, PR_SET_NAME, address);
    }
    /** Takes away what the kernel gave the process: a guest shall find its own memory and nothing else. */
    #unmapOthers() {
        const maps = readFileSync(`/proc/${this.pid}/maps`, 'utf8');
        for (const [, from, to] of maps.matchAll(/^([0-9a-f]+)-([0-9a-f]+) /gm)) {
            const [start, end] = [BigInt(`0x${from}`), BigInt(`0x${to}`)];
            const ours = start >= RUNNER_TEXT && end <= SLOTS + BigInt(NR_SLOTS * SLOT_BYTES);
            if (!ours && end <= USER_END)
                this.#prepare(Nr.munmap, start, end - start);
        }
    }
    /** System calls that the runner does not make itself become SIGSYS. Threads that begin later inherit that. */
    #filterSystemCalls() {
        const { address, bytes } = this.#slot(0).scratch;
        const filter = seccompFilter();
        bytes.set(filter);
        const program = [...le(filter.length / 8, 8), ...le(address, 8)];
        bytes.set(program, filter.length);
        this.#prepare(Nr.prctl, PR_SET_NO_NEW_PRIVS, 1n);
        const at = address + BigInt(filter.length);
        let result = 0;
        for (const flags of [SECCOMP_FILTER_FLAG_SPEC_ALLOW, 0n]) {
            result = this.#prepare(Nr.seccomp, SECCOMP_SET_MODE_FILTER, flags, at);
            if (result !== -Errno.EINVAL)
                break;
        }
        if (result < 0)
            throw refused('a seccomp filter', -result);
    }
    /**
     * Has a thread make a system call; it must be the host's turn there.
     * @returns its result, negative for an errno; undefined when the child has ended, or does not answer
     */
    call(id, nr, ...args) {
        const slot = this.#slot(id);
        slot.setU64(Slot.call, BigInt(nr));
        for (let i = 0; i < 6; i++)
            slot.setU64(Slot.arg0 + 8 * i, args[i] ?? 0n);
        slot.give(Command.CALL);
        return this.#answers(slot) ? Number(BigInt.asIntN(64, slot.u64(Slot.call))) : undefined;
    }
    #answers(slot) {
        const deadline = performance.now() + ANSWER_MILLISECONDS;
        return slot.wait(() => this.end === undefined && performance.now() < deadline);
    }
    /** A call of the first thread while the child is made ready. */
    #prepare(nr, ...args) {
        const result = this.call(0, nr, ...args);
        if (result === undefined)
            throw this.#notStarted();
        return result;
    }
    #notStarted() {
        const why = this.end ?? 'it does not answer';
        return new InputError('engine', undefined, `native: the runner does not start (${why}): take the engine unicorn`);
    }
    /** Stops the guest of a slot, unless it stops by itself. */
    interrupt(id) {
        this.#slot(id).setU32(Slot.interrupt, 1);
        killThread(this.pid, this.#tids[id], Signal.USR1);
    }
    /** Milliseconds that a thread has been on a CPU; undefined where the kernel does not keep account. */
    cpuMilliseconds(id) {
        try {
            const [nanoseconds] = readFileSync(`/proc/${this.pid}/task/${this.#tids[id]}/schedstat`, 'utf8').split(' ');
            return Number(nanoseconds) / 1e6;
        }
        catch {
            return undefined;
        }
    }
    /** How it ended; undefined while it lives. */
    get end() {
        this.#end ??= endOf(this.pid, 'no');
        return this.#end;
    }
    kill() {
        if (this.end !== undefined)
            return;
        kill(this.pid, Signal.KILL);
        this.#end = endOf(this.pid, 'until it ends');
    }
}
/** The executable, in a file that every child of this process is started from. */
let executable;
function startRunner(memory) {
    if (executable === undefined) {
        const file = elfExecutable(makeRunner().bytes, RUNNER_TEXT);
        const fd = memfdCreate('tramplab-runner');
        writeSync(fd, file);
        // The child opens the path, and it has the host's files until then.
        executable = { path: `/proc/self/fd/${fd}` };
    }
    const pid = spawn(executable.path, memory);
    return pid > 0 ? pid : startFromDisk(memory, -pid);
}
/** For hosts that run nothing from files in memory. @throws InputError when that is refused as well */
function startFromDisk(memory, before) {
    const folder = mkdtempSync(join(tmpdir(), 'tramplab-runner-'));
    try {
        const path = join(folder, 'runner');
        writeFileSync(path, elfExecutable(makeRunner().bytes, RUNNER_TEXT), { mode: 0o700 });
        const pid = spawn(path, memory);
        if (pid < 0)
            throw refused(`to start a file in memory (and one in ${tmpdir()})`, before);
        return pid;
    }
    finally {
        rmSync(folder, { recursive: true });
    }
}
/*
 * Classic BPF over struct seccomp_data: architecture at 4, instruction pointer at 8 (low) and 12 (high).
 * The instruction pointer is the one behind the syscall instruction.
 */
function seccompFilter() {
    const AUDIT_ARCH_X86_64 = 0xc000_003e;
    const LOAD = 0x20;
    const JUMP_EQUAL = 0x15;
    const JUMP_GREATER = 0x25;
    const RETURN = 0x06;
    const ALLOW = 0x7fff_0000;
    const TRAP = 0x0003_0000;
    const insn = (code, ifTrue, ifFalse, k) => [
        ...le(code, 2),
        ifTrue,
        ifFalse,
        ...le(k, 4),
    ];
    return Uint8Array.from([
        ...insn(LOAD, 0, 0, 4),
        ...insn(JUMP_EQUAL, 0, 5, AUDIT_ARCH_X86_64),
        ...insn(LOAD, 0, 0, 12),
        ...insn(JUMP_EQUAL, 0, 3, Number(RUNNER_TEXT >> 32n)),
        ...insn(LOAD, 0, 0, 8),
        ...insn(JUMP_GREATER, 1, 0, Number(RUNNER_TEXT & 0xffffffffn) + RUNNER_TEXT_BYTES),
        ...insn(RETURN, 0, 0, ALLOW),
        ...insn(RETURN, 0, 0, TRAP),
    ]);
}
//# sourceMappingURL=child.js.map