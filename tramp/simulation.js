/*
 * A seeded interleaving of everything that happens at once in a kernel: CPUs executing a few
 * instructions each, tasks preempted, put to sleep, woken and moved, grace periods ending, callbacks
 * and work items running, and operations of the host. The same seed gives the same history.
 */
import { uniformInt } from 'pure-rand/distribution/uniformInt';
import { xoroshiro128plus } from 'pure-rand/generator/xoroshiro128plus';
import { hex64, kaddr } from '../lib/index.js';
import { RCU_FLAVOURS } from './rcu.js';
import { Scheduler } from './sched.js';
export const WEIGHTS = {
    run: 20,
    dispatch: 20,
    preempt: 3,
    migrate: 1,
    wake: 6,
    tick: 10,
    callback: 10,
};
export class Simulation {
    kernel;
    sched;
    #rng;
    #slice;
    #keep;
    #sources;
    #weights;
    /** What each source weighs in this event. */
    #weighed;
    #events = [];
    #host = [];
    #count = 0;
    #fault;
    constructor(kernel, options) {
        this.kernel = kernel;
        this.sched = kernel.scheduler ?? new Scheduler(kernel);
        this.#rng = xoroshiro128plus(options.seed);
        this.#slice = options.slice ?? 24;
        this.#keep = options.keep ?? 400;
        this.#weights = { ...WEIGHTS, ...options.weights };
        this.#sources = [
            ...kernel.machine.cpus.map(({ id }) => this.#cpu(id)),
            this.#wakeups(),
            ...RCU_FLAVOURS.flatMap((name) => this.#flavour(kernel.grace.flavours[name])),
            this.#work(),
            this.#releases(),
            this.#operations(options.hostWeight ?? 1),
        ];
        this.#weighed = this.#sources.map(() => 0);
        kernel.sync = () => this.#between();
        if (this.#keep > 0)
            kernel.trace = (what) => this.#note('', () => what);
    }
    /** What went wrong first; nothing happens after it. */
    get fault() {
        return this.#fault;
    }
    /** How many events there were. */
    get events() {
        return this.#count;
    }
    /** Operations of the host that have not begun. */
    get waiting() {
        return this.#host.length;
    }
    /** A whole number in low..high, from the simulation's own sequence. */
    pick(low, high) {
        return uniformInt(this.#rng, low, high);
    }
    spawn(name, cpu, next) {
        return this.sched.spawn(name, cpu, next);
    }
    /** Has an operation of the host happen at some time; operations keep their order. */
    host(name, run) {
        this.#host.push({ name, run });
    }
    /** One event. False when there is nothing left that could happen. */
    step() {
        if (this.#fault !== undefined)
            return false;
        let total = 0;
        for (const [i, source] of this.#sources.entries())
            total += this.#weighed[i] = source.weight();
        if (total === 0)
            return false;
        let at = this.pick(1, total);
        let drawn = 0;
        while (at > this.#weighed[drawn])
            at -= this.#weighed[drawn++];
        this.#count++;
        this.#sources[drawn]?.happen(at);
        return true;
    }
    /** At most `events` events. */
    run(events) {
        for (let i = 0; i < events && this.step(); i++)
            ;
    }
    /** Everything that can still happen. @param limit events after which it gives up */
    drain(limit = 1_000_000) {
        for (let i = 0; i < limit; i++)
            if (!this.step())
                return this.#fault === undefined;
        return false;
    }
    /** The last events, a line each, for people: number, who, what. */
    history(last = this.#keep) {
        const lines = this.#events
            .slice(-last)
            .map(({ number, who, text }) => `${String(number).padStart(6)}  ${who.padEnd(16)} ${text}`);
        if (this.#fault !== undefined)
            lines.push(`        FAULT of ${this.#fault.task}: ${this.#fault.fault.detail}`);
        return lines.join('\n');
    }
    // -- what can happen -----------------------------------------------------------------------------
    /** A CPU runs its task, or takes it off, or takes one on; a task that waits for it goes elsewhere. */
    #cpu(id) {
        const { sched } = this;
        const { run, dispatch } = this.#weights;
        const migrate = this.kernel.machine.cpus.length > 1 ? this.#weights.migrate : 0;
        const preempt = () => (sched.preemptible(id) ? this.#weights.preempt : 0);
        /** What it does for its task, or for the want of one. */
        const work = () => (sched.running(id) === undefined ? dispatch : run);
        return {
            weight: () => {
                const waiting = sched.runnable(id).length > 0;
                if (!waiting && sched.running(id) === undefined)
                    return 0;
                return work() + preempt() + (waiting ? migrate : 0);
            },
            happen: (at) => {
                const waiting = sched.runnable(id);
                const going = work();
                if (at > going + preempt())
                    this.#migrate(this.#one(waiting));
                else if (at > going)
                    this.#preempt(id);
                else if (sched.running(id) !== undefined)
                    this.#runCpu(id);
                else
                    this.#dispatch(this.#one(waiting));
            },
        };
    }
    #wakeups() {
        const { sched } = this;
        return {
            weight: () => (sched.asleep.length > 0 ? this.#weights.wake : 0),
            happen: () => {
                const task = this.#one(sched.asleep);
                // where there is room, as select_task_rq would have it
                if (this.pick(1, 4) === 1)
                    this.#migrate(task);
                sched.wake(task);
                this.#note(task.name, () => `is woken, to go on on cpu${task.cpu}`);
            },
        };
    }
    /** A flavour looks at the tasks; a callback whose grace period is over runs. */
    #flavour(flavour) {
        return [
            {
                weight: () => (flavour.pending > flavour.ready ? this.#weights.tick : 0),
                happen: () => this.#tick(flavour),
            },
            {
                weight: () => (flavour.ready > 0 ? this.#weights.callback : 0),
                happen: () => {
                    this.#note(flavour.name, () => 'a callback runs');
                    flavour.run();
                },
            },
        ];
    }
    #work() {
        const { grace } = this.kernel;
        return {
            weight: () => (grace.pendingWork > 0 ? this.#weights.callback : 0),
            happen: () => {
                this.#note('workqueue', () => 'a work item runs');
                grace.runWork();
            },
        };
    }
    /** The last put of a percpu_ref has happened in guest code; what the kernel does there and then is done here. */
    #releases() {
        const { retired } = this.kernel;
        const wanted = () => {
            for (const im of retired)
                if (im.pcref.wantsRelease)
                    return true;
            return false;
        };
        return {
            weight: () => (wanted() ? this.#weights.callback : 0),
            happen: () => {
                this.#note('percpu_ref', () => 'the last reference is gone');
                for (const im of retired)
                    im.pcref.poll();
            },
        };
    }
    #operations(weight) {
        return {
            weight: () => (this.#host.length > 0 ? weight : 0),
            happen: () => {
                const next = this.#host.shift();
                if (next === undefined)
                    return;
                this.#note('host', () => next.name);
                next.run();
            },
        };
    }
    // -- its happening -------------------------------------------------------------------------------
    #dispatch(task) {
        this.sched.dispatch(task);
        this.#note(`cpu${task.cpu} ${task.name}`, () => 'is on the CPU');
    }
    #preempt(id) {
        const task = this.sched.running(id);
        this.#note(`cpu${id} ${task?.name}`, () => `is preempted ${task?.inKernel ? `at ${this.#place(id)}` : 'in user mode'}`);
        this.sched.preempt(id);
    }
    #migrate(task) {
        const to = this.pick(0, this.kernel.machine.cpus.length - 1);
        const from = task.cpu;
        if (to !== from && this.sched.migrate(task, to)) {
            this.#note(task.name, () => `moves from cpu${from} to cpu${to}`);
        }
    }
    #runCpu(id) {
        const outcome = this.sched.run(id, this.pick(1, this.#slice));
        if (outcome.what === 'idle')
            return;
        if (outcome.what === 'fault')
            this.#fault = { task: outcome.task.name, fault: outcome.fault };
        this.#note(`cpu${id} ${outcome.task.name}`, () => this.#news(id, outcome));
    }
    #news(id, outcome) {
        if (outcome.what === 'gone')
            return 'exits';
        const ran = `runs ${outcome.instructions}`;
        switch (outcome.what) {
            case 'fault':
                return `${ran}, faults`;
            case 'returned':
                return `${ran}, returns to user mode`;
            case 'slept':
                return `${ran}, sleeps`;
            case 'ran':
                return `${ran}, to ${this.#place(id)}`;
        }
    }
    #tick(flavour) {
        const before = flavour.holdouts;
        const ready = flavour.ready;
        this.kernel.grace.tick(flavour.name);
        this.#note(flavour.name, () => {
            const begun = before.length === 0 ? 'a grace period begins' : undefined;
            const now = flavour.holdouts;
            const over = flavour.ready > ready ? 'it is over' : `waits for ${now.map((held) => this.#task(held)).join(', ')}`;
            return begun === undefined ? over : `${begun}; ${over}`;
        });
    }
    /** Between two steps of a text poke: the CPUs that have a task run on. */
    #between() {
        const busy = this.kernel.machine.cpus.filter(({ id }) => this.sched.running(id) !== undefined);
        if (busy.length === 0)
            return;
        for (let left = this.pick(0, 2 * busy.length); left > 0 && this.#fault === undefined; left--) {
            const { id } = this.#one(busy);
            if (this.sched.running(id) === undefined)
                continue;
            this.#count++;
            this.#runCpu(id);
        }
    }
    // -- in words ------------------------------------------------------------------------------------
    #task(id) {
        return this.sched.tasks.find((task) => task.id === id)?.name ?? `cpu${-1 - id}`;
    }
    /** Where a CPU is: symbol, the function that an image traces, and the emitter's step. */
    #place(cpu) {
        const { kallsyms, images, machine } = this.kernel;
        const rip = kaddr(machine.cpus[cpu]?.regs.get('rip') ?? 0n);
        const at = kallsyms.locate(rip);
        if (at === undefined)
            return hex64(rip);
        const image = [...images].find(({ ksym }) => ksym.name === at.symbol);
        const place = `${image?.title ?? at.symbol}+0x${at.offset.toString(16)}`;
        return at.step === undefined ? place : `${place} [${at.step}]`;
    }
    #note(who, text) {
        if (this.#keep === 0)
            return;
        this.#events.push({ number: this.#count, who, text: text() });
        if (this.#events.length > 2 * this.#keep)
            this.#events.splice(0, this.#keep);
    }
    #one(from) {
        return from[this.pick(0, from.length - 1)];
    }
}
//# sourceMappingURL=simulation.js.map