/*
 * What there is to try. A campaign and its workers get this from a module named by its URL, because a
 * function cannot be sent to another process; the product's own is trials.ts.
 */

import type { CaseFamily, Suspects } from '../check/index.ts';
import type { RevisionName } from '../jit/index.ts';
import type { FamilyName, Plan } from './plan.ts';

export type Families = { readonly [Name in FamilyName]: CaseFamily<unknown> };

/** Something with a mistake, put in place of ours. Judges and families are not told which, nor that it is. */
export interface Mutant {
  readonly id: string;
  readonly what: string;
  /** Families whose cases can meet the mistake. */
  readonly families: readonly FamilyName[];
  /** Revisions in which it is a mistake. */
  readonly revisions: readonly RevisionName[];
  readonly suspects: Suspects;
}

/** What a module of subjects exports as `SUBJECTS`. */
export interface Subjects {
  readonly families: Families;
  readonly mutants: readonly Mutant[];
}

/** The product's subjects. */
export const TRIALS: string = new URL('./trials.js', import.meta.url).href;

/** Loads a module of subjects. */
export async function loadSubjects(url: string): Promise<Subjects> {
  const module = (await import(url)) as { SUBJECTS: Subjects };
  return module.SUBJECTS;
}

/** What a plan puts on trial. @throws RangeError for a mutant that there is not: plans name known ones */
export function suspectsOf({ mutants }: Subjects, { mutant }: Pick<Plan, 'mutant'>): Suspects {
  if (mutant === null) return {};
  const found = mutants.find(({ id }) => id === mutant);
  if (found === undefined) throw new RangeError(`no mutant ${mutant}`);
  return found.suspects;
}
