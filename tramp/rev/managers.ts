import type { ManagedRevision } from '../revisions.ts';
import type { ManagerRules } from './rules.ts';
import { v5_13 } from './v5-13.ts';
import { v5_15 } from './v5-15.ts';
import { v6_1 } from './v6-1.ts';
import { v6_12 } from './v6-12.ts';

/** The manager of each revision. */
export const managers: Readonly<Record<ManagedRevision, ManagerRules>> = {
  'v5.13': v5_13,
  'v5.15': v5_15,
  'v6.1': v6_1,
  'v6.12': v6_12,
};
