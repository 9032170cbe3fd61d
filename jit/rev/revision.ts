import type { ErrnoName, Kaddr } from '../../lib/index.ts';
import type { MovPtr } from '../kernel-encoding.ts';
import type { ProgRef, TrampolineConfig, TrampolineRequest } from '../request.ts';
import type { Assembler, Label } from '../x86/assembler.ts';
import type { Mem, Reg } from '../x86/operand.ts';

/** Where an image keeps things, below rbp. What a revision does not have is undefined, or an empty list. */
export interface Frame {
  /** Bytes that `sub rsp` takes. */
  readonly size: number;
  /** True when the slot at rbp-8 is the return value's. */
  readonly hasReturnValue: boolean;
  /** The return value's slot: rbp-8. Without one, the last argument is there, and fmod_ret overwrites it. */
  readonly returnValue: Mem;
  /** What programs get as their context: argument 0. */
  readonly ctx: Mem;
  /** Slot of an argument; from v6.1 on, of an argument word. */
  readonly arg: (index: number) => Mem;
  /** Slot of the traced function's address, where the image keeps it. */
  readonly funcIp: Mem | undefined;

  // from v6.1 on
  /** Argument words, word 0 first. */
  readonly words: readonly ArgWord[];
  /** Those that come in registers. */
  readonly regWords: readonly RegWord[];
  /** How many words there are. */
  readonly argCount: Mem | undefined;
  /** struct bpf_tramp_run_ctx: the cookie, and one word up the pointer that is put back afterwards. */
  readonly runCtx: Mem | undefined;
  /** The word that TAIL_CALL_CTX pushes below the frame. */
  readonly tailCall: Mem | undefined;

  // from v6.12 on
  /** Those of the words that come on the stack. */
  readonly stackWords: readonly StackWord[];
  /** The caller's rbx, which earlier revisions push below the frame. */
  readonly savedRbx: Mem | undefined;
}

/** Eight bytes of an argument, and where they are kept for programs. */
export type ArgWord = RegWord | StackWord;

interface Word {
  readonly slot: Mem;
  /** The argument, for listings. */
  readonly note: string;
}

export interface RegWord extends Word {
  /** The register that it comes in, and goes to the traced function in. */
  readonly reg: Reg;
}

export interface StackWord extends Word {
  readonly reg?: never;
  /** Its place among the stack words. */
  readonly index: number;
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
  readonly config: TrampolineConfig;
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

/** How an image gets to its place. */
export interface Delivery {
  /** Emitted right into the image, or into scratch memory of the image's size that is copied whole on success. */
  readonly inPlace: boolean;
  /** Bytes that the return value counts beyond the code. */
  readonly spareBytes: number;
  /** Whether the size can be asked for first: arch_bpf_trampoline_size. */
  readonly sizeQuery: boolean;
}

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
  /** What the kernel warns of and then does all the same. */
  readonly warn: (flags: number) => string | undefined;
  readonly frame: (request: TrampolineRequest, flags: number) => Frame;

  readonly prologue: Piece;
  readonly argCount: Piece;
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
  /** In place of `trampExit` where the original was not called. */
  readonly tailCallOnly: Piece;
  readonly epilogue: Piece;

  /** Parts of `callOriginal`: what the traced function is passed, and the call itself. */
  readonly passArgs: Piece;
  readonly callTraced: Piece;
  /** The last instruction, part of `epilogue`. */
  readonly ret: Piece;

  /** A program with what stands around it, and its three parts. */
  readonly invokeProg: (emission: Emission, invocation: Invocation) => void;
  readonly enterProg: (emission: Emission, prog: ProgRef) => void;
  readonly runProg: (emission: Emission, invocation: Invocation) => void;
  readonly exitProg: (emission: Emission, prog: ProgRef) => void;

  /** A call of a kernel function, of a program or of the original. */
  readonly call: (emission: Emission, target: Kaddr, name: string) => void;
  readonly movPtr: MovPtr;

  readonly delivery: Delivery;
  /** Text pokes step over an ENDBR at the place where the kernel is built for IBT. */
  readonly pokeSkipsEndbr: boolean;
}

/** Revisions with an emitter. Which of them the manager knows too is said in tramp. */
export const REVISIONS = ['v5.13', 'v5.15', 'v6.1', 'v6.12'] as const;
export type RevisionName = (typeof REVISIONS)[number];
