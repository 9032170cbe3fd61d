/*
 * What the log of a batch has to be, word by word, and what goes into the guest with it: the scripts that
 * programs run by. Grows over the cases of a batch; kept and used again for the next one.
 */

import type { Kaddr } from '../../lib/index.ts';
import { FILL, Script } from './log.ts';

/** A word that the rules leave open: nothing is written for it, and anything may come. */
export const OPEN = undefined;
export type Expected = bigint | typeof OPEN;

/** How a call has to end that cannot return. */
export interface ExpectedFault {
  readonly kind: 'read-unmapped' | 'general-protection';
  readonly address: Kaddr;
}

/** A case's part of an expectation. */
export interface ExpectedCase {
  /** First word of its log, and the first word behind it. */
  readonly start: number;
  readonly end: number;
  /** First of its records, in `owners`. */
  readonly owner: number;
  /** First entry of its script. */
  readonly script: number;
  readonly fault: ExpectedFault | undefined;
  /** Per program counter, see `Place`. */
  readonly counters: readonly Counters[];
  /** References on an image that is counted atomically, after the call; undefined when counted per CPU. */
  readonly atomicReferences: bigint | undefined;
  /** Traced calls: programs can make some of their own. */
  readonly calls: number;
}

/** Per-CPU counters of one program after the call. */
export interface Counters {
  active: number;
  misses: number;
  cnt: number;
  nsecs: bigint;
  /** u64_stats sequence: two steps per update. */
  syncp: number;
}

const WORDS_PER_ENTRY = Script.size / 8;

export class Expectation {
  words: BigUint64Array = new BigUint64Array(1 << 16);
  /** The same memory in halves, lower half first. */
  halves: Uint32Array = new Uint32Array(this.words.buffer);
  length = 0;
  /** Words that are open, ascending. */
  readonly open: number[] = [];
  /** For each record, which program it is about; negative for none. */
  readonly owners: number[] = [];
  script: BigUint64Array = new BigUint64Array(1 << 12);
  scriptEntries = 0;

  clear(): void {
    this.length = 0;
    this.open.length = 0;
    this.owners.length = 0;
    this.scriptEntries = 0;
  }

  /** Makes sure of room for so many more words. */
  reserve(words: number): void {
    if (this.length + words <= this.words.length) return;
    const larger = new BigUint64Array(2 * this.words.length + words);
    larger.set(this.words);
    this.words = larger;
    this.halves = new Uint32Array(larger.buffer);
  }

  push(value: Expected): void {
    if (value === OPEN) {
      this.open.push(this.length);
      this.words[this.length++] = FILL;
    } else this.words[this.length++] = value;
  }

  /** A word from two halves. */
  pushHalves(low: number, high: number): void {
    this.halves[2 * this.length] = low;
    this.halves[2 * this.length + 1] = high;
    this.length++;
  }

  pushScript(deeds: number, reply: bigint, writeOffset: number, writeValue: bigint): void {
    const at = this.scriptEntries * WORDS_PER_ENTRY;
    if (at + WORDS_PER_ENTRY > this.script.length) {
      const larger = new BigUint64Array(2 * this.script.length);
      larger.set(this.script);
      this.script = larger;
    }
    this.script[at] = BigInt(deeds);
    this.script[at + 1] = reply;
    this.script[at + 2] = BigInt(writeOffset);
    this.script[at + 3] = writeValue;
    this.scriptEntries++;
  }
}
