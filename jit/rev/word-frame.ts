/*
 * Frames of v6 kernels: arguments in words of 8 bytes, and what lies below them. What is where is drawn in
 * v6-1.ts and v6-12.ts.
 */

import { Bug } from '../../lib/index.ts';
import { frameSlot } from '../kernel-encoding.ts';
import { TrampFlag } from '../request.ts';
import { type Mem, ptr, rbp } from '../x86/operand.ts';
import type { ArgWord, Frame, Refusal, RegWord } from './revision.ts';
import { ARG_NOTES, RETURN_VALUE, WORD } from './v5-13.ts';

const { CALL_ORIG, IP_ARG, RET_FENTRY_RET, TAIL_CALL_CTX } = TrampFlag;

/** struct bpf_tramp_run_ctx: the cookie, then the pointer that exit puts back. */
export const RUN_CTX_BYTES: number = 2 * WORD;

/** Words that an argument takes; one of 0 bytes takes none. */
export function wordsOf(size: number): number {
  return Math.ceil(size / WORD);
}

export function refuseMoreWords(argSizes: readonly number[], most: number): Refusal | undefined {
  const count = argSizes.reduce((sum, size) => sum + wordsOf(size), 0);
  if (count <= most) return undefined;
  return { code: 'ENOTSUPP', why: `arguments of ${count} words; ${most} are taken` };
}

/** One note per word: `arg1`, or `arg1+8` for a part of a struct. */
export function wordNotes(argSizes: readonly number[]): string[] {
  const notes: string[] = [];
  for (const [i, size] of argSizes.entries()) {
    const name = ARG_NOTES[i] ?? 'arg';
    if (size > 0) notes.push(name);
    for (let offset = WORD; offset < size; offset += WORD) notes.push(`${name}+${offset}`);
  }
  return notes;
}

/** The upper part of the frame, which programs reach from their ctx. */
interface ArgArea {
  readonly hasReturnValue: boolean;
  readonly ctx: Mem;
  readonly arg: (index: number) => Mem;
  readonly argCount: Mem;
  readonly funcIp: Mem | undefined;
  /** So far below rbp the next thing starts. */
  readonly endBytes: number;
}

export function layoutArgs(nrWords: number, flags: number): ArgArea {
  const hasReturnValue = (flags & (CALL_ORIG | RET_FENTRY_RET)) !== 0;
  const ctx = WORD * nrWords + (hasReturnValue ? WORD : 0);
  const argCount = ctx + WORD;
  const endBytes = (flags & IP_ARG) === 0 ? argCount : argCount + WORD;
  return {
    hasReturnValue,
    ctx: frameSlot(-ctx),
    arg: (index: number): Mem => frameSlot(WORD * index - ctx),
    argCount: frameSlot(-argCount),
    funcIp: endBytes === argCount ? undefined : frameSlot(-endBytes),
    endBytes,
  };
}

/**
 * The whole frame, spelled out: a spread would cost as much as half an image.
 * @param below how many bytes below rbp the lower things lie
 */
export function layoutFrame(
  { hasReturnValue, ctx, arg, argCount, funcIp }: ArgArea,
  words: readonly ArgWord[],
  below: { readonly runCtx: number; readonly savedRbx: number | undefined; readonly size: number },
  flags: number,
): Frame {
  const { runCtx, savedRbx, size } = below;
  const stackWords = words.filter((word) => word.reg === undefined);
  return {
    size,
    hasReturnValue,
    returnValue: RETURN_VALUE,
    ctx,
    arg,
    funcIp,
    words,
    regWords: stackWords.length === 0 ? (words as RegWord[]) : words.filter((word) => word.reg !== undefined),
    argCount,
    runCtx: frameSlot(-runCtx),
    tailCall: (flags & TAIL_CALL_CTX) === 0 ? undefined : ptr(rbp, -size - WORD, 'disp32'),
    stackWords,
    savedRbx: savedRbx === undefined ? undefined : frameSlot(-savedRbx),
  };
}

/** A slot that every frame has from v6.1 on. */
export function slot(mem: Mem | undefined): Mem {
  if (mem === undefined) throw new Bug('the frame is that of an earlier revision');
  return mem;
}
