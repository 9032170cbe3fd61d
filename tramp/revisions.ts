import { InputError } from '../lib/index.ts';

/** Kernel revisions that can be run: those whose manager is modelled. A new one has its emitter first (`REVISIONS` of jit). */
export const MANAGED_REVISIONS = ['v5.13', 'v5.15', 'v6.1', 'v6.12'] as const;
export type ManagedRevision = (typeof MANAGED_REVISIONS)[number];

/** @throws InputError for a revision that nothing here can run */
export function managedRevision(name: string): ManagedRevision {
  const found = MANAGED_REVISIONS.find((known) => known === name);
  if (found !== undefined) return found;
  throw new InputError(
    'revision',
    undefined,
    `no revision ${name} to run; there are ${MANAGED_REVISIONS.join(', ')}`,
  );
}
