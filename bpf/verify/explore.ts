/*
 * A program followed along all of its paths, with what each register holds; what was met on the way is what the
 * rewriting needs to know.
 *
 *   value.ts, scalar.ts   what a register holds          memory.ts    loads and stores
 *   state.ts              registers and stacks           calls.ts     helpers, functions, the end
 *   liveness.ts           which registers count
 *
 * A state that was seen before at the same place is not followed again. Where too many meet, as in loops, what
 * differs between them is given up, so that it ends.
 *
 * Kernel: do_check, kernel/bpf/verifier.c. simplified: it is no proof of safety; docs/fidelity.md tells what is
 * not looked at.
 */

import * as op from '../../jit/index.ts';
import { type BpfInsn, bpfClass, bpfMode, bpfOp, bpfSize, bpfSrc, isLdImm64 } from '../../jit/index.ts';
import { SIZES } from '../interp/memory.ts';
import { call, enterProgram, exit, standsAlone } from './calls.ts';
import type { BpfCode, BpfEnvironment } from './environment.ts';
import { liveRegisters } from './liveness.ts';
import { load, store, symbolValue } from './memory.ts';
import {
  isConditional,
  isExit,
  isJa,
  jumpDistance,
  MAX_INSNS,
  subprogFrom,
  successors,
} from './program-map.ts';
import { refuse } from './refusal.ts';
import {
  compute,
  constantOf,
  decide,
  extended,
  known,
  lowHalf,
  refine,
  type Scalar,
  UNKNOWN,
} from './scalar.ts';
import type { ProgramState } from './state.ts';
import { isPointer, loosened, moved, NULL, nameOf, type Value } from './value.ts';

/** What a load does, on every path: the kernel can rewrite it for one kind of pointer only. */
export type LoadKind = 'plain' | 'probe';

/** A tail call: the slot that it always takes, or undefined when that is not known. */
export interface TailCallFact {
  readonly map: number | undefined;
  readonly slot: number | undefined;
}

export interface Facts {
  /** By slot: whether a path leads there; 1 for both slots of an immediate. */
  readonly seen: Uint8Array;
  readonly loads: Map<number, LoadKind>;
  readonly tailCalls: Map<number, TailCallFact>;
  /** Bytes, by subprogram. */
  readonly stackDepth: number[];
  readonly maps: Set<number>;
  readonly globals: Set<number>;
  processedInsns: number;
}

/** States that are kept apart at one place before they are widened. */
const STATES_APART = 24;

interface Place {
  readonly keys: Set<string>;
  /** The state that others are widened against. */
  first: ProgramState;
  visits: number;
}

export class Exploration {
  readonly code: BpfCode;
  readonly env: BpfEnvironment;
  readonly facts: Facts;
  #nullables = 0;
  readonly #live: Uint16Array;
  readonly #joins: Uint8Array;
  readonly #places = new Map<string, Place>();
  readonly #open: ProgramState[] = [];

  constructor(code: BpfCode, env: BpfEnvironment) {
    this.code = code;
    this.env = env;
    this.#live = liveRegisters(code);
    this.#joins = joins(code);
    this.facts = {
      seen: new Uint8Array(code.insns.length),
      loads: new Map(),
      tailCalls: new Map(),
      stackDepth: code.subprogs.map(() => 0),
      maps: new Set(),
      globals: new Set(),
      processedInsns: 0,
    };
  }

  /** @throws InputError with the first instruction that a path must not reach so */
  run(): Facts {
    // Global functions are looked at by themselves, and their callers only see their prototypes.
    for (const subprog of this.code.subprogs.keys()) {
      if (subprog === 0 || standsAlone(this, subprog)) this.#follow(enterProgram(this, subprog));
    }
    return this.facts;
  }

  refuse(at: number, reason: string): never {
    return refuse(this.code, at, reason);
  }

  /** A number that all copies of a pointer that may be null share. */
  nullable(): number {
    return ++this.#nullables;
  }

  /** A path to be followed later. */
  fork(state: ProgramState): void {
    this.#open.push(state);
  }

