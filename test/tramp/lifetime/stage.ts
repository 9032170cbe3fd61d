/*
 * A stage for one situation: a small kernel, and tasks that go exactly as far as they are told. Nothing
 * is random, so a test reads as the schedule that it shows.
 */

import { createGuest, type Guest, type GuestFunction, type GuestProgram } from '../../../check/index.ts';
import type { Fault } from '../../../emu/index.ts';
import { Bug, type Kaddr, kaddr } from '../../../lib/index.ts';
import {
  type Kernel,
  type KernelOptions,
  linkProg,
  type RunOutcome,
  Scheduler,
  type Task,
  type TrampImage,
  unlinkProg,
} from '../../../tramp/index.ts';

/** No call here is longer. */
const MANY = 10_000;

export type StageOptions = Partial<KernelOptions> & { readonly cpus?: number };

export interface TaskOptions {
  readonly cpu?: number;
  /** The call is made on the way out of the task. */
  readonly exiting?: boolean;
}

export class Stage {
  readonly guest: Guest;
  readonly kernel: Kernel;
  readonly sched: Scheduler;

  private constructor(guest: Guest) {
    this.guest = guest;
    this.kernel = guest.kernel;
    this.sched = new Scheduler(guest.kernel);
  }

  /** With `held` programs unless told otherwise, so that what is seen is the image's own lifetime. */
  static async create(options: StageOptions = {}): Promise<Stage> {
    return new Stage(await createGuest({ programLifetime: 'held', ...options }));
  }

  attach({ prog }: GuestProgram, fn: GuestFunction): void {
    const { kernel } = this;
    const tr = kernel.trampolines.get(kernel, fn.key, fn);
    try {
      linkProg(kernel, prog, tr);
    } catch (error) {
      kernel.trampolines.put(kernel, tr);
      throw error;
    }
  }

  detach({ prog }: GuestProgram, fn: GuestFunction): void {
    const { kernel } = this;
    const tr = kernel.trampolines.get(kernel, fn.key, fn);
    unlinkProg(kernel, prog, tr);
    // the one just taken, and the one of attach
    kernel.trampolines.put(kernel, tr);
    kernel.trampolines.put(kernel, tr);
  }

  /** Detaches and drops the loader's reference, as closing a link and its program does. */
  unload(program: GuestProgram, fn: GuestFunction): void {
    this.detach(program, fn);
    program.prog.put();
  }

  /** The image that a function's calls go through now. */
  image(fn: GuestFunction): TrampImage {
    const image = this.kernel.trampolines.list().find((tr) => tr.key === fn.key)?.curImage;
    if (image === undefined) throw new Bug(`${fn.name} is not traced`);
    return image;
  }

  /** A task on its CPU, about to call `fn(1, 2)` once. */
  task(name: string, fn: GuestFunction, options: TaskOptions = {}): Task {
    const calls = [{ fn: fn.addr, args: [1n, 2n], exiting: options.exiting ?? false }];
    const task = this.sched.spawn(name, options.cpu ?? 0, () => calls.shift());
    this.sched.dispatch(task);
    return task;
  }

  /** Executes the function that the task is at the first instruction of, until it returns. */
  runOut(task: Task): void {
    const { machine } = this.guest;
    const rsp = kaddr(machine.cpus[task.cpu]?.regs.get('rsp') ?? 0n);
    this.runTo(task, kaddr(machine.memory.readU64(rsp)));
  }

  /** Executes the task's call until the next instruction is the one at `address`. */
  runTo(task: Task, address: Kaddr): void {
    const cpu = this.guest.machine.cpus[task.cpu];
    for (let i = 0; i < MANY; i++) {
      if (this.sched.run(task.cpu, 1).what !== 'ran') break;
      if (cpu?.regs.get('rip') === address) return;
    }
    throw new Bug(`${task.name} does not come to ${this.kernel.kallsyms.nameOf(address)}`);
  }

  /** Executes until the call returns, goes to sleep or faults. A task that is off its CPU is put on it first. */
  run(task: Task): RunOutcome {
    if (task.asleep) this.sched.wake(task);
    if (!task.onCpu) this.sched.dispatch(task);
    const outcome = this.sched.run(task.cpu, MANY);
    if (outcome.what === 'ran') throw new Bug(`${task.name} does not come to an end`);
    return outcome;
  }

  /** Has the task finish its call, however often it sleeps, and exit. Its fault; undefined when it had none. */
  finish(task: Task): Fault | undefined {
    while (!task.gone) {
      const outcome = this.run(task);
      if (outcome.what === 'fault') return outcome.fault;
    }
    return undefined;
  }

  preempt(task: Task): void {
    this.sched.preempt(task.cpu);
  }

  /** Everything that grace periods and work items can do while no task moves. */
  settle(): void {
    this.kernel.settle();
  }

  /** A function that images call. */
  helper(name: string): Kaddr {
    const address = this.kernel.helpers[name];
    if (address === undefined) throw new Bug(`no ${name}`);
    return address;
  }

  close(): void {
    this.guest.close();
  }
}
