/*
 * Where a program begins, what it calls, and where it ends.
 *
 * Kernel: check_helper_call, check_func_call, check_kfunc_call, prepare_func_exit, check_return_code;
 * kernel/bpf/verifier.c
 */

import type { BpfInsn } from '../../jit/index.ts';
import * as op from '../../jit/index.ts';
import { bareType, typeBytes } from '../../obj/index.ts';
import { isPoison } from '../core-patch.ts';
import type { BpfExternPlace, BpfTypeRef } from './environment.ts';
import type { Exploration } from './explore.ts';
import { checkHelper } from './helper-call.ts';
import { wordValue } from './memory.ts';
import { isCallOfFunction, subprogFrom } from './program-map.ts';
import { constantOf, UNKNOWN } from './scalar.ts';
import { MAX_FRAMES } from './stack-depth.ts';
import { type CallKind, FrameState, ProgramState } from './state.ts';
import { pointedStruct } from './struct-walk.ts';
import { ANYTHING, NOTHING, nameOf, type Value } from './value.ts';

const FIRST_ARGUMENT = op.BPF_REG_1;
const MAX_ARGUMENTS = 5;

// -- the beginning ------------------------------------------------------------------------------

/** The state that a program begins in, or a global function of it. */
export function enterProgram(x: Exploration, subprog: number): ProgramState {
  const frame = new FrameState(subprog, 'program', -1, 0);
  const values = subprog === 0 ? entryValues(x) : parameterValues(x, subprog);
  for (const [i, value] of values.entries()) frame.registers[FIRST_ARGUMENT + i] = value;
  return new ProgramState([frame], x.code.subprogs[subprog]?.start ?? 0);
}

function entryValues(x: Exploration): Value[] {
  const { entry } = x.env;
  switch (entry.kind) {
    case 'trampoline':
      return [{ kind: 'args', off: 0, loose: false }];
    case 'opaque':
      return [{ kind: 'context', off: 0, loose: false }];
    case 'function':
      return entry.params.map((word) => wordValue(word, x.env, () => x.nullable()));
  }
}

/** The prototype of a function of the object; undefined when it has no type. */
function prototypeOf(
  x: Exploration,
  subprog: number,
): { readonly params: readonly number[]; readonly isVoid: boolean } | undefined {
  const { objectBtf } = x.env;
  const func = objectBtf?.types[x.code.subprogs[subprog]?.type ?? 0];
  const proto = func?.kind === 'func' ? objectBtf?.types[func.type] : undefined;
  if (objectBtf === undefined || proto?.kind !== 'func_proto') return undefined;
  const isVoid = bareType(objectBtf, proto.type).type.kind === 'void';
  return { params: proto.params.map(({ type }) => type), isVoid };
}

/** Whether a function is looked at by itself: a global one whose type is known. */
export const standsAlone = (x: Exploration, subprog: number): boolean =>
  x.code.subprogs[subprog]?.global === true && prototypeOf(x, subprog) !== undefined;

/** What a global function may be handed by anybody. Kernel: btf_prepare_func_args */
function parameterValues(x: Exploration, subprog: number): Value[] {
  const btf = x.env.objectBtf;
  return (prototypeOf(x, subprog)?.params ?? []).slice(0, MAX_ARGUMENTS).map((param): Value => {
    if (btf === undefined) return ANYTHING;
    const { type } = bareType(btf, param);
    if (type.kind !== 'ptr') return UNKNOWN;
    const sizeBytes = typeBytes(btf, type.type);
    if (sizeBytes === undefined) return ANYTHING;
    return { kind: 'memory', sizeBytes, from: 'argument', off: 0, loose: false, nullable: x.nullable() };
  });
}

// -- calls --------------------------------------------------------------------------------------

/** A call of any kind; false when the path ends with it. */
export function call(x: Exploration, state: ProgramState, insn: BpfInsn): true {
  const { at } = state;
  if (isCallOfFunction(insn)) return callFunction(x, state, at, subprogFrom(x.code, at + 1 + insn.imm));
  if (insn.src === op.BPF_PSEUDO_KFUNC_CALL) return callKernel(x, state, insn, at);
  if (isPoison(insn)) {
    return x.refuse(at, 'a path leads to what the target has no member, type or value for (CO-RE)');
  }
  const { result, callback } = checkHelper(x, state, insn.imm, at);
  clobber(state, result);
  if (callback !== undefined) {
    // It may be that it is not called at all.
    x.fork(state.copy(at + 1));
    state.forgetNumbers();
    enter(x, state, callback.subprog, 'callback', at, callback.args);
    return true;
  }
  state.at = at + 1;
  return true;
}

/** What a call leaves: r1 to r5 are gone. */
function clobber(state: ProgramState, result: Value): void {
  const { registers } = state.frame;
  registers[0] = result;
  for (let i = 0; i < MAX_ARGUMENTS; i++) registers[FIRST_ARGUMENT + i] = NOTHING;
}

function callFunction(x: Exploration, state: ProgramState, at: number, subprog: number): true {
  const args = state.frame.registers.slice(FIRST_ARGUMENT, FIRST_ARGUMENT + MAX_ARGUMENTS);
  if (standsAlone(x, subprog)) {
    const { params = [], isVoid = false } = prototypeOf(x, subprog) ?? {};
    for (let i = 0; i < params.length; i++) x.read(state, FIRST_ARGUMENT + i, at);
    for (const value of args) forgetBehind(state, value);
    clobber(state, isVoid ? NOTHING : UNKNOWN);
    state.at = at + 1;
    return true;
  }
  clobber(state, NOTHING);
  enter(x, state, subprog, 'call', at, args);
  return true;
}

