/*
 * A seeded interleaving of everything that happens at once in a kernel: CPUs executing a few
 * instructions each, tasks preempted, put to sleep, woken and moved, grace periods ending, callbacks
 * and work items running, and operations of the host. The same seed gives the same history.
 */

import { uniformInt } from 'pure-rand/distribution/uniformInt';
import { xoroshiro128plus } from 'pure-rand/generator/xoroshiro128plus';
import type { Fault } from '../emu/index.ts';
import { hex64, kaddr } from '../lib/index.ts';
import type { Kernel } from './kernel.ts';
import { RCU_FLAVOURS, type RcuFlavour } from './rcu.ts';
import { type RunOutcome, Scheduler } from './sched.ts';
import type { Task, TaskCall } from './task.ts';

export interface SimulationOptions {
  readonly seed: number;
  /** Longest run of instructions on one CPU without anything else happening; default 24. */
  readonly slice?: number;
  /** How likely an operation of the host is, where it is 20 that a given CPU runs on; default 1. */
  readonly hostWeight?: number;
  /** How likely other things are; default WEIGHTS. */
  readonly weights?: Partial<Weights>;
  /**
   * Events kept for a report; default 400. With 0 nothing is written down, which is several times faster:
   * the same seed run again with a history shows the same events.
   */
  readonly keep?: number;
}

/** Something that happened. */
export interface ScheduleEvent {
  readonly number: number;
  /** A CPU with its task, a flavour of RCU, `host`, or empty for what follows from the event before. */
  readonly who: string;
  readonly text: string;
}

/** The first thing that went wrong. */
export interface SimulationFault {
  readonly task: string;
  readonly fault: Fault;
}

/** Something that can happen again and again. */
interface Source {
  /** How likely it is now, beside the others; 0 when it cannot happen. */
  readonly weight: () => number;
  /** @param at 1 to weight, the number that was drawn */
  readonly happen: (at: number) => void;
}

/** How likely things are, beside each other: whole numbers. */
export interface Weights {
  /** A CPU runs its task. */
  readonly run: number;
  /** An idle CPU takes one on. */
  readonly dispatch: number;
  /** A CPU's task is preempted. */
  readonly preempt: number;
  /** A task that waits for a CPU goes to another one. */
  readonly migrate: number;
  /** A task that sleeps is woken. */
  readonly wake: number;
  /** A flavour of RCU looks at the tasks. */
  readonly tick: number;
  /** A callback or a work item runs. */
  readonly callback: number;
}

export const WEIGHTS: Weights = {
  run: 20,
  dispatch: 20,
  preempt: 3,
  migrate: 1,
  wake: 6,
  tick: 10,
  callback: 10,
};

export class Simulation {
  readonly kernel: Kernel;
  readonly sched: Scheduler;
  readonly #rng: ReturnType<typeof xoroshiro128plus>;
  readonly #slice: number;
  readonly #keep: number;
  readonly #sources: readonly Source[];
  readonly #weights: Weights;
  /** What each source weighs in this event. */
  readonly #weighed: number[];
  readonly #events: ScheduleEvent[] = [];
  readonly #host: { readonly name: string; readonly run: () => void }[] = [];
  #count = 0;
  #fault: SimulationFault | undefined;

