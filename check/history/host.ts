/*
 * The host: what it does to the kernel, what must come of it, and what comes.
 */

import {
  type AttachKind,
  attachProg,
  detachProg,
  type FailPoint,
  type Trampoline,
} from '../../tramp/index.ts';
import { compare, FOREIGN } from './agree.ts';
import type { HistoryCase, Operation, ProgramSpec } from './case.ts';
import type { HistoryFinding } from './judge.ts';
import { type Ledger, leaked } from './ledger.ts';
import type { Log } from './log.ts';
import { TableModel, type Verdict } from './model.ts';
import type { LoadedProgram, LoggedImage, Span } from './record.ts';
import { errorOf, type KernelState, stateDifference, stateOf } from './state.ts';
import { isAllowed, isReloadable, type World, type WorldFunction } from './world.ts';

/** Parts of the state that a failed detach changes: the program is off its list all the same. */
const DETACHED_ANYWAY: readonly (keyof KernelState)[] = ['trampolines', 'programs'];

export class Host {
  readonly model: TableModel<LoadedProgram> = new TableModel();
  /** When images were retired. */
  readonly retired: Map<LoggedImage, Span> = new Map();
  /** When statistics were switched. */
  readonly switches: Span[] = [];
  zeroClocks = 0;
  /** What operations came to, for coverage. */
  readonly marks: Set<string> = new Set();
  /** The first thing that is wrong; nothing is done after it. */
  finding: HistoryFinding | undefined;

  readonly #world: World;
  readonly #case: HistoryCase;
  readonly #log: Log;
  readonly #ledger: Ledger;
  /** The program that is loaded now, by its number in the case. */
  readonly #loaded = new Map<number, LoadedProgram>();
  /** Programs that `fill` loaded. */
  readonly #fillers: LoadedProgram[] = [];
  /** Trampolines that attached programs hold. */
  readonly #held = new Map<LoadedProgram, Trampoline>();

  constructor(world: World, one: HistoryCase, log: Log, ledger: Ledger) {
    this.#world = world;
    this.#case = one;
    this.#log = log;
    this.#ledger = ledger;
  }

  /** Does one operation, unless it makes no sense now or something is wrong already. */
  operate(operation: Operation): void {
    if (this.finding !== undefined) return;
    switch (operation.op) {
      case 'attach':
        this.#attachSome(operation.program, this.#fn(operation.fn), operation.fail ?? undefined);
        break;
      case 'detach':
        this.#detachSome(operation.program, operation.fail ?? undefined);
        break;
      case 'put':
        this.#put(operation.program);
        break;
      case 'reload':
        this.#reload(operation.fn);
        break;
      case 'stats':
        this.#switchStats(operation.zero);
        break;
      case 'foreign':
        this.#foreign(this.#fn(operation.fn));
        break;
      case 'hold':
        this.#hold(this.#fn(operation.fn));
        break;
      case 'fill':
        this.#fill(this.#fn(operation.fn), operation.kind, operation.count);
        break;
      case 'empty':
        this.#empty(this.#fn(operation.fn), operation.keep);
    }
  }

  /** Detaches everything and puts back what others changed. */
  tearDown(): void {
    for (const program of this.#world.programs) {
      if (program.at !== undefined) this.#detach(program);
    }
    for (const fn of this.#world.functions) {
      if (fn.foreign) this.#foreign(fn);
      if (fn.isHeld) this.#hold(fn);
    }
  }

  /** Lets go of everything that is still loaded. */
  putAll(): void {
    for (const program of this.#world.programs) {
      if (program.isPut || this.finding !== undefined) continue;
      program.isPut = true;
      program.real.prog.put();
    }
  }

  // -- operations --------------------------------------------------------------------------------------

