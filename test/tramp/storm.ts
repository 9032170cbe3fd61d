/*
 * A storm: tasks call traced functions on all CPUs while programs are attached and detached, and in the
 * end everything must add up. What happens follows from the seed alone.
 *
 * Functions, by number modulo 4, and what may happen in them:
 *
 *   0  quick          programs that do not sleep
 *   1  slow           sleeps itself; sleepable programs, some of which sleep
 *   2  quick, calls a quick one; in kernel text without an ftrace site, may be replaced
 *   3  slow, calls a slow one
 *
 * and one more in a module that is loaded and unloaded. Programs that do not sleep call quick functions
 * only, and among them the one that they trace.
 */

import { NOP5 } from '../../jit/index.ts';
import { KernelError } from '../../lib/index.ts';
import {
  type AttachKind,
  type FailPoint,
  type Kernel,
  type KernelOptions,
  linkProg,
  RCU_FLAVOURS,
  Simulation,
  type SimulationOptions,
  type Task,
  type TaskCall,
  unlinkProg,
} from '../../tramp/index.ts';
import { createGuest, type Guest, type GuestFunction, type GuestProgram } from './guest.ts';

export interface StormOptions
  extends SimulationOptions,
    Partial<Pick<KernelOptions, 'preemption' | 'programLifetime' | 'bugs' | 'revision' | 'emitter'>> {
  /** Default 2. */
  readonly cpus?: number;
  /** Default twice the CPUs. */
  readonly tasks?: number;
  /** Default 6. */
  readonly functions?: number;
  /** Operations of the host. Default 60. */
  readonly operations?: number;
}

/** What came of it. */
export interface StormReport {
  readonly events: number;
  /** Calls of traced functions by tasks, by functions and by programs. */
  readonly calls: bigint;
  /** Runs of programs, and runs that the recursion counter refused. */
  readonly runs: bigint;
  readonly attached: number;
  readonly detached: number;
  /** Operations that failed because they were made to. */
  readonly failed: number;
  readonly modulesLoaded: number;
  /** What did not add up, in words; empty when all is well. */
  readonly problems: readonly string[];
  /** The last events. */
  readonly history: string;
}

/** A function of the storm and what the host knows of it. */
interface Target extends GuestFunction {
  readonly slow: boolean;
  readonly replaceable: boolean;
  /** The function that its body calls. */
  readonly callee: Target | undefined;
  readonly removable: boolean;
  taskCalls: bigint;
  loaded: boolean;
  /** What it may return beside its own result. */
  readonly answers: Set<bigint>;
  /** Programs made for it, all there ever were; those attached; those that could be attached again. */
  readonly programs: Program[];
  readonly attached: Program[];
  readonly idle: Program[];
  /** Attached from the beginning to the end: it is offered every call. */
  observer: Program | undefined;
}

interface Program extends GuestProgram {
  readonly target: Target;
  readonly callee: Target | undefined;
  /** Its runs stand in for the body: a freplace program, or an fmod_ret program that is not 0. */
  readonly replaces: boolean;
}

const MOST_PROGRAMS = 5;

/** @throws never for what the kernel does wrong: that is in the report */
export async function storm(options: StormOptions): Promise<StormReport> {
  const { cpus = 2, revision = 'v5.15', preemption = true, programLifetime = 'held' } = options;
  const { bugs = [], emitter } = options;
  const guest = await createGuest({
    cpus,
    revision,
    preemption,
    programLifetime,
    bugs,
    ...(emitter === undefined ? {} : { emitter }),
  });
  try {
    return new Storm(guest, options).run();
  } finally {
    guest.close();
  }
}

class Storm {
  readonly #guest: Guest;
  readonly #kernel: Kernel;
  readonly #sim: Simulation;
  readonly #targets: Target[] = [];
  readonly #problems: string[] = [];
  readonly #ksyms: ReadonlySet<string>;
  #programs = 0;
  #attached = 0;
  #detached = 0;
  #failed = 0;
  #modules = 0;

  constructor(guest: Guest, options: StormOptions) {
    this.#guest = guest;
    this.#kernel = guest.kernel;
    this.#sim = new Simulation(guest.kernel, options);
    const { functions = 6 } = options;
    for (let i = 0; i < functions; i++) this.#targets.push(this.#function(i));
    this.#ksyms = new Set(this.#kernel.kallsyms.list().map(({ name }) => name));
    for (const target of this.#targets) {
      if (target.replaceable) continue;
      target.observer = this.#program(target, 'fentry', 'observer');
      this.#link(target.observer);
    }
    const { cpus = 2, tasks = 2 * cpus, operations = 60 } = options;
    for (let i = 0; i < tasks; i++) this.#spawn(`t${i}`, i % cpus);
    for (let i = 0; i < operations; i++) this.#sim.host('operation', () => this.#operation());
  }

