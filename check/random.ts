/*
 * Where generated cases come from: numbers that depend on a campaign's seed and a case's number, and on
 * nothing else, so that any worker can make any case.
 */

import { xoroshiro128plusFromState } from 'pure-rand/generator/xoroshiro128plus';

const U32 = 2 ** 32;
/** A 64-bit number on its way out of its halves, lower half first. */
const WIDE = new BigUint64Array(1);
const HALVES = new Uint32Array(WIDE.buffer);

export class Random {
  readonly #rng: ReturnType<typeof xoroshiro128plusFromState>;

  /**
   * The numbers of one case.
   * @param seed the campaign's, a whole number from 0 to 2^53-1
   * @param number the case's, likewise
   */
  constructor(seed: number, number: number) {
    let mixed = 0;
    const words = [seed, Math.floor(seed / U32), number, Math.floor(number / U32)].map((half) => {
      mixed = mix(mixed ^ half);
      return mixed;
    });
    this.#rng = xoroshiro128plusFromState(words);
  }

  /** 32 bits, unsigned. */
  u32(): number {
    return this.#rng.next() >>> 0;
  }

  /** 64 bits. */
  u64(): bigint {
    HALVES[1] = this.u32();
    HALVES[0] = this.u32();
    return WIDE[0] as bigint;
  }

  /** A whole number, `from` and `to` included; less than 2^32 of them. */
  int(from: number, to: number): number {
    return from + Math.floor((this.u32() / U32) * (to - from + 1));
  }

  /** True once in `times`. */
  once(times: number): boolean {
    return this.int(1, times) === 1;
  }

  pick<T>(from: readonly T[]): T {
    return from[this.int(0, from.length - 1)] as T;
  }
}

/** Each bit of the result depends on every bit given. Algorithm: murmur3's 32-bit finalizer. */
function mix(word: number): number {
  let bits = (word + 0x9e37_79b9) | 0;
  bits = Math.imul(bits ^ (bits >>> 16), 0x85eb_ca6b);
  bits = Math.imul(bits ^ (bits >>> 13), 0xc2b2_ae35);
  return bits ^ (bits >>> 16);
}
