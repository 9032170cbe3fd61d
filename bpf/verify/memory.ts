/*
 * Loads and stores: what a pointer allows, and what is found there.
 *
 * Kernel: check_mem_access, kernel/bpf/verifier.c
 */

import { BPF_MEMSX, type BpfInsn, bpfMode, bpfSize } from '../../jit/index.ts';
import { bareType, typeBytes } from '../../obj/index.ts';
import { SIZES } from '../interp/memory.ts';
import type { BpfEnvironment, BpfExternPlace, BpfGlobalPlace, BpfWord } from './environment.ts';
import type { Exploration, LoadKind } from './explore.ts';
import { constantOf, extended, known, type Scalar, signedBits, UNKNOWN, unsignedBits } from './scalar.ts';
import { MAX_STACK } from './stack-depth.ts';
import type { ProgramState } from './state.ts';
import { memberAt } from './struct-walk.ts';
import { ANYTHING, isPointer, nameOf, type Pointer, type Value } from './value.ts';

/** What a load gives. */
export function load(x: Exploration, state: ProgramState, insn: BpfInsn, at: number): Value {
  const base = pointer(x, state, insn.src, at);
  const sizeBytes = SIZES[bpfSize(insn.code)] as number;
  const off = base.kind === 'unknown' ? 0 : base.off + insn.off;
  note(x, at, base.kind === 'struct' && base.probe ? 'probe' : 'plain');
  const found = loaded(x, state, base, off, sizeBytes, at);
  if (sizeBytes === 8) return found;
  const sign = bpfMode(insn.code) === BPF_MEMSX;
  if (found.kind !== 'scalar') return sign ? signedBits(8 * sizeBytes) : unsignedBits(8 * sizeBytes);
  return extended(found, 8 * sizeBytes, sign);
}

/** One instruction is rewritten for one kind of pointer. */
function note(x: Exploration, at: number, kind: LoadKind): void {
  const { loads } = x.facts;
  const before = loads.get(at);
  if (before !== undefined && before !== kind) {
    x.refuse(
      at,
      'on one path it loads through a pointer to a struct of the kernel, on another through a different one',
    );
  }
  loads.set(at, kind);
}

/** What can be dereferenced. */
type Base = Pointer | { readonly kind: 'unknown' };

function pointer(x: Exploration, state: ProgramState, register: number, at: number): Base {
  const value = x.read(state, register, at);
  if (value.kind === 'unknown') return value;
  if (!isPointer(value)) return x.refuse(at, `r${register} is ${nameOf(value)}, and no pointer to memory`);
  if ('nullable' in value && value.nullable !== undefined) {
    return x.refuse(at, `r${register} is ${nameOf(value)}: compare it with 0 first`);
  }
  return value;
}

function loaded(
  x: Exploration,
  state: ProgramState,
  base: Base,
  off: number,
  sizeBytes: number,
  at: number,
): Value {
  switch (base.kind) {
    case 'unknown':
    case 'context':
      return ANYTHING;
    case 'args':
      return argument(x, base.loose, off, sizeBytes, at);
    case 'stack':
      checkStackAccess(x, state, base, off, sizeBytes, at);
      return base.loose ? UNKNOWN : (state.frames[base.frame]?.load(off, sizeBytes) ?? UNKNOWN);
    case 'map-value':
    case 'memory':
      checkBounds(x, base, off, sizeBytes, at);
      return UNKNOWN;
    case 'global':
      checkBounds(x, base, off, sizeBytes, at);
      return base.global.readOnly && !base.loose ? constant(base.global, off, sizeBytes) : UNKNOWN;
    case 'struct': {
      if (base.loose)
        return x.refuse(at, 'what it adds to a pointer to a struct of the kernel must be constant');
      const member = memberAt(base.type, off, sizeBytes);
      if (member === undefined) return x.refuse(at, `offset ${off} is not in the struct of the kernel`);
      if (member.kind === 'scalar') return UNKNOWN;
      return { kind: 'struct', type: member.to, probe: true, off: 0, loose: false };
    }
  }
}

/** A word that the trampoline hands over. Kernel: btf_ctx_access */
function argument(x: Exploration, loose: boolean, off: number, sizeBytes: number, at: number): Value {
  const { env } = x;
  if (env.entry.kind !== 'trampoline') return ANYTHING;
  const { args, result, attach, returnsBool = false } = env.entry;
  if (loose) return x.refuse(at, 'the offset into the context must be constant');
  if (off % sizeBytes !== 0) return x.refuse(at, `offset ${off} of the context is not aligned`);
  const index = Math.floor(off / 8);
  if (index === args.length && result !== undefined) {
    if (sizeBytes < 8 || attach !== 'lsm' || env.revision !== 'v6.12') return UNKNOWN;
    return returnsBool ? { kind: 'scalar', min: 0n, max: 1n } : { kind: 'scalar', min: -4095n, max: 0n };
  }
  const word = off < 0 ? undefined : args[index];
  if (word === undefined) {
    const has = `${args.length} words of arguments${result === undefined ? '' : ' and a result'}`;
    return x.refuse(at, `offset ${off} of the context is not there: the function has ${has}`);
  }
  return sizeBytes === 8 && off % 8 === 0 ? wordValue(word, env) : UNKNOWN;
}

