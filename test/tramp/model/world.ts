/*
 * The real thing beside the model: a guest with four functions and twelve programs, used for one
 * history after the other. Between two histories everything is taken away again and checked to be gone.
 */

import {
  createGuest,
  type FunctionOptions,
  type Guest,
  type GuestFunction,
  type GuestProgram,
} from '../../../check/index.ts';
import { patchBytes } from '../../../jit/index.ts';
import { type Kaddr, toHex } from '../../../lib/index.ts';
import type { AttachKind, KernelBug, ManagedRevision, Task, Trampoline } from '../../../tramp/index.ts';
import { type RunOutcome, Scheduler } from '../../../tramp/index.ts';

export interface WorldOptions {
  readonly cpus: number;
  readonly revision: ManagedRevision;
  readonly preemption: boolean;
  readonly programLifetime: 'kernel' | 'held';
  readonly bugs: readonly KernelBug[];
}

/** What can be traced. The index is the function's place. */
export const FUNCTIONS: readonly (FunctionOptions & { readonly name: string })[] = [
  { name: 'plain', plain: true, origin: 'kernel' },
  { name: 'module', origin: 'module' },
  { name: 'sleeper', origin: 'module', sleeps: true },
  { name: 'hook', origin: 'kernel', retSize: 0 },
];

export interface ProgramSpec {
  readonly name: string;
  readonly kind: AttachKind;
  readonly returns: number;
  readonly sleeps: boolean;
  readonly asksIp: boolean;
}

const spec = (name: string, kind: AttachKind, more: Partial<ProgramSpec> = {}): ProgramSpec => ({
  name,
  kind,
  returns: 0,
  sleeps: false,
  asksIp: false,
  ...more,
});

/** What can be attached. */
export const PROGRAMS: readonly ProgramSpec[] = [
  spec('entry', 'fentry'),
  spec('entry ip', 'fentry', { asksIp: true }),
  spec('entry sleeps', 'fentry', { sleeps: true }),
  spec('allow', 'fmod_ret'),
  spec('refuse', 'fmod_ret', { returns: 7 }),
  spec('allow sleeps', 'fmod_ret', { sleeps: true }),
  spec('exit', 'fexit'),
  spec('exit ip', 'fexit', { asksIp: true }),
  spec('exit sleeps', 'fexit', { sleeps: true }),
  spec('hook', 'lsm'),
  spec('deny', 'lsm', { returns: 13 }),
  spec('replacement', 'freplace', { returns: 99 }),
];

export const NOP = '0f1f440000';

export class World {
  readonly guest: Guest;
  readonly sched: Scheduler;
  readonly functions: GuestFunction[];
  readonly programs: GuestProgram[];
  /** Histories so far. */
  histories = 0;

  private constructor(guest: Guest) {
    this.guest = guest;
    this.sched = new Scheduler(guest.kernel);
    this.functions = FUNCTIONS.map((options) => guest.addFunction(options.name, options));
    this.programs = PROGRAMS.map((_, index) => this.#program(index));
  }

  static async create(options: WorldOptions): Promise<World> {
    return new World(await createGuest(options));
  }

  #program(index: number): GuestProgram {
    const { name, kind, returns, sleeps: sleepable, asksIp } = PROGRAMS[index] as ProgramSpec;
    // The kernel's own waits let a task pass that enters a sleepable fentry program late and sleeps there.
    const sleeps = sleepable && (kind !== 'fentry' || this.guest.kernel.programLifetime === 'held');
    return this.guest.addProgram(name, kind, { returns, sleeps, sleepable, callsGetFuncIp: asksIp });
  }

  /** Loads a function's module anew, as another module. */
  reload(index: number): void {
    const { name, ...options } = FUNCTIONS[index] as (typeof FUNCTIONS)[number];
    this.functions[index] = this.guest.addFunction(name, options);
  }

  /** Gives the loader's reference to a program back and loads it anew. */
  replaceProgram(index: number): void {
    this.programs[index]?.prog.put();
    this.programs[index] = this.#program(index);
  }

  get(fn: number): Trampoline {
    const { kernel } = this.guest;
    const target = this.functions[fn] as GuestFunction;
    return kernel.trampolines.get(kernel, target.key, target);
  }

  /** The bytes at a function's entry. */
  site(fn: number): string {
    return toHex(this.guest.machine.memory.bytes((this.functions[fn] as GuestFunction).addr, 5));
  }

  /** What stands at a function's entry when it goes somewhere. */
  patched(fn: number, type: 'CALL' | 'JUMP', to: Kaddr): string {
    return toHex(patchBytes(type, (this.functions[fn] as GuestFunction).addr, to) ?? new Uint8Array());
  }

  spawn(name: string, cpu: number, fn: number, args: readonly bigint[]): Task {
    const target = this.functions[fn] as GuestFunction;
    let made = false;
    return this.sched.spawn(name, cpu, () => {
      if (made) return undefined;
      made = true;
      return { fn: target.addr, args };
    });
  }

  run(cpu: number, steps: number): RunOutcome {
    return this.sched.run(cpu, steps);
  }

  close(): void {
    this.guest.close();
  }
}
