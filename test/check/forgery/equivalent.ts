/*
 * Why a changed byte of an image changes nothing that anybody can see. Some reasons lie in the one instruction;
 * for the others, the image and its forgery are run side by side on names (symbolic.ts) from a place before the
 * change, along every way that control can take, until both are in the same state or have returned:
 *
 *   at each call     the same function, the same arguments, the same frame as far as the callee may look
 *   at each branch   the same way, for each way there is
 *   at the return    the same saved registers, the same rsp, the same result where there is one
 */

import { programsIn } from '../../../check/index.ts';
import { type RevisionName, TrampFlag, type TrampolineRequest } from '../../../jit/index.ts';
import { type Instruction, instructionAt } from './instruction.ts';
import {
  carryOf,
  flagsName,
  isNegative,
  isNop,
  newProof,
  REACH_BYTES,
  run,
  State,
  type Stop,
  Unprovable,
} from './symbolic.ts';

const { RESTORE_REGS, CALL_ORIG, SKIP_FRAME, IP_ARG, RET_FENTRY_RET } = TrampFlag;
const ARGS = ['rdi', 'rsi', 'rdx', 'rcx', 'r8', 'r9'];
const SAVED = ['rbx', 'rbp', 'r12', 'r13', 'r14', 'r15'];
const SCRATCH = ['rax', 'rcx', 'rdx', 'rsi', 'rdi', 'r8', 'r9', 'r10', 'r11'];
/** What a larger frame can take without running out of stack: an 8-bit amount. */
const LARGEST_FRAME = 127n;
/** The nop at ip_after_call. */
const NOP_BYTES = 5;
/** Ways through an image that are followed at most. */
const MOST_WAYS = 1024;
/** Places that a proof begins at, each further in front of the change, at most. */
const MOST_BEGINNINGS = 3;

export interface Forged {
  readonly revision: RevisionName;
  readonly request: TrampolineRequest;
  readonly bytes: Uint8Array;
  readonly forged: Uint8Array;
  /** Of the byte that differs. */
  readonly offset: number;
  readonly ipAfterCall: number | null;
  readonly ipEpilogue: number | null;
}

export const REASONS = {
  'same instruction': 'another encoding of the same instruction, by the independent decoder',
  'still a nop': 'a nop before and after',
  'never reached': 'every call ends before it, in a helper that is handed a struct at no possible address',
  'larger frame': 'the frame is larger by words that nobody uses, and calls are made at the same alignment',
  'larger frame, no call': 'the frame is larger by bytes that nobody uses, and the image calls nothing',
  'same effect': 'both leave the same state behind',
  'difference dies':
    'what it leaves otherwise is overwritten, or returned from, before anybody may look at it',
} as const;
export type Reason = keyof typeof REASONS;

/** Why nobody can see the difference; undefined when no reason is known. */
export function whyEqual(one: Forged): Reason | undefined {
  const base = one.request.image;
  // A text poke compares these bytes, whatever they do.
  const { ipAfterCall } = one;
  if (ipAfterCall !== null && one.offset >= ipAfterCall && one.offset < ipAfterCall + NOP_BYTES)
    return undefined;
  const rows = instructions(one.bytes, base);
  const index = rows.findLastIndex(({ offset }) => offset <= one.offset);
  const before = rows[index];
  if (before === undefined) return undefined;
  const after = instructionAt(one.forged, before.offset, base);
  const sameLength = after.valid && after.next === before.next;
  if (sameLength && before.exact === after.exact) return 'same instruction';
  if (sameLength && isNop(before) && isNop(after)) return 'still a nop';
  if (neverReached(one, rows, before.offset)) return 'never reached';
  return frameReason(before, after, rows) ?? provedReason(one, rows, index);
}

function instructions(bytes: Uint8Array, base: bigint): readonly Instruction[] {
  const rows: Instruction[] = [];
  for (let at = 0; at < bytes.length; ) {
    const insn = instructionAt(bytes, at, base);
    rows.push(insn);
    at = Math.max(insn.next, at + 1);
  }
  return rows;
}

function isImpossible(address: bigint): boolean {
  return address < 4096n || BigInt.asUintN(64, BigInt.asIntN(48, address)) !== address;
}

