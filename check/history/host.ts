/*
 * The host: what it does to the kernel, what must come of it, and what comes.
 */

import {
  type AttachKind,
  attachProg,
  type BpfProg,
  detachProg,
  type FailPoint,
  TrampLink,
  type Trampoline,
} from '../../tramp/index.ts';
import { compare, FOREIGN, moduleHolders } from './agree.ts';
import type { HistoryCase, Operation, ProgramSpec } from './case.ts';
import type { HistoryFinding } from './judge.ts';
import { type Ledger, leaked } from './ledger.ts';
import type { Log } from './log.ts';
import { ModelLink, TableModel, type Verdict } from './model.ts';
import type { LoadedLink, LoadedProgram, LoggedImage, Span, Way } from './record.ts';
import { errorOf, type KernelState, stateDifference, stateOf } from './state.ts';
import { isAllowed, isReloadable, type World, type WorldFunction } from './world.ts';

/** What a failed operation may change all the same. */
const CHANGED_ANYWAY: Readonly<Record<string, readonly (keyof KernelState)[]>> = {
  // the program is off its list
  detach: ['trampolines', 'programs'],
  // the trampoline counts as shared
  livepatch: ['trampolines'],
};

export class Host {
  readonly model: TableModel<LoadedProgram>;
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
  /** Trampolines that links hold, and what was attached to them. */
  readonly #held = new Map<LoadedLink, { readonly tr: Trampoline; readonly real: BpfProg | TrampLink }>();

