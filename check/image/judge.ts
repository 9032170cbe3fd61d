/*
 * The careful judge: whether a call that did not do exactly what the oracle says breaks a rule, and which.
 * Values are the oracle's; where they lie in the frame is the image's own affair. Only the first thing that
 * is wrong is reported: what comes after it may follow from it.
 */

import type { Fault, RegisterName } from '../../emu/index.ts';
import { TrampFlag } from '../../jit/index.ts';
import { addrAdd, hex64, type Kaddr } from '../../lib/index.ts';
import type { Finding } from '../finding.ts';
import type { ImageRule } from '../rules.ts';
import { describe, flagsOf, type ImageCase, type Kind, knownFlags, programsOf } from './case.ts';
import { type Event, type EventWord, readEvents } from './events.ts';
import { ARGS, CALLEE_WORDS, type CalleeWord, DIRECTION_FLAG, EventKind, ScriptDeed } from './log.ts';
import { shapeOf } from './shape.ts';
import type { Tried } from './trial.ts';
import type { Violation } from './watch.ts';
import { hasWords, type Word, wordsOf } from './words.ts';

const { CALL_ORIG, IP_ARG, RET_FENTRY_RET, ORIG_STACK, TAIL_CALL_CTX } = TrampFlag;

/** Where blame.ts has to look for the instruction at fault. */
export type Hint =
  /**
   * Who wrote this register last before the record at `at`? `expected`: what it should hold, when that comes
   * from the frame.
   */
  | {
      readonly what: 'register';
      readonly at: number;
      readonly name: RegisterName;
      readonly expected: bigint | undefined;
    }
  /** Who wrote this memory last? */
  | { readonly what: 'memory'; readonly at: number; readonly address: bigint; readonly sizeBytes: number }
  /** Who made control go there: a branch, or the call itself? */
  | { readonly what: 'flow'; readonly at: number }
  /** Who called? */
  | { readonly what: 'call'; readonly at: number }
  | { readonly what: 'instruction'; readonly offset: number };

/** A finding that is not complete yet. */
export interface Verdict extends Finding {
  readonly rule: ImageRule;
  readonly hint: Hint | undefined;
}

type Act =
  | 'enter'
  | 'exit'
  | 'tramp-enter'
  | 'tramp-exit'
  | 'program'
  | 'original'
  | 'body'
  | 'nested'
  | 'return';

const VIOLATIONS: Readonly<Record<Violation['rule'], string>> = {
  'writes-below-rsp': 'memory below rsp is written',
  'writes-outside-frame': 'memory outside the frame is written',
  'foreign-state': 'state is used that is not the image’s',
  'return-hardening': 'the return is not as it must be',
  'no-fault': 'the bytes are no instruction of any CPU',
};

const ENDS: readonly Act[] = ['body', 'return', 'nested'];

/** What a record is about. */
interface Role {
  readonly act: Act;
  readonly sleepable: boolean;
  /** Which pair it belongs to, sleepable or not. */
  readonly pair: string;
  /** The program it is about, by its place in `programsOf`; undefined for none, or an unknown one. */
  readonly program: number | undefined;
  readonly name: string;
}

/** What is wrong with a call that was tried alone; empty when it breaks no rule. */
export function judge(tried: Tried): readonly Verdict[] {
  return new Judgement(tried).run();
}

class Judgement {
  readonly #tried: Tried;
  readonly #one: ImageCase;
  readonly #flags: number;
  readonly #args: readonly Word[];
  readonly #hasRunCtx: boolean;
  readonly #expected: readonly Event[];
  readonly #observed: readonly Event[];
  /** How far the frames of a program's own call are from where the oracle has them, bytes. */
  #shift = 0n;
  /** Programs that ran so far. */
  #runs = 0;
  #originalCalled = false;
  /** What is current->bpf_ctx as the image would have it, and what was before, the innermost last. */
  #runCtx: bigint;
  readonly #runCtxs: bigint[] = [];