/** A function that is not followed may have written where it was pointed to. */
function forgetBehind(state: ProgramState, value: Value): void {
  if (value.kind === 'stack') state.frames[value.frame]?.store(value.off, -value.off, undefined);
}

function enter(
  x: Exploration,
  state: ProgramState,
  subprog: number,
  kind: CallKind,
  at: number,
  args: readonly Value[],
): void {
  if (state.frames.length >= MAX_FRAMES) x.refuse(at, `more than ${MAX_FRAMES} functions call each other`);
  const frame = new FrameState(subprog, kind, at + 1, state.frames.length);
  for (const [i, value] of args.entries()) frame.registers[FIRST_ARGUMENT + i] = value;
  state.frames.push(frame);
  state.at = x.code.subprogs[subprog]?.start ?? 0;
}

/** A function of the kernel's, by name. */
function callKernel(x: Exploration, state: ProgramState, { imm }: BpfInsn, at: number): true {
  const extern = x.env.externs[imm];
  if (extern === undefined) return x.refuse(at, `there is no kernel function ${imm}`);
  if (extern.address === undefined) {
    return x.refuse(at, `a path leads to ${extern.name}, which the target does not have`);
  }
  const { params, result } = kernelPrototype(extern);
  for (let i = 0; i < params; i++) x.read(state, FIRST_ARGUMENT + i, at);
  for (let i = 0; i < params; i++) forgetBehind(state, state.frame.registers[FIRST_ARGUMENT + i] as Value);
  clobber(
    state,
    result === undefined ? UNKNOWN : { kind: 'struct', type: result, probe: true, off: 0, loose: false },
  );
  state.at = at + 1;
  return true;
}

function kernelPrototype({ type }: BpfExternPlace): {
  readonly params: number;
  readonly result: BpfTypeRef | undefined;
} {
  const func = type?.btf.types[type.id];
  const proto = func?.kind === 'func' ? type?.btf.types[func.type] : undefined;
  if (type === undefined || proto?.kind !== 'func_proto') return { params: 0, result: undefined };
  return {
    params: Math.min(proto.params.length, MAX_ARGUMENTS),
    result: pointedStruct(type.btf, proto.type),
  };
}

// -- the end ------------------------------------------------------------------------------------

/** The end of a function; false when it is the program's. */
export function exit(x: Exploration, state: ProgramState): boolean {
  const { at, frame } = state;
  const r0 = frame.registers[0] as Value;
  if (frame.kind === 'program') {
    checkResult(x, frame.subprog, r0, at);
    return false;
  }
  if (r0.kind === 'stack' && r0.frame === state.frames.length - 1) {
    x.refuse(at, 'it returns a pointer to its own stack');
  }
  if (frame.kind === 'callback') checkCallbackResult(x, r0, at);
  state.frames.pop();
  state.at = frame.returnTo;
  if (frame.kind === 'call') state.frame.registers[0] = r0;
  else state.forgetNumbers();
  return true;
}

/** It goes on with 0, and stops with 1. */
function checkCallbackResult(x: Exploration, r0: Value, at: number): void {
  if (r0.kind === 'nothing')
    x.refuse(at, 'r0 is not initialised: a function that is called back returns 0 or 1');
  const one = r0.kind === 'scalar' ? constantOf(r0) : undefined;
  if (one !== undefined && one > 1n)
    x.refuse(at, `it returns ${BigInt.asIntN(64, one)}: called back, it must return 0 or 1`);
}

function checkResult(x: Exploration, subprog: number, r0: Value, at: number): void {
  if (subprog !== 0 && prototypeOf(x, subprog)?.isVoid === true) return;
  if (r0.kind === 'nothing') x.refuse(at, 'r0, the result, is not initialised');
  if (r0.kind === 'unknown' || x.env.entry.kind === 'opaque') return;
  if (r0.kind !== 'scalar') x.refuse(at, `r0, the result, is ${nameOf(r0)} and no number`);
  if (subprog !== 0 || x.env.entry.kind !== 'trampoline') return;
  const { attach, result, returnsBool = false } = x.env.entry;
  if (attach === 'fentry' || attach === 'fexit') {
    if (constantOf(r0) !== 0n)
      x.refuse(at, `it returns ${shown(r0.min, r0.max)}; ${attach} programs must return 0`);
    return;
  }
  // Of LSM hooks with a result, v6.12 lets through what the hook can mean; fmod_ret may return anything.
  if (attach !== 'lsm' || result === undefined || x.env.revision !== 'v6.12') return;
  const [least, most] = returnsBool ? [0n, 1n] : [-4095n, 0n];
  const [min, max] = asInt(r0.min, r0.max);
  if (min < least || max > most) {
    x.refuse(at, `it returns ${shown(min, max)}; this hook must return ${least} to ${most}`);
  }
}

/** An interval of 64-bit numbers as that of their lower halves, signed. */
function asInt(min: bigint, max: bigint): readonly [bigint, bigint] {
  const low = BigInt.asIntN(32, min);
  const high = BigInt.asIntN(32, max);
  return max - min < 1n << 32n && low <= high ? [low, high] : [-(1n << 31n), (1n << 31n) - 1n];
}

const shown = (min: bigint, max: bigint): string => {
  if (min === max) return String(min);
  return max - min >= (1n << 32n) - 1n ? 'what is not known' : `${min} to ${max}`;
};
