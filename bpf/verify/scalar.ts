/*
 * What is known of a number in a register: the signed 64-bit interval that it lies in. One that holds a
 * single number makes branches certain, and what lies behind the other one dead.
 *
 * simplified: the kernel also keeps which bits are known (tnum), unsigned and 32-bit bounds.
 */

import {
  BPF_ADD,
  BPF_AND,
  BPF_JEQ,
  BPF_JGE,
  BPF_JGT,
  BPF_JLE,
  BPF_JLT,
  BPF_JNE,
  BPF_JSET,
  BPF_JSGE,
  BPF_JSGT,
  BPF_JSLE,
  BPF_JSLT,
  BPF_LSH,
  BPF_MOD,
  BPF_MUL,
  BPF_RSH,
  BPF_SUB,
} from '../../jit/index.ts';
import { alu, type Width } from '../interp/alu.ts';
import { holds } from '../interp/jump.ts';

export interface Scalar {
  readonly kind: 'scalar';
  readonly min: bigint;
  readonly max: bigint;
}

const S64_MIN = -(1n << 63n);
const S64_MAX = (1n << 63n) - 1n;
const U32_MAX = 0xffff_ffffn;

export const UNKNOWN: Scalar = { kind: 'scalar', min: S64_MIN, max: S64_MAX };

/** Of any 64-bit value, signed or not. */
export function known(value: bigint): Scalar {
  const signed = BigInt.asIntN(64, value);
  return { kind: 'scalar', min: signed, max: signed };
}

/** An unknown unsigned number of so many bits. */
export const unsignedBits = (bits: number): Scalar =>
  bits >= 64 ? UNKNOWN : { kind: 'scalar', min: 0n, max: (1n << BigInt(bits)) - 1n };

/** An unknown signed number of so many bits, extended. */
export const signedBits = (bits: number): Scalar =>
  bits >= 64
    ? UNKNOWN
    : { kind: 'scalar', min: -(1n << BigInt(bits - 1)), max: (1n << BigInt(bits - 1)) - 1n };

/** The number, unsigned, when only one is possible. */
export const constantOf = ({ min, max }: Scalar): bigint | undefined =>
  min === max ? BigInt.asUintN(64, min) : undefined;

export const sameScalar = (a: Scalar, b: Scalar): boolean => a.min === b.min && a.max === b.max;

function interval(min: bigint, max: bigint): Scalar {
  return min < S64_MIN || max > S64_MAX ? UNKNOWN : { kind: 'scalar', min, max };
}

/** The lower half, with zeros above it. */
export function lowHalf(value: Scalar): Scalar {
  const one = constantOf(value);
  if (one !== undefined) return known(BigInt.asUintN(32, one));
  return value.min >= 0n && value.max <= U32_MAX ? value : unsignedBits(32);
}

/** The low bits, extended. */
export function extended(value: Scalar, bits: number, sign: boolean): Scalar {
  const one = constantOf(value);
  if (one !== undefined) return known(sign ? BigInt.asIntN(bits, one) : BigInt.asUintN(bits, one));
  const range = sign ? signedBits(bits) : unsignedBits(bits);
  return value.min >= range.min && value.max <= range.max ? value : range;
}

/** What an operation makes of two numbers. */
export function compute(op: number, dst: Scalar, src: Scalar, width: Width, isSigned: boolean): Scalar {
  const a = constantOf(dst);
  const b = constantOf(src);
  if (a !== undefined && b !== undefined) {
    const value = alu(op, a, b, width, isSigned);
    if (value !== undefined) return known(value);
  }
  if (width === 64) return isSigned ? UNKNOWN : bounded(op, dst, src);
  const low = isSigned ? UNKNOWN : bounded(op, lowHalf(dst), lowHalf(src));
  return low.min >= 0n && low.max <= U32_MAX ? low : unsignedBits(32);
}

function bounded(op: number, dst: Scalar, src: Scalar): Scalar {
  const by = constantOf(src);
  switch (op) {
    case BPF_ADD:
      return interval(dst.min + src.min, dst.max + src.max);
    case BPF_SUB:
      return interval(dst.min - src.max, dst.max - src.min);
    case BPF_AND:
      // Not more than either of them, where that one is not negative.
      if (src.min >= 0n) return interval(0n, dst.min >= 0n && dst.max < src.max ? dst.max : src.max);
      return dst.min >= 0n ? interval(0n, dst.max) : UNKNOWN;
    case BPF_MUL:
      return dst.min >= 0n && src.min >= 0n ? interval(dst.min * src.min, dst.max * src.max) : UNKNOWN;
    case BPF_LSH:
      return by !== undefined && by < 64n && dst.min >= 0n ? interval(dst.min << by, dst.max << by) : UNKNOWN;
    case BPF_RSH:
      if (by === undefined || by === 0n || by >= 64n) return UNKNOWN;
      return dst.min >= 0n ? interval(dst.min >> by, dst.max >> by) : interval(0n, (1n << (64n - by)) - 1n);
    case BPF_MOD:
      return by !== undefined && by > 0n && by <= S64_MAX ? interval(0n, by - 1n) : UNKNOWN;
    default:
      return UNKNOWN;
  }
}

