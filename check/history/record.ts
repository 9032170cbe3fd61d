/*
 * What is known of a history when it is over: what the host did, and the log that the guest wrote. Times are
 * lengths of the log.
 */

import type { FunctionSpec, ProgramSpec } from './case.ts';
import type { GuestProgram } from './guest.ts';
import type { LogEntry } from './log.ts';
import { type ModelImage, type ModelLink, ModelProgram } from './model.ts';

/** A program that was loaded; the same spec may be loaded again as another one. */
export class LoadedProgram extends ModelProgram {
  /** As in the log. */
  readonly id: number;
  readonly spec: ProgramSpec;
  readonly real: GuestProgram;
  /** The loader has let go of it. */
  isPut = false;

  constructor(id: number, name: string, spec: ProgramSpec, real: GuestProgram) {
    super(name, spec.kind, spec.returns);
    this.id = id;
    this.spec = spec;
    this.real = real;
  }
}

export type LoadedLink = ModelLink<LoadedProgram>;
export type LoggedImage = ModelImage<LoadedProgram>;

/** Where a call goes from a function's entry. */
export interface Way {
  readonly image: LoggedImage | undefined;
  readonly extension: LoadedProgram | undefined;
  /** A live patch has another function run in the function's place. */
  readonly patched: boolean;
}

/** What stood at a function's entry from some time on. */
export interface Version {
  readonly from: number;
  /** One; while a live patch comes or goes, all that there may have been. The last one is what was wanted. */
  readonly ways: readonly Way[];
  /** Lower half of the function's address. */
  readonly ip: number;
}

/** The beginning and end of an operation. */
export interface Span {
  readonly from: number;
  to: number;
}

/** A call that a task made. */
export interface CallRecord {
  readonly task: string;
  /** As in the log. */
  readonly taskId: number;
  readonly fn: number;
  /** Its first two arguments. */
  readonly args: readonly [bigint, bigint];
  /** What stood at the entry when its first instruction was executed. */
  readonly version: Version;
  readonly from: number;
  to: number;
  result: bigint;
}

/** What a program's counters said when everything was over. */
export interface ProgramCounts {
  readonly program: LoadedProgram;
  readonly misses: number;
  readonly runs: number;
  /** By CPU: how deep it still runs there. */
  readonly active: readonly number[];
  /** CPUs where the sequence of its statistics is odd. */
  readonly odd: readonly number[];
}

export interface HistoryRecord {
  readonly entries: readonly LogEntry[];
  readonly functions: readonly FunctionRecord[];
  readonly programs: readonly LoadedProgram[];
  readonly calls: readonly CallRecord[];
  /** When images were retired. */
  readonly retired: ReadonlyMap<LoggedImage, Span>;
  /** When statistics were switched; the first time on, then off, and so on. */
  readonly switches: readonly Span[];
  /** How often the clock was set to 0, which is no time: so many runs are not counted. */
  readonly zeroClocks: number;
  /** Of the programs that were loaded to the end. */
  readonly counts: readonly ProgramCounts[];
  /** How often might_fault said that faulting was not allowed. */
  readonly splats: number;
  /** Whether images can keep the function's address. */
  readonly knowsIp: boolean;
  /** v6: programs have cookies, and LSM programs may run inside of themselves. */
  readonly v6: boolean;
}

export interface FunctionRecord {
  readonly name: string;
  readonly spec: FunctionSpec;
  /** Oldest first; the first is from 0 on. */
  readonly versions: readonly Version[];
}
