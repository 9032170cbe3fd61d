/* The conditions of eBPF's jumps. */

import {
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
} from '../../jit/index.ts';
import type { Width } from './alu.ts';

const UNSIGNED: Readonly<Record<number, (dst: bigint, src: bigint) => boolean>> = {
  [BPF_JEQ]: (dst, src) => dst === src,
  [BPF_JNE]: (dst, src) => dst !== src,
  [BPF_JGT]: (dst, src) => dst > src,
  [BPF_JGE]: (dst, src) => dst >= src,
  [BPF_JLT]: (dst, src) => dst < src,
  [BPF_JLE]: (dst, src) => dst <= src,
  [BPF_JSET]: (dst, src) => (dst & src) !== 0n,
};

const SIGNED: typeof UNSIGNED = {
  [BPF_JSGT]: (dst, src) => dst > src,
  [BPF_JSGE]: (dst, src) => dst >= src,
  [BPF_JSLT]: (dst, src) => dst < src,
  [BPF_JSLE]: (dst, src) => dst <= src,
};

/** Whether a conditional jump is taken; undefined for bits that name no condition. */
export function holds(condition: number, dst: bigint, src: bigint, width: Width): boolean | undefined {
  return (
    UNSIGNED[condition]?.(BigInt.asUintN(width, dst), BigInt.asUintN(width, src)) ??
    SIGNED[condition]?.(BigInt.asIntN(width, dst), BigInt.asIntN(width, src))
  );
}
