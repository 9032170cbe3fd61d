/*
 * The host's CPU as an engine. Guests run in a child process (child.ts), one thread per vCPU, on the same
 * memory that the host sees. Two ways to run:
 *
 *   counted   by the trap flag: a signal after each instruction, which the runner deals with by itself
 *             (a microsecond each). Exact counts, limits and stops.
 *   free      at full speed, until the guest stops or its time is over. Nothing is counted.
 *
 * A guest cannot end the host: what it does wrong is a signal in the child; what ends the child is
 * `crashed`, and another child goes on with the same memory.
 */
import { cpus as cpuModels } from 'node:os';
import { Bug, kaddr } from '../../lib/index.js';
import { Child } from './child.js';
import { Command, Reason, Slot, TRAP_FLAG } from './control-block.js';
import { checkHost, refused } from './host.js';
import { MAP_FIXED, MAP_SHARED, Nr, Prot } from './linux.js';
import { NativeBlock, SharedMemory } from './shared-memory.js';
import { explainSignal } from './stop.js';
import { TimeLimit } from './time-limit.js';
const PROT = {
    r: Prot.READ,
    rw: Prot.READ | Prot.WRITE,
    rx: Prot.READ | Prot.EXEC,
};
const ARCH_SET_GS = 0x1001n;
/** The file that the child was started with. */
const GUEST_FD = 3n;
/** An address that no instruction has: it is not canonical. */
const NOWHERE = 0x8000000000000000n;
const NO_LIMIT = 2 ** 52;
/** Interrupts enabled, which a process cannot change; direction and all arithmetic flags clear. */
const CLEAR_EFLAGS = 0x202n;
/** How long a guest may take to notice that it shall stop. */
const GRACE_MILLISECONDS = 1000;
const ARGUMENTS = ['rdi', 'rsi', 'rdx', 'rcx', 'r8', 'r9'];
/** @throws InputError on hosts that cannot do it, saying why */
export function createNativeEngine(options) {
    checkHost();
    return new NativeEngine(options);
}
class NativeEngine {
    name;
    cpus;
    timeLimitMs;
    #memory;
    #child;
    #mappings = new Map();
    #open = true;
    constructor({ cpus, timeLimitMs }) {
        this.timeLimitMs = timeLimitMs;
        this.#memory = new SharedMemory();
        try {
            this.#child = new Child(this.#memory, cpus);
        }
        catch (error) {
            this.#memory.close();
            throw error;
        }
        this.name = `native ${cpuModels()[0]?.model ?? 'x86-64'}`;
        this.cpus = this.#child.slots.map((slot) => new NativeCpu(this, slot));
    }
    get child() {
        return this.#child;
    }
    allocBlock(sizeBytes, use = {}) {
        const lanes = use.lanes ?? 1;
        return this.#memory.alloc(sizeBytes, lanes, use.usedBytes ?? sizeBytes / lanes);
    }
    map(address, block, perms) {
        if (!this.#open)
            return;
        if (!(block instanceof NativeBlock))
            throw new Bug('a block of another engine');
        const mapping = { start: address, end: address + BigInt(block.bytes.length), block, perms };
        this.#mapInChild(mapping);
        this.#mappings.set(address, mapping);
    }
    #mapInChild({ start, end, block, perms }) {
        const flags = BigInt(MAP_SHARED | MAP_FIXED);
        const prot = BigInt(PROT[perms]);
        const result = this.#call(0, Nr.mmap, start, end - start, prot, flags, GUEST_FD, BigInt(block.offset));
        if (result < 0)
            throw refused(perms === 'rx' ? 'executable memory' : 'memory', -result);
    }
    unmap(address, block) {
        if (!this.#open)
            return;
        this.#call(0, Nr.munmap, address, BigInt(block.bytes.length));
        this.#mappings.delete(address);
    }
    /** Host and guests see the same memory, and whoever goes on has passed an iret. */
    textChanged() { }
    runTogether(runs) {
        const entered = runs.map(({ cpu, budget }) => ({ cpu: ownCpu(cpu), over: ownCpu(cpu).enter(budget) }));
        return entered.map(({ cpu, over }) => over ?? cpu.finish());
    }
    /** A system call of a thread, if need be of another child's. */
    #call(id, nr, ...args) {
        const result = this.#child.call(id, nr, ...args);
        if (result !== undefined)
            return result;
        this.replaceChild('it does not answer');
        const again = this.#child.call(id, nr, ...args);
        if (again === undefined)
            throw new Bug(`the runner ends over system call ${nr}: ${this.#child.end}`);
        return again;
    }
    setGsBase(id, base) {
        if (!this.#open)
            return;
        const result = this.#call(id, Nr.arch_prctl, ARCH_SET_GS, base);
        if (result < 0)
            throw new Bug(`arch_prctl(ARCH_SET_GS, ${base}): ${result}`);
    }
    /** Goes on with another child: the same memory, the same registers but for the vCPUs that were running. */
    replaceChild(why) {
        const saved = this.cpus.map((cpu) => cpu.rescue(why));
        this.#child.kill();
        this.#child = new Child(this.#memory, this.cpus.length);
        for (const mapping of this.#mappings.values())
            this.#mapInChild(mapping);
        this.cpus.forEach((cpu, id) => {
            cpu.moveTo(this.#child.slots[id], saved[id]);
        });
    }
    permsAt(address) {
        return this.#mappingAt(address)?.perms;
    }
    bytesAt(address, length) {
        const mapping = this.#mappingAt(address);
        if (mapping === undefined)
            return new Uint8Array();
        const offset = Number(address - mapping.start);
        const bytes = mapping.block.bytes.subarray(offset, offset + length);
        if (bytes.length === length)
            return bytes;
        const rest = this.bytesAt(mapping.end, length - bytes.length);
        return Uint8Array.from([...bytes, ...rest]);
    }
    #mappingAt(address) {
        for (const mapping of this.#mappings.values()) {
            if (address >= mapping.start && address < mapping.end)
                return mapping;
        }
        return undefined;
    }
    close() {
        if (!this.#open)
            return;
        this.#open = false;
        this.#child.kill();
        this.#memory.close();
    }
}
class NativeCpu {
    executed = 0;
    #engine;
    #slot;
    #budget = 0;
    #counting = false;
    #running = false;
    #time;
    /** How the child ended under the guest. */
    #lost;
    #lostRip = kaddr(0n);
    /** How the last run ended: with hlt, or with a signal. */
    #halted = false;
    #reason;
    #gsBase = kaddr(0n);
    /** Whether a guest may have loaded gs since it was set. */
    #gsUnsure = false;
    constructor(engine, slot) {
        this.#engine = engine;
        this.#slot = slot;
        this.#time = new TimeLimit(engine.timeLimitMs, () => engine.child.cpuMilliseconds(slot.id));
        this.#clear();
    }
    #clear() {
        for (const name of REGISTERS)
            this.#slot.set(name, 0n);
        this.#slot.eflags = CLEAR_EFLAGS;
    }
    load(rip, rsp, args) {
        const slot = this.#slot;
        if (this.#gsUnsure)
            this.#setGs(this.#gsBase);
        slot.set('rip', rip);
        slot.set('rsp', rsp);
        slot.eflags = CLEAR_EFLAGS;
        let index = 0;
        for (const arg of args)
            slot.set(ARGUMENTS[index++], arg);
    }
    run(budget, stopAt) {
        return this.enter(budget, stopAt) ?? this.finish();
    }
    /** Starts the guest, unless its run is over before it begins: then how it ended. */
    enter(budget, stopAt) {
        const slot = this.#slot;
        this.#reason = undefined;
        this.#halted = false;
        this.executed = 0;
        if (stopAt !== undefined && slot.get('rip') === stopAt)
            return 'stop-at';
        if (budget === 0)
            return 'budget';
        this.#counting = budget !== Number.POSITIVE_INFINITY || stopAt !== undefined;
        slot.setU32(Slot.stepping, this.#counting ? 1 : 0);
        if (this.#counting) {
            this.#budget = Math.min(budget, NO_LIMIT);
            slot.budget = this.#budget;
            slot.setU64(Slot.stopAt, stopAt ?? NOWHERE);
            slot.setU64(Slot.lastRip, slot.get('rip'));
            slot.setU32(Slot.ownTrap, 0);
            slot.eflags |= TRAP_FLAG;
        }
        else {
            slot.eflags &= ~TRAP_FLAG;
        }
        slot.resetSegments();
        this.#time.start();
        this.#running = true;
        slot.give(Command.RUN);
        return undefined;
    }
    /** Waits for a guest that was started. */
    finish() {
        if (this.#lost === undefined && !this.#await()) {
            this.#engine.replaceChild(this.#engine.child.end ?? 'it did not stop when told to');
        }
        this.#running = false;
        if (this.#lost !== undefined)
            return this.#crashed(this.#lost);
        const slot = this.#slot;
        slot.findFrame();
        this.executed = this.#counting ? this.#budget - slot.budget : Number.NaN;
        switch (slot.u32(Slot.reason)) {
            case Reason.HALTED:
                this.#halted = true;
                return 'halted';
            case Reason.BUDGET:
                return 'budget';
            case Reason.STOP_AT:
                return 'stop-at';
            default:
                return this.#signalled();
        }
    }
    /** Whether the guest has stopped, by itself or because its time was over. */
    #await() {
        const slot = this.#slot;
        const { child } = this.#engine;
        const limited = this.#counting && this.#budget < NO_LIMIT;
        let left = this.#budget;
        const inTime = () => {
            if (child.end !== undefined)
                return false;
            // A counted run comes to its end while it makes progress, however slowly.
            if (limited && slot.budget !== left) {
                left = slot.budget;
                this.#time.start();
            }
            return !this.#time.isOver();
        };
        if (slot.wait(inTime))
            return true;
        if (child.end !== undefined)
            return false;
        child.interrupt(slot.id);
        const grace = performance.now() + GRACE_MILLISECONDS;
        const answered = slot.wait(() => child.end === undefined && performance.now() < grace);
        slot.setU32(Slot.interrupt, 0);
        return answered;
    }
    #signalled() {
        const slot = this.#slot;
        const { error, vector, address } = slot.exception;
        const registers = (name) => name === 'gs_base'
            ? this.#gsBase
            : REGISTERS.includes(name)
                ? slot.get(name)
                : 0n;
        const stopped = {
            signal: slot.u32(Slot.signal),
            error,
            vector,
            address,
            rip: slot.get('rip'),
            registers,
        };
        const reason = explainSignal(stopped, this.#engine);
        this.#reason = reason;
        this.#gsUnsure = true;
        if (reason.rip !== undefined)
            slot.set('rip', reason.rip);
        // The trap after it never came; unless the run began where no instruction can be.
        if (reason.branched === true && slot.u64(Slot.lastRip) !== reason.stopRip)
            this.executed++;
        return reason.stop;
    }
    #crashed(crash) {
        this.#lost = undefined;
        this.#reason = { stop: 'crashed', stopRip: this.#lostRip, crash };
        return 'crashed';
    }
    get rax() {
        return this.#slot.get('rax');
    }
    get rip() {
        return this.#slot.get('rip');
    }
    get stopRip() {
        if (this.#reason !== undefined)
            return this.#reason.stopRip;
        return this.#halted ? kaddr(this.rip - 1n) : this.rip;
    }
    get memoryStop() {
        const memory = this.#reason?.memory;
        if (memory === undefined)
            throw new Bug('the last run did not end with a memory stop');
        return memory;
    }
    get vector() {
        return this.#reason?.vector ?? 0;
    }
    get crash() {
        return this.#reason?.crash ?? '';
    }
    get(name) {
        return this.#slot.get(name);
    }
    set(name, value) {
        this.#slot.set(name, value);
    }
    setGsBase(base) {
        if (base !== this.#gsBase || this.#gsUnsure)
            this.#setGs(base);
    }
    #setGs(base) {
        this.#engine.setGsBase(this.#slot.id, base);
        this.#gsBase = base;
        this.#gsUnsure = false;
    }
    saveContext() {
        return { engineContext: { registers: this.#slot.save(), gsBase: this.#gsBase } };
    }
    restoreContext(context) {
        const { registers, gsBase } = context.engineContext;
        this.#slot.restore(registers);
        this.#reason = undefined;
        this.setGsBase(gsBase);
    }
    /** What can be kept when the child is replaced: all, unless the guest is running. */
    rescue(why) {
        const slot = this.#slot;
        if (!this.#running)
            return slot.save();
        this.#lost = why;
        this.#lostRip = kaddr(this.#counting ? slot.u64(Slot.lastRip) : slot.get('rip'));
        this.executed = this.#counting ? this.#budget - slot.budget : Number.NaN;
        return undefined;
    }
    moveTo(slot, saved) {
        this.#slot = slot;
        if (saved === undefined)
            this.#clear();
        else
            slot.restore(saved);
        this.#setGs(this.#gsBase);
    }
}
function ownCpu(cpu) {
    if (!(cpu instanceof NativeCpu))
        throw new Bug('a vCPU of another engine');
    return cpu;
}
const REGISTERS = [
    ...['rax', 'rcx', 'rdx', 'rbx', 'rsp', 'rbp', 'rsi', 'rdi', 'rip'],
    ...['r8', 'r9', 'r10', 'r11', 'r12', 'r13', 'r14', 'r15'],
];
//# sourceMappingURL=engine.js.map