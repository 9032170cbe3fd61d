/*
 * One history: the model and the world side by side. Every operation is predicted by the model, done in
 * the world, and compared; after it everything that can be seen is compared as well.
 */

import { errorOf, LIST_KINDS, type Verdict } from '../../../check/index.ts';
import type { FailPoint, RcuFlavourName, Task, TrampImage, Trampoline } from '../../../tramp/index.ts';
import { linkProg, RCU_FLAVOURS, unlinkProg } from '../../../tramp/index.ts';
import { Model, type ModelFunction, type ModelProgram, ModelTask, type SliceEvents } from './model.ts';
import { NOP, PROGRAMS, type World } from './world.ts';

/** A few instructions on one CPU while text is being poked. */
export interface Meanwhile {
  readonly cpu: number;
  readonly steps: number;
}

/** Most tasks at a time. */
const MAX_TASKS = 6;
/** Instructions after which a task that goes on must be done: the longest call has about 600. */
const DRAIN_STEPS = 5000;

export class History {
  readonly world: World;
  readonly model: Model;
  readonly #before: {
    readonly prog: ModelProgram;
    readonly runs: bigint;
    readonly misses: readonly bigint[];
    readonly counted: bigint;
  }[] = [];
  readonly #functionRuns: bigint[];
  #tasks = 0;
  /** Values that the statistics switch may have while it is being thrown. */
  #stats: readonly boolean[] = [false];

  constructor(world: World) {
    const { programs, functions, guest } = world;
    this.world = world;
    this.model = new Model(guest.kernel.revision, guest.machine.cpus.length, programs);
    for (const prog of this.model.programs) this.#remember(prog);
    this.#functionRuns = functions.map(({ runs }) => runs());
  }

  #remember(prog: ModelProgram): void {
    const counters = this.#counters(prog);
    this.#before.push({
      prog,
      runs: prog.real.runs(),
      misses: counters.map(({ misses }) => misses),
      counted: counters.reduce((sum, { runs }) => sum + runs, 0n),
    });
  }

  #counters({ real }: ModelProgram) {
    return this.world.guest.machine.cpus.map(({ id }) => real.prog.counters(id));
  }

  get kernel() {
    return this.world.guest.kernel;
  }

  fn(index: number): ModelFunction {
    return this.model.functions[index % this.model.functions.length] as ModelFunction;
  }

  prog(index: number): ModelProgram {
    return this.model.programs[index % this.model.programs.length] as ModelProgram;
  }

  // -- what can be done now -------------------------------------------------------------------------

  /** Nothing in the manager keeps a freplace program from standing in for two functions: its callers do. */
  attachable(fn: ModelFunction): readonly ModelProgram[] {
    return this.model.programs.filter(
      ({ spec, at }) => spec.kind !== 'freplace' || at === undefined || at === fn,
    );
  }

  /** Programs that are not attached; any when all are. */
  free(fn: ModelFunction): readonly ModelProgram[] {
    const free = this.model.programs.filter(({ at }) => at === undefined);
    return free.length > 0 ? free : this.attachable(fn);
  }

  get attached(): readonly ModelProgram[] {
    return this.model.programs.filter(({ at }) => at !== undefined);
  }

  get puttable(): readonly ModelFunction[] {
    return this.model.functions.filter((fn) => this.#canPut(fn));
  }

  get unloadable(): readonly ModelFunction[] {
    return this.model.functions.filter((fn) => this.#canUnload(fn));
  }

  get replaceable(): readonly ModelProgram[] {
    return this.model.programs.filter((prog) => this.#canReplace(prog));
  }

  get mayCall(): boolean {
    return this.model.tasks.length < MAX_TASKS;
  }

  /** CPUs that have a task, or one to put there. */
  get busy(): readonly number[] {
    const { sched } = this.world;
    return this.#cpus.filter((cpu) => sched.running(cpu) !== undefined || sched.runnable(cpu).length > 0);
  }

  get preemptible(): readonly number[] {
    return this.#cpus.filter((cpu) => this.world.sched.preemptible(cpu));
  }

  get asleep(): readonly Task[] {
    return this.world.sched.asleep;
  }

  /** Tasks that another CPU might get. */
  get movable(): readonly ModelTask[] {
    return this.model.cpus > 1 ? this.model.tasks.filter(({ real }) => !real.onCpu) : [];
  }

  /** Grace periods that somebody waits for. */
  get waitedFor(): readonly RcuFlavourName[] {
    return RCU_FLAVOURS.filter((name) => this.kernel.grace.flavours[name].pending > 0);
  }

  get unsettled(): boolean {
    return this.waitedFor.length > 0 || this.kernel.grace.pendingWork > 0 || this.kernel.retired.size > 0;
  }

  get #cpus(): readonly number[] {
    return this.world.guest.machine.cpus.map(({ id }) => id);
  }

  // -- operations of the host ---------------------------------------------------------------------

  get(fn: ModelFunction, inject?: FailPoint): boolean {
    this.#arm(inject);
    const verdict = this.model.get(fn, inject);
    this.#do(verdict, () => this.world.get(fn.index));
    return verdict === undefined;
  }

  /** Whether the last reference may be dropped: the kernel does not look at fmod_ret programs. */
  #canPut(fn: ModelFunction): boolean {
    if (fn.references > 1) return true;
    const warned = fn.lists.fentry.length + fn.lists.fexit.length > 0;
    return fn.references === 1 && (warned || (fn.image === undefined && fn.extension === undefined));
  }

  put(fn: ModelFunction): void {
    const tr = this.#trampoline(fn);
    this.model.put(fn);
    this.kernel.trampolines.put(this.kernel, tr);
    this.check();
  }

  attach(
    fn: ModelFunction,
    prog: ModelProgram,
    inject?: FailPoint,
    meanwhile: readonly Meanwhile[] = [],
  ): void {
    if (fn.references === 0 && !this.get(fn)) return;
    const tr = this.#trampoline(fn);
    this.#arm(inject);
    const verdict = this.model.attach(fn, prog, tr.key, inject);
    this.#do(verdict, () => linkProg(this.kernel, prog.real.prog, tr), meanwhile);
  }

  detach(prog: ModelProgram, inject?: FailPoint, meanwhile: readonly Meanwhile[] = []): void {
    const fn = prog.at;
    if (fn === undefined) return;
    const tr = this.#trampoline(fn);
    const mayFail = this.#mayFail(fn, prog, inject) ? inject : undefined;
    this.#arm(mayFail);
    const verdict = this.model.detach(prog, fn, tr.key, mayFail);
    this.#do(verdict, () => unlinkProg(this.kernel, prog.real.prog, tr), meanwhile);
  }

  /** When taking the last call or jump away fails, the function goes on calling freed text: tested elsewhere. */
  #mayFail(fn: ModelFunction, prog: ModelProgram, inject: FailPoint | undefined): boolean {
    if (fn.listOf(prog) === 'replace') return inject !== 'poke';
    if (fn.attached.length > 1) return true;
    return inject !== 'unregister' && inject !== (fn.isPlain ? 'poke' : 'ftrace-hash');
  }

  switchStats(meanwhile: readonly Meanwhile[] = []): void {
    this.#stats = [true, false];
    const on = !this.model.statsOn;
    this.model.statsOn = on;
    this.#do(
      undefined,
      () => {
        this.kernel.statsEnabled = on;
      },
      meanwhile,
    );
    this.#stats = [on];
  }

  /** Unloads a function's module and loads it again; refused while it is traced. */
  #canUnload(fn: ModelFunction): boolean {
    const idle = this.model.tasks.every((task) => task.fn !== fn);
    return fn.inModule && (this.model.moduleReferences(fn) > 0 || (idle && !fn.inTable));
  }

  unload(fn: ModelFunction): void {
    const target = this.world.functions[fn.index];
    const verdict = this.model.moduleReferences(fn) === 0 ? undefined : 'EBUSY';
    this.#do(verdict, () => {
      target?.module.unload();
      this.world.reload(fn.index);
    });
    if (verdict !== undefined) return;
    this.#functionRuns[fn.index] = -fn.runs;
  }

  /** Whether a program may be unloaded: its own grace period does not wait for old images, as L1 and L2 show. */
  #canReplace(prog: ModelProgram): boolean {
    if (prog.at !== undefined) return false;
    const called = this.model.functions.some(({ image }) =>
      LIST_KINDS.some((kind) => image?.links[kind].some((link) => link.prog === prog)),
    );
    return this.kernel.programLifetime === 'held' ? true : !called && this.model.tasks.length === 0;
  }

  /** Gives a program back and loads it anew. */
  replaceProgram(prog: ModelProgram): void {
    const index = this.model.programs.indexOf(prog);
    this.#compareProgram(prog, false);
    this.world.replaceProgram(index);
    const real = this.world.programs[index];
    const spec = PROGRAMS[index];
    if (real === undefined || spec === undefined) throw new RangeError('program');
    const fresh = new (prog.constructor as typeof ModelProgram)(
      spec,
      real,
      this.model.revision,
      this.model.cpus,
    );
    this.model.programs[index] = fresh;
    this.#remember(fresh);
    this.check();
  }

  // -- time -----------------------------------------------------------------------------------------

  spawn(fn: ModelFunction, cpu: number, args: readonly [bigint, bigint]): void {
    const real = this.world.spawn(`t${++this.#tasks}`, cpu, fn.index, args);
    this.model.tasks.push(new ModelTask(real, fn, args));
  }

  /** Runs a CPU, after putting one of its tasks on it when it is idle. */
  go(cpu: number, steps: number, pick: number): void {
    const { sched } = this.world;
    if (sched.running(cpu) === undefined) {
      const queue = sched.runnable(cpu);
      const task = queue[pick % Math.max(queue.length, 1)];
      if (task === undefined) return;
      sched.dispatch(task);
    }
    this.#slice(cpu, steps);
    this.check();
  }

  #slice(cpu: number, steps: number): void {
    const running = this.world.sched.running(cpu);
    const task = this.model.tasks.find(({ real }) => real === running);
    if (task === undefined) return;
    if (!task.started) task.start();
    const { programs } = task;
    const others = this.model.insideOn(cpu, task);
    const fnRuns = this.world.functions[task.fn.index]?.runs ?? (() => 0n);
    const look = () => programs.map(({ real }) => ({ ran: real.runs(), ...real.prog.counters(cpu) }));
    const [before, functionBefore] = [look(), fnRuns()];
    const outcome = this.world.run(cpu, steps);
    if (outcome.what === 'fault') throw new RangeError(`fault: ${outcome.fault.detail}`);
    if (outcome.what === 'gone') {
      this.model.tasks = this.model.tasks.filter((one) => one !== task);
      return;
    }
    const [after, functionAfter] = [look(), fnRuns()];
    const change = <T extends bigint | number>(
      of: (row: (typeof after)[number]) => T,
    ): Map<ModelProgram, T> => {
      const rows = programs.map((prog, i) => {
        const [was, is] = [before[i], after[i]];
        if (was === undefined || is === undefined) throw new RangeError('programs');
        return [prog, (of(is) as never) - (of(was) as never)] as [ModelProgram, T];
      });
      return new Map(rows.filter(([, by]) => Number(by) !== 0));
    };
    const events: SliceEvents = {
      ran: change(({ ran }) => ran),
      missed: change(({ misses }) => misses),
      active: change(({ active }) => active),
      functionRuns: functionAfter - functionBefore,
    };
    task.slice(events, cpu, others, this.#stats);
    if (outcome.what === 'returned') task.finish(task.real.results.at(-1) ?? 0n);
  }

  preempt(cpu: number): void {
    this.world.sched.preempt(cpu);
    this.check();
  }

  wake(task: Task): void {
    this.world.sched.wake(task);
  }

  /** To another CPU; a task inside of a program stays. */
  migrate(task: ModelTask, pick: number): void {
    const others = this.#cpus.filter((cpu) => cpu !== task.real.cpu);
    const moved = this.world.sched.migrate(task.real, others[pick % others.length] ?? 0);
    if (moved && task.inside !== undefined) throw new RangeError('migrated inside of a program');
  }

  tick(flavour: RcuFlavourName): void {
    this.kernel.grace.tick(flavour);
    this.kernel.grace.flavours[flavour].run();
    this.check();
  }

  work(): void {
    this.kernel.grace.runWork();
    this.check();
  }

  settle(): void {
    this.kernel.settle();
    this.check();
  }

  // -- comparing ------------------------------------------------------------------------------------

  #arm(inject: FailPoint | undefined): void {
    if (inject !== undefined) this.kernel.fail.arm(inject);
  }

  #trampoline(fn: ModelFunction) {
    const key = this.world.functions[fn.index]?.key;
    const tr = this.kernel.trampolines.list().find((one) => one.key === key);
    if (tr === undefined) throw new RangeError(`no trampoline of ${fn.name}`);
    return tr;
  }

  /** Does what the model has done already. Other CPUs run on while text is poked. */
  #do(verdict: Verdict, run: () => unknown, meanwhile: readonly Meanwhile[] = []): void {
    const slices = [...meanwhile];
    this.kernel.sync = () => {
      const next = slices.shift();
      if (next !== undefined) this.#slice(next.cpu % this.model.cpus, next.steps);
    };
    const code = errorOf(run)?.code;
    this.kernel.sync = () => undefined;
    this.kernel.fail.disarm();
    if (code !== verdict) throw new RangeError(`ended with ${code}, not ${verdict}`);
    this.check();
  }

  /** Everything that can be seen. */
  check(): void {
    const { kernel, model } = this;
    const live: TrampImage[] = [];
    const table = new Map(kernel.trampolines.list().map((tr) => [tr.key, tr]));
    for (const fn of model.functions) {
      const im = this.#checkFunction(fn, table);
      if (im !== undefined) live.push(im);
    }
    same('live images', kernel.images.size - kernel.retired.size, live.length);
    const room = [...kernel.images].reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
    same('charged bytes', kernel.modmem.bytes, room);
    for (const im of kernel.images) {
      same('symbol', kernel.kallsyms.lookup(im.image)?.ksym, im.ksym);
      const isLive = live.includes(im);
      same('state', im.state === 'live', isLive);
      if (isLive && model.tasks.length === 0) same('references', im.pcref.references(), 1n);
    }
    for (const { spec, at, real } of model.programs) {
      if (spec.kind !== 'freplace') same(`${spec.name} is linked`, real.prog.linked, at !== undefined);
    }
    same('warnings', kernel.warnings.length, model.warnings);
  }

  #checkFunction(fn: ModelFunction, table: ReadonlyMap<bigint, Trampoline>): TrampImage | undefined {
    const { world, model } = this;
    const target = world.functions[fn.index];
    if (target === undefined) throw new RangeError('function');
    const tr = table.get(target.key);
    same(`${fn.name}: in the table`, tr !== undefined, fn.inTable);
    same(`${fn.name}: module references`, target.module.references, model.moduleReferences(fn));
    if (tr === undefined) {
      same(`${fn.name}: site`, world.site(fn.index), NOP);
      return undefined;
    }
    same(`${fn.name}: references`, tr.references, fn.references);
    same(`${fn.name}: selector`, tr.selector, fn.selector);
    for (const kind of LIST_KINDS) {
      const [real, wanted] = [tr.progs[kind], fn.lists[kind]];
      same(`${fn.name}: ${kind} programs`, real.length, wanted.length);
      real.forEach((prog, i) => {
        same(`${fn.name}: ${kind} program ${i}`, prog, wanted[i]?.prog.real.prog);
      });
    }
    same(`${fn.name}: extension`, tr.extension, fn.extension?.real.prog);
    same(`${fn.name}: image`, tr.curImage?.ksym.name, fn.image?.name);
    const bytes =
      tr.curImage !== undefined
        ? world.patched(fn.index, 'CALL', tr.curImage.image)
        : fn.extension !== undefined
          ? world.patched(fn.index, 'JUMP', fn.extension.real.prog.bpfFunc)
          : NOP;
    same(`${fn.name}: site`, world.site(fn.index), bytes);
    return tr.curImage;
  }

  #compareProgram(prog: ModelProgram, atRest: boolean): void {
    const before = this.#before.find((one) => one.prog === prog);
    if (before === undefined) throw new RangeError('program');
    const { spec, real, runs, misses, countedAtLeast, countedAtMost } = prog;
    same(`${spec.name}: runs`, real.runs() - before.runs, runs);
    if (!atRest) return;
    const counters = this.#counters(prog);
    counters.forEach((counter, cpu) => {
      same(`${spec.name}: misses`, counter.misses - (before.misses[cpu] ?? 0n), misses[cpu]);
      same(`${spec.name}: active`, counter.active, 0);
    });
    const counted = counters.reduce((sum, counter) => sum + counter.runs, 0n) - before.counted;
    if (counted < countedAtLeast || counted > countedAtMost) {
      throw new RangeError(`${spec.name}: counted ${counted}, not ${countedAtLeast}..${countedAtMost}`);
    }
  }

  /** Lets all tasks finish, takes everything away, and checks that nothing is left. */
  end(): void {
    const { kernel, model, world } = this;
    for (let left = DRAIN_STEPS; model.tasks.length > 0; left--) {
      if (left === 0) throw new RangeError('tasks that do not end');
      for (const task of [...this.asleep]) this.wake(task);
      for (const cpu of this.busy) this.go(cpu, 1000, 0);
    }
    if (model.statsOn) this.switchStats();
    for (const prog of this.attached) this.detach(prog);
    for (const fn of model.functions) {
      // A detach that failed leaves the image there: one more attach and detach takes it away.
      const [spare] = model.programs;
      if (fn.image !== undefined && spare !== undefined) {
        this.attach(fn, spare);
        this.detach(spare);
      }
      if (fn.inTable && fn.references === 0) this.get(fn);
      while (fn.references > 0) this.put(fn);
    }
    this.settle();
    for (const prog of model.programs) this.#compareProgram(prog, true);
    model.functions.forEach(({ name, runs }, i) => {
      same(`${name}: runs`, (world.functions[i]?.runs() ?? 0n) - (this.#functionRuns[i] ?? 0n), runs);
    });
    // those that keep a module are loaded anew, so that the next history finds none kept
    const holders = new Set(model.functions.flatMap((fn) => [...fn.holders]));
    world.programs.forEach((real, i) => {
      if (model.revision === 'v6.12' && holders.has(real)) world.replaceProgram(i);
    });
    kernel.settle();
    for (const fn of model.functions) same(`${fn.name}: modules kept`, model.moduleReferences(fn), 0);
    same('images', kernel.images.size, 0);
    same('programs', kernel.progs.size, PROGRAMS.length);
    same('trampolines', kernel.trampolines.list().length, 0);
    same('tasks', world.sched.tasks.length, 0);
    const left = kernel.kallsyms.list().filter(({ name }) => name.startsWith('bpf_trampoline_'));
    same('symbols', left.length, 0);
    for (const flavour of Object.values(kernel.grace.flavours)) same(flavour.name, flavour.pending, 0);
    same('work', kernel.grace.pendingWork, 0);
    kernel.warnings.length = 0;
    world.histories++;
  }
}

function same<T>(what: string, found: T, wanted: T | undefined): void {
  if (found !== wanted) throw new RangeError(`${what}: ${String(found)}, not ${String(wanted)}`);
}
