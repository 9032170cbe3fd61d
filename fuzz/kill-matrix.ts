/*
 * Mutants: is each found, by which rule, after how many cases? Every mutant gets a campaign of its own,
 * with the same seed, that ends at the first broken rule.
 */

import type { RevisionName } from '../jit/index.ts';
import { InputError } from '../lib/index.ts';
import { Crew, type CrewOptions } from './crew.ts';
import { type FamilyName, type FuzzEngine, makePlan } from './plan.ts';
import { type Families, loadSubjects, type Mutant, TRIALS } from './subjects.ts';
import type { Broken } from './tally.ts';
import { tryRange } from './trial.ts';

/** Cases that a mutant gets at most, all its families together. */
export const MUTANT_CASES = 2000;

/** Cases are run in ranges that grow: most mutants are found at once, and what comes after is wasted. */
const FIRST_RANGE: Readonly<Record<FamilyName, number>> = { image: 20, history: 4 };
const GROWTH = 4;

export interface MatrixOptions extends CrewOptions {
  readonly seed: number;
  readonly engine?: FuzzEngine;
  /** Ids of the mutants to try. Default: all. */
  readonly only?: readonly string[];
  /** Tries each mutant in this revision alone; those that are no mistakes in it are left out. Default: in all of its own. */
  readonly revision?: RevisionName;
  /** Cases that a mutant gets. */
  readonly cases?: number;
  readonly onVerdict?: (verdict: MutantVerdict, done: number, all: number) => void;
}

export interface MutantVerdict {
  readonly id: string;
  readonly what: string;
  readonly found: boolean;
  /** The rule that the first case to break one broke; null: not found. */
  readonly rule: string | null;
  /** Cases that were run, the finding one included. */
  readonly cases: number;
  readonly finding: Broken | null;
}

/**
 * The mutants of a module, all or those named; of one revision those that are mistakes in it.
 * @param option the one that `only` comes from
 * @throws InputError naming it, for a mutant that there is not
 */
export async function listMutants(
  subjects: string = TRIALS,
  only?: readonly string[],
  revision?: RevisionName,
  option: string = '--only',
): Promise<readonly Mutant[]> {
  const { mutants } = await loadSubjects(subjects);
  const unknown = only?.find((id) => !mutants.some((mutant) => mutant.id === id));
  if (unknown !== undefined)
    throw new InputError(
      option,
      undefined,
      `there is no mutant ${unknown}; tramplab mutants --list names them`,
    );
  const named = only === undefined ? mutants : mutants.filter(({ id }) => only.includes(id));
  return revision === undefined
    ? named
    : named
        .filter(({ revisions }) => revisions.includes(revision))
        .map((mutant) => ({ ...mutant, revisions: [revision] }));
}

/** Tries mutants, as many at a time as there are workers; verdicts in the mutants' order. */
export async function killMatrix(options: MatrixOptions): Promise<readonly MutantVerdict[]> {
  const { families } = await loadSubjects(options.subjects ?? TRIALS);
  const mutants = await listMutants(options.subjects, options.only, options.revision);
  const crew = new Crew(options);
  try {
    const verdicts: MutantVerdict[] = [];
    let done = 0;
    const queue = mutants.entries();
    const work = async (): Promise<void> => {
      for (const [i, mutant] of queue) {
        const verdict = await judge(crew, families, mutant, options);
        verdicts[i] = verdict;
        done++;
        options.onVerdict?.(verdict, done, mutants.length);
      }
    };
    await Promise.all(Array.from({ length: options.workers }, work));
    return verdicts;
  } finally {
    await crew.close();
  }
}

async function judge(
  crew: Crew,
  families: Families,
  mutant: Mutant,
  { seed, engine = 'unicorn', cases: limit = MUTANT_CASES }: MatrixOptions,
): Promise<MutantVerdict> {
  const { id, what, revisions } = mutant;
  const tries = mutant.families.map((family) => ({
    plan: makePlan({ seed, engine, family, revisions, mutant: id }),
    next: 0,
    size: FIRST_RANGE[family],
  }));
  let cases = 0;
  while (cases < limit) {
    for (const one of tries) {
      const range = { from: one.next, to: one.next + Math.min(one.size, limit - cases) };
      const [finding] = (await tryRange(crew, families, one.plan, range, true)).firsts;
      if (finding !== undefined) {
        const { rule } = finding.finding;
        return { id, what, found: true, rule, cases: cases + finding.number - range.from + 1, finding };
      }
      cases += range.to - range.from;
      one.next = range.to;
      one.size *= GROWTH;
    }
  }
  return { id, what, found: false, rule: null, cases, finding: null };
}
