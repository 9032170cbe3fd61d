/*
 * One traced call as plain data: what is traced, which programs with which manners, what the registers
 * hold. No addresses: a stage gives them. As JSON (lib/json.ts) its 64-bit values are hex text.
 */

import { HelperPair, type RevisionName, TrampFlag } from '../../jit/index.ts';
import { hex64 } from '../../lib/index.ts';
import { JUDGED } from './revision.ts';

/** A type, as far as an emitter can care: a struct by value has up to 16 bytes, from v6.1 on. */
export interface ValueModel {
  readonly sizeBytes: number;
  readonly signed: boolean;
}

export const KINDS = ['fentry', 'fmodRet', 'fexit'] as const;
export type Kind = (typeof KINDS)[number];

/** A program and what it does when it is run. */
export interface ProgramCase {
  readonly sleepable: boolean;
  readonly jited: boolean;
  /** Which enter and exit functions it has, from v6.1 on. RECUR is what all programs had before. */
  readonly kind: HelperPair;
  /** What it is told when it asks for its cookie, from v6.1 on. */
  readonly cookie: bigint;
  /** Asks for the traced function's address. */
  readonly wantsIp: boolean;
  /** It is running on this CPU already. */
  readonly running: boolean;
  readonly returns: bigint;
  /** Writes a word of its context: 0 is the first argument's; one behind the last argument's is the result. */
  readonly writes: { readonly word: number; readonly value: bigint } | null;
  /** Calls the traced function itself, unless it is in such a call already. */
  readonly calls: boolean;
  /** Reads where nothing is mapped. */
  readonly faults: boolean;
}

/** Where things are put, as far as that changes what is emitted. */
export interface Placing {
  /** Bytes from the start of a page to the image. */
  readonly offset: number;
  /** Program structs lie below 4 GiB. */
  readonly low: boolean;
  /**
   * Room for the image: a page from its start; as much as it needs and not a byte more; one byte less; as
   * little as there is.
   */
  readonly room: 'page' | 'exact' | 'short' | 'none';
  /** What of it is called lies further away than 2 GiB: nothing, a helper, a program, or the original. */
  readonly far: 'nothing' | 'helper' | 'program' | 'original';
}

/** How the kernel was built, from v6.1 on. */
export interface ConfigCase {
  readonly ibt: boolean;
  readonly rethunk: boolean;
  readonly sls: boolean;
  /** The traced function begins with an ENDBR. */
  readonly endbr: boolean;
  /** v6.12: calls are counted. */
  readonly callDepth: boolean;
}

export const PLAIN_CONFIG: ConfigCase = {
  ibt: false,
  rethunk: false,
  sls: false,
  endbr: false,
  callDepth: false,
};

export interface ImageCase {
  readonly revision: RevisionName;
  readonly config: ConfigCase;
  readonly args: readonly ValueModel[];
  /** Null for void. */
  readonly ret: ValueModel | null;
  /** Union of TrampFlag bits; null: as the manager chooses them. */
  readonly flags: number | null;
  readonly fentry: readonly ProgramCase[];
  readonly fmodRet: readonly ProgramCase[];
  readonly fexit: readonly ProgramCase[];
  readonly placing: Placing;
  readonly registers: {
    /** rdi, rsi, rdx, rcx, r8, r9: whether or not the function has so many arguments. */
    readonly args: readonly bigint[];
    /** rbx, rbp, r12 to r15. */
    readonly saved: readonly bigint[];
    readonly rax: bigint;
    /** STACK_ARG_WORDS words that the caller has above the return address: arguments, where the function has so many. */
    readonly stack: readonly bigint[];
    /** Words that the caller has on its stack, up to FAR_STACK_WORDS: they move the frame. */
    readonly stackWords: number;
    /** What callees leave in rcx; every register that they may change holds something else then. */
    readonly garbage: bigint;
  };
  /** What the original returns, and what the rest of the traced function does when it is returned into. */
  readonly returns: { readonly original: bigint; readonly body: bigint };
  readonly statistics: boolean;
  /** What the clock shows, nanoseconds. */
  readonly clock: bigint;
  /** The image is retired while the original runs; its references are counted atomically. */
  readonly retired: boolean;
  /** Every instruction is watched for what it writes. */
  readonly watched: boolean;
}

/** Enough to reach every alignment that a stack word can have in a cache line. */
export const MAX_STACK_WORDS = 7;
/** With so many, an image whose caller called it has its saved rbp at a multiple of 64 KiB: the lower half of rsp is 0. */
export const FAR_STACK_WORDS = 30;