  constructor(world: World, one: HistoryCase, log: Log, ledger: Ledger) {
    this.model = new TableModel(one.revision);
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
        this.#attachSome(operation);
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
      case 'livepatch':
        this.#livepatch(this.#fn(operation.fn), operation.fail ?? undefined);
        break;
      case 'array':
        this.#toggleArray(this.#fn(operation.fn));
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
      for (let left = program.places; left > 0 && this.finding === undefined; left--) this.#detach(program);
    }
    for (const fn of this.#world.functions) {
      if (fn.patched) this.#livepatch(fn);
      if (fn.inArray) this.#toggleArray(fn);
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

  #attachSome({ program: number, fn: index, cookie, fail }: Extract<Operation, { op: 'attach' }>): void {
    const fn = this.#fn(index);
    const spec = this.#case.programs[number];
    if (spec === undefined || !isAllowed(this.#case, spec, fn.spec)) return;
    const program = this.#loaded.get(number) ?? this.#world.load(spec);
    this.#loaded.set(number, program);
    // Nothing in the manager keeps a freplace program from standing in for two functions: its callers do.
    if (spec.kind === 'freplace' && program.at !== undefined && program.at !== fn) return;
    this.#attach(program, fn, fail ?? undefined, spec.kind === 'freplace' ? null : cookie);
  }

  /** @param cookie of a new link; null, and always where a program has one link: the program's own */
  #attach(
    program: LoadedProgram,
    fn: WorldFunction,
    fail?: FailPoint,
    cookie: number | null = null,
  ): boolean {
    const { kernel, v6 } = this.#world;
    const { key } = fn.real;
    const { prog } = program.real;
    const isOwn = cookie === null || !v6;
    const link = isOwn ? this.model.linkOf(program) : new ModelLink(program, BigInt(cookie));
    const real = isOwn ? prog : new TrampLink(prog, BigInt(cookie));
    const verdict = this.#attachVerdict(link, fn, fail);
    if (verdict === undefined && program.kind !== 'freplace') fn.holders.add(program);
    const done = this.#do(`attach ${program.kind}`, verdict, fn, fail, () => {
      const tr = attachProg(kernel, real, key, fn.real);
      this.#held.set(link, { tr, real });
    });
    return done && verdict === undefined;
  }

  #attachVerdict(link: LoadedLink, fn: WorldFunction, fail: FailPoint | undefined): Verdict {
    const noTrampoline = this.model.get(fn, fail);
    if (noTrampoline !== undefined) return noTrampoline;
    const verdict = this.model.attach(fn, link, fn.real.key, fail);
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

  /** From where it has been attached longest. */
  #detach(program: LoadedProgram, fail?: FailPoint): void {
    const link = this.model.oldestLink(program);
    const fn = link?.at as WorldFunction | undefined;
    const held = link === undefined ? undefined : this.#held.get(link);
    if (link === undefined || fn === undefined || held === undefined) return;
    const { kernel } = this.#world;
    this.#held.delete(link);
    const verdict = this.model.detach(link, fn, fn.real.key, fail);
    this.model.put(fn);
    this.#do(`detach ${program.kind}`, verdict, fn, fail, () => detachProg(kernel, held.real, held.tr));
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
    // a held trampoline keeps the function's address, and so does a live patch
    if (fn.isHeld || fn.patched) return;
    const inUse = moduleHolders(this.model, fn) > 0 || fn.callers > 0;
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
    if (fn.image !== undefined || fn.extension !== undefined || fn.patched) return;
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

  /** A live patch of the function comes, or goes. Functions without a site of ftrace's have none. */
  #livepatch(fn: WorldFunction, fail?: FailPoint): void {
    if (fn.isPlain) return;
    const { key } = fn.real;
    if (fn.patched) {
      const verdict = this.model.unpatch(fn, key, fail);
      this.#do('unpatch', verdict, fn, fail, () => fn.livepatch?.remove());
    } else {
      this.#world.prepareReplacement(fn);
      const verdict = this.model.patch(fn, key, fail);
      this.#do('livepatch', verdict, fn, fail, () => this.#world.patch(fn));
    }
  }

  #toggleArray(fn: WorldFunction): void {
    const prog = fn.real.prog;
    if (prog === undefined) return;
    const goesIn = !fn.inArray;
    const verdict = this.model.toggleArray(fn);
    this.#do('array', verdict, fn, undefined, () =>
      this.#world.progArray.set(fn.index, goesIn ? prog : undefined),
    );
  }

  #fill(fn: WorldFunction, kind: AttachKind, count: number): void {
    const spec: ProgramSpec = {
      kind,
      sleepable: false,
      sleeps: false,
      returns: 0,
      asksIp: false,
      asksCookie: false,
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
    const crosses = this.#noteVersion(fn, span);
    if (fail !== undefined) kernel.fail.arm(fail);
    const error = errorOf(run);
    kernel.fail.disarm();
    span.to = this.#log.length;
    if (crosses) fn.note(span.to);
    if (error?.code !== verdict) {
      const [seen, expected] = [error?.code ?? 'success', verdict ?? 'success'];
      const detail = `${what} (${fn.name}${fail === undefined ? '' : `, ${fail} fails`}) ends with ${seen}, not ${expected}`;
      this.finding = { rule: 'attach-errno', detail, expected, seen };
      return false;
    }
    this.marks.add(`${what}: ${verdict ?? 'ok'}`);
    if (before !== undefined) {
      const ignore = CHANGED_ANYWAY[what.split(' ')[0] ?? ''] ?? [];
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

  /**
   * Where the entry changes, calls that come from now on go by the new image. A live patch takes two steps to
   * come or go, and what comes between them may go either way. True then: the end of it is to be noted.
   */
  #noteVersion(fn: WorldFunction, span: Span): boolean {
    const [was] = fn.version.ways.slice(-1);
    const is = fn.way;
    if (was === undefined) return false;
    if (was.image === is.image && was.extension === is.extension && was.patched === is.patched) return false;
    if (was.image !== undefined && was.image !== is.image) this.retired.set(was.image, span);
    const crosses = was.patched !== is.patched;
    fn.note(span.from, crosses ? between(was, is) : [is]);
    return crosses;
  }

  #fn(index: number): WorldFunction {
    return this.#world.functions[index] as WorldFunction;
  }
}

/** Ways that there may be while one turns into another: each image, patched and not. */
function between(was: Way, is: Way): readonly Way[] {
  const images = was.image === is.image ? [is] : [was, is];
  return images.flatMap((way) => [
    { ...way, patched: was.patched },
    { ...way, patched: is.patched },
  ]);
}
