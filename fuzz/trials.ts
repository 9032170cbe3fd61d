/*
 * The product's subjects: the families of cases that there are judges for, and every known mistake that they
 * are to find.
 */

import { HISTORY_FAMILY, IMAGE_FAMILY, JUDGED_REVISIONS } from '../check/index.ts';
import { EMITTER_MUTANTS, type EmitterMutant, RUNTIME_BUGS, revisions } from '../jit/index.ts';
import { BUG_REVISIONS, type KernelBug, MANAGER_BUGS } from '../tramp/index.ts';
import type { FamilyName } from './plan.ts';
import type { Mutant, Subjects } from './subjects.ts';

/** A revision's emitter with a mistake in it, in place of the revision's own. */
function emitterMutant({ id, what, revisions: only = JUDGED_REVISIONS, apply }: EmitterMutant): Mutant {
  const judged = JUDGED_REVISIONS.filter((name) => only.includes(name));
  return {
    id,
    what,
    families: ['image'],
    revisions: judged,
    suspects: { emitters: Object.fromEntries(judged.map((name) => [name, apply(revisions[name])])) },
  };
}

function bugMutants(
  bugs: Readonly<Record<string, string>>,
  families: readonly FamilyName[],
): readonly Mutant[] {
  return Object.entries(bugs).map(([id, what]) => ({
    id,
    what,
    families,
    revisions: BUG_REVISIONS[id as KernelBug] ?? JUDGED_REVISIONS,
    suspects: { bugs: [id as KernelBug] },
  }));
}

export const SUBJECTS: Subjects = {
  families: { image: IMAGE_FAMILY, history: HISTORY_FAMILY },
  mutants: [
    ...EMITTER_MUTANTS.map(emitterMutant).filter((mutant) => mutant.revisions.length > 0),
    ...bugMutants(RUNTIME_BUGS, ['image', 'history']),
    ...bugMutants(MANAGER_BUGS, ['history']),
  ],
};
