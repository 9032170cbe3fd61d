import { InputError } from '../lib/index.js';
/** Kernel revisions that can be run: those whose manager is modelled. A new one has its emitter first (`REVISIONS` of jit). */
export const MANAGED_REVISIONS = ['v5.13', 'v5.15', 'v6.1', 'v6.12'];
/** @throws InputError for a revision that nothing here can run */
export function managedRevision(name) {
    const found = MANAGED_REVISIONS.find((known) => known === name);
    if (found !== undefined)
        return found;
    throw new InputError('revision', undefined, `no revision ${name} to run; there are ${MANAGED_REVISIONS.join(', ')}`);
}
//# sourceMappingURL=revisions.js.map