  #follow(entry: ProgramState): void {
    this.fork(entry);
    for (let state = this.#open.pop(); state !== undefined; state = this.#open.pop()) {
      while (!this.#known(state) && this.#step(state));
    }
  }

  /** Whether this state, or one that covers it, was here before. */
  #known(state: ProgramState): boolean {
    if (this.#joins[state.at] === 0) return false;
    const name = state.place;
    let place = this.#places.get(name);
    if (place === undefined) {
      place = { keys: new Set(), first: state.copy(), visits: 0 };
      this.#places.set(name, place);
    }
    if (++place.visits > STATES_APART) {
      state.widen(place.first);
      place.first = state.copy();
    }
    const key = state.key(this.#live[state.at] as number);
    if (place.keys.has(key)) return true;
    place.keys.add(key);
    return false;
  }

  /** One instruction; false at the end of a path. */
  #step(state: ProgramState): boolean {
    const { at } = state;
    const insn = this.code.insns[at] as BpfInsn;
    this.facts.seen[at] = 1;
    if (++this.facts.processedInsns > MAX_INSNS) {
      this.refuse(at, `its paths have more than ${MAX_INSNS} instructions in all`);
    }
    if (isExit(insn)) return exit(this, state);
    if (isJa(insn)) {
      state.at += 1 + jumpDistance(insn);
      return true;
    }
    if (isConditional(insn)) return this.#branch(state, insn);
    if (insn.code === (op.BPF_JMP | op.BPF_CALL)) return call(this, state, insn);
    state.at += isLdImm64(insn) ? 2 : 1;
    switch (bpfClass(insn.code)) {
      case op.BPF_LD:
        this.facts.seen[at + 1] = 1;
        state.frame.registers[insn.dst] = this.#immediate(insn, at);
        break;
      case op.BPF_LDX:
        state.frame.registers[insn.dst] = load(this, state, insn, at);
        break;
      case op.BPF_ST:
        store(this, state, at, insn.dst, insn.off, sizeOf(insn), known(BigInt(insn.imm)));
        break;
      case op.BPF_STX:
        this.#storeRegister(state, insn, at);
        break;
      default:
        state.frame.registers[insn.dst] = this.#alu(state, insn, at);
    }
    return true;
  }

  /** A register that must have been written. */
  read(state: ProgramState, register: number, at: number): Value {
    const value = state.frame.registers[register] as Value;
    if (value.kind === 'nothing') this.refuse(at, `r${register} is not initialised`);
    return value;
  }

  // -- constants --------------------------------------------------------------------------------