  constructor(kernel: Kernel, options: SimulationOptions) {
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
    if (this.#keep > 0) kernel.trace = (what) => this.#note('', () => what);
  }

  /** What went wrong first; nothing happens after it. */
  get fault(): SimulationFault | undefined {
    return this.#fault;
  }

  /** How many events there were. */
  get events(): number {
    return this.#count;
  }

  /** Operations of the host that have not begun. */
  get waiting(): number {
    return this.#host.length;
  }

  /** A whole number in low..high, from the simulation's own sequence. */
  pick(low: number, high: number): number {
    return uniformInt(this.#rng, low, high);
  }

  spawn(name: string, cpu: number, next: () => TaskCall | undefined): Task {
    return this.sched.spawn(name, cpu, next);
  }

  /** Has an operation of the host happen at some time; operations keep their order. */
  host(name: string, run: () => void): void {
    this.#host.push({ name, run });
  }

  /** One event. False when there is nothing left that could happen. */
  step(): boolean {
    if (this.#fault !== undefined) return false;
    let total = 0;
    for (const [i, source] of this.#sources.entries()) total += this.#weighed[i] = source.weight();
    if (total === 0) return false;
    let at = this.pick(1, total);
    let drawn = 0;
    while (at > (this.#weighed[drawn] as number)) at -= this.#weighed[drawn++] as number;
    this.#count++;
    this.#sources[drawn]?.happen(at);
    return true;
  }

  /** At most `events` events. */
  run(events: number): void {
    for (let i = 0; i < events && this.step(); i++);
  }

  /** Everything that can still happen. @param limit events after which it gives up */
  drain(limit: number = 1_000_000): boolean {
    for (let i = 0; i < limit; i++) if (!this.step()) return this.#fault === undefined;
    return false;
  }

  /** The last events, a line each, for people: number, who, what. */
  history(last: number = this.#keep): string {
    const lines = this.#events
      .slice(-last)
      .map(({ number, who, text }) => `${String(number).padStart(6)}  ${who.padEnd(16)} ${text}`);
    if (this.#fault !== undefined)
      lines.push(`        FAULT of ${this.#fault.task}: ${this.#fault.fault.detail}`);
    return lines.join('\n');
  }

  // -- what can happen -----------------------------------------------------------------------------

  /** A CPU runs its task, or takes it off, or takes one on; a task that waits for it goes elsewhere. */
  #cpu(id: number): Source {
    const { sched } = this;
    const { run, dispatch } = this.#weights;
    const migrate = this.kernel.machine.cpus.length > 1 ? this.#weights.migrate : 0;
    const preempt = (): number => (sched.preemptible(id) ? this.#weights.preempt : 0);
    /** What it does for its task, or for the want of one. */
    const work = (): number => (sched.running(id) === undefined ? dispatch : run);
    return {
      weight: () => {
        const waiting = sched.runnable(id).length > 0;
        if (!waiting && sched.running(id) === undefined) return 0;
        return work() + preempt() + (waiting ? migrate : 0);
      },
      happen: (at) => {
        const waiting = sched.runnable(id);
        const going = work();
        if (at > going + preempt()) this.#migrate(this.#one(waiting));
        else if (at > going) this.#preempt(id);
        else if (sched.running(id) !== undefined) this.#runCpu(id);
        else this.#dispatch(this.#one(waiting));
      },
    };
  }

  #wakeups(): Source {
    const { sched } = this;
    return {
      weight: () => (sched.asleep.length > 0 ? this.#weights.wake : 0),
      happen: () => {
        const task = this.#one(sched.asleep);
        // where there is room, as select_task_rq would have it
        if (this.pick(1, 4) === 1) this.#migrate(task);
        sched.wake(task);
        this.#note(task.name, () => `is woken, to go on on cpu${task.cpu}`);
      },
    };
  }

  /** A flavour looks at the tasks; a callback whose grace period is over runs. */
  #flavour(flavour: RcuFlavour): Source[] {
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

  #work(): Source {
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
  #releases(): Source {
    const { retired } = this.kernel;
    const wanted = (): boolean => {
      for (const im of retired) if (im.pcref.wantsRelease) return true;
      return false;
    };
    return {
      weight: () => (wanted() ? this.#weights.callback : 0),
      happen: () => {
        this.#note('percpu_ref', () => 'the last reference is gone');
        for (const im of retired) im.pcref.poll();
      },
    };
  }

  #operations(weight: number): Source {
    return {
      weight: () => (this.#host.length > 0 ? weight : 0),
      happen: () => {
        const next = this.#host.shift();
        if (next === undefined) return;
        this.#note('host', () => next.name);
        next.run();
      },
    };
  }

  // -- its happening -------------------------------------------------------------------------------

  #dispatch(task: Task): void {
    this.sched.dispatch(task);
    this.#note(`cpu${task.cpu} ${task.name}`, () => 'is on the CPU');
  }

  #preempt(id: number): void {
    const task = this.sched.running(id);
    this.#note(
      `cpu${id} ${task?.name}`,
      () => `is preempted ${task?.inKernel ? `at ${this.#place(id)}` : 'in user mode'}`,
    );
    this.sched.preempt(id);
  }

  #migrate(task: Task): void {
    const to = this.pick(0, this.kernel.machine.cpus.length - 1);
    const from = task.cpu;
    if (to !== from && this.sched.migrate(task, to)) {
      this.#note(task.name, () => `moves from cpu${from} to cpu${to}`);
    }
  }

  #runCpu(id: number): void {
    const outcome = this.sched.run(id, this.pick(1, this.#slice));
    if (outcome.what === 'idle') return;
    if (outcome.what === 'fault') this.#fault = { task: outcome.task.name, fault: outcome.fault };
    this.#note(`cpu${id} ${outcome.task.name}`, () => this.#news(id, outcome));
  }

  #news(id: number, outcome: Exclude<RunOutcome, { what: 'idle' }>): string {
    if (outcome.what === 'gone') return 'exits';
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

  #tick(flavour: RcuFlavour): void {
    const before = flavour.holdouts;
    const ready = flavour.ready;
    this.kernel.grace.tick(flavour.name);
    this.#note(flavour.name, () => {
      const begun = before.length === 0 ? 'a grace period begins' : undefined;
      const now = flavour.holdouts;
      const over =
        flavour.ready > ready ? 'it is over' : `waits for ${now.map((held) => this.#task(held)).join(', ')}`;
      return begun === undefined ? over : `${begun}; ${over}`;
    });
  }

  /** Between two steps of a text poke: the CPUs that have a task run on. */
  #between(): void {
    const busy = this.kernel.machine.cpus.filter(({ id }) => this.sched.running(id) !== undefined);
    if (busy.length === 0) return;
    for (let left = this.pick(0, 2 * busy.length); left > 0 && this.#fault === undefined; left--) {
      const { id } = this.#one(busy);
      if (this.sched.running(id) === undefined) continue;
      this.#count++;
      this.#runCpu(id);
    }
  }

  // -- in words ------------------------------------------------------------------------------------

  #task(id: number): string {
    return this.sched.tasks.find((task) => task.id === id)?.name ?? `cpu${-1 - id}`;
  }

  /** Where a CPU is: symbol, the function that an image traces, and the emitter's step. */
  #place(cpu: number): string {
    const { kallsyms, images, machine } = this.kernel;
    const rip = kaddr(machine.cpus[cpu]?.regs.get('rip') ?? 0n);
    const at = kallsyms.locate(rip);
    if (at === undefined) return hex64(rip);
    const image = [...images].find(({ ksym }) => ksym.name === at.symbol);
    const place = `${image?.title ?? at.symbol}+0x${at.offset.toString(16)}`;
    return at.step === undefined ? place : `${place} [${at.step}]`;
  }

  #note(who: string, text: () => string): void {
    if (this.#keep === 0) return;
    this.#events.push({ number: this.#count, who, text: text() });
    if (this.#events.length > 2 * this.#keep) this.#events.splice(0, this.#keep);
  }

  #one<T>(from: readonly T[]): T {
    return from[this.pick(0, from.length - 1)] as T;
  }
}
