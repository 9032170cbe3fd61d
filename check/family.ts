/*
 * What a campaign needs to know of the things it can try: how to make a case from a seed, how to make a
 * case smaller, how to run many of them. A case is plain data that JSON (lib/json.ts) can carry there and back, and it
 * holds no address: the same case means the same on every machine and engine.
 */

import type { EngineName } from '../emu/index.ts';
import type { Revision, RevisionName } from '../jit/index.ts';
import type { KernelBug } from '../tramp/index.ts';
import type { Finding } from './finding.ts';
import type { Random } from './random.ts';

export interface CaseFamily<Case> {
  readonly name: 'image' | 'history';
  /** Every coverage cell that its cases can hit, by name: a campaign counts and names those that were missed. */
  readonly cells: readonly string[];
  /** Pure: the same numbers make the same case. */
  generate(random: Random, options: FamilyOptions): Case;
  /** Cases that are smaller than this one by one thing each, the most promising first; none when it is minimal. */
  shrink(one: Case): Iterable<Case>;
  /** One line that says what the case is about. */
  describe(one: Case): string;
  /**
   * A case from JSON: what a finding's file holds.
   * @throws InputError naming the field, for a case that this family could not have made
   */
  parse(json: unknown): Case;
  /** Opens a runner with a machine of its own. @throws InputError when the engine is not there */
  open(options: RunnerOptions): Promise<CaseRunner<Case>>;
}

export interface FamilyOptions {
  /** Revisions to make cases for, at least one. */
  readonly revisions: readonly RevisionName[];
}

/** What is put on trial in place of our own parts. A judge never looks in here: it sees bytes and calls. */
export interface Suspects {
  /** Emitters in place of a revision's own. */
  readonly emitters?: Readonly<Partial<Record<RevisionName, Revision>>>;
  /** Bugs of the manager and of the runtime. */
  readonly bugs?: readonly KernelBug[];
}

export interface RunnerOptions extends Suspects {
  readonly engine: EngineName;
  /** Whether outcomes carry `observed`: slower. Default false. */
  readonly observe?: boolean;
}

export interface CaseRunner<Case> {
  /**
   * Runs cases one after the other; outcome i belongs to case i, and depends on nothing but case i.
   * A guest can kill the engine and the process with it: run this where that is survived.
   */
  run(cases: readonly Case[]): Promise<readonly CaseOutcome[]>;
  /** Where the time went so far. */
  readonly timing: Timing;
  close(): void;
}

export interface CaseOutcome {
  /** Traced calls that were made. */
  readonly calls: number;
  /** Broken rules, the first one first; empty when all is well. */
  readonly findings: readonly Finding[];
  /** Coverage cells that the case hit. */
  readonly cells: readonly string[];
  /**
   * With `observe`: everything that the case did, one line each, addresses by what they belong to, so
   * that two engines that do the same say the same.
   */
  readonly observed?: readonly string[];
}

/** Nanoseconds. `run` includes copying cases in. */
export interface Timing {
  readonly emit: number;
  readonly patch: number;
  readonly run: number;
  readonly check: number;
}
