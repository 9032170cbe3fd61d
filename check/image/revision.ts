/*
 * What the judge has to know of a kernel revision, told from the kernel's rules, without the emitters: a row for each
 * revision that there is an emitter of.
 */

import { type RevisionName, TrampFlag } from '../../jit/index.ts';

/** How images of a revision differ from those of others. */
export interface JudgedRevision {
  /** Flags that its emitter looks at. */
  readonly knownFlags: number;
  /** Combinations of flags that are drawn, and are to be covered. */
  readonly acceptedFlags: readonly number[];
  /**
   * What came with v6.1: run_ctx, the count word, helper pairs by kind, kernels built for IBT or with return thunks;
   * arguments take as many words of the context as they need.
   */
  readonly hasWords: boolean;
  /** The most words that arguments may take. */
  readonly mostWords: number;
  /** An argument that finds no registers is on the caller's stack. */
  readonly stackWords: boolean;
  /** rbx is saved in a word of the frame, not pushed below it. */
  readonly rbxInFrame: boolean;
  /** Every image begins with ENDBR where the kernel is built for IBT, not only those that are called by pointer. */
  readonly endbrAlways: boolean;
  /** Calls are counted where the kernel is built for it. */
  readonly countsCalls: boolean;
  /** Bytes that are reported on top of the image's length. */
  readonly spareBytes: number;
}

const { RESTORE_REGS, CALL_ORIG, SKIP_FRAME, IP_ARG, RET_FENTRY_RET } = TrampFlag;
const { ORIG_STACK, SHARE_IPMODIFY, TAIL_CALL_CTX, INDIRECT } = TrampFlag;

const V5_13_FLAGS = RESTORE_REGS | CALL_ORIG | SKIP_FRAME;
const V5_15_FLAGS = V5_13_FLAGS | IP_ARG | RET_FENTRY_RET;
const V6_1_FLAGS = V5_15_FLAGS | ORIG_STACK | SHARE_IPMODIFY | TAIL_CALL_CTX;
const V6_12_FLAGS = V6_1_FLAGS | INDIRECT;

/** All that an emitter takes that refuses some. */
function takenOf(known: number): readonly number[] {
  return Array.from({ length: known + 1 }, (_, flags) => flags).filter((flags) => {
    if ((flags & RESTORE_REGS) !== 0 && (flags & SKIP_FRAME) !== 0) return false;
    return (flags & RET_FENTRY_RET) === 0 || flags === RET_FENTRY_RET;
  });
}

/** What the callers of an emitter choose that takes everything, for functions that are traced. */
const TRACED = ((): readonly number[] => {
  const calls = CALL_ORIG | SKIP_FRAME;
  const shared = ORIG_STACK | SHARE_IPMODIFY;
  const kept = [RESTORE_REGS, calls, calls | shared].flatMap((flags) => [flags, flags | TAIL_CALL_CTX]);
  return kept.flatMap((flags) => [flags, flags | IP_ARG]);
})();

const v5_13: JudgedRevision = {
  knownFlags: V5_13_FLAGS,
  acceptedFlags: takenOf(V5_13_FLAGS),
  hasWords: false,
  mostWords: 6,
  stackWords: false,
  rbxInFrame: false,
  endbrAlways: false,
  countsCalls: false,
  spareBytes: 0,
};

const v5_15: JudgedRevision = {
  ...v5_13,
  knownFlags: V5_15_FLAGS,
  acceptedFlags: takenOf(V5_15_FLAGS),
};

const v6_1: JudgedRevision = {
  ...v5_15,
  knownFlags: V6_1_FLAGS,
  acceptedFlags: [...TRACED, 0, RET_FENTRY_RET],
  hasWords: true,
  endbrAlways: true,
};

const v6_12: JudgedRevision = {
  ...v6_1,
  knownFlags: V6_12_FLAGS,
  acceptedFlags: [...TRACED, INDIRECT, INDIRECT | RET_FENTRY_RET],
  mostWords: 12,
  stackWords: true,
  rbxInFrame: true,
  endbrAlways: false,
  countsCalls: true,
  spareBytes: 64,
};

/** A row for each revision. Kernel: bpf_trampoline_update; bpf_struct_ops_prepare_trampoline for the flags */
export const JUDGED: Readonly<Record<RevisionName, JudgedRevision>> = {
  'v5.13': v5_13,
  'v5.15': v5_15,
  'v6.1': v6_1,
  'v6.12': v6_12,
};