/** Words that callers leave above their return address; an image of v6.12 reads seven at most. */
export const STACK_ARG_WORDS = 8;

/** Flags that a revision's emitter looks at. */
export function knownFlags(revision: RevisionName): number {
  return JUDGED[revision].knownFlags;
}

/**
 * Combinations of flags that its emitter takes; from v6.1 on, when it takes them all, those that its callers choose.
 * Kernel: bpf_trampoline_update; bpf_struct_ops_prepare_trampoline
 */
export function acceptedFlags(revision: RevisionName): readonly number[] {
  return JUDGED[revision].acceptedFlags;
}

/**
 * Whether a case's image is called by pointer, without a traced function's frame in between. Not where its flags say
 * that there is such a frame all the same, to be skipped or called by: nobody could answer that call.
 */
export function isCalledDirectly(one: ImageCase): boolean {
  const flags = flagsOf(one) & knownFlags(one.revision);
  const { INDIRECT, SKIP_FRAME, ORIG_STACK } = TrampFlag;
  return (flags & (INDIRECT | SKIP_FRAME | ORIG_STACK)) === INDIRECT;
}

/** Whether enter and exit count a program's runs, and refuse a second one. */
export function countsRuns({ kind }: ProgramCase): boolean {
  return kind === HelperPair.RECUR;
}

/** The flags of a case's request. Kernel: bpf_trampoline_update, kernel/bpf/trampoline.c */
export function flagsOf(one: ImageCase): number {
  if (one.flags !== null) return one.flags;
  const calls = one.fmodRet.length + one.fexit.length > 0;
  const base = calls ? TrampFlag.CALL_ORIG | TrampFlag.SKIP_FRAME : TrampFlag.RESTORE_REGS;
  const wantsIp = programsOf(one).some((prog) => prog.wantsIp);
  return wantsIp ? base | (TrampFlag.IP_ARG & knownFlags(one.revision)) : base;
}

/** All programs: fentry, fmod_ret, fexit. */
export function programsOf({ fentry, fmodRet, fexit }: ImageCase): readonly ProgramCase[] {
  if (fmodRet.length + fexit.length === 0) return fentry;
  return [...fentry, ...fmodRet, ...fexit];
}

/** What a program's own call passes where its caller passed some words: the same, moved on by one. */
export function movedOn(words: readonly bigint[]): readonly bigint[] {
  return words.map((_, i) => words[(i + 1) % words.length] as bigint);
}

/** Which of the two places the traced function is called from: both come up. */
export function usesOtherLauncher({ registers }: ImageCase): boolean {
  return registers.stackWords % 2 === 1;
}

/** One line: what is traced, by what, and what is out of the ordinary. */
export function describe(one: ImageCase): string {
  const sizes = one.args.map(({ sizeBytes, signed }) => `${signed ? 's' : 'u'}${8 * sizeBytes}`).join(', ');
  const kinds = KINDS.flatMap((kind) => (one[kind].length === 0 ? [] : [`${one[kind].length} ${kind}`]));
  const odd = [
    ...Object.entries(one.config).map(([name, on]) => (on === true ? name : '')),
    one.retired ? 'retired' : '',
    one.statistics ? `statistics from ${hex64(one.clock)}` : '',
    one.placing.room === 'page' ? '' : `room ${one.placing.room}`,
    one.placing.far === 'nothing' ? '' : `far ${one.placing.far}`,
    ...KINDS.flatMap((kind) => one[kind].map((prog, i) => manners(prog, `${kind}[${i}]`))),
  ].filter((text) => text !== '');
  const what = `${one.revision} f(${sizes}), flags ${hex64(BigInt(flagsOf(one)))}, ${kinds.join(' ') || 'no programs'}`;
  return odd.length === 0 ? what : `${what}; ${odd.join(', ')}`;
}

function manners(prog: ProgramCase, name: string): string {
  const said = [
    prog.kind === HelperPair.RECUR ? '' : prog.kind === HelperPair.PLAIN ? 'may nest' : 'is of a cgroup',
    prog.running ? 'is running' : '',
    prog.writes === null ? '' : `writes ctx[${prog.writes.word}]`,
    prog.calls ? 'calls again' : '',
    prog.faults ? 'faults' : '',
  ].filter((text) => text !== '');
  return said.length === 0 ? '' : `${name} ${said.join(' and ')}`;
}

/** Revisions whose images can be judged. */
export const JUDGED_REVISIONS: readonly RevisionName[] = ['v5.13', 'v5.15', 'v6.1', 'v6.12'];