/** Behind the first call that a struct at no possible address is handed to. */
function neverReached({ request }: Forged, rows: readonly Instruction[], offset: number): boolean {
  const calls = rows.filter(({ flow }) => flow === 'call');
  const behind = (index: number): boolean => offset >= (calls[index]?.next ?? Number.POSITIVE_INFINITY);
  const callsOriginal = (request.flags & CALL_ORIG) !== 0;
  if (callsOriginal && isImpossible(request.im)) return behind(0);
  const program = programsIn(request).findIndex(({ prog }) => isImpossible(prog));
  // An fmod_ret program before it could speak, and it would not be entered.
  const alwaysEntered = request.fentry.length + (request.fmodRet.length > 0 ? 1 : 0);
  if (program < 0 || program >= alwaysEntered) return false;
  // Each program before it takes three calls: enter, the program, exit.
  return behind((callsOriginal ? 1 : 0) + 3 * program);
}

function frameReason(
  before: Instruction,
  after: Instruction,
  rows: readonly Instruction[],
): Reason | undefined {
  const amount = ({ mnemonic, operands }: Instruction): bigint | undefined => {
    const [register, by] = operands;
    const isFrame =
      mnemonic === 'sub' &&
      register?.kind === 'register' &&
      register.name === 'rsp' &&
      register.sizeBytes === 8;
    return isFrame && by?.kind === 'immediate' ? BigInt.asIntN(64, by.value) : undefined;
  };
  const [own, other] = [amount(before), amount(after)];
  if (own === undefined || other === undefined || after.next !== before.next) return undefined;
  if (other < own || other > LARGEST_FRAME) return undefined;
  if (!rows.some(({ flow }) => flow === 'call')) return 'larger frame, no call';
  return (other - own) % 16n === 0n ? 'larger frame' : undefined;
}

function provedReason(one: Forged, rows: readonly Instruction[], index: number): Reason | undefined {
  for (let beginnings = 0, begin = index; beginnings < MOST_BEGINNINGS && begin >= 0; beginnings++) {
    newProof();
    begin = cut(one, rows, begin);
    try {
      const reason = new Proof(one, rows).from(begin);
      if (reason !== undefined) return reason;
    } catch (error) {
      if (!(error instanceof Unprovable)) throw error;
    }
    begin--;
  }
  return undefined;
}

/** The last place at or before an instruction that control can come to from elsewhere, or behind a call or branch. */
function cut({ request }: Forged, rows: readonly Instruction[], index: number): number {
  const targets = new Set(
    rows.filter(({ flow }) => flow === 'branch').map(({ target }) => Number((target ?? 0n) - request.image)),
  );
  for (let i = index; i > 0; i--) {
    const row = rows[i] as Instruction;
    const previous = rows[i - 1] as Instruction;
    if (targets.has(row.offset) || previous.flow === 'call' || previous.flow === 'branch') return i;
  }
  return 0;
}

/** A way that a value can be: what the conditions of branches ask. */
type Sign = 'zero' | 'negative' | 'positive';

class Proof {
  readonly #one: Forged;
  readonly #rows: readonly Instruction[];
  readonly #flags: number;
  readonly #seen = new Set<string>();
  #ways = 0;
  #sameAtOnce = true;

  constructor(one: Forged, rows: readonly Instruction[]) {
    this.#one = one;
    this.#rows = rows;
    const known = one.revision === 'v5.13' ? 7 : 31;
    this.#flags = one.request.flags & known;
  }

  #has(flag: number): boolean {
    return (this.#flags & flag) !== 0;
  }

