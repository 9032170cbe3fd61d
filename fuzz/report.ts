/*
 * What a campaign says at its end, or so far.
 */

import type { CellSet } from './cells.ts';
import { FAMILY_NAMES, type FamilyName, type Plan, shardCases } from './plan.ts';
import type { FindingRecord } from './record.ts';
import type { Families } from './subjects.ts';
import { cellSets, type Spent, type Tally } from './tally.ts';

/** Coverage cells of a family. */
export interface Coverage {
  readonly hit: number;
  readonly all: number;
  readonly missing: readonly string[];
}

export interface CampaignReport extends Plan {
  /** Cases that were run, in all sessions together. */
  readonly cases: number;
  /** Cases that the shard has; null: no end. */
  readonly planned: number | null;
  /** Whether every case of the shard was run. */
  readonly complete: boolean;
  /** Traced calls. */
  readonly calls: number;
  /** Cases that broke some rule, and each rule. */
  readonly broken: number;
  readonly rules: Readonly<Record<string, number>>;
  readonly findings: readonly (FindingRecord & { readonly file: string | null })[];
  /** Of every outcome: equal digests mean that the same cases did the same. */
  readonly digest: string;
  readonly coverage: Readonly<Partial<Record<FamilyName, Coverage>>>;
  /** This session alone. */
  readonly seconds: number;
  readonly casesPerSecond: number;
  readonly workers: number;
  /** Nanoseconds of all workers and sessions. */
  readonly spent: Spent;
}

/** What a report says of a tally: all but what only the session knows. */
export function summarize(
  families: Families,
  plan: Plan,
  tally: Tally,
): Omit<CampaignReport, 'complete' | 'findings' | 'seconds' | 'casesPerSecond' | 'workers'> {
  const { cases, calls, broken, rules, digest, spent } = tally;
  const planned = shardCases(plan);
  return {
    ...plan,
    cases,
    planned: Number.isFinite(planned) ? planned : null,
    calls,
    broken,
    rules,
    digest,
    coverage: coverageOf(families, plan, tally),
    spent,
  };
}

/** Coverage of the families that the plan has. */
function coverageOf(families: Families, plan: Plan, tally: Tally): CampaignReport['coverage'] {
  const sets = setsOf(families, plan, tally);
  return Object.fromEntries(
    sets.map(({ name, set }): [FamilyName, Coverage] => {
      const { cells } = families[name];
      const missing = cells.filter((cell, i) => !set.has(i) && inReach(plan, cell));
      return [name, { hit: set.hit, all: set.hit + missing.length, missing }];
    }),
  );
}

/** How many coverage cells were hit, of how many. */
export function countCells(families: Families, plan: Plan, tally: Tally): { hit: number; cells: number } {
  const sets = setsOf(families, plan, tally);
  return {
    hit: sets.reduce((sum, { set }) => sum + set.hit, 0),
    cells: sets.reduce((sum, { name }) => sum + cellsInReach(families[name].cells, plan), 0),
  };
}

function cellsInReach(cells: readonly string[], plan: Plan): number {
  return cells.reduce((count, cell) => (inReach(plan, cell) ? count + 1 : count), 0);
}

/** A cell that names a revision can only be hit by cases of that revision. */
function inReach({ revisions }: Plan, cell: string): boolean {
  const [named] = /v\d+\.\d+/.exec(cell) ?? [];
  return named === undefined || revisions.some((name) => name === named);
}

function setsOf(families: Families, plan: Plan, tally: Tally): { name: FamilyName; set: CellSet }[] {
  const sets = cellSets(families);
  const wanted = FAMILY_NAMES.filter((name) => plan.family === 'mixed' || plan.family === name);
  for (const name of wanted) sets[name].addText(tally.cells[name], 'tally');
  return wanted.map((name) => ({ name, set: sets[name] }));
}
