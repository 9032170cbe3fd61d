/* Atomic operations: what is stored, and which register gets what was there. */

import { BPF_ADD, BPF_AND, BPF_CMPXCHG, BPF_FETCH, BPF_OR, BPF_XCHG, BPF_XOR } from '../../jit/index.ts';

export interface AtomicOutcome {
  /** What memory holds afterwards, modulo the width. */
  readonly stored: bigint;
  /** Where the old value goes, zero-extended: `src`, `r0`, or nowhere. */
  readonly fetched: 'src' | 'r0' | undefined;
}

const COMBINE: Readonly<Record<number, (old: bigint, src: bigint) => bigint>> = {
  [BPF_ADD]: (old, src) => old + src,
  [BPF_AND]: (old, src) => old & src,
  [BPF_OR]: (old, src) => old | src,
  [BPF_XOR]: (old, src) => old ^ src,
};

/**
 * @param operation the imm field
 * @param old what memory holds, at its width; `src` and `r0` at the same width
 * @returns undefined for an operation that there is not
 */
export function atomic(operation: number, old: bigint, src: bigint, r0: bigint): AtomicOutcome | undefined {
  if (operation === BPF_XCHG) return { stored: src, fetched: 'src' };
  if (operation === BPF_CMPXCHG) return { stored: old === r0 ? src : old, fetched: 'r0' };
  const combine = COMBINE[operation & ~BPF_FETCH];
  if (combine === undefined) return undefined;
  return { stored: combine(old, src), fetched: (operation & BPF_FETCH) === 0 ? undefined : 'src' };
}