  run(): StormReport {
    const ended = this.#sim.drain(100_000_000);
    if (ended) {
      this.#tearDown();
      this.#sim.drain();
      this.#checkEnd();
    }
    const { fault } = this.#sim;
    if (fault !== undefined) this.#problem(`${fault.task}: ${fault.fault.detail}`);
    const programs = this.#targets.flatMap((target) => target.programs);
    return {
      events: this.#sim.events,
      calls: this.#targets.reduce((sum, target) => sum + this.#calls(target), 0n),
      runs: programs.reduce((sum, program) => sum + program.runs(), 0n),
      attached: this.#attached,
      detached: this.#detached,
      failed: this.#failed,
      modulesLoaded: this.#modules,
      problems: this.#problems,
      history: this.#sim.history(),
    };
  }

  #problem(text: string): void {
    this.#problems.push(text);
  }

  // -- the world -----------------------------------------------------------------------------------

  #function(i: number): Target {
    const sort = i % 4;
    const slow = sort % 2 === 1;
    const callee = sort >= 2 ? this.#targets[i - 2] : undefined;
    const fn = this.#guest.addFunction(`f${i}`, {
      sleeps: sort === 1,
      ...(callee === undefined ? {} : { calls: callee.addr }),
      ...(sort === 2 ? { origin: 'kernel', plain: true } : {}),
      ...(i % 8 === 4 ? { retSize: 0 } : {}),
    });
    return this.#target(fn, { slow, callee, replaceable: sort === 2, removable: false });
  }

  #target(fn: GuestFunction, more: Pick<Target, 'slow' | 'callee' | 'replaceable' | 'removable'>): Target {
    return {
      ...fn,
      ...more,
      taskCalls: 0n,
      loaded: true,
      answers: new Set(),
      programs: [],
      attached: [],
      idle: [],
      observer: undefined,
    };
  }

  /** A task that calls functions until the host has nothing left to do, the last of them on its way out. */
  #spawn(name: string, cpu: number): void {
    let called: Target | undefined;
    let ending = false;
    const next = (): TaskCall | undefined => {
      if (called !== undefined) this.#checkReturn(task, called);
      called?.module.put();
      called = undefined;
      if (ending) return undefined;
      ending = this.#sim.waiting === 0;
      called = this.#one(this.#targets.filter(({ loaded }) => loaded));
      called.module.tryGet();
      called.taskCalls++;
      return { fn: called.addr, args: [BigInt(task.id), 1000n], exiting: ending };
    };
    const task = this.#sim.spawn(name, cpu, next);
  }

  /** What a call came back with, and that its task is in no section and may migrate again. */
  #checkReturn(task: Task, target: Target): void {
    const result = task.results.pop() ?? 0n;
    const isVoid = target.model.ret.sizeBytes === 0;
    if (!isVoid && result !== BigInt(task.id) + 1000n && !target.answers.has(result)) {
      this.#problem(`${target.name} returned ${result} to ${task.name}`);
    }
    const nestings = task.rcuReadLockNesting + task.trcReaderNesting + task.migrationDisabled;
    if (nestings !== 0) this.#problem(`${task.name} came back from ${target.name} with nestings`);
  }

  #program(target: Target, kind: AttachKind, role: 'observer' | 'any'): Program {
    const chance = (percent: number): boolean => role === 'any' && this.#sim.pick(1, 100) <= percent;
    const sleepable = target.slow && kind !== 'freplace' && chance(60);
    const callee = this.#callee(target, sleepable, chance);
    const modifies = kind === 'freplace' || kind === 'fmod_ret' || kind === 'lsm';
    const isVoid = target.model.ret.sizeBytes === 0;
    const returns = modifies && (kind === 'freplace' || chance(30)) ? 10 + this.#programs : 0;
    const made = this.#guest.addProgram(`${kind}${this.#programs++}`, kind, {
      sleepable,
      sleeps: sleepable && chance(50),
      returns,
      callsGetFuncIp: chance(20),
      ...(callee === undefined ? {} : { calls: callee.addr }),
    });
    const replaces = returns !== 0 && !(kind === 'lsm' && isVoid);
    if (replaces) target.answers.add(BigInt(returns));
    const program = { ...made, target, callee, replaces };
    target.programs.push(program);
    return program;
  }

  /** What a program calls: mostly nothing, else what it traces itself or a leaf of its class. */
  #callee(target: Target, sleepable: boolean, chance: (percent: number) => boolean): Target | undefined {
    if (target.removable || !chance(25)) return undefined;
    if (target.slow && !sleepable) return this.#targets[0];
    return chance(50) ? target : this.#targets[sleepable ? 1 : 0];
  }

  // -- operations of the host ----------------------------------------------------------------------

  #operation(): void {
    const draw = this.#sim.pick(1, 100);
    if (draw <= 42) this.#attachSome();
    else if (draw <= 84) this.#detachSome();
    else if (draw <= 90) this.#kernel.statsEnabled = !this.#kernel.statsEnabled;
    else if (draw <= 93) this.#loadModule();
    else if (draw <= 96) this.#unloadModule();
    else this.#failingAttach();
    this.#checkNow();
  }

  #attachSome(): void {
    const target = this.#one(this.#targets);
    if (!this.#room(target)) return;
    const kind = this.#kind(target);
    const again = target.idle.findIndex(({ prog }) => prog.kind === kind);
    if (again >= 0 && this.#sim.pick(1, 2) === 1) this.#link(...(target.idle.splice(again, 1) as [Program]));
    else this.#link(this.#program(target, kind, 'any'));
  }

  #room({ loaded, attached }: Target): boolean {
    return (
      loaded && attached.length < MOST_PROGRAMS && attached.every(({ prog }) => prog.kind !== 'freplace')
    );
  }

  #kind(target: Target): AttachKind {
    const kinds: AttachKind[] = ['fentry', 'fexit', 'lsm'];
    if (target.model.ret.sizeBytes > 0) kinds.push('fmod_ret');
    if (target.replaceable && target.attached.length === 0) kinds.push('freplace');
    return this.#one(kinds);
  }

  #link(program: Program): void {
    const { trampolines } = this.#kernel;
    const { target } = program;
    const tr = trampolines.get(this.#kernel, target.key, target);
    try {
      linkProg(this.#kernel, program.prog, tr);
    } catch (error) {
      trampolines.put(this.#kernel, tr);
      throw error;
    }
    this.#attached++;
    target.attached.push(program);
  }

  #unlink(program: Program): void {
    const { trampolines } = this.#kernel;
    const { target } = program;
    const tr = trampolines.get(this.#kernel, target.key, target);
    target.attached.splice(target.attached.indexOf(program), 1);
    this.#detached++;
    unlinkProg(this.#kernel, program.prog, tr);
    // the one just taken, and the one of its attaching
    trampolines.put(this.#kernel, tr);
    trampolines.put(this.#kernel, tr);
  }

  #detachSome(): void {
    const target = this.#one(this.#targets);
    const choice = target.attached.filter((program) => program !== target.observer);
    if (choice.length === 0) return;
    const program = this.#one(choice);
    this.#unlink(program);
    // Nothing holds a freplace program while it runs: its caller would, a program itself.
    if (program.prog.kind === 'freplace' || this.#sim.pick(1, 3) === 1) target.idle.push(program);
    else program.prog.put();
  }

  #loadModule(): void {
    if (this.#targets.some(({ removable, loaded }) => removable && loaded)) return;
    const fn = this.#guest.addFunction(`m${this.#modules++}`, { sleeps: true });
    this.#targets.push(
      this.#target(fn, { slow: true, callee: undefined, replaceable: false, removable: true }),
    );
  }

  #unloadModule(): void {
    const target = this.#targets.find(({ removable, loaded }) => removable && loaded);
    if (target === undefined) return;
    const used = target.module.references > 0;
    try {
      target.module.unload();
      target.loaded = false;
      for (const { prog } of target.idle.splice(0)) prog.put();
    } catch (error) {
      if (!used || !(error instanceof KernelError) || error.code !== 'EBUSY') throw error;
    }
    if (!target.loaded && target.attached.length > 0) {
      this.#problem(`${target.name} is unloaded while it is traced`);
    }
  }

  /** An attach that fails somewhere must leave everything as it was. */
  #failingAttach(): void {
    const target = this.#one(this.#targets);
    if (!this.#room(target)) return;
    const traced = target.attached.length > 0;
    const points: FailPoint[] = ['alloc-progs', 'alloc-im', 'charge', 'alloc-image', 'percpu-ref', 'emit'];
    points.push(...((traced ? ['modify'] : ['alloc-trampoline', 'register']) as FailPoint[]));
    const program = this.#program(target, 'fentry', 'any');
    const before = this.#state(target);
    this.#kernel.fail.arm(this.#one(points));
    try {
      this.#link(program);
      this.#problem(`an attach to ${target.name} did not fail`);
    } catch (error) {
      if (!(error instanceof KernelError)) throw error;
      this.#failed++;
    }
    this.#kernel.fail.disarm();
    if (this.#state(target) !== before) this.#problem(`a failed attach to ${target.name} left something`);
    program.prog.put();
  }

  #state(target: Target): string {
    const { images, modmem, trampolines, retired, machine } = this.#kernel;
    const site = machine.memory.bytes(target.addr, NOP5.length).join();
    return [images.size, retired.size, modmem.pages, trampolines.list().length, site].join(' ');
  }

  // -- what must hold ------------------------------------------------------------------------------

  /** After every operation. */
  #checkNow(): void {
    const { images, modmem, warnings } = this.#kernel;
    if (modmem.pages !== images.size) this.#problem(`${modmem.pages} pages charged, ${images.size} images`);
    for (const warning of warnings.splice(0)) this.#problem(warning);
  }

  #tearDown(): void {
    for (const target of this.#targets) {
      if (target.observer !== undefined) this.#checkObserver(target.observer);
      for (const program of [...target.attached]) {
        this.#unlink(program);
        target.idle.push(program);
      }
      for (const { prog } of target.idle.splice(0)) prog.put();
    }
  }

  #checkEnd(): void {
    const kernel = this.#kernel;
    this.#checkNow();
    const counts = {
      images: kernel.images.size,
      'retired images': kernel.retired.size,
      'pages charged': kernel.modmem.pages,
      trampolines: kernel.trampolines.list().length,
      'live tasks': this.#sim.sched.tasks.length,
      'programs not freed': this.#targets
        .flatMap(({ programs }) => programs)
        .filter(({ prog }) => !prog.freed).length,
      'callbacks pending': RCU_FLAVOURS.reduce((sum, name) => sum + kernel.grace.flavours[name].pending, 0),
      'might_fault splats': kernel.machine.cpus.reduce((sum, { id }) => sum + kernel.mightFaultSplats(id), 0),
    };
    for (const [what, count] of Object.entries(counts)) {
      if (count !== 0) this.#problem(`${count} ${what} in the end`);
    }
    for (const { name } of kernel.kallsyms.list()) {
      const module = this.#targets.some((target) => target.name === name && target.loaded);
      if (!module && !this.#ksyms.has(name)) this.#problem(`symbol ${name} is left`);
    }
    for (const target of this.#targets.filter(({ loaded }) => loaded)) this.#checkTarget(target);
  }

  #checkTarget(target: Target): void {
    const site = this.#kernel.machine.memory.bytes(target.addr, NOP5.length);
    if (NOP5.some((byte, i) => site[i] !== byte)) this.#problem(`${target.name} is not as it was`);
    if (target.module.references !== 0) this.#problem(`${target.name}: module references are left`);
    const replaced = target.programs.reduce((sum, { replaces, runs }) => sum + (replaces ? runs() : 0n), 0n);
    const calls = this.#calls(target);
    if (target.runs() + replaced !== calls) {
      this.#problem(`${target.name}: ${calls} calls, but ${target.runs()} runs and ${replaced} replacements`);
    }
  }

  /** It ran in every call but those that the recursion counter refused, and is not running now. */
  #checkObserver({ target, runs, prog }: Program): void {
    let misses = 0n;
    for (const { id } of this.#kernel.machine.cpus) {
      const counters = prog.counters(id);
      misses += counters.misses;
      if (counters.active !== 0) this.#problem(`${prog.name} runs on CPU ${id} in the end`);
    }
    const calls = this.#calls(target);
    if (runs() + misses !== calls) {
      this.#problem(`${prog.name}: ${calls} calls, but ${runs()} runs and ${misses} misses`);
    }
  }

  /** How often a function was called: by tasks, by the function that calls it, by programs. */
  #calls(target: Target): bigint {
    const by = this.#targets.filter(({ callee }) => callee === target);
    const programs = this.#targets.flatMap(({ programs }) =>
      programs.filter(({ callee }) => callee === target),
    );
    return [...by, ...programs].reduce((sum, { runs }) => sum + runs(), target.taskCalls);
  }

  #one<T>(from: readonly T[]): T {
    return from[this.#sim.pick(0, Math.max(from.length - 1, 0))] as T;
  }
}
