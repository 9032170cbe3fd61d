/*
 * What is kept of the cases of a range: sums, the first cases that broke each rule, which coverage cells
 * were hit. Plain data. Tallies of parts join into the tally of the whole, however it was parted.
 */

import type { CaseOutcome, Finding } from '../check/index.ts';
import { Bug } from '../lib/index.ts';
import { CellSet } from './cells.ts';
import { addDigests, digestText, Hash } from './digest.ts';
import { FAMILY_NAMES, type FamilyName } from './plan.ts';
import type { Families } from './subjects.ts';

/** Nanoseconds: making cases, and what their runners say. */
export interface Spent {
  readonly draw: number;
  readonly emit: number;
  readonly patch: number;
  readonly run: number;
  readonly check: number;
}

export const SPENT_NOTHING: Spent = { draw: 0, emit: 0, patch: 0, run: 0, check: 0 };

/** A broken rule, and the case that broke it. */
export interface Broken {
  readonly number: number;
  readonly family: FamilyName;
  readonly finding: Finding;
}

/** Families by name, the coverage cells of each as a CellSet's text. */
export type CellTexts = Readonly<Record<FamilyName, string>>;

/** Cases that are kept for each rule: more than one, because several mistakes can break the same rule. */
export const KEPT_PER_RULE = 3;

export interface Tally {
  readonly cases: number;
  /** Traced calls. */
  readonly calls: number;
  /** Cases that broke some rule. */
  readonly broken: number;
  /** Cases that broke each rule. */
  readonly rules: Readonly<Record<string, number>>;
  /** The first KEPT_PER_RULE cases that broke each rule, in order of cases. */
  readonly firsts: readonly Broken[];
  readonly cells: CellTexts;
  /** Of every outcome. Equal digests: the same cases did the same. */
  readonly digest: string;
  /** The only part that is not the same every time. */
  readonly spent: Spent;
}

/** Makes a tally of outcomes, in any order. */
export class Tallying {
  readonly #index: Readonly<Record<FamilyName, ReadonlyMap<string, number>>>;
  readonly #cells: Readonly<Record<FamilyName, CellSet>>;
  readonly #rules = new Map<string, number>();
  #firsts: readonly Broken[] = [];
  #cases = 0;
  #calls = 0;
  #broken = 0;
  #digest = 0n;

  constructor(families: Families, index: CellIndex = indexCells(families)) {
    this.#index = index;
    this.#cells = cellSets(families);
  }

  add(number: number, family: FamilyName, outcome: CaseOutcome): void {
    const hash = new Hash()
      .word(number)
      .word(Math.floor(number / 2 ** 32))
      .word(outcome.calls);
    const cells = this.#cells[family];
    for (const cell of outcome.cells) {
      const index = this.#index[family].get(cell);
      if (index === undefined) {
        // Where something is broken, what is not possible happens.
        if (outcome.findings.length > 0) continue;
        throw new Bug(`family ${family} hit a cell that it does not list: ${cell}`);
      }
      cells.add(index);
      hash.word(index);
    }
    // A rule counts once for a case, however often the case breaks it.
    const seen = new Set<string>();
    for (const finding of outcome.findings) {
      const { rule } = finding;
      if (seen.has(rule)) continue;
      seen.add(rule);
      hash.text(rule);
      this.#rules.set(rule, (this.#rules.get(rule) ?? 0) + 1);
      this.#firsts = kept([...this.#firsts, { number, family, finding }]);
    }
    this.#cases++;
    this.#calls += outcome.calls;
    if (seen.size > 0) this.#broken++;
    this.#digest += hash.value;
  }

  tally(spent: Spent): Tally {
    return {
      cases: this.#cases,
      calls: this.#calls,
      broken: this.#broken,
      rules: sorted(this.#rules),
      firsts: this.#firsts,
      cells: { image: this.#cells.image.toText(), history: this.#cells.history.toText() },
      digest: digestText(this.#digest),
      spent,
    };
  }
}

/** Where each cell of each family stands in the family's list. */
export type CellIndex = Readonly<Record<FamilyName, ReadonlyMap<string, number>>>;

export function indexCells(families: Families): CellIndex {
  const index = (name: FamilyName): Map<string, number> =>
    new Map(families[name].cells.map((cell, i) => [cell, i]));
  return { image: index('image'), history: index('history') };
}

export function cellSets(families: Families): Readonly<Record<FamilyName, CellSet>> {
  return {
    image: new CellSet(families.image.cells.length),
    history: new CellSet(families.history.cells.length),
  };
}

/**
 * The tally of several ranges.
 * @param where what they were read from, for messages
 */
export function joinTallies(families: Families, tallies: Iterable<Tally>, where = 'tally'): Tally {
  const sets = cellSets(families);
  const rules = new Map<string, number>();
  const firsts: Broken[] = [];
  let sum: Omit<Tally, 'rules' | 'firsts' | 'cells'> = {
    cases: 0,
    calls: 0,
    broken: 0,
    digest: digestText(0n),
    spent: SPENT_NOTHING,
  };
  for (const tally of tallies) {
    for (const name of FAMILY_NAMES) sets[name].addText(tally.cells[name], where);
    for (const [rule, cases] of Object.entries(tally.rules)) rules.set(rule, (rules.get(rule) ?? 0) + cases);
    firsts.push(...tally.firsts);
    sum = {
      cases: sum.cases + tally.cases,
      calls: sum.calls + tally.calls,
      broken: sum.broken + tally.broken,
      digest: addDigests(sum.digest, tally.digest),
      spent: addSpent(sum.spent, tally.spent),
    };
  }
  return {
    ...sum,
    rules: sorted(rules),
    firsts: kept(firsts),
    cells: { image: sets.image.toText(), history: sets.history.toText() },
  };
}

export function addSpent(one: Spent, other: Spent): Spent {
  return {
    draw: one.draw + other.draw,
    emit: one.emit + other.emit,
    patch: one.patch + other.patch,
    run: one.run + other.run,
    check: one.check + other.check,
  };
}

/** The first few of each rule, in order of cases; those of one case stay as the judge put them. */
function kept(all: readonly Broken[]): readonly Broken[] {
  const counts = new Map<string, number>();
  const inOrder = [...all].sort((one, other) => one.number - other.number);
  return inOrder.filter(({ finding: { rule } }) => {
    const count = (counts.get(rule) ?? 0) + 1;
    counts.set(rule, count);
    return count <= KEPT_PER_RULE;
  });
}

function sorted(rules: ReadonlyMap<string, number>): Record<string, number> {
  return Object.fromEntries([...rules].sort(([a], [b]) => (a < b ? -1 : 1)));
}
