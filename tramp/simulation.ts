/*
 * A seeded interleaving of everything that happens at once in a kernel: CPUs executing a few
 * instructions each, tasks preempted, put to sleep, woken and moved, grace periods ending, callbacks
 * and work items running, and operations of the host. The same seed gives the same history.
 */

import { uniformInt } from 'pure-rand/distribution/uniformInt';
import { xoroshiro128plus } from 'pure-rand/generator/xoroshiro128plus';
import type { Fault } from '../emu/index.ts';
import { kaddr } from '../lib/index.ts';
import type { Kernel } from './kernel.ts';
import { RCU_FLAVOURS } from './rcu.ts';
import { Scheduler } from './sched.ts';
import type { Task, TaskCall } from './task.ts';

export interface SimulationOptions {
  readonly seed: number;
  /** Longest run of instructions on one CPU without anything else happening; default 24. */
  readonly slice?: number;
  /** Events kept for a report; default 400. */
  readonly keep?: number;
}

/** Something that happened. */
export interface ScheduleEvent {
  readonly number: number;
  readonly text: string;
}

/** The first thing that went wrong. */
export interface SimulationFault {
  readonly task: string;
  readonly fault: Fault;
}

type Action = () => string | undefined;

export class Simulation {
  readonly kernel: Kernel;
  readonly sched: Scheduler;
  readonly #rng: ReturnType<typeof xoroshiro128plus>;
  readonly #slice: number;
  readonly #keep: number;
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
    kernel.sync = () => this.#between();
  }

  /** What went wrong first; nothing happens after it. */
  get fault(): SimulationFault | undefined {
    return this.#fault;
  }

  /** How many events there were. */
  get events(): number {
    return this.#count;
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
    const actions = this.#possible();
    if (actions.length === 0) return false;
    const total = actions.reduce((sum, [weight]) => sum + weight, 0);
    let at = this.pick(1, total);
    for (const [weight, action] of actions) {
      at -= weight;
      if (at > 0) continue;
      this.#note(action());
      return true;
    }
    return false;
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

  /** The last events, a line each, for people. */
  history(last: number = this.#keep): string {
    const lines = this.#events
      .slice(-last)
      .map(({ number, text }) => `${String(number).padStart(6)}  ${text}`);
    if (this.#fault !== undefined) lines.push(`        ${this.#fault.task}: ${this.#fault.fault.detail}`);
    return lines.join('\n');
  }

  /** What could happen now, with weights. */
  #possible(): [number, Action][] {
    const { kernel, sched } = this;
    const actions: [number, Action][] = [...this.#cpuActions()];
    const asleep = sched.tasks.filter((task) => task.asleep);
    if (asleep.length > 0) {
      actions.push([
        6,
        () => {
          const task = this.#one(asleep);
          sched.wake(task);
          return `${task.name} is woken`;
        },
      ]);
    }
    for (const name of RCU_FLAVOURS) {
      const flavour = kernel.grace.flavours[name];
      if (flavour.pending === 0) continue;
      actions.push([3, () => void kernel.grace.tick(name)]);
      if (flavour.ready > 0) {
        actions.push([
          6,
          () => {
            flavour.run();
            return `${name}: a callback runs`;
          },
        ]);
      }
    }
    if (kernel.grace.pendingWork > 0) {
      actions.push([
        6,
        () => {
          kernel.grace.runWork();
          return 'a work item runs';
        },
      ]);
    }
    if ([...kernel.retired].some((im) => im.pcref.wantsRelease)) {
      actions.push([
        6,
        () => {
          for (const im of kernel.retired) im.pcref.poll();
          return 'percpu_ref: the last reference is gone';
        },
      ]);
    }
    const next = this.#host[0];
    if (next !== undefined) {
      actions.push([
        4,
        () => {
          this.#host.shift();
          this.#note(`host: ${next.name}`);
          next.run();
          return undefined;
        },
      ]);
    }
    return actions;
  }

  #cpuActions(): [number, Action][] {
    const { kernel, sched } = this;
    const actions: [number, Action][] = [];
    for (const { id } of kernel.machine.cpus) {
      const queue = sched.runnable(id);
      if (sched.running(id) !== undefined) {
        actions.push([20, () => this.#runCpu(id)]);
        if (sched.preemptible(id)) {
          actions.push([3, () => `cpu${id}: ${sched.preempt(id).name} is preempted`]);
        }
      } else if (queue.length > 0) {
        actions.push([20, () => this.#dispatch(this.#one(queue))]);
      }
      if (queue.length > 0 && kernel.machine.cpus.length > 1) {
        actions.push([1, () => this.#migrate(this.#one(queue))]);
      }
    }
    return actions;
  }

  #dispatch(task: Task): string {
    this.sched.dispatch(task);
    return `cpu${task.cpu}: ${task.name} goes on`;
  }

  #migrate(task: Task): string | undefined {
    const to = this.pick(0, this.kernel.machine.cpus.length - 1);
    const from = task.cpu;
    if (to === from || !this.sched.migrate(task, to)) return undefined;
    return `${task.name} moves from cpu${from} to cpu${to}`;
  }

  #runCpu(id: number): string | undefined {
    const outcome = this.sched.run(id, this.pick(1, this.#slice));
    if (outcome.what === 'idle') return undefined;
    const { task } = outcome;
    if (outcome.what === 'gone') return `cpu${id}: ${task.name} exits`;
    if (outcome.what === 'fault') {
      this.#fault = { task: task.name, fault: outcome.fault };
      return `cpu${id}: ${task.name} faults`;
    }
    const did = `cpu${id}: ${task.name} runs ${outcome.instructions}`;
    if (outcome.what === 'returned') return `${did}, returns`;
    if (outcome.what === 'slept') return `${did}, sleeps`;
    return `${did}, to ${this.#place(id)}`;
  }

  /** Between two steps of a text poke: the CPUs that have a task run on. */
  #between(): void {
    const busy = this.kernel.machine.cpus.filter(({ id }) => this.sched.running(id) !== undefined);
    if (busy.length === 0) return;
    for (let left = this.pick(0, 2 * busy.length); left > 0 && this.#fault === undefined; left--) {
      const { id } = this.#one(busy);
      this.#note(this.#runCpu(id));
    }
  }

  #place(cpu: number): string {
    const rip = kaddr(this.kernel.machine.cpus[cpu]?.regs.get('rip') ?? 0n);
    const at = this.kernel.kallsyms.lookup(rip);
    return at === undefined ? `0x${rip.toString(16)}` : `${at.ksym.name}+0x${at.offset.toString(16)}`;
  }

  #note(text: string | undefined): void {
    if (text === undefined) return;
    this.#count++;
    this.#events.push({ number: this.#count, text });
    if (this.#events.length > 2 * this.#keep) this.#events.splice(0, this.#keep);
  }

  #one<T>(from: readonly T[]): T {
    return from[this.pick(0, from.length - 1)] as T;
  }
}