  get #hasResult(): boolean {
    return this.#has(CALL_ORIG) || this.#has(RET_FENTRY_RET);
  }

  /** Whether anybody writes the result: a struct_ops image without program returns what the stack held. */
  get #resultIsKnown(): boolean {
    const { fentry, fmodRet } = this.#one.request;
    return this.#has(CALL_ORIG) || (this.#has(RET_FENTRY_RET) && fentry.length + fmodRet.length > 0);
  }

  /** Bytes from fp down to argument 0. */
  get #ctx(): number {
    return 8 * (this.#one.request.argSizes.length + (this.#hasResult ? 1 : 0));
  }

  from(index: number): Reason | undefined {
    const { bytes, forged } = this.#one;
    const state = this.#before(index);
    if (!this.#equal(state, state.copy(), new Map(), bytes, forged)) return undefined;
    return this.#sameAtOnce ? 'same effect' : 'difference dies';
  }

  /** What is known in front of an instruction. */
  #before(index: number): State {
    const state = new State((this.#rows[index] as Instruction).offset);
    if (index === 0) {
      state.regs.set('rsp', 'fp+8');
      return state;
    }
    const size = this.#ctx + (this.#has(IP_ARG) ? 8 : 0);
    state.regs.set('rbp', 'fp+0');
    state.regs.set('rsp', `fp-${size + 8}`);
    // The caller's rbx is where it was pushed, and in its register as long as nobody has written that.
    const rows = this.#rows.slice(0, index);
    if (rows.every(({ writes }) => !writes.includes('rbx'))) state.known.set(-(size + 8), 'rbx');
    // While an fmod_ret program is invoked the result is zero: the chain would have ended otherwise.
    const previous = this.#rows[index - 1] as Instruction;
    if (this.#invokesFmodRet(previous)) state.known.set(-8, '#0');
    return state;
  }

  /** Whether an instruction is the call that enters an fmod_ret program, or the branch behind one. */
  #invokesFmodRet({ flow, target, mnemonic, offset }: Instruction): boolean {
    const { request } = this.#one;
    const first = this.#rows.findIndex(({ text }) => /^xor\s+eax, ?eax$/i.test(text));
    const last = this.#rows.findLastIndex((row) => row.mnemonic === 'jne');
    if (request.fmodRet.length === 0 || first < 0) return false;
    const inChain = offset > (this.#rows[first]?.offset ?? 0) && offset <= (this.#rows[last]?.offset ?? 0);
    if (!inChain && !this.#isOriginal(target)) return false;
    const enters = Object.entries(request.helpers).some(
      ([name, at]) => at === target && name.startsWith('__bpf_prog_enter'),
    );
    // After test of the start time, je; after cmp of the result, jne.
    // The original is called only when nobody has spoken.
    if (flow === 'call' && this.#isOriginal(target)) return true;
    return (flow === 'call' && enters) || (flow === 'branch' && (mnemonic === 'jne' || mnemonic === 'je'));
  }

  #isOriginal(target: bigint | undefined): boolean {
    const { origCall } = this.#one.request;
    return this.#has(CALL_ORIG) && (target === origCall || target === origCall + 5n);
  }

  #equal(a: State, b: State, signs: ReadonlyMap<string, Sign>, one: Uint8Array, other: Uint8Array): boolean {
    if (++this.#ways > MOST_WAYS) throw new Unprovable('too many ways');
    const base = this.#one.request.image;
    const stop = this.#one.ipAfterCall ?? undefined;
    const stopA = this.#advance(a, one, base, stop, signs);
    const stopB = this.#advance(b, other, base, stop, signs);
    const split = undecided(a, stopA, signs) ?? undecided(b, stopB, signs);
    if (split !== undefined) return this.#eachSign(split, a, b, signs, one, other);
    if (stopA.flow === 'branch' || stopB.flow === 'branch')
      return this.#sameBranch(a, stopA, b, stopB, signs);
    if (a.at === stop || b.at === stop) return this.#afterCall(a, b, stop as number, signs);
    if (stopA.flow !== stopB.flow) return false;
    if (stopA.flow === 'return') return stopA.text === stopB.text && this.#sameReturn(a, b);
    return this.#sameCall(a, stopA, b, stopB, signs, one, other);
  }

  /** At ip_after_call, which goes on behind it, or to the epilogue once the image is retired: both images alike. */
  #afterCall(a: State, b: State, stop: number, signs: ReadonlyMap<string, Sign>): boolean {
    const { bytes, forged, ipEpilogue } = this.#one;
    if (ipEpilogue === null) throw new Unprovable('ip_after_call without ip_epilogue');
    return [stop + NOP_BYTES, ipEpilogue].every((next) => {
      const go = (state: State): State => {
        const copy = state.copy();
        if (copy.at === stop) copy.at = next;
        return copy;
      };
      return this.#equal(go(a), go(b), signs, bytes, forged);
    });
  }

  /** To the next stop that signs do not decide. */
  #advance(
    state: State,
    image: Uint8Array,
    base: bigint,
    stopAt: number | undefined,
    signs: ReadonlyMap<string, Sign>,
  ): Stop {
    for (let branches = 0; branches < MOST_WAYS; branches++) {
      const stop = run(state, image, base, stopAt);
      if (stop.flow !== 'branch') return stop;
      const taken = outcome(state, stop, signs);
      if (taken === undefined) return stop;
      state.at = taken ? Number((stop.target ?? 0n) - base) : stop.next;
    }
    throw new Unprovable('does not end');
  }

  #eachSign(
    value: string,
    a: State,
    b: State,
    signs: ReadonlyMap<string, Sign>,
    one: Uint8Array,
    other: Uint8Array,
  ): boolean {
    return (['zero', 'negative', 'positive'] as const).every((sign) => {
      const [copyA, copyB] = [a.copy(), b.copy()];
      if (sign === 'zero' && !value.startsWith('cat(')) {
        copyA.substitute(value, '#0');
        copyB.substitute(value, '#0');
      }
      const known = new Map(signs).set(value, sign);
      for (const state of [copyA, copyB]) {
        if (state.flags.of === '#0') continue;
        if (sign === 'zero' && state.flags.of === value)
          state.flags = { ...state.flags, of: '#0', sizeBytes: 8 };
      }
      return this.#equal(copyA, copyB, known, one, other);
    });
  }

  /**
   * A branch that can go either way: the same way in both when they ask the same of the same flags; else
   * every way of the one has to come to the same as every way of the other.
   */
  #sameBranch(a: State, stopA: Stop, b: State, stopB: Stop, signs: ReadonlyMap<string, Sign>): boolean {
    const { bytes, forged, request } = this.#one;
    const go = (state: State, stop: Stop, taken: boolean): State => {
      const copy = state.copy();
      copy.at = taken ? Number((stop.target ?? 0n) - request.image) : stop.next;
      return copy;
    };
    const ways = (state: State, stop: Stop): State[] =>
      stop.flow === 'branch' ? [go(state, stop, true), go(state, stop, false)] : [state];
    const waysB = ways(b, stopB);
    const asked = stopA.mnemonic === stopB.mnemonic && flagsName(a.flags) === flagsName(b.flags);
    return ways(a, stopA).every((one, i) =>
      (asked ? waysB.slice(i, i + 1) : waysB).every((other) =>
        this.#equal(one.copy(), other.copy(), signs, bytes, forged),
      ),
    );
  }

  #sameReturn(a: State, b: State): boolean {
    if (this.#differs(a, b) || this.#unlike(a, b)) this.#sameAtOnce = false;
    const same = (register: string): boolean => a.get(register) === b.get(register);
    if (![...SAVED, 'rsp'].every(same)) return false;
    if (this.#resultIsKnown && !same('rax')) return false;
    // The caller's part of the stack.
    for (let offset = 8; offset < REACH_BYTES; offset++) {
      if (a.byte(offset) !== b.byte(offset)) return false;
    }
    if (this.#has(SKIP_FRAME) || !this.#has(RESTORE_REGS) || this.#has(CALL_ORIG)) return true;
    return this.#one.request.argSizes.every((_, i) => same(ARGS[i] as string));
  }

  #sameCall(
    a: State,
    stopA: Stop,
    b: State,
    stopB: Stop,
    signs: ReadonlyMap<string, Sign>,
    one: Uint8Array,
    other: Uint8Array,
  ): boolean {
    if (stopA.target === undefined || stopA.target !== stopB.target || stopA.next !== stopB.next)
      return false;
    if (!this.#sameArguments(a, b, stopA.target)) return false;
    // Nothing comes back from a helper that faults.
    if (this.#faults(a, stopA.target)) return true;
    for (const state of [a, b]) {
      state.forgetBelowRsp(`left@${stopA.next}`);
    }
    if (programsIn(this.#one.request).some(({ bpfFunc }) => bpfFunc === stopA.target))
      this.#written(a, b, `written@${stopA.next}`);
    const differs = this.#differs(a, b);
    if (differs || this.#unlike(a, b)) this.#sameAtOnce = false;
    // Nobody comes back to the change from behind it.
    if (!differs && stopA.next > this.#one.offset) return true;
    // Registers that callees may change, and flags, hold the same unknown things from here on.
    for (const state of [a, b]) {
      for (const register of SCRATCH) state.regs.set(register, `${register}@${stopA.next}`);
      state.flags = { of: undefined, name: `flags@${stopA.next}` };
      state.at = stopA.next;
    }
    const key = `${a.at} ${a.describe([...SAVED, 'rsp'])} ${b.describe([...SAVED, 'rsp'])}`;
    const signed = [...signs].filter(([name]) => key.includes(name)).join(' ');
    if (this.#seen.has(key + signed)) return true;
    this.#seen.add(key + signed);
    return this.#equal(a, b, signs, one, other);
  }

  /** A program may have changed its context, alike where it found it alike. */
  #written(a: State, b: State, how: string): void {
    for (let offset = -this.#ctx; offset < 0; offset++) {
      const alike = a.byte(offset) === b.byte(offset);
      a.memory.set(offset, `${how}_${offset}.0`);
      b.memory.set(offset, alike ? `${how}_${offset}.0` : `${how}_${offset}_other.0`);
    }
  }

  /** Whether a helper is handed a struct at no possible address. */
  #faults(state: State, target: bigint): boolean {
    const { helpers } = this.#one.request;
    const name = Object.keys(helpers).find((key) => helpers[key] === target) ?? '';
    const struct = /^#([0-9a-f]+)$/.exec(state.get('rdi'))?.[1];
    return /_enter/.test(name) && struct !== undefined && isImpossible(BigInt(`0x${struct}`));
  }

  /** What a callee may look at. */
  #sameArguments(a: State, b: State, target: bigint): boolean {
    const { request } = this.#one;
    const same = (register: string): boolean => a.get(register) === b.get(register);
    if (!same('rsp') || !same('rbp')) return false;
    const bytesEqual = (offset: number, count: number): boolean =>
      a.bytes(offset, count).every((byte, i) => byte === b.byte(offset + i));
    if (!bytesEqual(0, REACH_BYTES)) return false;
    const name = Object.keys(request.helpers).find((key) => request.helpers[key] === target);
    if (name !== undefined) return same('rdi') && (!name.includes('prog_exit') || same('rsi'));
    const programs = programsIn(request).filter(({ bpfFunc }) => bpfFunc === target);
    if (programs.length === 0) return request.argSizes.every((_, i) => same(ARGS[i] as string));
    if (!same('rdi') || (programs.some(({ jited }) => !jited) && !same('rsi'))) return false;
    const argsEqual = request.argSizes.every((size, i) => bytesEqual(8 * i - this.#ctx, size));
    const seesResult = programs.some((prog) => !request.fentry.includes(prog));
    const ipEqual = !this.#has(IP_ARG) || bytesEqual(-this.#ctx - 8, 8);
    return argsEqual && ipEqual && (!seesResult || !this.#hasResult || bytesEqual(-8, 8));
  }

  /** Whether what callees may change is not the same. */
  #unlike(a: State, b: State): boolean {
    return (
      SCRATCH.some((register) => a.get(register) !== b.get(register)) ||
      flagsName(a.flags) !== flagsName(b.flags)
    );
  }

  /** Whether anything outlives a call that is not the same. */
  #differs(a: State, b: State): boolean {
    if ([...SAVED, 'rsp'].some((register) => a.get(register) !== b.get(register))) return true;
    return [...a.memory.keys(), ...b.memory.keys()].some((offset) => a.byte(offset) !== b.byte(offset));
  }
}

/** The value whose sign a branch asks for, when it is not known yet. */
function undecided(state: State, stop: Stop, signs: ReadonlyMap<string, Sign>): string | undefined {
  if (stop.flow !== 'branch' || state.flags.of === undefined || state.flags.sizeBytes !== 8) return undefined;
  if (outcome(state, stop, signs) !== undefined || signs.has(state.flags.of)) return undefined;
  return /^j(e|ne|be|a|l|ge|le|g|s|ns)$/.test(stop.mnemonic) ? state.flags.of : undefined;
}

/** Whether a branch is taken; undefined when that is not known. */
function outcome(
  { flags }: State,
  { mnemonic }: Stop,
  signs: ReadonlyMap<string, Sign>,
): boolean | undefined {
  if (flags.of === undefined) return undefined;
  // Overflow is clear after a logical operation, and after a comparison with zero.
  const carry = carryOf(flags) === true;
  if (mnemonic === 'jo') return false;
  if (mnemonic === 'jno') return true;
  if (mnemonic === 'jb') return carry;
  if (mnemonic === 'jae') return !carry;
  const sign: Sign | undefined =
    flags.of === '#0' ? 'zero' : isNegative(flags.of) ? 'negative' : signs.get(flags.of);
  if (sign === undefined || (flags.sizeBytes !== 8 && sign !== 'zero')) return undefined;
  const [zero, negative] = [sign === 'zero', sign === 'negative'];
  const taken: Readonly<Record<string, boolean>> = {
    je: zero,
    jbe: carry || zero,
    jne: !zero,
    ja: !carry && !zero,
    jl: negative,
    js: negative,
    jge: !negative,
    jns: !negative,
    jle: zero || negative,
    jg: !zero && !negative,
  };
  return taken[mnemonic];
}