/** What a word is when it is in a register. */
export function wordValue(
  word: BpfWord,
  { entry, revision }: BpfEnvironment,
  nullable?: () => number,
): Value {
  switch (word.kind) {
    case 'scalar':
      return UNKNOWN;
    case 'context':
      return { kind: 'context', off: 0, loose: false };
    case 'memory':
      return {
        kind: 'memory',
        sizeBytes: word.sizeBytes,
        from: 'argument',
        off: 0,
        loose: false,
        nullable: word.nullable ? nullable?.() : undefined,
      };
    case 'struct-pointer': {
      // v6.12 trusts what LSM hooks are handed. Kernel: prog_args_trusted
      const trusted = revision === 'v6.12' && entry.kind === 'trampoline' && entry.attach === 'lsm';
      return { kind: 'struct', type: { btf: word.btf, id: word.id }, probe: !trusted, off: 0, loose: false };
    }
  }
}

/** The address of a symbol of the kernel's. Kernel: check_pseudo_btf_id */
export function symbolValue({ type }: BpfExternPlace, { revision }: BpfEnvironment): Value {
  if (type === undefined) return UNKNOWN;
  const bare = bareType(type.btf, type.id);
  const struct = bare.type.kind === 'struct' || bare.type.kind === 'union';
  if (struct) {
    const probe = revision !== 'v6.12';
    return { kind: 'struct', type: { btf: type.btf, id: bare.id }, probe, off: 0, loose: false };
  }
  const sizeBytes = typeBytes(type.btf, type.id) ?? 0;
  return { kind: 'memory', sizeBytes, from: 'kernel', off: 0, loose: false, nullable: undefined };
}

/** What never changes is known beforehand. */
function constant({ contents }: BpfGlobalPlace, off: number, sizeBytes: number): Scalar {
  let value = 0n;
  for (let i = sizeBytes - 1; i >= 0; i--) value = (value << 8n) | BigInt(contents[off + i] ?? 0);
  return known(value);
}

// -- bounds -------------------------------------------------------------------------------------

/** Refuses what lies outside, and counts what lies inside as used. */
export function checkStackAccess(
  x: Exploration,
  state: ProgramState,
  base: Pointer & { readonly kind: 'stack' },
  off: number,
  sizeBytes: number,
  at: number,
): void {
  const outside = off < -MAX_STACK || off >= 0 || (!base.loose && off + sizeBytes > 0);
  if (outside) {
    x.refuse(at, `${sizeBytes} bytes at offset ${off} of the stack, which reaches from -${MAX_STACK} to 0`);
  }
  const { stackDepth } = x.facts;
  const subprog = state.frames[base.frame]?.subprog ?? 0;
  // v6.12 counts in whole slots. Kernel: grow_stack_state
  const depth = x.env.revision === 'v6.12' ? Math.ceil(-off / 8) * 8 : -off;
  stackDepth[subprog] = Math.max(stackDepth[subprog] ?? 0, depth);
}

/** Refuses what lies outside. Where a pointer is loose, the memory rules of the machine must do. */
export function checkBounds(
  x: Exploration,
  base: Pointer & { readonly kind: 'map-value' | 'memory' | 'global' },
  off: number,
  sizeBytes: number,
  at: number,
): void {
  const has = sizeOfTarget(base);
  if (base.loose || (off >= 0 && off + sizeBytes <= has)) return;
  x.refuse(at, `${sizeBytes} bytes at offset ${off} of ${nameOf(base)}, which has ${has}`);
}

function sizeOfTarget(base: Pointer & { readonly kind: 'map-value' | 'memory' | 'global' }): number {
  switch (base.kind) {
    case 'map-value':
      return base.map.valueBytes;
    case 'global':
      return base.global.sizeBytes;
    case 'memory':
      return base.sizeBytes;
  }
}

// -- stores -------------------------------------------------------------------------------------

/** @param value undefined for an atomic operation: what is there afterwards is not known */
export function store(
  x: Exploration,
  state: ProgramState,
  at: number,
  register: number,
  off: number,
  sizeBytes: number,
  value: Value | undefined,
): void {
  const base = pointer(x, state, register, at);
  if (base.kind === 'unknown') return;
  written(x, state, base, base.off + off, sizeBytes, value, at, `r${register}`);
}

/** Somebody writes through a pointer: a store, or a helper. */
export function written(
  x: Exploration,
  state: ProgramState,
  base: Pointer,
  off: number,
  sizeBytes: number,
  value: Value | undefined,
  at: number,
  register: string,
): void {
  switch (base.kind) {
    case 'context':
      break;
    case 'stack': {
      checkStackAccess(x, state, base, off, sizeBytes, at);
      const frame = state.frames[base.frame];
      if (base.loose) frame?.store(off, -off, undefined);
      else frame?.store(off, sizeBytes, cut(value, sizeBytes));
      break;
    }
    case 'global':
      if (base.global.readOnly) x.refuse(at, `${base.global.name} cannot be written`);
      checkBounds(x, base, off, sizeBytes, at);
      break;
    case 'memory':
      if (base.from === 'kernel') x.refuse(at, 'variables of the kernel cannot be written');
      checkBounds(x, base, off, sizeBytes, at);
      break;
    case 'map-value':
      checkBounds(x, base, off, sizeBytes, at);
      break;
    default:
      x.refuse(at, `${register} is ${nameOf(base)}, which cannot be written`);
  }
}

/** What a narrow store leaves: pointers do not survive it. */
function cut(value: Value | undefined, sizeBytes: number): Value | undefined {
  if (value === undefined || sizeBytes === 8) return value;
  if (value.kind !== 'scalar') return undefined;
  const one = constantOf(value);
  return one === undefined ? undefined : known(BigInt.asUintN(8 * sizeBytes, one));
}
