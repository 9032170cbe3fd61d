/* What guest code and host share in a run: one record per event, one frame of registers. Offsets in bytes. */

/** Words of a program's context that are logged: ctx[-1] .. ctx[7]. */
export const CTX_FROM = -1;
export const CTX_WORDS = 9;

/** One event: somebody was called. All words are u64. */
export const EventField = {
  /** The address that was called. */
  who: 0,
  rdi: 8,
  rsi: 16,
  rdx: 24,
  rcx: 32,
  r8: 40,
  r9: 48,
  rsp: 56,
  rax: 64,
  /** What the real function behind the call returned. */
  result: 72,
  /** Depths in the current task: rcu_read_lock, rcu_read_lock_trace, migrate_disable. */
  rcu: 80,
  trace: 88,
  migration: 96,
} as const;
export type EventWord = keyof typeof EventField;

/** Written by the host beforehand: what the callee answers. */
export const EVENT_REPLY = 104;
export const EVENT_CTX = 112;
export const EVENT_BYTES: number = EVENT_CTX + 8 * CTX_WORDS;

/** Argument registers in order. */
export const ARGS = ['rdi', 'rsi', 'rdx', 'rcx', 'r8', 'r9'] as const;
/** Registers that a function leaves as they were. */
export const CALLEE_SAVED = ['rbx', 'rbp', 'r12', 'r13', 'r14', 'r15'] as const;
export type CalleeSaved = (typeof CALLEE_SAVED)[number];

/** What the driver is told and what it reports. */
export const Frame = {
  /** Address of the next event's record. */
  cursor: 0,
  image: 8,
  /** Six words: arguments. */
  args: 16,
  /** Six words: callee-saved registers before the call. */
  saved: 64,
  rspBefore: 112,
  flagsBefore: 120,
  /** Six words: callee-saved registers after the call. */
  savedAfter: 128,
  raxAfter: 176,
  rspAfter: 184,
  flagsAfter: 192,
  /** The flags that the driver itself was called with. */
  ownFlags: 200,
  size: 208,
} as const;

/** Bytes of stack that the driver keeps above the call, untouched. */
export const CALLER_BYTES = 128;
