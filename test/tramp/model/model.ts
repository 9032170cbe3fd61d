/*
 * What a kernel with trampolines must do, in plain TypeScript: the judge's model of the table, and with it
 *
 *   a call                takes the image that stands at the entry when its first instruction is
 *                         executed, and then owes a plan: these programs in this order, the function
 *                         between them, this result
 *
 * A call in flight may see the old image; whether a retired image still runs its fexit programs depends
 * on where the call was, so that part of its plan may be left out, but only as a whole.
 */

import {
  type GuestProgram,
  type ListKind,
  ModelFunction as TableFunction,
  type ModelImage as TableImage,
  TableModel,
  ModelProgram as TableProgram,
  type Verdict,
} from '../../../check/index.ts';
import type { ManagedRevision, Task } from '../../../tramp/index.ts';
import { FUNCTIONS, PROGRAMS, type ProgramSpec } from './world.ts';

/** A loaded program. */
export class ModelProgram extends TableProgram {
  readonly spec: ProgramSpec;
  readonly real: GuestProgram;
  declare at: ModelFunction | undefined;
  runs = 0n;
  /** By CPU. */
  readonly misses: bigint[];
  /** What statistics may show: switched while the program ran, they may count it or not. */
  countedAtLeast = 0n;
  countedAtMost = 0n;

  /** Whether a recursion counter stands around it: of LSM programs not from v6.1 on. */
  readonly counts: boolean;

  constructor(spec: ProgramSpec, real: GuestProgram, revision: ManagedRevision, cpus: number) {
    super(spec.name, spec.kind, spec.returns);
    this.counts = spec.kind !== 'lsm' || revision === 'v5.13' || revision === 'v5.15';
    this.spec = spec;
    this.real = real;
    this.misses = Array.from({ length: cpus }, () => 0n);
  }
}

export type ModelImage = TableImage<ModelProgram>;

/** A traced function and its trampoline. */
export class ModelFunction extends TableFunction<ModelProgram> {
  readonly index: number;
  /** Runs of its own code. */
  runs = 0n;
  /** Programs that were attached to it: v6.12 has them keep its module until they are freed. */
  readonly holders: Set<GuestProgram> = new Set();

  constructor(index: number) {
    const options = FUNCTIONS[index];
    if (options === undefined) throw new RangeError(`function ${index}`);
    super({
      name: options.name,
      inModule: options.origin === 'module',
      isVoid: options.retSize === 0,
      isPlain: options.plain === true,
    });
    this.index = index;
  }
}

/** One thing that a call still has to do. */
type PlanItem = { readonly prog: ModelProgram; readonly list: ListKind | 'replace' } | 'function';

/** What happened to programs and functions in one slice of one task. */
export interface SliceEvents {
  readonly ran: ReadonlyMap<ModelProgram, bigint>;
  readonly missed: ReadonlyMap<ModelProgram, bigint>;
  /** Change of the recursion counter. */
  readonly active: ReadonlyMap<ModelProgram, number>;
  readonly functionRuns: bigint;
}

/** A task that makes one call. */
export class ModelTask {
  readonly real: Task;
  readonly fn: ModelFunction;
  readonly args: readonly [bigint, bigint];
  started = false;
  done = false;
  image: ModelImage | undefined;
  /** The program whose recursion counter it holds up, and whether it found it up already. */
  inside: { readonly prog: ModelProgram; readonly missed: boolean } | undefined;
  #plan: PlanItem[] = [];
  #result: bigint | undefined;
  #functionRan = false;
  #exits = 0;
  /** Programs that are being run, or were since the last slice: whether statistics were on, or off. */
  readonly #timed = new Map<ModelProgram, { ran: boolean; on: boolean; off: boolean }>();

  constructor(real: Task, fn: ModelFunction, args: readonly [bigint, bigint]) {
    this.real = real;
    this.fn = fn;
    this.args = args;
  }

  /** Its first instruction is executed now. */
  start(): void {
    const { extension, image } = this.fn;
    this.started = true;
    this.image = image;
    this.#result = BigInt.asUintN(64, this.args[0] + this.args[1]);
    if (extension !== undefined) {
      this.#plan = [{ prog: extension, list: 'replace' }];
      this.#result = BigInt(extension.spec.returns);
      return;
    }
    const items = (list: ListKind): PlanItem[] =>
      (image?.links[list] ?? []).map(({ prog }) => ({ prog, list }));
    const exits = items('fexit');
    this.#exits = exits.length;
    this.#plan = [...items('fentry'), ...items('fmod_ret'), 'function', ...exits];
  }

  /** Programs that may still run. */
  get programs(): ModelProgram[] {
    const planned = this.#plan.flatMap((item) => (item === 'function' ? [] : [item.prog]));
    const { inside } = this;
    return inside === undefined || planned.includes(inside.prog) ? planned : [inside.prog, ...planned];
  }

