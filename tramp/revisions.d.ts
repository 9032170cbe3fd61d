/** Kernel revisions that can be run: those whose manager is modelled. A new one has its emitter first (`REVISIONS` of jit). */
export declare const MANAGED_REVISIONS: readonly ['v5.13', 'v5.15', 'v6.1', 'v6.12'];
export type ManagedRevision = (typeof MANAGED_REVISIONS)[number];
/** @throws InputError for a revision that nothing here can run */
export declare function managedRevision(name: string): ManagedRevision;
