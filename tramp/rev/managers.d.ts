import type { ManagedRevision } from '../revisions.ts';
import type { ManagerRules } from './rules.ts';
/** The manager of each revision. */
export declare const managers: Readonly<Record<ManagedRevision, ManagerRules>>;
