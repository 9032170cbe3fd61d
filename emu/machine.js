import { addrAdd, InputError } from '../lib/index.js';
import { regionLocator } from './explain.js';
import { KERNEL_LAYOUT, USER_LAYOUT } from './layout.js';
import { Memory } from './memory.js';
import { createUnicornEngine } from './unicorn/engine.js';
import { createUnicornJsEngine } from './unicorn-js/engine.js';
import { MachineVcpu } from './vcpu.js';
const MAX_CPUS = 64;
const DEFAULT_STEP_LIMIT = 10_000_000;
const DEFAULT_TIME_LIMIT_MS = 10_000;
/** Bytes of a task struct. Kernel: `struct task_struct`, of which the lab uses a few words. */
const TASK_BYTES = 256;
const HLT = Uint8Array.of(0xf4);
/**
 * Makes a machine.
 *
 * Without a locator, faults are placed by the names of the memory regions.
 *
 * @throws InputError for options out of range, or when the engine's library is not there (the message
 *   says how to get it).
 */
export async function createMachine(options = {}) {
    const { engine: name = 'unicorn', cpus = 1, record = false } = options;
    const { stepLimit = DEFAULT_STEP_LIMIT, timeLimitMs = DEFAULT_TIME_LIMIT_MS } = options;
    if (!Number.isInteger(cpus) || cpus < 1 || cpus > MAX_CPUS) {
        throw new InputError('cpus', undefined, `a machine has 1 to ${MAX_CPUS} CPUs, not ${cpus}`);
    }
    if (!Number.isSafeInteger(stepLimit) || stepLimit < 1) {
        throw new InputError('stepLimit', undefined, `must be a positive number of instructions, not ${stepLimit}`);
    }
    if (!Number.isFinite(timeLimitMs) || timeLimitMs <= 0) {
        throw new InputError('timeLimitMs', undefined, `must be a positive number of ms, not ${timeLimitMs}`);
    }
    const layout = layoutOf(options.layout ?? (name === 'native' ? 'user' : 'kernel'));
    if (name === 'native' && layout !== USER_LAYOUT) {
        throw new InputError('layout', undefined, 'the engine native runs guests in a process: its layout is user');
    }
    const counting = options.counting !== false || name !== 'native';
    const engine = await openEngine(name, { cpus, record, timeLimitMs });
    return new EngineMachine(engine, { ...options, stepLimit, counting, layout });
}
async function openEngine(name, options) {
    if (options.record && name !== 'unicorn') {
        throw new InputError('record', undefined, `only the engine unicorn records, not ${String(name)}`);
    }
    switch (name) {
        case 'unicorn':
            return createUnicornEngine(options);
        case 'unicorn.js':
            return createUnicornJsEngine(options);
        case 'native': {
            const { createNativeEngine } = await import('./native/engine.js');
            return createNativeEngine(options);
        }
        default:
            throw new InputError('engine', undefined, `no engine ${String(name)}: there are unicorn, unicorn.js and native`);
    }
}
function layoutOf(name) {
    switch (name) {
        case 'kernel':
            return KERNEL_LAYOUT;
        case 'user':
            return USER_LAYOUT;
        default:
            throw new InputError('layout', undefined, `no layout ${String(name)}: there are kernel and user`);
    }
}
/** A machine over an engine, which it owns. */
export class EngineMachine {
    engine;
    layout;
    memory;
    percpu;
    cpus;
    #engine;
    #memory;
    #home;
    #vcpus;
    #closed = false;
    constructor(engine, { stepLimit, counting = true, layout, locate }) {
        this.#engine = engine;
        this.engine = engine.name;
        this.layout = layout;
        this.#memory = new Memory(engine, engine.cpus.length, layout);
        this.memory = this.#memory;
        this.percpu = this.#memory.percpu;
        const exit = this.#memory.allocKernelText(HLT.length, 'return to host');
        this.#memory.patchText(exit, HLT);
        this.#home = {
            memory: this.#memory,
            exit,
            stepLimit,
            counting,
            locate: locate ?? regionLocator(this.#memory),
            breakpoint: undefined,
            loadFault: undefined,
        };
        this.#vcpus = engine.cpus.map((cpu, id) => new MachineVcpu(id, cpu, this.#home, this.percpu.base(id)));
        this.cpus = this.#vcpus;
        for (const { id } of this.#vcpus) {
            this.setCurrent(id, this.#memory.kmalloc(TASK_BYTES, `task of CPU ${id}`, 64));
        }
    }
    get breakpoint() {
        return this.#home.breakpoint;
    }
    set breakpoint(handler) {
        this.#home.breakpoint = handler;
    }
    get loadFault() {
        return this.#home.loadFault;
    }
    set loadFault(handler) {
        this.#home.loadFault = handler;
    }
    get locate() {
        return this.#home.locate;
    }
    set locate(locate) {
        this.#home.locate = locate;
    }
    patchText(address, bytes) {
        this.#memory.patchText(address, bytes);
    }
    callAll(calls) {
        const vcpus = calls.map(({ cpu }) => {
            const vcpu = this.#vcpus[cpu];
            if (vcpu === undefined)
                throw new InputError('callAll', undefined, `there is no CPU ${cpu}`);
            return vcpu;
        });
        if (new Set(vcpus).size < vcpus.length) {
            throw new InputError('callAll', undefined, 'a CPU makes one call at a time, and two are for the same one');
        }
        for (const [i, { args, options }] of calls.entries())
            vcpus[i]?.checkCall(args, options);
        const runs = calls.map(({ fn, args, options }, i) => vcpus[i].prepare(fn, args, options));
        const stops = this.#engine.runTogether?.(runs) ?? runs.map(({ cpu, budget }) => cpu.run(budget));
        return vcpus.map((vcpu, i) => vcpu.conclude(stops[i], runs[i].budget));
    }
    current(cpu) {
        return this.#memory.readU64(this.#currentSlot(cpu));
    }
    setCurrent(cpu, task) {
        this.#memory.writeU64(this.#currentSlot(cpu), task);
    }
    #currentSlot(cpu) {
        return addrAdd(this.percpu.base(cpu), this.percpu.vars.currentTask);
    }
    snapshot() {
        this.#checkOpen();
        return new MachineSnapshot(this, this.#memory.space.usedBytes, this.#memory.save(), this.#vcpus.map((vcpu) => vcpu.saveContext()));
    }
    restore(snapshot) {
        this.#checkOpen();
        if (!(snapshot instanceof MachineSnapshot) || snapshot.machine !== this) {
            throw new InputError('restore', undefined, 'not a snapshot of this machine');
        }
        snapshot.restoreMemory();
        this.#vcpus.forEach((vcpu, id) => {
            vcpu.restoreContext(snapshot.contexts[id]);
        });
    }
    #checkOpen() {
        if (this.#closed)
            throw new InputError('machine', undefined, 'the machine is closed');
    }
    close() {
        if (this.#closed)
            return;
        this.#closed = true;
        for (const vcpu of this.#vcpus)
            vcpu.close();
        this.#engine.close();
    }
}
class MachineSnapshot {
    machine;
    sizeBytes;
    restoreMemory;
    contexts;
    constructor(machine, sizeBytes, restoreMemory, contexts) {
        this.machine = machine;
        this.sizeBytes = sizeBytes;
        this.restoreMemory = restoreMemory;
        this.contexts = contexts;
    }
}
//# sourceMappingURL=machine.js.map