// -- comparisons --------------------------------------------------------------------------------

/** Conditions on signed numbers; the others are on unsigned ones, and JEQ and JNE on either. */
const SIGNED: ReadonlySet<number> = new Set([BPF_JSGT, BPF_JSGE, BPF_JSLT, BPF_JSLE]);

/** The same condition on signed numbers, for two that are not negative. */
const AS_SIGNED: Readonly<Record<number, number>> = {
  [BPF_JGT]: BPF_JSGT,
  [BPF_JGE]: BPF_JSGE,
  [BPF_JLT]: BPF_JSLT,
  [BPF_JLE]: BPF_JSLE,
};

const fits = ({ min, max }: Scalar, limit: bigint): boolean => min >= 0n && max <= limit;

/** Whether a comparison says the same of the whole numbers as of what it looks at. */
function comparable(condition: number, dst: Scalar, src: Scalar, width: Width): boolean {
  if (width === 64) {
    return AS_SIGNED[condition] === undefined || (dst.min >= 0n && src.min >= 0n);
  }
  const limit = SIGNED.has(condition) ? U32_MAX >> 1n : U32_MAX;
  return fits(dst, limit) && fits(src, limit);
}

/** Whether a jump is taken, when that is certain. */
export function decide(condition: number, dst: Scalar, src: Scalar, width: Width): boolean | undefined {
  const a = constantOf(dst);
  const b = constantOf(src);
  if (a !== undefined && b !== undefined) return holds(condition, a, b, width);
  if (!comparable(condition, dst, src, width)) return undefined;
  switch (AS_SIGNED[condition] ?? condition) {
    case BPF_JEQ:
      return dst.max < src.min || dst.min > src.max ? false : undefined;
    case BPF_JNE:
      return dst.max < src.min || dst.min > src.max ? true : undefined;
    case BPF_JSGT:
      return certain(dst.min > src.max, dst.max <= src.min);
    case BPF_JSGE:
      return certain(dst.min >= src.max, dst.max < src.min);
    case BPF_JSLT:
      return certain(dst.max < src.min, dst.min >= src.max);
    case BPF_JSLE:
      return certain(dst.max <= src.min, dst.min > src.max);
    default:
      return undefined;
  }
}

const certain = (yes: boolean, no: boolean): boolean | undefined => (yes ? true : no ? false : undefined);

/** What holds when a condition does not. */
const OPPOSITE: Readonly<Record<number, number>> = {
  [BPF_JEQ]: BPF_JNE,
  [BPF_JNE]: BPF_JEQ,
  [BPF_JGT]: BPF_JLE,
  [BPF_JLE]: BPF_JGT,
  [BPF_JGE]: BPF_JLT,
  [BPF_JLT]: BPF_JGE,
  [BPF_JSGT]: BPF_JSLE,
  [BPF_JSLE]: BPF_JSGT,
  [BPF_JSGE]: BPF_JSLT,
  [BPF_JSLT]: BPF_JSGE,
};

/** What is known of `dst` once a jump was taken, or was not. */
export function refine(condition: number, dst: Scalar, src: Scalar, width: Width, taken: boolean): Scalar {
  if (condition === BPF_JSET) return dst;
  const truth = taken ? condition : (OPPOSITE[condition] as number);
  if (truth === BPF_JLT || truth === BPF_JLE) return below(truth, dst, src, width);
  if (!comparable(truth, dst, src, width)) return dst;
  switch (AS_SIGNED[truth] ?? truth) {
    case BPF_JEQ:
      return narrowed(dst, src.min, src.max);
    case BPF_JNE:
      return without(dst, src);
    case BPF_JSGT:
      return narrowed(dst, src.min + 1n, S64_MAX);
    case BPF_JSGE:
      return narrowed(dst, src.min, S64_MAX);
    case BPF_JSLT:
      return narrowed(dst, S64_MIN, src.max - 1n);
    case BPF_JSLE:
      return narrowed(dst, S64_MIN, src.max);
    default:
      return dst;
  }
}

/** Less, unsigned, than what is not negative: not negative either. */
function below(truth: number, dst: Scalar, src: Scalar, width: Width): Scalar {
  if (src.min < 0n) return dst;
  if (width === 32 && !(fits(dst, U32_MAX) && fits(src, U32_MAX))) return dst;
  return narrowed(dst, 0n, truth === BPF_JLT ? src.max - 1n : src.max);
}

function without(dst: Scalar, src: Scalar): Scalar {
  if (src.min !== src.max) return dst;
  if (dst.min === src.min) return narrowed(dst, dst.min + 1n, dst.max);
  if (dst.max === src.min) return narrowed(dst, dst.min, dst.max - 1n);
  return dst;
}

/** An empty result means that the path cannot be: it is followed as it was. */
function narrowed(value: Scalar, min: bigint, max: bigint): Scalar {
  const low = value.min > min ? value.min : min;
  const high = value.max < max ? value.max : max;
  return low > high ? value : { kind: 'scalar', min: low, max: high };
}
