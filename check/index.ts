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
export { type ImageCase, JUDGED_REVISIONS } from './image/case.ts';
export { IMAGE_FAMILY } from './image/image-family.ts';
export { Random } from './random.ts';
export { IMAGE_RULES, type ImageRule } from './rules.ts';