  constructor(tried: Tried) {
    const { ready, expectation, ended } = tried;
    const { one, expected } = ready;
    this.#tried = tried;
    this.#one = one;
    this.#flags = flagsOf(one) & knownFlags(one.revision);
    this.#args = wordsOf(one);
    this.#hasRunCtx = hasWords(one.revision);
    this.#runCtx = tried.callers.runCtx;
    const shape = shapeOf(one);
    const open = new Set(expectation.open);
    const { start: from, end: to } = expected;
    this.#expected = readEvents(expectation.words, { from, to, shape, open });
    this.#observed = readEvents(tried.log, { from: ended.from, to: ended.to, shape });
  }

  run(): readonly Verdict[] {
    const { violations } = this.#tried;
    const [violation] = violations;
    if (violation !== undefined) {
      const { rule, offset, what } = violation;
      return [this.#verdict(rule, VIOLATIONS[rule], { seen: what }, { what: 'instruction', offset })];
    }
    const count = Math.max(this.#expected.length, this.#observed.length);
    for (let i = 0; i < count; i++) {
      const wrong = this.#record(this.#expected[i], this.#observed[i], i);
      if (wrong.length > 0) return wrong;
    }
    return this.#aftermath();
  }

  #record(want: Event | undefined, have: Event | undefined, index: number): readonly Verdict[] {
    if (want === undefined) return have === undefined ? [] : [this.#outOfOrder(want, have, index)];
    if (have === undefined) return [this.#cutShort(want, index)];
    if (want.kind !== have.kind || want.words.get('who') !== have.words.get('who')) {
      return [this.#outOfOrder(want, have, index)];
    }
    if (this.#entersAnother(want, have, index)) return [this.#outOfOrder(want, have, index)];
    const wrong = this.#words(want, have, index);
    if (wrong.length > 0) return wrong;
    const { act } = this.#roleOf(want, index);
    if (act === 'original') this.#originalCalled = true;
    if (this.#hasRunCtx && act === 'enter') {
      this.#runCtxs.push(this.#runCtx);
      this.#runCtx = have.words.get('rsi') as bigint;
    }
    if (this.#hasRunCtx && act === 'exit') this.#runCtx = this.#runCtxs.pop() ?? this.#runCtx;
    if (want.kind === EventKind.nested) this.#shift = 0n;
    if (want.kind === EventKind.program && this.#nests()) {
      this.#shift = (have.words.get('rsp') as bigint) - (want.words.get('rsp') as bigint);
    }
    return [];
  }

  /** Whether a program is entered when it is another one's turn. */
  #entersAnother(want: Event, have: Event, index: number): boolean {
    if (this.#roleOf(want, index).act !== 'enter') return false;
    const prog = have.words.get('rdi');
    return prog !== want.words.get('rdi') && this.#programAt(prog) !== undefined;
  }

  /** Whether the program that runs now calls the traced function. Counts it. */
  #nests(): boolean {
    const { expectation, ready } = this.#tried;
    const entry = ready.expected.script + this.#runs++;
    return ((expectation.script[4 * entry] ?? 0n) & BigInt(ScriptDeed.nest)) !== 0n;
  }

  // -- words of one record ------------------------------------------------------------------------

  #words(want: Event, have: Event, index: number): readonly Verdict[] {
    const role = this.#roleOf(want, index);
    const found: Verdict[] = [];
    for (const [word, value] of want.words) {
      const seen = have.words.get(word) as bigint;
      if (seen === value) continue;
      // What stands at another rsp is another word.
      if (role.act === 'body' && found.some((verdict) => verdict.rule === 'rsp')) continue;
      const rule = this.#wordRule(word, { value, seen }, role, have);
      if (rule === undefined || found.some((verdict) => verdict.rule === rule)) continue;
      found.push(
        this.#verdict(
          rule,
          `${role.name}: ${word}`,
          { expected: hex64(this.#shown(word, value)), seen: hex64(this.#masked(word, seen)) },
          this.#wordHint(word, value, have, role),
        ),
      );
    }
    return found;
  }

  /** The rule that a word breaks by being something else; undefined when the image is free in it. */
  #wordRule(
    word: EventWord,
    { value, seen }: { readonly value: bigint; readonly seen: bigint },
    { act, program }: Role,
    have: Event,
  ): ImageRule | undefined {
    if (word.startsWith('stack[')) return act === 'original' ? 'stack-arguments' : 'writes-outside-frame';
    const ctx = /^ctx\[(-?\d+)\]$/.exec(word);
    if (ctx !== null) return this.#ctxRule(Number(ctx[1]), value ^ seen, program);
    switch (word) {
      case 'readers':
      case 'migration':
      case 'splats':
        return 'reader-sections';
      case 'references':
        return 'image-reference';
      case 'clock':
        return 'statistics';
      case 'runCtx':
        return seen === this.#runCtx ? undefined : 'run-ctx';
      case 'cookie':
        return this.#hasRunCtx ? 'cookie' : 'run-ctx';
      case 'callDepth':
        return 'call-depth';
      case 'thunks':
        return 'return-hardening';
      case 'result':
        return (value === 0n) === (seen === 0n) ? 'statistics' : 'recursion-counter';
      case 'flags':
        return (seen & BigInt(DIRECTION_FLAG)) === 0n ? 'control-flags' : 'direction-flag';
      case 'rsp':
        return this.#rspRule(seen - value, act);
      case 'rbp':
        if (act === 'return' || act === 'body') return 'callee-saved';
        return seen - value === this.#shift ? undefined : 'rbp-chain';
      case 'savedRbp':
      case 'returnAddress':
        return act === 'body' ? 'writes-outside-frame' : 'rbp-chain';
      case 'rbx':
      case 'r12':
      case 'r13':
      case 'r14':
      case 'r15':
      case 'changed':
        return 'callee-saved';
      case 'rax':
        return act === 'original' || this.#carriesTailCount ? 'tail-call-count' : 'return-value';
      default:
        return this.#argumentRule(word, act, have);
    }
  }

  /** Whether rax at the end is the tail call count: nothing comes after it. */
  get #carriesTailCount(): boolean {
    return (this.#flags & (TAIL_CALL_CTX | CALL_ORIG | RET_FENTRY_RET)) === TAIL_CALL_CTX;
  }

  #rspRule(distance: bigint, act: Act): ImageRule | undefined {
    if (act === 'return' || act === 'body' || act === 'nested') {
      return distance === this.#shift ? undefined : 'rsp';
    }
    return distance % 16n === 0n ? undefined : 'stack-alignment';
  }

  #argumentRule(word: EventWord, act: Act, have: Event): ImageRule | undefined {
    switch (act) {
      case 'original':
        return 'original-args';
      case 'body':
        return 'restored-args';
      case 'tramp-enter':
        return 'tramp-enter-exit';
      case 'tramp-exit':
        return this.#late() ? 'retired-epilogue' : 'tramp-enter-exit';
      case 'enter':
        if (word === 'rsi') return this.#runCtxFits(have) ? undefined : 'run-ctx';
        return 'enter-exit-pair';
      case 'exit':
        if (word === 'rdx') return have.words.get('rdx') === this.#runCtx ? undefined : 'run-ctx';
        return word === 'rsi' ? 'start-time' : 'enter-exit-pair';
      case 'program':
        if (word === 'rsi') return 'interpreter-insnsi';
        return this.#contextFits(have) ? undefined : 'context-in-frame';
      default:
        return 'enter-exit-pair';
    }
  }

  /** Whether the run_ctx that enter got lies between rsp and the saved rbp. */
  #runCtxFits({ words }: Event): boolean {
    const runCtx = words.get('rsi') as bigint;
    const rsp = words.get('rsp') as bigint;
    return runCtx % 8n === 0n && runCtx >= rsp + 8n && runCtx + 16n <= (words.get('rbp') as bigint);
  }

  /** Whether the context that a program got lies between rsp and the saved rbp. */
  #contextFits({ words }: Event): boolean {
    const ctx = words.get('rdi') as bigint;
    const rsp = words.get('rsp') as bigint;
    const end = ctx + 8n * BigInt(this.#args.length + (this.#hasResult ? 1 : 0));
    return ctx % 8n === 0n && ctx >= rsp + 8n && end <= (words.get('rbp') as bigint);
  }

  get #hasResult(): boolean {
    return (this.#flags & (CALL_ORIG | RET_FENTRY_RET)) !== 0;
  }

  #ctxRule(index: number, difference: bigint, program: number | undefined): ImageRule | undefined {
    if (this.#hasRunCtx && index === -1) return 'arg-count';
    if (index < 0) return (this.#flags & IP_ARG) === 0 ? undefined : 'func-ip';
    const word = this.#args[index];
    if (word !== undefined)
      return BigInt.asUintN(8 * word.widthBytes, difference) === 0n ? undefined : 'args-seen';
    if (!this.#hasResult) return undefined;
    const kind = this.#kindOf(program);
    if (kind === 'fexit') return 'fexit-result';
    return kind === 'fmodRet' ? 'fmod-ret-slot-zero' : undefined;
  }

  #shown(word: EventWord, value: bigint): bigint {
    if (word === 'rbp' || word === 'rsp') return BigInt.asUintN(64, value + this.#shift);
    return this.#masked(word, value);
  }

  /** A word of the context without what the rules leave open in it. */
  #masked(word: EventWord, value: bigint): bigint {
    const known = this.#args[Number(/^ctx\[(\d+)\]$/.exec(word)?.[1] ?? -1)];
    return known === undefined ? value : BigInt.asUintN(8 * known.widthBytes, value);
  }

  #wordHint(word: EventWord, expected: bigint, have: Event, role: Role): Hint | undefined {
    const { at } = have;
    const ctx = /^ctx\[(-?\d+)\]$/.exec(word);
    if (ctx !== null) {
      const index = Number(ctx[1]);
      const address = (have.words.get('rdi') as bigint) + 8n * BigInt(index);
      return { what: 'memory', at, address, sizeBytes: this.#args[index]?.widthBytes ?? 8 };
    }
    const passed = /^stack\[(\d+)\]$/.exec(word);
    if (passed !== null) {
      const address = (have.words.get('rsp') as bigint) + 8n * BigInt(1 + Number(passed[1]));
      return { what: 'memory', at, address, sizeBytes: 8 };
    }
    const fromFrame = role.act === 'original' || role.act === 'body' || word === 'rax';
    switch (word) {
      case 'savedRbp':
      case 'returnAddress': {
        const above = word === 'savedRbp' ? 0n : 8n;
        const rsp = have.words.get('rsp') as bigint;
        const address = role.act === 'body' ? rsp : (have.words.get('rbp') as bigint) + above;
        return { what: 'memory', at, address, sizeBytes: 8 };
      }
      case 'changed':
        return { what: 'register', at, name: 'rbx', expected: undefined };
      case 'cookie':
        return { what: 'memory', at, address: have.words.get('runCtx') as bigint, sizeBytes: 8 };
      case 'rdi':
      case 'rsi':
      case 'rdx':
      case 'rcx':
      case 'r8':
      case 'r9':
      case 'rax':
      case 'rsp':
      case 'rbp':
      case 'rbx':
      case 'r12':
      case 'r13':
      case 'r14':
      case 'r15':
        return { what: 'register', at, name: word, expected: fromFrame ? expected : undefined };
      default:
        return role.act === 'return' ? undefined : { what: 'call', at };
    }
  }

  // -- records in the wrong place -----------------------------------------------------------------

  /** After the original has been called, in an image that was retired meanwhile. */
  #late(): boolean {
    return this.#one.retired && this.#originalCalled;
  }

  #outOfOrder(want: Event | undefined, have: Event, index: number): Verdict {
    const wanted = want === undefined ? undefined : this.#roleOf(want, index);
    const found = this.#roleOf(have, undefined);
    return this.#verdict(
      this.#orderRule(wanted, found, have, index),
      `${found.name} comes in place of ${wanted?.name ?? 'a fault'}`,
      { expected: wanted?.name ?? 'a fault', seen: found.name },
      { what: 'flow', at: have.at },
    );
  }

  #orderRule(want: Role | undefined, have: Role, record: Event, index: number): ImageRule {
    if (want === undefined) return 'no-fault';
    if (ENDS.includes(want.act) && ENDS.includes(have.act)) return 'return-place';
    if (want.act === 'original' && have.act === 'original') return 'original-called';
    if (this.#late()) return 'retired-epilogue';
    const sameHelper = want.act === have.act && (want.act === 'enter' || want.act === 'exit');
    if (sameHelper && (want.sleepable !== have.sleepable || want.pair !== have.pair)) {
      const prog = this.#expected[index]?.words.get('rdi');
      if (record.words.get('rdi') !== prog) return 'program-order';
      return want.pair === have.pair ? 'helper-sleepable' : 'helper-pair';
    }
    if (have.act === 'program') {
      const before = this.#expected[index - 1];
      const refused = want.act === 'exit' && before?.words.get('result') === 0n;
      if (refused) return 'skipped-runs-nothing';
      return want.act === 'exit' ? 'enter-exit-pair' : 'program-order';
    }
    if (want.act === 'program') return 'program-runs';
    if (want.act === 'exit' || have.act === 'exit') return 'enter-exit-pair';
    if (want.act === 'tramp-enter' || have.act === 'tramp-enter') return 'tramp-enter-exit';
    const chain = this.#chainRule(want, have, index);
    if (chain !== undefined) return chain;
    if (want.act === 'original' || have.act === 'original') {
      const other = want.act === 'original' ? have.act : want.act;
      return other === 'enter' ? 'program-order' : 'original-called';
    }
    if (have.act === 'tramp-exit' && this.#entersAfter(index)) return 'tramp-enter-exit';
    if (want.act === 'enter' || have.act === 'enter') return 'program-order';
    return want.act === 'tramp-exit' || have.act === 'tramp-exit' ? 'tramp-enter-exit' : 'call-target';
  }

  /** What has to do with who speaks for the original. */
  #chainRule(want: Role, have: Role, index: number): ImageRule | undefined {
    if (this.#one.fmodRet.length === 0) return undefined;
    const wanted = this.#kindOf(want.program);
    const found = this.#kindOf(have.program);
    const begun = wanted !== 'fentry';
    const spoken = !this.#expected.some((event, i) => this.#roleOf(event, i).act === 'original');
    const early = wanted === 'fmodRet' && found !== 'fmodRet' && found !== 'fentry';
    const late = begun && wanted !== 'fmodRet' && found === 'fmodRet';
    if (early || late || want.act === 'original') return 'fmod-ret-chain';
    if (have.act === 'original') return begun && spoken ? 'fmod-ret-chain' : undefined;
    const skipsAll = wanted === 'fexit' && have.act === 'tramp-exit' && !this.#entersAfter(index);
    return spoken && skipsAll ? 'fmod-ret-chain' : undefined;
  }

  /** Whether programs are entered after an observed record. */
  #entersAfter(index: number): boolean {
    const later = this.#observed.slice(index + 1);
    return later.some((event) => this.#roleOf(event, undefined).act === 'enter');
  }

  // -- ends ---------------------------------------------------------------------------------------

  #cutShort(want: Event, index: number): Verdict {
    const { fault } = this.#tried.ended;
    const role = this.#roleOf(want, index);
    if (fault === null) {
      return this.#verdict('call-target', `no ${role.name}`, { expected: role.name }, undefined);
    }
    const begun = this.#inGuestCode(fault.rip) ? this.#begunRecord() : undefined;
    if (begun === undefined) return this.#faulted(fault, role);
    if (begun.kind !== want.kind || begun.words.get('who') !== want.words.get('who')) {
      return this.#outOfOrder(want, begun, index);
    }
    // Its recorder could not read what rbp, the run_ctx or the context points at.
    const rbp = begun.words.get('rbp') as bigint;
    if (want.kind === EventKind.program && fault.address === begun.words.get('runCtx')) {
      const seen = hex64(fault.address as Kaddr);
      const hint: Hint = { what: 'call', at: begun.at };
      return this.#verdict('run-ctx', `${role.name}: the run_ctx points nowhere`, { seen }, hint);
    }
    const chain = fault.address === rbp || fault.address === BigInt.asUintN(64, rbp + 8n);
    const seen = hex64(begun.words.get(chain ? 'rbp' : 'rdi') as bigint);
    const hint: Hint = {
      what: 'register',
      at: begun.at,
      name: chain ? 'rbp' : 'rdi',
      expected: undefined,
    };
    const rule = chain ? 'rbp-chain' : 'context-in-frame';
    return this.#verdict(rule, `${role.name}: ${hint.name} points nowhere`, { seen }, hint);
  }

  /** The record that a recorder was writing when it faulted: kind, who, and the first registers are there. */
  #begunRecord(): Event | undefined {
    const { log, ended } = this.#tried;
    const known = CALLEE_WORDS.slice(0, CALLEE_WORDS.indexOf('savedRbp'));
    const words: readonly CalleeWord[] = [...known, 'runCtx'];
    const kind = Number(log[ended.to]) as Event['kind'];
    const named = words.map((word): [EventWord, bigint] => [
      word,
      log[ended.to + CALLEE_WORDS.indexOf(word)] ?? 0n,
    ]);
    const called: readonly number[] = [
      EventKind.value,
      EventKind.nothing,
      EventKind.program,
      EventKind.original,
    ];
    return called.includes(kind) ? { kind, words: new Map(named), at: ended.to - ended.from } : undefined;
  }

  #faulted(fault: Fault, awaited: Role): Verdict {
    const { ready, image } = this.#tried;
    const { image: start } = ready.seat.place;
    const offset = Number(fault.rip - start);
    const inside = fault.rip >= start && offset < image.length;
    const hint: Hint = inside
      ? { what: 'instruction', offset }
      : { what: 'call', at: Number.MAX_SAFE_INTEGER };
    const words = { expected: awaited.name, seen: fault.kind };
    return this.#verdict(this.#faultRule(fault, inside), fault.detail, words, hint);
  }

  #faultRule(fault: Fault, inside: boolean): ImageRule {
    switch (fault.kind) {
      case 'step-limit':
      case 'time-limit':
        return 'terminates';
      case 'write-unmapped':
      case 'write-text':
      case 'write-rodata':
        return 'writes-outside-frame';
      case 'stack-overflow':
        return inside ? 'writes-outside-frame' : 'terminates';
      case 'read-unmapped':
      case 'general-protection':
        return fault.rip === fault.address ? 'call-target' : 'no-fault';
      default:
        return inside ? 'no-fault' : 'call-target';
    }
  }

  #inGuestCode(rip: Kaddr): boolean {
    const { start, bytes } = this.#tried.guest;
    return rip >= start && rip < addrAdd(start, bytes);
  }

  /** What can only be seen when the call is over. */
  #aftermath(): readonly Verdict[] {
    const { ready, ended, counters, references, damage } = this.#tried;
    const { expected } = ready;
    const { fault } = ended;
    if (fault !== null && expected.fault === undefined) {
      return [
        this.#faulted(fault, {
          act: 'return',
          sleepable: false,
          pair: '',
          program: undefined,
          name: 'nothing more',
        }),
      ];
    }
    if (expected.fault !== undefined) {
      const { kind, address } = expected.fault;
      if (fault?.kind === kind && fault.address === address) return [];
      const seen = fault?.detail ?? 'no fault';
      const wanted = `${kind} at ${hex64(address)}`;
      return [
        this.#verdict('no-fault', 'the call ends in another way', { expected: wanted, seen }, undefined),
      ];
    }
    for (const [unit, want] of expected.counters.entries()) {
      const have = counters[unit];
      for (const name of ['active', 'misses', 'cnt', 'nsecs', 'syncp'] as const) {
        const value = BigInt.asUintN(64, BigInt(want[name]));
        const seen = BigInt(have?.[name] ?? 0);
        if (value === seen) continue;
        const rule = name === 'active' ? 'recursion-counter' : 'statistics';
        const words = { expected: value.toString(), seen: seen.toString() };
        return [this.#verdict(rule, `counters of program ${unit}: ${name}`, words, undefined)];
      }
    }
    const atomic = expected.atomicReferences;
    if (atomic !== undefined && (references.count !== atomic || !references.released)) {
      const seen = `${references.count}, ${references.released ? '' : 'not '}released`;
      const words = { expected: `${atomic}, released`, seen };
      return [this.#verdict('image-reference', 'references after the call', words, undefined)];
    }
    if (damage !== undefined) {
      return [this.#verdict('writes-outside-frame', `${damage} is written`, { seen: damage }, undefined)];
    }
    return [];
  }

  // -- names --------------------------------------------------------------------------------------

  #kindOf(program: number | undefined): Kind | undefined {
    if (program === undefined) return undefined;
    const { fentry, fmodRet } = this.#one;
    if (program < fentry.length) return 'fentry';
    return program < fentry.length + fmodRet.length ? 'fmodRet' : 'fexit';
  }

  #programName(program: number | undefined): string {
    const kind = this.#kindOf(program);
    if (kind === undefined || program === undefined) return 'an unknown program';
    const { fentry, fmodRet } = this.#one;
    const first = { fentry: 0, fmodRet: fentry.length, fexit: fentry.length + fmodRet.length }[kind];
    return `${kind}[${program - first}]`;
  }

  #programAt(prog: bigint | undefined): number | undefined {
    const { programs } = this.#tried.ready.seat.place;
    const found = programsOf(this.#one).findIndex((_, i) => programs[i]?.prog === prog);
    return found < 0 ? undefined : found;
  }

  /** @param index the record's number, when it is the oracle's, who knows its program */
  #roleOf({ kind, words }: Event, index: number | undefined): Role {
    const { expectation, ready } = this.#tried;
    const owner = index === undefined ? undefined : expectation.owners[ready.expected.owner + index];
    const known = owner === undefined || owner < 0 ? undefined : owner;
    const plain = (act: Act, name: string): Role => ({
      act,
      name,
      sleepable: false,
      pair: '',
      program: undefined,
    });
    const { place } = ready.seat;
    const who = words.get('who');
    switch (kind) {
      case EventKind.original:
        return plain('original', who === place.origCall ? 'the original' : 'the original behind its site');
      case EventKind.body:
        if (this.#isCalled(words.get('returnAddress')))
          return plain('original', 'the original by its return address');
        return plain('body', 'the return into the traced function');
      case EventKind.nested:
        return plain('nested', "the return of a program's own call");
      case EventKind.return:
        return plain('return', "the return to the traced function's caller");
      case EventKind.program: {
        const at = programsOf(this.#one).findIndex((_, i) => place.programs[i]?.bpfFunc === who);
        const program = known ?? (at < 0 ? undefined : at);
        return { act: 'program', sleepable: false, pair: '', program, name: this.#programName(program) };
      }
      default: {
        const name = Object.keys(place.helpers).find((key) => place.helpers[key] === who) ?? 'unknown';
        if (name === '__bpf_tramp_enter') return plain('tramp-enter', name);
        if (name === '__bpf_tramp_exit') return plain('tramp-exit', name);
        const program = known ?? this.#programAt(words.get('rdi'));
        return {
          act: name.startsWith('__bpf_prog_enter') ? 'enter' : 'exit',
          sleepable: name.includes('_sleepable'),
          pair: name.replace(/^__bpf_prog_(enter|exit)(_sleepable)?/, ''),
          program,
          name: `${name}(${this.#programName(program)})`,
        };
      }
    }
  }

  /** Whether who goes on behind the site was called by the image, which expects it to come back. */
  #isCalled(returnAddress: bigint | undefined): boolean {
    if ((this.#flags & ORIG_STACK) === 0 || (this.#flags & CALL_ORIG) === 0) return false;
    const { driverReturn, nestedReturn } = this.#tried.callers;
    return returnAddress !== driverReturn && returnAddress !== nestedReturn;
  }

  #verdict(
    rule: ImageRule,
    detail: string,
    values: { readonly expected?: string; readonly seen?: string },
    hint: Hint | undefined,
  ): Verdict {
    const { registers } = this.#one;
    const args = this.#args
      .map(({ register, stack = 0 }) =>
        register === undefined
          ? `stack[${stack}] = ${hex64(registers.stack[stack] as bigint)}`
          : `${ARGS[register]} = ${hex64(registers.args[register] as bigint)}`,
      )
      .join(', ');
    const situation = args === '' ? describe(this.#one) : `${describe(this.#one)}; ${args}`;
    return { rule, detail, ...values, situation, hint };
  }
}
