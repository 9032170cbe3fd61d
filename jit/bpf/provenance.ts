import { type BpfInsn, isLdImm64 } from './insn.ts';

/** Bytes that one instruction became. Offsets count from the image. */
export interface ByteRange {
  /** Index of the instruction; undefined for the prologue. */
  readonly insn: number | undefined;
  readonly start: number;
  readonly end: number;
}

/** What each byte of an image was made from: the prologue, then every instruction, without gaps; some are empty. */
export function byteRanges(insns: readonly BpfInsn[], addrs: ArrayLike<number>): ByteRange[] {
  let start = addrs[0] as number;
  const ranges: ByteRange[] = [{ insn: undefined, start: 0, end: start }];
  for (let i = 0; i < insns.length; ) {
    const slots = isLdImm64(insns[i] as BpfInsn) ? 2 : 1;
    const end = addrs[i + slots] as number;
    ranges.push({ insn: i, start, end });
    start = end;
    i += slots;
  }
  return ranges;
}
