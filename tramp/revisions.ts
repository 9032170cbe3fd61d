import { REVISIONS } from '../jit/index.ts';
import { InputError } from '../lib/index.ts';

/** Kernel revisions that can be run: those whose manager is modelled. More have an emitter (`REVISIONS` of jit). */
export const MANAGED_REVISIONS = ['v5.13', 'v5.15'] as const;
export type ManagedRevision = (typeof MANAGED_REVISIONS)[number];

/** @throws InputError for a revision that nothing here can run */
export function managedRevision(name: string): ManagedRevision {
  const found = MANAGED_REVISIONS.find((known) => known === name);
  if (found !== undefined) return found;
  const there = `there are ${MANAGED_REVISIONS.join(', ')}`;
  const emitted = REVISIONS.some((known) => known === name);
  const why = emitted
    ? `${name} can be emitted but not run; to run, ${there}`
    : `no revision ${name}; ${there}`;
  throw new InputError('revision', undefined, why);
}
