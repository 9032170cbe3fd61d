/*
 * A vCPU as the lab uses it: calls of functions, over an engine's runs. call() is the hot path: from
 * begin() to the result nothing is allocated but the result, and the engine is entered three times.
 */
import { addrAdd, hex64, InputError } from '../lib/index.js';
import { PAGE_SIZE } from './engine.js';
import { explainStop } from './explain.js';
import { STACK_BYTES, STACK_HEADROOM } from './layout.js';
const MAX_ARGS = 6;
const NO_ARGS = [];
/** Vector of the exception that int3 raises. */
const BREAKPOINT_VECTOR = 3;
export class MachineVcpu {
    id;
    regs;
    stack;
    #engine;
    #home;
    #gsBase;
    /** rip after the `hlt` that ends a call. */
    #afterExit;
    /** Where a call on the own stack finds its return address. */
    #returnSlot;
    #returnSlotWord;
    #state = 'idle';
    /** Instructions of the call in flight so far, and how many it may execute. */
    #executed = 0;
    #limit = 0;
    constructor(id, engine, home, gsBase) {
        this.id = id;
        this.#engine = engine;
        this.#home = home;
        this.#gsBase = gsBase;
        this.#afterExit = addrAdd(home.exit, 1);
        engine.setGsBase(gsBase);
        this.regs = {
            get: (name) => this.#alive().get(name),
            set: (name, value) => this.#alive().set(name, value),
        };
        const base = home.memory.vmalloc(STACK_BYTES, `stack of CPU ${id}`);
        const top = addrAdd(base, STACK_BYTES - STACK_HEADROOM);
        this.stack = { base, top, guard: addrAdd(base, -PAGE_SIZE) };
        this.#returnSlot = addrAdd(top, -8);
        const slot = home.memory.bytes(this.#returnSlot, 8);
        this.#returnSlotWord = new BigUint64Array(slot.buffer, slot.byteOffset, 1);
    }
    get inCall() {
        return this.#state === 'calling';
    }
    call(fn, args = NO_ARGS, options) {
        const limit = this.checkCall(args, options);
        this.#load(fn, args);
        return this.conclude(this.#engine.run(limit), limit);
    }
    /** The limit of instructions for a call; infinite when it is not to be counted. @throws InputError as call() */
    checkCall(args = NO_ARGS, options) {
        const limit = this.#checkLimit(options?.steps);
        this.#checkBegin(args);
        return this.#home.counting ? limit : Number.POSITIVE_INFINITY;
    }
    /** Sets a call up that somebody else has the engine run. It is over with conclude(). */
    prepare(fn, args = NO_ARGS, options) {
        const budget = this.checkCall(args, options);
        this.#load(fn, args);
        return { cpu: this.#engine, budget };
    }
    #load(fn, args) {
        this.#returnSlotWord[0] = this.#home.exit;
        this.#engine.load(fn, this.#returnSlot, args);
    }
    /** The result of a call whose engine's run has stopped. */
    conclude(stop, limit) {
        const engine = this.#engine;
        const instructions = engine.executed;
        if (engine.rip === this.#afterExit && stop === 'halted') {
            return { ret: engine.rax, instructions, fault: null };
        }
        if (stop === 'budget' && engine.rip === this.#home.exit) {
            return { ret: engine.rax, instructions, fault: null };
        }
        this.#executed = instructions;
        this.#limit = limit;
        this.#state = 'calling';
        if (!this.#handled(stop))
            return this.#faulted(stop);
        const rest = this.run();
        return { ret: rest.fault === null ? engine.rax : 0n, instructions: this.#executed, fault: rest.fault };
    }
    /** Lets the machine's handlers have an int3, or a load that failed; true when the call can go on. */
    #handled(stop) {
        const engine = this.#engine;
        const { breakpoint, loadFault } = this.#home;
        if (stop === 'exception' && engine.vector === BREAKPOINT_VECTOR) {
            return breakpoint?.(this, engine.stopRip) === true;
        }
        if (stop !== 'memory' || engine.memoryStop.access !== 'read')
            return false;
        return loadFault?.(this, engine.stopRip) === true;
    }
    #faulted(stop) {
        this.#state = 'idle';
        return { ret: 0n, instructions: this.#executed, fault: this.#explain(stop, this.#executed) };
    }
    begin(fn, args = NO_ARGS, options = {}) {
        const limit = this.#checkLimit(options.steps);
        this.#checkBegin(args);
        let rsp = this.#returnSlot;
        if (options.stackTop !== undefined) {
            if (options.stackTop % 16n !== 0n) {
                throw new InputError('begin', undefined, `stackTop ${hex64(options.stackTop)} is not 16-byte aligned`);
            }
            rsp = addrAdd(options.stackTop, -8);
        }
        this.#home.memory.writeU64(rsp, this.#home.exit);
        this.#engine.load(fn, rsp, args);
        this.#executed = 0;
        this.#limit = limit;
        this.#state = 'calling';
    }
    #checkBegin(args) {
        if (this.#state !== 'idle') {
            throw new InputError('call', undefined, this.#state === 'closed'
                ? 'the machine is closed'
                : `a call is in flight on CPU ${this.id}: finish it with run(), or drop it with abort()`);
        }
        if (args.length > MAX_ARGS) {
            throw new InputError('call', undefined, `${args.length} arguments: at most ${MAX_ARGS} go in registers`);
        }
    }
    #checkLimit(steps) {
        if (steps === undefined)
            return this.#home.stepLimit;
        if (!Number.isSafeInteger(steps) || steps < 0) {
            throw new InputError('steps', undefined, `must be a whole number of instructions, not ${steps}`);
        }
        return steps;
    }
    run(options = {}) {
        if (this.#state !== 'calling')
            throw new InputError('run', undefined, `no call is in flight on CPU ${this.id}`);
        const wanted = options.steps === undefined ? undefined : this.#checkLimit(options.steps);
        const uncounted = !this.#home.counting && wanted === undefined && options.stopAt === undefined;
        let instructions = 0;
        let stop;
        do {
            // After an uncounted part, nobody knows what is left.
            const known = !uncounted && !Number.isNaN(this.#executed);
            const left = known ? this.#limit - this.#executed : Number.POSITIVE_INFINITY;
            const budget = wanted === undefined ? left : Math.min(wanted - instructions, left);
            const part = this.#runPast(budget, options.stopAt);
            stop = part.stop;
            instructions += part.instructions;
            this.#executed += part.instructions;
        } while (this.#handled(stop));
        const { rip } = this.#engine;
        if (stop === 'stop-at')
            return { reason: 'stop', instructions, fault: null };
        if ((stop === 'halted' && rip === this.#afterExit) || (stop === 'budget' && rip === this.#home.exit)) {
            this.#state = 'idle';
            return { reason: 'returned', instructions, fault: null };
        }
        if (stop === 'budget' && wanted === instructions)
            return { reason: 'steps', instructions, fault: null };
        return { reason: 'fault', instructions, fault: this.#faulted(stop).fault };
    }
    /** As the engine's run, but an instruction at `stopAt` that the run starts with is executed. */
    #runPast(budget, stopAt) {
        const engine = this.#engine;
        if (stopAt === undefined || engine.rip !== stopAt || budget === 0) {
            const stop = engine.run(budget, stopAt);
            return { stop, instructions: engine.executed };
        }
        const first = engine.run(1);
        const done = engine.executed;
        if (first !== 'budget')
            return { stop: first, instructions: done };
        const stop = engine.run(budget - done, stopAt);
        return { stop, instructions: done + engine.executed };
    }
    step() {
        return this.run({ steps: 1 });
    }
    recorded() {
        if (this.#engine.recorded === undefined) {
            throw new InputError('record', undefined, 'only the engine unicorn records');
        }
        return this.#engine.recorded();
    }
    abort() {
        if (this.#state === 'calling')
            this.#state = 'idle';
    }
    saveContext() {
        const engine = this.#alive();
        const context = {
            engine: engine.saveContext(),
            home: this.#home,
            inCall: this.inCall,
            executed: this.#executed,
            limit: this.#limit,
            rip: engine.rip,
        };
        return context;
    }
    restoreContext(context) {
        const engine = this.#alive();
        if (!isContext(context) || context.home !== this.#home) {
            throw new InputError('restoreContext', undefined, 'not a context that a vCPU of this machine saved');
        }
        engine.restoreContext(context.engine);
        engine.setGsBase(this.#gsBase);
        this.#state = context.inCall ? 'calling' : 'idle';
        this.#executed = context.executed;
        this.#limit = context.limit;
    }
    /** The vCPU is of no use from here on; nothing it is asked for reaches the engine. */
    close() {
        this.#state = 'closed';
    }
    #alive() {
        if (this.#state === 'closed')
            throw new InputError('vcpu', undefined, 'the machine is closed');
        return this.#engine;
    }
    #explain(stop, instructions) {
        const { memory, locate } = this.#home;
        return explainStop(stop, { cpu: this.#engine, cpuId: this.id, instructions }, memory, locate);
    }
}
function isContext(context) {
    return 'engine' in context && 'home' in context;
}
//# sourceMappingURL=vcpu.js.map