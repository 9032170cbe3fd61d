import { InputError } from '../lib/index.ts';

/** Which of a family's coverage cells were hit: a bit each, in the order of the family's list. */
export class CellSet {
  readonly #bits: Uint8Array;
  #hit = 0;

  /** @param size how many cells there are */
  constructor(size: number) {
    this.#bits = new Uint8Array(Math.ceil(size / 8));
  }

  /** How many were hit. */
  get hit(): number {
    return this.#hit;
  }

  has(index: number): boolean {
    return ((this.#bits[index >> 3] ?? 0) & (1 << (index & 7))) !== 0;
  }

  add(index: number): void {
    if (this.has(index)) return;
    this.#bits[index >> 3] = (this.#bits[index >> 3] ?? 0) | (1 << (index & 7));
    this.#hit++;
  }

  /** Adds what another set has. @throws InputError naming `where`, for a text that is no set of this size */
  addText(text: string, where: string): void {
    const bits = Buffer.from(text, 'base64');
    if (bits.length !== this.#bits.length) {
      throw new InputError(where, undefined, 'counts other coverage cells than this version has');
    }
    bits.forEach((byte, i) => {
      for (let bit = 0; bit < 8; bit++) if ((byte & (1 << bit)) !== 0) this.add(8 * i + bit);
    });
  }

  /** The set as base64. */
  toText(): string {
    return Buffer.from(this.#bits).toString('base64');
  }
}