  #immediate(insn: BpfInsn, at: number): Value {
    const { maps, globals } = this.env;
    const high = (this.code.insns[at + 1] as BpfInsn).imm;
    switch (insn.src) {
      case op.BPF_PSEUDO_MAP_FD: {
        const map = maps[insn.imm];
        if (map === undefined) return this.refuse(at, `there is no map ${insn.imm}`);
        this.facts.maps.add(insn.imm);
        return { kind: 'map', map, index: insn.imm, nullable: undefined };
      }
      case op.BPF_PSEUDO_MAP_VALUE: {
        const global = globals[insn.imm];
        if (global === undefined) return this.refuse(at, `there are no variables ${insn.imm}`);
        this.facts.globals.add(insn.imm);
        return { kind: 'global', global, off: high >>> 0, loose: false };
      }
      case op.BPF_PSEUDO_FUNC:
        return { kind: 'function', subprog: subprogFrom(this.code, at + 1 + insn.imm) };
      case op.BPF_PSEUDO_BTF_ID:
        return this.#symbol(insn, at);
      case 0:
        return known((BigInt.asUintN(32, BigInt(high)) << 32n) | BigInt.asUintN(32, BigInt(insn.imm)));
      default:
        return this.refuse(at, `its source ${insn.src} is not known here`);
    }
  }

  /** The address of something of the kernel's. */
  #symbol(insn: BpfInsn, at: number): Value {
    const extern = this.env.externs[insn.imm];
    if (extern === undefined) return this.refuse(at, `there is no symbol ${insn.imm}`);
    if (extern.address === undefined) return NULL;
    return symbolValue(extern, this.env);
  }

  // -- arithmetic -------------------------------------------------------------------------------

  #alu(state: ProgramState, insn: BpfInsn, at: number): Value {
    const { code, dst, src, off, imm } = insn;
    const wide = bpfClass(code) === op.BPF_ALU64;
    const operation = bpfOp(code);
    const operand =
      bpfSrc(code) === op.BPF_X && operation !== op.BPF_END ? this.read(state, src, at) : known(BigInt(imm));
    if (operation === op.BPF_MOV) return movedValue(operand, off, wide);
    const value = this.read(state, dst, at);
    if (operation === op.BPF_END) return extended(UNKNOWN, Math.min(imm, 64), false);
    if (operation === op.BPF_NEG) return this.#computed(op.BPF_SUB, known(0n), value, wide, false, at);
    return this.#computed(operation, value, operand, wide, off === 1, at);
  }

  #computed(operation: number, a: Value, b: Value, wide: boolean, isSigned: boolean, at: number): Value {
    if (a.kind === 'scalar' && b.kind === 'scalar') return compute(operation, a, b, wide ? 64 : 32, isSigned);
    if (a.kind === 'unknown' || b.kind === 'unknown') return wide ? { kind: 'unknown' } : UNKNOWN;
    // Both sides of an addition may be the pointer.
    const [pointer, other] = isPointer(a) ? [a, b] : [b, a];
    if (!isPointer(pointer)) {
      return this.refuse(at, `arithmetic on ${nameOf(pointer.kind === 'scalar' ? other : pointer)}`);
    }
    if ('nullable' in pointer && pointer.nullable !== undefined) {
      return this.refuse(at, `arithmetic on ${nameOf(pointer)}: compare it with 0 first`);
    }
    const adds = operation === op.BPF_ADD;
    const subtracts = operation === op.BPF_SUB && pointer === a;
    if (!wide || !(adds || subtracts) || other.kind !== 'scalar') return lowHalfIf(!wide);
    const by = constantOf(other);
    if (by === undefined) return loosened(pointer, subtracts ? -other.max : other.min);
    const distance = Number(BigInt.asIntN(64, subtracts ? -by : by));
    return Math.abs(distance) < 1 << 29 ? moved(pointer, distance) : loosened(pointer, 0n);
  }

  // -- memory -----------------------------------------------------------------------------------

  #storeRegister(state: ProgramState, insn: BpfInsn, at: number): void {
    const { code, dst, src, off, imm } = insn;
    const value = this.read(state, src, at);
    if (bpfMode(code) !== op.BPF_ATOMIC) {
      store(this, state, at, dst, off, sizeOf(insn), value);
      return;
    }
    if (imm === op.BPF_CMPXCHG) this.read(state, 0, at);
    store(this, state, at, dst, off, sizeOf(insn), undefined);
    if ((imm & op.BPF_FETCH) === 0) return;
    const old = sizeOf(insn) === 8 ? UNKNOWN : lowHalf(UNKNOWN);
    state.frame.registers[imm === op.BPF_CMPXCHG ? 0 : src] = old;
  }

  // -- jumps ------------------------------------------------------------------------------------

  #branch(state: ProgramState, insn: BpfInsn): boolean {
    const { at } = state;
    const { code, dst, src, off, imm } = insn;
    const condition = bpfOp(code);
    const width = bpfClass(code) === op.BPF_JMP ? 64 : 32;
    const byRegister = bpfSrc(code) === op.BPF_X;
    const left = this.read(state, dst, at);
    const right = byRegister ? this.read(state, src, at) : known(BigInt(imm));
    const taken =
      width === 64
        ? (against(condition, left, right) ?? scalars(condition, left, right, width))
        : scalars(condition, left, right, width);
    const target = at + 1 + off;
    if (taken !== undefined) {
      state.at = taken ? target : at + 1;
      this.#refined(state, insn, left, right, taken);
      return true;
    }
    const other = state.copy(target);
    this.#refined(other, insn, left, right, true);
    this.fork(other);
    state.at = at + 1;
    this.#refined(state, insn, left, right, false);
    return true;
  }

  /** What a path knows because of the way it went. */
  #refined(state: ProgramState, insn: BpfInsn, left: Value, right: Value, taken: boolean): void {
    const condition = bpfOp(insn.code);
    const width = bpfClass(insn.code) === op.BPF_JMP ? 64 : 32;
    const { registers } = state.frame;
    if ('nullable' in left && left.nullable !== undefined) {
      const compares = condition === op.BPF_JEQ || condition === op.BPF_JNE;
      if (compares && width === 64 && isZero(right)) {
        state.resolveNull(left.nullable, (condition === op.BPF_JEQ) === taken);
      }
      return;
    }
    if (left.kind !== 'scalar' || right.kind !== 'scalar') return;
    registers[insn.dst] = refine(condition, left, right, width, taken);
    const mirrored = MIRRORED[condition];
    if (bpfSrc(insn.code) === op.BPF_X && mirrored !== undefined && insn.src !== insn.dst) {
      registers[insn.src] = refine(mirrored, right, left, width, taken);
    }
  }
}