  #attachSome(number: number, fn: WorldFunction, fail: FailPoint | undefined): void {
    const spec = this.#case.programs[number];
    if (spec === undefined || !isAllowed(this.#case, spec, fn.spec)) return;
    const program = this.#loaded.get(number) ?? this.#world.load(spec);
    this.#loaded.set(number, program);
    // Nothing in the manager keeps a freplace program from standing in for two functions: its callers do.
    if (spec.kind === 'freplace' && program.at !== undefined && program.at !== fn) return;
    this.#attach(program, fn, fail);
  }

  #attach(program: LoadedProgram, fn: WorldFunction, fail?: FailPoint): boolean {
    const { kernel } = this.#world;
    const { key } = fn.real;
    const verdict = this.#attachVerdict(program, fn, fail);
    const done = this.#do(`attach ${program.kind}`, verdict, fn, fail, () => {
      this.#held.set(program, attachProg(kernel, program.real.prog, key, fn.real));
    });
    return done && verdict === undefined;
  }

  #attachVerdict(program: LoadedProgram, fn: WorldFunction, fail: FailPoint | undefined): Verdict {
    const noTrampoline = this.model.get(fn, fail);
    if (noTrampoline !== undefined) return noTrampoline;
    const verdict = this.model.attach(fn, program, fn.real.key, fail);
    // an attach that fails puts the trampoline that it took
    if (verdict !== undefined) this.model.put(fn);
    return verdict;
  }

  #detachSome(number: number, fail: FailPoint | undefined): void {
    const program = this.#loaded.get(number);
    const fn = program?.at;
    if (program === undefined || fn === undefined) return;
    // What fails with the last program leaves a call of text that is going to be freed, as in the kernel.
    this.#detach(program, fn.attached.length > 1 ? fail : undefined);
  }

  #detach(program: LoadedProgram, fail?: FailPoint): void {
    const fn = program.at as WorldFunction | undefined;
    const tr = this.#held.get(program);
    if (fn === undefined || tr === undefined) return;
    const { kernel } = this.#world;
    this.#held.delete(program);
    const verdict = this.model.detach(program, fn, fn.real.key, fail);
    this.model.put(fn);
    this.#do(`detach ${program.kind}`, verdict, fn, fail, () => detachProg(kernel, program.real.prog, tr));
  }

  #put(number: number): void {
    const program = this.#loaded.get(number);
    if (program === undefined || program.at !== undefined) return;
    this.#loaded.delete(number);
    program.isPut = true;
    program.real.prog.put();
    this.marks.add('put');
  }

  #reload(index: number): void {
    if (!isReloadable(this.#case, index)) return;
    const fn = this.#fn(index);
    // a held trampoline keeps the function's address
    if (fn.isHeld) return;
    const inUse = fn.image !== undefined || fn.callers > 0;
    if (!inUse) fn.foreign = false;
    this.#do('reload', inUse ? 'EBUSY' : undefined, fn, undefined, () => {
      fn.real.module.unload();
      this.#world.reload(fn, this.#log.length);
    });
  }

  #switchStats(zero: boolean): void {
    const { kernel } = this.#world;
    const span: Span = { from: this.#log.length, to: 0 };
    this.switches.push(span);
    kernel.statsEnabled = !kernel.statsEnabled;
    if (zero) {
      kernel.clock = 0n;
      this.zeroClocks++;
    }
    span.to = this.#log.length;
    this.marks.add('stats');
  }

  #foreign(fn: WorldFunction): void {
    const { kernel } = this.#world;
    if (fn.image !== undefined || fn.extension !== undefined) return;
    fn.foreign = !fn.foreign;
    const nop = Uint8Array.of(...FOREIGN.subarray(0, 4), fn.foreign ? 1 : 0);
    kernel.machine.patchText(fn.real.addr, nop);
    this.marks.add('foreign');
  }

  #hold(fn: WorldFunction): void {
    const { kernel } = this.#world;
    const { trampolines } = kernel;
    fn.isHeld = !fn.isHeld;
    if (fn.isHeld) this.model.get(fn, undefined);
    else this.model.put(fn);
    this.#do('hold', undefined, fn, undefined, () => {
      const tr = trampolines.find(fn.real.key);
      if (fn.isHeld) trampolines.get(kernel, fn.real.key, fn.real);
      else if (tr !== undefined) trampolines.put(kernel, tr);
    });
  }

  #fill(fn: WorldFunction, kind: AttachKind, count: number): void {
    const spec: ProgramSpec = {
      kind,
      sleepable: false,
      sleeps: false,
      returns: 0,
      asksIp: false,
      calls: null,
    };
    if (kind === 'freplace' || !isAllowed(this.#case, spec, fn.spec)) return;
    for (let i = 0; i < count && this.finding === undefined; i++) {
      const program = this.#world.load(spec);
      this.#fillers.push(program);
      if (!this.#attach(program, fn)) return;
    }
  }

  #empty(fn: WorldFunction, keep: number): void {
    for (const program of this.#fillers.filter(({ at }) => at === fn).slice(keep)) {
      if (this.finding !== undefined) return;
      this.#detach(program);
    }
  }

  // -- an operation and its end ------------------------------------------------------------------------

  /**
   * Does what the model has done already, with a failure armed, and compares. False when something is wrong.
   * @param verdict what the model says that it ends with
   */
  #do(
    what: string,
    verdict: Verdict,
    fn: WorldFunction,
    fail: FailPoint | undefined,
    run: () => unknown,
  ): boolean {
    const { kernel, functions } = this.#world;
    const reals = functions.map(({ real }) => real);
    const before = verdict === undefined ? undefined : stateOf(kernel, reals);
    const taken = this.#ledger.taken;
    const span: Span = { from: this.#log.length, to: 0 };
    this.#noteVersion(fn, span);
    if (fail !== undefined) kernel.fail.arm(fail);
    const error = errorOf(run);
    kernel.fail.disarm();
    span.to = this.#log.length;
    if (error?.code !== verdict) {
      const [seen, expected] = [error?.code ?? 'success', verdict ?? 'success'];
      const detail = `${what} (${fn.name}${fail === undefined ? '' : `, ${fail} fails`}) ends with ${seen}, not ${expected}`;
      this.finding = { rule: 'attach-errno', detail, expected, seen };
      return false;
    }
    this.marks.add(`${what}: ${verdict ?? 'ok'}`);
    if (before !== undefined) {
      const ignore = what.startsWith('detach') ? DETACHED_ANYWAY : [];
      const difference = stateDifference(before, stateOf(kernel, reals), ignore);
      const more = leaked(taken, this.#ledger.taken);
      if (difference !== '' || more !== '') {
        const detail = `${what} (${fn.name}, ${verdict}) leaves ${[difference, more].filter(Boolean).join('; ')}`;
        this.finding = { rule: 'failed-operation-changes-nothing', detail };
        return false;
      }
    }
    this.finding = compare(this.#world, this.model);
    return this.finding === undefined;
  }

  /** Where the entry changes, calls that come from now on go by the new image. */
  #noteVersion(fn: WorldFunction, span: Span): void {
    const { image, extension } = fn.version;
    if (image === fn.image && extension === fn.extension) return;
    if (image !== undefined && image !== fn.image) this.retired.set(image, span);
    fn.note(span.from);
  }

  #fn(index: number): WorldFunction {
    return this.#world.functions[index] as WorldFunction;
  }
}
