/*
 * One traced call as plain data: what is traced, which programs with which manners, what the registers
 * hold. No addresses: a stage gives them. 64-bit values are hex text, as in every JSON document here.
 */

import { type RevisionName, TrampFlag } from '../../jit/index.ts';
import { hex64 } from '../../lib/index.ts';

/** A type, as far as an emitter can care. */
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
  /** Asks for the traced function's address. */
  readonly wantsIp: boolean;
  /** It is running on this CPU already. */
  readonly running: boolean;
  readonly returns: string;
  /** Writes a word of its context: 0 is argument 0; one behind the last argument is the result. */
  readonly writes: { readonly word: number; readonly value: string } | null;
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

export interface ImageCase {
  readonly revision: RevisionName;
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
    readonly args: readonly string[];
    /** rbx, rbp, r12 to r15. */
    readonly saved: readonly string[];
    readonly rax: string;
    /** Words that the caller has on its stack, up to MAX_STACK_WORDS: they move the frame. */
    readonly stackWords: number;
    /** What callees leave in rcx; every register that they may change holds something else then. */
    readonly garbage: string;
  };
  /** What the original returns, and what the rest of the traced function does when it is returned into. */
  readonly returns: { readonly original: string; readonly body: string };
  readonly statistics: boolean;
  /** What the clock shows, nanoseconds. */
  readonly clock: string;
  /** The image is retired while the original runs; its references are counted atomically. */
  readonly retired: boolean;
  /** Every instruction is watched for what it writes. */
  readonly watched: boolean;
}

/** Enough to reach every alignment that a stack word can have in a cache line. */
export const MAX_STACK_WORDS = 7;

/** Flags that a revision's emitter looks at. */
export function knownFlags(revision: RevisionName): number {
  const oldest = TrampFlag.RESTORE_REGS | TrampFlag.CALL_ORIG | TrampFlag.SKIP_FRAME;
  return revision === 'v5.13' ? oldest : oldest | TrampFlag.IP_ARG | TrampFlag.RET_FENTRY_RET;
}

/** Combinations of those flags that its emitter takes. */
export function acceptedFlags(revision: RevisionName): readonly number[] {
  const { RESTORE_REGS, SKIP_FRAME, RET_FENTRY_RET } = TrampFlag;
  return Array.from({ length: knownFlags(revision) + 1 }, (_, flags) => flags).filter((flags) => {
    if ((flags & RESTORE_REGS) !== 0 && (flags & SKIP_FRAME) !== 0) return false;
    return (flags & RET_FENTRY_RET) === 0 || flags === RET_FENTRY_RET;
  });
}

/** The flags of a case's request. Kernel: bpf_trampoline_update, kernel/bpf/trampoline.c */
export function flagsOf(one: ImageCase): number {
  if (one.flags !== null) return one.flags;
  const calls = one.fmodRet.length + one.fexit.length > 0;
  const base = calls ? TrampFlag.CALL_ORIG | TrampFlag.SKIP_FRAME : TrampFlag.RESTORE_REGS;
  const wantsIp = programsOf(one).some((prog) => prog.wantsIp);
  return wantsIp && one.revision !== 'v5.13' ? base | TrampFlag.IP_ARG : base;
}

/** All programs: fentry, fmod_ret, fexit. */
export function programsOf({ fentry, fmodRet, fexit }: ImageCase): readonly ProgramCase[] {
  if (fmodRet.length + fexit.length === 0) return fentry;
  return [...fentry, ...fmodRet, ...fexit];
}

/** Argument registers of a program's own call of the traced function: the case's, moved on by one. */
export function innerArgs(args: readonly string[]): readonly string[] {
  return args.map((_, i) => args[(i + 1) % args.length] as string);
}

/** One line: what is traced, by what, and what is out of the ordinary. */
export function describe(one: ImageCase): string {
  const sizes = one.args.map(({ sizeBytes, signed }) => `${signed ? 's' : 'u'}${8 * sizeBytes}`).join(', ');
  const kinds = KINDS.flatMap((kind) => (one[kind].length === 0 ? [] : [`${one[kind].length} ${kind}`]));
  const odd = [
    one.retired ? 'retired' : '',
    one.statistics ? `statistics from ${one.clock}` : '',
    one.placing.room === 'page' ? '' : `room ${one.placing.room}`,
    one.placing.far === 'nothing' ? '' : `far ${one.placing.far}`,
    ...KINDS.flatMap((kind) => one[kind].map((prog, i) => manners(prog, `${kind}[${i}]`))),
  ].filter((text) => text !== '');
  const what = `${one.revision} f(${sizes}), flags ${hex64(BigInt(flagsOf(one)))}, ${kinds.join(' ') || 'no programs'}`;
  return odd.length === 0 ? what : `${what}; ${odd.join(', ')}`;
}

function manners(prog: ProgramCase, name: string): string {
  const said = [
    prog.running ? 'is running' : '',
    prog.writes === null ? '' : `writes ctx[${prog.writes.word}]`,
    prog.calls ? 'calls again' : '',
    prog.faults ? 'faults' : '',
  ].filter((text) => text !== '');
  return said.length === 0 ? '' : `${name} ${said.join(' and ')}`;
}

/** Revisions whose images can be judged. */
export const JUDGED_REVISIONS: readonly RevisionName[] = ['v5.13', 'v5.15'];
