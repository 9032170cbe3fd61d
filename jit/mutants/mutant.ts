import type { RevisionName } from '../rev/revision.ts';
import type { Change } from './edit.ts';

/** A mistake that an emitter can make, to be switched on by emitting with `apply(revision)`. */
export interface EmitterMutant {
  /** As in the list of real bugs where it is one of them, else named for the mistake. */
  readonly id: string;
  /** The mistake in a few words. */
  readonly what: string;
  /** Revisions in which it is a mistake that can be seen. Default: all. */
  readonly revisions?: readonly RevisionName[];
  readonly apply: Change;
}
