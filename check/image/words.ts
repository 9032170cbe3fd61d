/*
 * Arguments as words of a program's context: one each before v6.1; from then on as many as they take, the count
 * of them below, and in v6.12 some of them on the caller's stack. Told from the kernel's rules, without the emitters.
 */

import type { RevisionName } from '../../jit/index.ts';
import type { ImageCase, ValueModel } from './case.ts';
import { JUDGED } from './revision.ts';

const WORD_BYTES = 8;
const ARG_REGISTERS = 6;

/** One word of a context. */
export interface Word {
  /** Bytes of it that belong to the argument; what is above them is open. */
  readonly widthBytes: number;
  /** The register that it comes in, counted from rdi; undefined: on the stack. */
  readonly register: number | undefined;
  /** Its place among the words on the stack. */
  readonly stack: number | undefined;
}

/** Whether a revision has run_ctx, the count word, and arguments of several words. */
export function hasWords(revision: RevisionName): boolean {
  return JUDGED[revision].hasWords;
}

/** The most words that a revision takes. */
export function mostWords(revision: RevisionName): number {
  return JUDGED[revision].mostWords;
}

/** The words of a case's context, argument by argument. */
export function wordsOf({ revision, args }: Pick<ImageCase, 'revision' | 'args'>): readonly Word[] {
  const words: Word[] = [];
  let registers = 0;
  let stack = 0;
  for (const arg of args) {
    const count = wordsIn(revision, arg);
    const fits = inRegisters(revision, registers, count);
    for (let i = 0; i < count; i++) {
      const widthBytes = Math.min(arg.sizeBytes - WORD_BYTES * i, WORD_BYTES);
      words.push(
        fits
          ? { widthBytes, register: registers++, stack: undefined }
          : { widthBytes, register: undefined, stack: stack++ },
      );
    }
  }
  return words;
}

/** How many words of a case's context there are, and how many of them come on the stack. */
export function countWords({ revision, args }: Pick<ImageCase, 'revision' | 'args'>): {
  readonly all: number;
  readonly stack: number;
} {
  let registers = 0;
  let stack = 0;
  for (const arg of args) {
    const count = wordsIn(revision, arg);
    if (inRegisters(revision, registers, count)) registers += count;
    else stack += count;
  }
  return { all: registers + stack, stack };
}

/** How many words an argument takes. */
export function wordsIn(revision: RevisionName, { sizeBytes }: ValueModel): number {
  return hasWords(revision) ? Math.ceil(sizeBytes / WORD_BYTES) : 1;
}

/** Whether an argument of so many words goes into registers when so many are taken. */
function inRegisters(revision: RevisionName, taken: number, words: number): boolean {
  // Revisions without stack words refuse what does not fit.
  return !JUDGED[revision].stackWords || taken + words <= ARG_REGISTERS;
}
