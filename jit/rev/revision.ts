import type { ErrnoName } from '../../lib/index.ts';
import type { ProgRef, TrampolineRequest } from '../request.ts';
import type { Assembler, Label } from '../x86/assembler.ts';
import type { Mem } from '../x86/operand.ts';

/** Where an image keeps things, below rbp. */
export interface Frame {
  /** Bytes that `sub rsp` takes; rbx is pushed below them. */
  readonly size: number;
  /** True when the slot at rbp-8 is the return value's. */
  readonly hasReturnValue: boolean;
  /** The return value's slot: rbp-8. Without one, the last argument is there, and fmod_ret overwrites it. */
  readonly returnValue: Mem;
  /** What programs get as their context: argument 0. */
  readonly ctx: Mem;
  /** Slot of an argument. */
  readonly arg: (index: number) => Mem;
  /** Slot of the traced function's address, where the image keeps it. */
  readonly funcIp: Mem | undefined;
}

/** Why a request is refused, as an errno and in words. */
export interface Refusal {
  readonly code: ErrnoName;
  readonly why: string;
}

/** The state of one emission: what every piece gets. */
export interface Emission {
  readonly asm: Assembler;
  readonly rev: Revision;
  readonly request: TrampolineRequest;
  /** The request's flags, less those that the revision does not know. */
  readonly flags: number;
  readonly frame: Frame;
  /** Where a non-zero fmod_ret value branches to. */
  readonly doFexit: Label;
  /** Offset of ip_after_call once it is known. */
  ipAfterCall: number | undefined;
  /** Offset of ip_epilogue once it is known. */
  ipEpilogue: number | undefined;
}

/** A program and whether its return value is kept in the frame. */
export interface Invocation {
  readonly prog: ProgRef;
  readonly keepReturn: boolean;
}

export type Piece = (emission: Emission) => void;

/**
 * How one kernel revision emits: every piece of an image, in the order in which `emitTrampoline` puts them.
 * A later revision is the earlier one with some pieces replaced.
 */
export interface Revision {
  readonly name: RevisionName;
  /** Flags that this revision looks at. */
  readonly knownFlags: number;
  /** The checks before anything is emitted, in the kernel's order. */
  readonly refuse: (request: TrampolineRequest, flags: number) => Refusal | undefined;
  readonly frame: (request: TrampolineRequest, flags: number) => Frame;

  readonly prologue: Piece;
  readonly funcIp: Piece;
  readonly saveArgs: Piece;
  readonly trampEnter: Piece;
  readonly fentry: Piece;
  readonly fmodRet: Piece;
  readonly callOriginal: Piece;
  readonly bindFexit: Piece;
  readonly fexit: Piece;
  readonly restoreArgs: Piece;
  readonly trampExit: Piece;
  readonly epilogue: Piece;

  readonly invokeProg: (emission: Emission, invocation: Invocation) => void;
}

export const REVISIONS = ['v5.13', 'v5.15'] as const;
export type RevisionName = (typeof REVISIONS)[number];
