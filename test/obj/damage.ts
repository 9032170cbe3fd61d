/** What tests of hostile input draw from: random numbers that come again, and numbers that break careless code. */

/** A small deterministic generator (xorshift32); the same seed, the same file. */
export class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = (Math.imul(seed + 1, 0x9e3779b1) ^ 0x5bd1e995) | 1;
    for (let i = 0; i < 4; i++) this.below(1);
  }

  /** 0 .. limit-1. */
  below(limit: number): number {
    this.#state ^= this.#state << 13;
    this.#state ^= this.#state >>> 17;
    this.#state ^= this.#state << 5;
    return (this.#state >>> 0) % Math.max(1, limit);
  }

  pick<T>(from: readonly T[]): T {
    return from[this.below(from.length)] as T;
  }
}

/** Numbers that break careless arithmetic: around 0, around each sign, around 2^64. */
const NUMBERS: readonly bigint[] = [
  ...[0n, 1n, 2n, 3n, 7n, 8n, 0x18n, 0x40n, 0xffn, 0x100n, 0xffffn, 0x1_0000n, 0xff00n, 0x200_0000n],
  ...[0x7fff_ffffn, 0x8000_0000n, 0xffff_ffffn, 0x1_0000_0000n, 0x1f_ffff_ffff_ffffn, 0x20_0000_0000_0000n],
  ...[0x7fff_ffff_ffff_ffffn, 0x8000_0000_0000_0000n, -1n, -8n, -64n, -4096n, 0xffff_ffff_8100_0000n],
];

/** Overwrites a field of 2, 4 or 8 bytes, as far as it lies in the file. */
export function poke(random: Random, bytes: Uint8Array, offset: number, width: 2 | 4 | 8): void {
  if (offset < 0 || offset + width > bytes.length) return;
  const view = new DataView(bytes.buffer);
  const near = BigInt(bytes.length + random.below(5) - 2);
  const value =
    random.below(4) === 0 ? near : random.below(3) === 0 ? BigInt(random.below(64)) : random.pick(NUMBERS);
  if (width === 2) view.setUint16(offset, Number(BigInt.asUintN(16, value)), true);
  else if (width === 4) view.setUint32(offset, Number(BigInt.asUintN(32, value)), true);
  else view.setBigUint64(offset, BigInt.asUintN(64, value), true);
}

export const WIDTHS = [2, 4, 8] as const;