  /**
   * Follows one slice.
   * @param others programs that another task is inside of on this CPU: these must be missed
   * @throws RangeError when something happened that was not next in the plan
   */
  slice(
    events: SliceEvents,
    cpu: number,
    others: ReadonlySet<ModelProgram>,
    stats: readonly boolean[],
  ): void {
    const entered = [...events.active].filter(([, change]) => change > 0).map(([prog]) => prog);
    const left = [...events.active].filter(([, change]) => change < 0).map(([prog]) => prog);
    if (entered.length > 1 || left.length > 1) throw new RangeError('inside of two programs');
    for (const prog of this.#timed.keys()) this.#see(prog, stats);
    let decided = this.inside;

    let count = [...events.ran.values(), ...events.missed.values(), events.functionRuns].reduce(
      (a, b) => a + b,
      0n,
    );
    while (count > 0n) {
      const item = this.#plan[0];
      if (item === undefined) throw new RangeError('more happened than was planned');
      count--;
      if (item === 'function') {
        if (events.functionRuns !== 1n) throw new RangeError(`expected ${this.fn.name} itself to run`);
        this.fn.runs++;
        this.#functionRan = true;
        this.#plan.shift();
        continue;
      }
      const { prog, list } = item;
      if (decided?.prog !== prog) decided = { prog, missed: list !== 'replace' && others.has(prog) };
      const { missed } = decided;
      const [ran, skipped] = [events.ran.get(prog) ?? 0n, events.missed.get(prog) ?? 0n];
      if (ran !== (missed ? 0n : 1n) || skipped !== (missed ? 1n : 0n)) {
        throw new RangeError(`expected ${prog.spec.name} to be ${missed ? 'missed' : 'run'} next`);
      }
      this.#happened(prog, list, missed, cpu, stats);
    }
    this.#cross(entered[0], left[0], others, decided);
    if (this.inside !== undefined) this.#see(this.inside.prog, stats);
    this.#settleStats();
  }

  #happened(
    prog: ModelProgram,
    list: ListKind | 'replace',
    missed: boolean,
    cpu: number,
    stats: readonly boolean[],
  ): void {
    this.#plan.shift();
    if (missed) {
      prog.misses[cpu] = (prog.misses[cpu] ?? 0n) + 1n;
      return;
    }
    prog.runs++;
    if (list === 'replace') return;
    this.#see(prog, stats).ran = true;
    if (list === 'fmod_ret' && prog.spec.returns !== 0) {
      this.#result = BigInt(prog.spec.returns);
      this.#plan = this.#plan.filter((item) => item !== 'function' && item.list === 'fexit');
    }
  }

  /** Bookkeeping of who is inside of what at the end of a slice. */
  #cross(
    entered: ModelProgram | undefined,
    left: ModelProgram | undefined,
    others: ReadonlySet<ModelProgram>,
    decided: ModelTask['inside'],
  ): void {
    if (left !== undefined) {
      if (this.inside?.prog !== left)
        throw new RangeError(`left ${left.spec.name} without having entered it`);
      this.inside = undefined;
    }
    if (entered !== undefined) {
      if (this.inside !== undefined) throw new RangeError('entered a program inside of another');
      this.inside = decided?.prog === entered ? decided : { prog: entered, missed: others.has(entered) };
    }
  }

  /** Notes whether statistics were on or off while it was in a program. */
  #see(prog: ModelProgram, stats: readonly boolean[]): { ran: boolean } {
    const seen = this.#timed.get(prog) ?? { ran: false, on: false, off: false };
    if (stats.includes(true)) seen.on = true;
    if (stats.includes(false)) seen.off = true;
    this.#timed.set(prog, seen);
    return seen;
  }

  /** A run counts when statistics were on at its start and at its end. */
  #settleStats(): void {
    for (const [prog, { ran, on, off }] of this.#timed) {
      if (prog === this.inside?.prog) continue;
      this.#timed.delete(prog);
      if (!ran) continue;
      // when it was entered and left cannot be seen without the counter
      if (!prog.counts) {
        prog.countedAtMost++;
        continue;
      }
      if (on) prog.countedAtMost++;
      if (!off) prog.countedAtLeast++;
    }
  }

  /** The call is over. @throws RangeError when the result, or what did not happen, is wrong */
  finish(result: bigint): void {
    this.done = true;
    if (this.inside !== undefined) throw new RangeError(`returned inside of ${this.inside.prog.spec.name}`);
    const allExits = this.#plan.length === this.#exits;
    const skipped = this.#functionRan && this.image?.skipsExit === true && allExits;
    if (this.#plan.length > 0 && !skipped) throw new RangeError('returned before its plan was done');
    if (!this.fn.isVoid && result !== this.#result)
      throw new RangeError(`returned ${result}, not ${this.#result}`);
  }
}

/** The table, the programs, and the tasks that call. */
export class Model extends TableModel<ModelProgram> {
  readonly revision: ManagedRevision;
  readonly cpus: number;
  readonly functions: ModelFunction[] = FUNCTIONS.map((_, index) => new ModelFunction(index));
  readonly programs: ModelProgram[];
  tasks: ModelTask[] = [];
  statsOn = false;

  constructor(revision: ManagedRevision, cpus: number, real: readonly GuestProgram[]) {
    super(revision);
    this.revision = revision;
    this.cpus = cpus;
    this.programs = PROGRAMS.map(
      (spec, i) => new ModelProgram(spec, real[i] as GuestProgram, revision, cpus),
    );
  }

  override attach(...[fn, what, ...rest]: Parameters<TableModel<ModelProgram>['attach']>): Verdict {
    const prog = what instanceof ModelProgram ? what : what.prog;
    const verdict = super.attach(fn, what, ...rest);
    if (verdict === undefined && prog.spec.kind !== 'freplace') (fn as ModelFunction).holders.add(prog.real);
    return verdict;
  }

  /** References to a function's module. */
  moduleReferences(fn: ModelFunction): number {
    if (this.revision !== 'v6.12') return fn.image === undefined ? 0 : 1;
    return [...fn.holders].filter(({ prog }) => !prog.freed).length;
  }

  /** Programs that tasks other than this one are inside of on a CPU. */
  insideOn(cpu: number, except: ModelTask): Set<ModelProgram> {
    const inside = new Set<ModelProgram>();
    for (const task of this.tasks) {
      if (task !== except && task.real.cpu === cpu && task.inside !== undefined) inside.add(task.inside.prog);
    }
    return inside;
  }
}
