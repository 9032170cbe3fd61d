/*
 * What guest code and host share in a run: the records that the guest writes about each call, and the
 * words that the host leaves for it. All words are u64; offsets in bytes unless a name says words.
 *
 * The log is one record after the other, without gaps. A record begins with its kind.
 */

/** Kinds of records, by who writes them. */
export const EventKind = {
  /** An enter function: has a result. */
  value: 1,
  /** An exit function, or one of the image's own pair. */
  nothing: 2,
  program: 3,
  /** The traced function, called by the image. */
  original: 4,
  /** The traced function behind its site: the image has returned into it. */
  body: 5,
  /** A program's own call of the traced function is over. */
  nested: 6,
  /** The call is over. */
  return: 7,
} as const;
export type EventKind = (typeof EventKind)[keyof typeof EventKind];

/** What every record of a callee begins with, in words. */
export const CALLEE_WORDS = [
  'kind',
  /** The address that was called. */
  'who',
  'rdi',
  'rsi',
  'rdx',
  /** At the first instruction of the callee: the return address has been pushed. */
  'rsp',
  'rbp',
  /** The two words that rbp points at; in a `body`, whose rbp is the caller's, 0 and the word at rsp. */
  'savedRbp',
  'returnAddress',
  /** Depths in the current task: rcu_read_lock below, rcu_read_lock_trace above. */
  'readers',
  /** Depth of migrate_disable. */
  'migration',
  /** References on the image by this CPU. */
  'references',
  /** Flags that differ from those that the image was called with, arithmetic ones left out. */
  'flags',
  /** current->bpf_ctx. */
  'runCtx',
  /** The counter of calls; 0 where a revision has none. Put back to CALL_DEPTH afterwards. */
  'callDepth',
] as const;
export type CalleeWord = (typeof CALLEE_WORDS)[number];

/** Behind them in records of `original` and `body`; and then the words on the stack that are arguments. */
export const FUNCTION_WORDS = ['rcx', 'r8', 'r9', 'rax'] as const;
/** Behind them in records of `value`. */
export const VALUE_WORDS = ['result'] as const;
/** Behind them in records of `program`; and then its context. */
export const PROGRAM_WORDS = [
  /** What current->bpf_ctx points at. */
  'cookie',
] as const;
/** A record of `nested`, in words. */
export const NESTED_WORDS = [
  'kind',
  'rax',
  'rsp',
  /** Bits of callee-saved registers that differ from before the call. */
  'changed',
] as const;
/** A record of `return`, in words. */
export const RETURN_WORDS = [
  'kind',
  'rax',
  'rsp',
  'rbx',
  'rbp',
  'r12',
  'r13',
  'r14',
  'r15',
  /** Flags that differ from those before the call, arithmetic ones left out. */
  'flags',
  'readers',
  'migration',
  'references',
  /** might_fault() complaints. */
  'splats',
  'clock',
  'runCtx',
  'callDepth',
  /** Returns that went through the return thunk. */
  'thunks',
] as const;

export const PREFIX_WORDS: number = CALLEE_WORDS.length;

/** How large the records of a case are that differ in it. */
export interface Shape {
  /** Where the logged part of a program's context begins, in words from argument 0; and its words. */
  readonly ctxFrom: number;
  readonly ctxWords: number;
  /** Arguments that the original is passed on the stack. */
  readonly stackWords: number;
}

/** Words of a record. */
export function recordWords(kind: EventKind, { ctxWords, stackWords }: Shape = NO_SHAPE): number {
  switch (kind) {
    case EventKind.value:
      return PREFIX_WORDS + VALUE_WORDS.length;
    case EventKind.nothing:
      return PREFIX_WORDS;
    case EventKind.program:
      return PREFIX_WORDS + PROGRAM_WORDS.length + ctxWords;
    case EventKind.original:
    case EventKind.body:
      return PREFIX_WORDS + FUNCTION_WORDS.length + stackWords;
    case EventKind.nested:
      return NESTED_WORDS.length;
    case EventKind.return:
      return RETURN_WORDS.length;
  }
}

