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

import {
  createGuest,
  type FunctionOptions,
  type Guest,
  type GuestFunction,
  type GuestProgram,
} from '../../check/index.ts';
import { NOP5 } from '../../jit/index.ts';
import { KernelError } from '../../lib/index.ts';
import {
  type AttachKind,
  type FailPoint,
  type Kernel,
  type KernelOptions,
  type Livepatch,
  linkProg,
  livepatch,
  RCU_FLAVOURS,
  Simulation,
  type SimulationOptions,
  type Task,
  type TaskCall,
  unlinkProg,
} from '../../tramp/index.ts';

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
  /** Calls that a task makes on average before it exits and another one comes. Default 10. */
  readonly lifespan?: number;
  /** Of 100 detached programs, how many stay loaded and are attached again. Default 50; the others are freed. */
  readonly reuse?: number;
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
  /** Live patches that came or went. */
  readonly patched: number;
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
  /** What it may return beside its own result. */
  readonly answers: Set<bigint>;
  /** Programs made for it, all there ever were; those attached; those that could be attached again. */
  readonly programs: Program[];
  readonly attached: Program[];
  readonly idle: Program[];
  /** What live patches have run in its place: it does the same. Undefined where a trampoline cannot share the site. */
  readonly twin: GuestFunction | undefined;
  patch: Livepatch | undefined;
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
  /** Those that are loaded. */
  readonly #loaded: Target[] = [];
  readonly #problems: string[] = [];
  readonly #ksyms: ReadonlySet<string>;
  readonly #reuse: number;
  readonly #lifespan: number;
  #tasks = 0;
  #programs = 0;
  #attached = 0;
  #detached = 0;
  #failed = 0;
  #modules = 0;
  #patched = 0;

  constructor(guest: Guest, options: StormOptions) {
    this.#guest = guest;
    this.#kernel = guest.kernel;
    this.#sim = new Simulation(guest.kernel, options);
    this.#reuse = options.reuse ?? 50;
    this.#lifespan = options.lifespan ?? 10;
    const { functions = 6 } = options;
    for (let i = 0; i < functions; i++) this.#function(i);
    this.#ksyms = new Set(this.#kernel.kallsyms.list().map(({ name }) => name));
    for (const target of this.#targets) {
      if (target.replaceable) continue;
      target.observer = this.#program(target, 'fentry', 'observer');
      this.#link(target.observer);
    }
    const { cpus = 2, tasks = 2 * cpus, operations = 60 } = options;
    for (let i = 0; i < tasks; i++) this.#spawn(i % cpus);
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
      patched: this.#patched,
      problems: this.#problems,
      history: this.#sim.history(),
    };
  }

  #problem(text: string): void {
    this.#problems.push(text);
  }

  // -- the world -----------------------------------------------------------------------------------

  #function(i: number): void {
    const sort = i % 4;
    const slow = sort % 2 === 1;
    const callee = sort >= 2 ? this.#targets[i - 2] : undefined;
    const body: FunctionOptions = {
      sleeps: sort === 1,
      ...(callee === undefined ? {} : { calls: callee.addr }),
      ...(i % 8 === 4 ? { retSize: 0 } : {}),
    };
    const fn = this.#guest.addFunction(`f${i}`, {
      ...body,
      ...(sort === 2 ? { origin: 'kernel', plain: true } : {}),
    });
    const shares = sort !== 2 && this.#kernel.rules.ftrace === 'ops';
    const twin = shares ? this.#guest.addFunction(`twin of f${i}`, body) : undefined;
    this.#add(fn, {
      twin,
      slow,
      callee,
      replaceable: sort === 2,
      removable: false,
    });
  }

  #add(
    fn: GuestFunction,
    more: Pick<Target, 'slow' | 'callee' | 'replaceable' | 'removable' | 'twin'>,
  ): void {
    const target: Target = {
      ...fn,
      ...more,
      runs: () => fn.runs() + (more.twin?.runs() ?? 0n),
      patch: undefined,
      taskCalls: 0n,
      answers: new Set(),
      programs: [],
      attached: [],
      idle: [],
      observer: undefined,
    };
    this.#targets.push(target);
    this.#loaded.push(target);
  }

  /** A task that calls functions, the last of them on its way out; another one follows while the host has things to do. */
  #spawn(cpu: number): void {
    let called: Target | undefined;
    let ending = false;
    const next = (): TaskCall | undefined => {
      if (called !== undefined) this.#checkReturn(task, called);
      called?.module.put();
      called = undefined;
      const over = this.#sim.waiting === 0;
      if (ending && !over) this.#spawn(task.cpu);
      if (ending) return undefined;
      ending = over || this.#sim.pick(1, this.#lifespan) === 1;
      called = this.#one(this.#loaded);
      called.module.tryGet();
      called.taskCalls++;
      return { fn: called.addr, args: [BigInt(task.id), 1000n], exiting: ending };
    };
    const task = this.#sim.spawn(`t${this.#tasks++}`, cpu, next);
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
    // Without a recursion counter, as LSM programs have none in v6, it must not call what leads back to it.
    const counted = kind !== 'freplace' && (kind !== 'lsm' || !this.#kernel.rules.cookies);
    const callee = counted ? this.#callee(target, sleepable, chance) : undefined;
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
    else if (draw <= 98 || this.#kernel.rules.ftrace === 'direct') this.#failingAttach();
    else this.#patch(this.#one(this.#loaded));
    this.#checkNow();
  }

  #attachSome(): void {
    const target = this.#one(this.#loaded);
    if (!this.#room(target)) return;
    this.#link(this.#take(target, this.#kind(target)));
  }

  /** One that was detached, or a new one. */
  #take(target: Target, kind: AttachKind): Program {
    const idle = target.idle.findIndex(({ prog }) => prog.kind === kind);
    const [again] = idle < 0 ? [] : target.idle.splice(idle, 1);
    return again ?? this.#program(target, kind, 'any');
  }

  #retire(program: Program): void {
    // Nothing holds a freplace program while it runs: its caller would, a program itself.
    const stays = program.prog.kind === 'freplace' || this.#sim.pick(1, 100) <= this.#reuse;
    if (stays) program.target.idle.push(program);
    else program.prog.put();
  }

  #room({ attached }: Target): boolean {
    return attached.length < MOST_PROGRAMS && attached.every(({ prog }) => prog.kind !== 'freplace');
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
    this.#kernel.trace(`attach ${program.prog.name} to ${target.name}`);
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
    this.#kernel.trace(`detach ${program.prog.name} from ${target.name}`);
    target.attached.splice(target.attached.indexOf(program), 1);
    this.#detached++;
    unlinkProg(this.#kernel, program.prog, tr);
    // the one just taken, and the one of its attaching
    trampolines.put(this.#kernel, tr);
    trampolines.put(this.#kernel, tr);
  }

  #detachSome(): void {
    const target = this.#one(this.#loaded);
    const choice = target.attached.filter((program) => program !== target.observer);
    if (choice.length === 0) return;
    const program = this.#one(choice);
    this.#unlink(program);
    this.#retire(program);
  }

  /** Patches a function, or takes its patch away. */
  #patch(target: Target): void {
    if (target.twin === undefined) return;
    this.#patched++;
    this.#kernel.trace(`${target.patch === undefined ? 'patch' : 'unpatch'} ${target.name}`);
    if (target.patch === undefined) {
      target.patch = livepatch(this.#kernel, target.addr, target.twin.addr);
      return;
    }
    target.patch.remove();
    target.patch = undefined;
  }

  #loadModule(): void {
    if (this.#loaded.some(({ removable }) => removable)) return;
    const fn = this.#guest.addFunction(`m${this.#modules++}`, { sleeps: true });
    this.#add(fn, { slow: true, callee: undefined, replaceable: false, removable: true, twin: undefined });
  }

  #unloadModule(): void {
    const target = this.#loaded.find(({ removable }) => removable);
    if (target === undefined) return;
    const inUse = target.module.references > 0;
    try {
      target.module.unload();
    } catch (error) {
      if (inUse && error instanceof KernelError && error.code === 'EBUSY') return;
      throw error;
    }
    this.#loaded.splice(this.#loaded.indexOf(target), 1);
    if (target.attached.length > 0) this.#problem(`${target.name} is unloaded while it is traced`);
    for (const { prog } of target.idle.splice(0)) prog.put();
  }

  /** An attach that fails somewhere must leave everything as it was. */
  #failingAttach(): void {
    const target = this.#one(this.#loaded);
    if (!this.#room(target)) return;
    const traced = target.attached.length > 0;
    const points: FailPoint[] = ['alloc-progs', 'alloc-im', 'charge', 'alloc-image', 'percpu-ref', 'emit'];
    points.push(...((traced ? ['modify'] : ['alloc-trampoline', 'register']) as FailPoint[]));
    if (this.#kernel.rules.imageMemory === 'pack') points.push('size', 'protect');
    const program = this.#take(target, 'fentry');
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
    this.#retire(program);
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
    const room = [...images].reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
    if (modmem.bytes !== room) this.#problem(`${modmem.bytes} bytes charged, ${room} taken by images`);
    for (const warning of warnings.splice(0)) this.#problem(warning);
  }

  #tearDown(): void {
    for (const target of this.#targets) {
      if (target.patch !== undefined) this.#patch(target);
      if (target.observer !== undefined) this.#checkObserver(target.observer);
      for (const program of [...target.attached]) {
        this.#unlink(program);
        target.idle.push(program);
      }
      for (const program of target.idle) this.#checkIdle(program);
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
      const module = this.#loaded.some((target) => target.name === name);
      if (!module && !this.#ksyms.has(name)) this.#problem(`symbol ${name} is left`);
    }
    for (const target of this.#loaded) this.#checkTarget(target);
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

  /** It ran in every call but those that the recursion counter refused. */
  #checkObserver({ target, runs, prog }: Program): void {
    const misses = this.#kernel.machine.cpus.reduce((sum, { id }) => sum + prog.counters(id).misses, 0n);
    const calls = this.#calls(target);
    if (runs() + misses !== calls) {
      this.#problem(`${prog.name}: ${calls} calls, but ${runs()} runs and ${misses} misses`);
    }
  }

  /** No task is left, so no CPU runs it; and no statistics were counted but of its runs. */
  #checkIdle({ prog, runs }: Program): void {
    let counted = 0n;
    for (const { id } of this.#kernel.machine.cpus) {
      const counters = prog.counters(id);
      counted += counters.runs;
      if (counters.active !== 0)
        this.#problem(`${prog.name} is active ${counters.active | 0} on CPU ${id} in the end`);
    }
    if (counted > runs()) this.#problem(`${prog.name}: ${runs()} runs, but ${counted} counted`);
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
