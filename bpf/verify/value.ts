/*
 * What a register, or a place on the stack, holds while the program is followed: a number, or a pointer and what it
 * points to.
 *
 * Kernel: struct bpf_reg_state, enum bpf_reg_type
 */

import type { BpfGlobalPlace, BpfMapPlace, BpfTypeRef } from './environment.ts';
import { known, type Scalar, sameScalar, UNKNOWN } from './scalar.ts';

/**
 * How far a pointer points behind the beginning of what it points to: `off` bytes, and if `loose` something unknown
 * more. simplified: the kernel bounds what is unknown.
 */
interface Offset {
  readonly off: number;
  readonly loose: boolean;
}

/** Of a pointer that may be null: all copies become known together. */
interface Nullable {
  readonly nullable: number | undefined;
}

export type Pointer =
  /** The words that a trampoline hands over. */
  | ({ readonly kind: 'args' } & Offset)
  /** A context of which nothing is known. */
  | ({ readonly kind: 'context' } & Offset)
  /** `off` counts from the frame's end, so that all of it is negative. `frame`: 0 is the program's. */
  | ({ readonly kind: 'stack'; readonly frame: number } & Offset)
  | ({ readonly kind: 'map-value'; readonly map: BpfMapPlace } & Offset & Nullable)
  | ({ readonly kind: 'global'; readonly global: BpfGlobalPlace } & Offset)
  | ({ readonly kind: 'memory'; readonly sizeBytes: number; readonly from: MemoryFrom } & Offset & Nullable)
  /** `probe`: a load through it may fault. */
  | ({ readonly kind: 'struct'; readonly type: BpfTypeRef; readonly probe: boolean } & Offset);

export type MemoryFrom = 'ringbuf' | 'kernel' | 'argument';

export type Value =
  | Scalar
  | Pointer
  /** `index`: in the environment; undefined for one that was found in another map. */
  | ({ readonly kind: 'map'; readonly map: BpfMapPlace; readonly index: number | undefined } & Nullable)
  | { readonly kind: 'function'; readonly subprog: number }
  /** Out of a context of which nothing is known: it may be a number or a pointer to anything. */
  | { readonly kind: 'unknown' }
  | { readonly kind: 'nothing' };

export const NOTHING: Value = { kind: 'nothing' };
export const ANYTHING: Value = { kind: 'unknown' };
export const NULL: Scalar = known(0n);

export const isPointer = (value: Value): value is Pointer => 'off' in value;

/** What a message calls it. */
export function nameOf(value: Value): string {
  switch (value.kind) {
    case 'scalar':
      return 'a number';
    case 'args':
    case 'context':
      return 'the context';
    case 'stack':
      return 'a pointer to the stack';
    case 'map-value':
      return value.nullable === undefined
        ? `a pointer to a value of map ${value.map.name}`
        : `a value of map ${value.map.name}, or null`;
    case 'global':
      return `a pointer into ${value.global.name}`;
    case 'memory':
      return value.nullable === undefined ? 'a pointer to memory' : 'a pointer to memory, or null';
    case 'struct':
      return 'a pointer to a struct of the kernel';
    case 'map':
      return value.nullable === undefined ? `map ${value.map.name}` : `map ${value.map.name}, or null`;
    case 'function':
      return 'a function';
    case 'unknown':
      return 'a value of unknown kind';
    case 'nothing':
      return 'not initialised';
  }
}

/** A pointer `bytes` further on. */
export const moved = (pointer: Pointer, bytes: number): Pointer => ({ ...pointer, off: pointer.off + bytes });

/**
 * A pointer that something unknown was added to. Only on the stack does it matter what that is at least.
 *
 * @param least bytes; taken for 0 when it is far out of any stack
 */
export function loosened(pointer: Pointer, least: bigint): Pointer {
  const near = least >= -512n && least <= 512n ? Number(least) : 0;
  return { ...pointer, off: pointer.kind === 'stack' ? pointer.off + near : 0, loose: true };
}

/** All that tells one value from another. */
export function keyOf(value: Value): string {
  switch (value.kind) {
    case 'scalar':
      return value.min === UNKNOWN.min && value.max === UNKNOWN.max ? 's' : `s${value.min}:${value.max}`;
    case 'nothing':
      return '-';
    case 'unknown':
      return '?';
    case 'map':
      return `m${value.map.address}${value.nullable === undefined ? '' : '?'}`;
    case 'function':
      return `f${value.subprog}`;
    default:
      return `${value.kind}${whereOf(value)}+${value.off}${value.loose ? '~' : ''}${'nullable' in value && value.nullable !== undefined ? '?' : ''}`;
  }
}

function whereOf(pointer: Pointer): string {
  switch (pointer.kind) {
    case 'stack':
      return String(pointer.frame);
    case 'map-value':
      return String(pointer.map.address);
    case 'global':
      return String(pointer.global.address);
    case 'memory':
      return `${pointer.from}${pointer.sizeBytes}`;
    case 'struct':
      return `${pointer.type.id}${pointer.probe ? 'p' : ''}`;
    default:
      return '';
  }
}

/** What covers both, so that a loop comes to an end: kinds stay apart, numbers and offsets are given up. */
export function widened(value: Value, before: Value): Value {
  if (value.kind === 'scalar' && before.kind === 'scalar') return sameScalar(value, before) ? value : UNKNOWN;
  if (!isPointer(value) || !isPointer(before) || whereOf(value) !== whereOf(before)) return value;
  if (value.kind !== before.kind || (value.off === before.off && value.loose === before.loose)) return value;
  return loosened({ ...value, off: Math.min(value.off, before.off) }, 0n);
}