const NO_SHAPE: Shape = { ctxFrom: 0, ctxWords: 0, stackWords: 0 };

/** Byte offset of a word in a record of a callee. */
export function calleeOffset(word: CalleeWord): number {
  return 8 * CALLEE_WORDS.indexOf(word);
}

/** One per machine: where the guest code stands. */
export const Control = {
  /** Address of the next record of the log. */
  cursor: 0,
  /** Address of the current CaseRecord. */
  record: 8,
  /** Cases still to do, the current one included. */
  left: 16,
  /** Address of the next Script entry. */
  script: 24,
  /** rsp of the driver. */
  rsp: 32,
  flags: 40,
  /** The flags that the image was called with. */
  entered: 48,
  /** rsp of the host's call, on the stack of the vCPU. */
  home: 56,
  size: 64,
} as const;

/** What the driver is told of one case. */
export const CaseRecord = {
  /** Address of the image. */
  image: 0,
  script: 8,
  /** Per-CPU offset of the image's reference counter. */
  references: 16,
  clock: 24,
  rax: 32,
  /** Where the logged part of a program's context begins, relative to its rdi; signed. */
  ctxFrom: 40,
  ctxWords: 48,
  /** What the original, and the body, answer. */
  originalReply: 56,
  bodyReply: 64,
  /** What callees leave in rcx; the other registers that are theirs hold something else. */
  garbage: 72,
  /** Bytes that the caller has on its stack beyond what it always has. */
  stackBytes: 80,
  /** Six argument registers. */
  args: 88,
  /** Those of a program's own call of the traced function. */
  innerArgs: 136,
  /** rbx, rbp, r12 .. r15. */
  saved: 184,
  /** Written by the driver: where the case's part of the log begins. */
  log: 232,
  /** What the driver calls: the launcher, or the image itself. */
  entry: 240,
  /** Words above the return address that the original's record shows. */
  stackWords: 248,
  /** STACK_ARG_WORDS words above the return address, of the driver's call and of a program's own. */
  stackArgs: 256,
  innerStackArgs: 320,
  size: 384,
} as const;

/** What a program does when it is run: one entry per run, in the order in which programs have to run. */
export const Script = {
  /** Union of ScriptDeed bits. */
  deeds: 0,
  reply: 8,
  /** Relative to the context. */
  writeOffset: 16,
  writeValue: 24,
  size: 32,
} as const;

export const ScriptDeed = {
  /** Writes to its context. */
  write: 1,
  /** Calls the traced function. */
  nest: 2,
  /** Reads at FAULT_ADDRESS. */
  fault: 4,
} as const;

/** What the counter of calls holds when nothing has been called since the last record. */
export const CALL_DEPTH = 0x8000_0000_0000_0000n;
/** Every call moves it right by so many bits, sign-extended. */
export const CALL_DEPTH_SHIFT = 5n;

/** Nothing is ever mapped there. */
export const FAULT_ADDRESS = 16n;

/** Bytes of stack that the driver keeps above the call, untouched. */
export const CALLER_BYTES = 128;
/** Bytes below the caller's rsp that hold FILL when an image is called. */
export const FILLED_BYTES = 256;
export const FILL = 0xa5a5_a5a5_a5a5_a5a5n;
/** Words that a program pushes before it calls the traced function itself, its return address not included. */
export const NESTED_PUSHES = 7;
/** What an outer program's run_ctx holds for a cookie. */
export const OUTER_COOKIE = 0xc0c0_0c0c_c0c0_0c0cn;

/** Argument registers in order. */
export const ARGS = ['rdi', 'rsi', 'rdx', 'rcx', 'r8', 'r9'] as const;
/** Registers that a function leaves as they were. */
export const SAVED = ['rbx', 'rbp', 'r12', 'r13', 'r14', 'r15'] as const;

/** Carry, parity, adjust, zero, sign, overflow: free for any function to change. */
export const ARITHMETIC_FLAGS = 0x8d5;
export const DIRECTION_FLAG = 0x400;