const sizeOf = ({ code }: BpfInsn): number => SIZES[bpfSize(code)] as number;

const isZero = (value: Value): boolean => value.kind === 'scalar' && constantOf(value) === 0n;

const lowHalfIf = (narrow: boolean): Scalar => (narrow ? lowHalf(UNKNOWN) : UNKNOWN);

/** A condition with its operands the other way round. */
const MIRRORED: Readonly<Record<number, number>> = {
  [op.BPF_JEQ]: op.BPF_JEQ,
  [op.BPF_JNE]: op.BPF_JNE,
  [op.BPF_JGT]: op.BPF_JLT,
  [op.BPF_JLT]: op.BPF_JGT,
  [op.BPF_JGE]: op.BPF_JLE,
  [op.BPF_JLE]: op.BPF_JGE,
  [op.BPF_JSGT]: op.BPF_JSLT,
  [op.BPF_JSLT]: op.BPF_JSGT,
  [op.BPF_JSGE]: op.BPF_JSLE,
  [op.BPF_JSLE]: op.BPF_JSGE,
};

function movedValue(value: Value, off: number, wide: boolean): Value {
  if (value.kind !== 'scalar') return wide && off === 0 ? value : lowHalfIf(!wide);
  if (off === 0) return wide ? value : lowHalf(value);
  const result = extended(value, off, true);
  return wide ? result : lowHalf(result);
}

/** A pointer that is not null, compared with null. */
function against(condition: number, left: Value, right: Value): boolean | undefined {
  if (!isZero(right) || !NEVER_NULL.has(left.kind)) return undefined;
  if ('nullable' in left && left.nullable !== undefined) return undefined;
  if (condition === op.BPF_JEQ) return false;
  return condition === op.BPF_JNE ? true : undefined;
}

/** Kernel: reg_type_not_null. A struct of the kernel's may be null after all. */
const NEVER_NULL: ReadonlySet<Value['kind']> = new Set(['map-value', 'global', 'memory', 'map', 'function']);

function scalars(condition: number, left: Value, right: Value, width: 32 | 64): boolean | undefined {
  if (left.kind !== 'scalar' || right.kind !== 'scalar') return undefined;
  return decide(condition, left, right, width);
}

/** Slots where several ways meet: 1. Only there states are compared. */
function joins({ insns, subprogs }: BpfCode): Uint8Array {
  const meets = new Uint8Array(insns.length);
  for (const { start, length } of subprogs) {
    meets[start] = 1;
    for (let at = start; at < start + length; at++) {
      const insn = insns[at] as BpfInsn;
      if (isJa(insn) || isConditional(insn)) for (const next of successors(insns, at)) meets[next] = 1;
      if (insn.code === (op.BPF_JMP | op.BPF_CALL)) meets[at + 1] = 1;
      if (isLdImm64(insn)) at++;
    }
  }
  return meets;
}
