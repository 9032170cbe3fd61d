import type { Revision, RevisionName } from './revision.ts';
import { v5_13 } from './v5-13.ts';
import { v5_15 } from './v5-15.ts';
import { v6_1 } from './v6-1.ts';
import { v6_12 } from './v6-12.ts';

/** The emitters by name. */
export const revisions: Readonly<Record<RevisionName, Revision>> = {
  'v5.13': v5_13,
  'v5.15': v5_15,
  'v6.1': v6_1,
  'v6.12': v6_12,
};
