/*
 * Arithmetic of eBPF, on unsigned bigints. 32-bit operations work on the lower halves and leave the upper
 * half of their result zero. Division by zero gives 0, and the remainder of it the dividend.
 *
 * Kernel: ___bpf_prog_run, kernel/bpf/core.c; Documentation/bpf/standardization/instruction-set.rst
 */

import {
  BPF_ADD,
  BPF_AND,
  BPF_ARSH,
  BPF_DIV,
  BPF_LSH,
  BPF_MOD,
  BPF_MUL,
  BPF_OR,
  BPF_RSH,
  BPF_SUB,
  BPF_XOR,
} from '../../jit/index.ts';

export type Width = 32 | 64;

type Operation = (dst: bigint, src: bigint, width: Width) => bigint;

const signed = (value: bigint, width: Width): bigint => BigInt.asIntN(width, value);

/** Shifts take the count modulo the width. */
const count = (src: bigint, width: Width): bigint => src & BigInt(width - 1);

/** By the operation's bits of the opcode. What overflows is cut by `alu`. */
const OPERATIONS: Readonly<Record<number, Operation>> = {
  [BPF_ADD]: (dst, src) => dst + src,
  [BPF_SUB]: (dst, src) => dst - src,
  [BPF_MUL]: (dst, src) => dst * src,
  [BPF_DIV]: (dst, src) => (src === 0n ? 0n : dst / src),
  [BPF_MOD]: (dst, src) => (src === 0n ? dst : dst % src),
  [BPF_OR]: (dst, src) => dst | src,
  [BPF_AND]: (dst, src) => dst & src,
  [BPF_XOR]: (dst, src) => dst ^ src,
  [BPF_LSH]: (dst, src, width) => dst << count(src, width),
  [BPF_RSH]: (dst, src, width) => dst >> count(src, width),
  [BPF_ARSH]: (dst, src, width) => signed(dst, width) >> count(src, width),
};

/** DIV and MOD of signed numbers, rounding towards zero; the smallest by -1 overflows to itself, with remainder 0. */
const SIGNED: Readonly<Record<number, Operation>> = {
  [BPF_DIV]: (dst, src, width) => (src === 0n ? 0n : signed(dst, width) / signed(src, width)),
  [BPF_MOD]: (dst, src, width) => (src === 0n ? dst : signed(dst, width) % signed(src, width)),
};

/** One operation; undefined for bits that name none. `dst` and `src` are unsigned, 64 bits. */
export function alu(
  operation: number,
  dst: bigint,
  src: bigint,
  width: Width,
  isSigned: boolean,
): bigint | undefined {
  const apply = (isSigned ? SIGNED : OPERATIONS)[operation];
  if (apply === undefined) return undefined;
  return BigInt.asUintN(width, apply(BigInt.asUintN(width, dst), BigInt.asUintN(width, src), width));
}

/** The low `bits` in the opposite byte order; what lies above them is gone. */
export function byteSwap(value: bigint, bits: number): bigint {
  let left = BigInt.asUintN(bits, value);
  let swapped = 0n;
  for (let done = 0; done < bits; done += 8) {
    swapped = (swapped << 8n) | (left & 0xffn);
    left >>= 8n;
  }
  return swapped;
}
