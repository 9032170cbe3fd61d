/*
 * A number for everything that a campaign saw, to compare campaigns by: the sum of one number for each
 * case, so that it does not matter who ran which case when.
 */

/** Takes words and gives 64 bits that depend on every bit of them and on their order. Algorithm: murmur3's mixing. */
export class Hash {
  #low = 0x2545_f491;
  #high = 0x6c62_272e;

  word(word: number): this {
    this.#low = round(this.#low, word);
    this.#high = round(this.#high, word ^ this.#low);
    return this;
  }

  text(text: string): this {
    this.word(text.length);
    for (let i = 0; i < text.length; i++) this.word(text.charCodeAt(i));
    return this;
  }

  get value(): bigint {
    return (BigInt(finish(this.#high) >>> 0) << 32n) | BigInt(finish(this.#low) >>> 0);
  }
}

function round(state: number, word: number): number {
  let bits = Math.imul(word, 0xcc9e_2d51);
  bits = Math.imul((bits << 15) | (bits >>> 17), 0x1b87_3593) ^ state;
  return (Math.imul((bits << 13) | (bits >>> 19), 5) + 0xe654_6b64) | 0;
}

function finish(state: number): number {
  let bits = Math.imul(state ^ (state >>> 16), 0x85eb_ca6b);
  bits = Math.imul(bits ^ (bits >>> 13), 0xc2b2_ae35);
  return bits ^ (bits >>> 16);
}

/** Two digests as one. They are 16 hex digits each. */
export function addDigests(one: string, other: string): string {
  return digestText(BigInt(`0x${one}`) + BigInt(`0x${other}`));
}

export function digestText(sum: bigint): string {
  return BigInt.asUintN(64, sum).toString(16).padStart(16, '0');
}
