export type {
  CaseFamily,
  CaseOutcome,
  CaseRunner,
  FamilyOptions,
  RunnerOptions,
  Suspects,
  Timing,
} from './family.ts';
export type { Finding, FindingPlace } from './finding.ts';
export { Random } from './random.ts';
