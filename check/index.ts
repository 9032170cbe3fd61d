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
export {
  type GivenImage,
  ImageChecker,
  type ImageFinding,
  type ImageReport,
  plainCase,
  sameImage,
} from './image/check-image.ts';
export { IMAGE_FAMILY } from './image/image-family.ts';
export { parseImageCase } from './image/parse.ts';
export { type Situation, situationsOf, VARIANTS, type Variant } from './image/situations.ts';
export { Random } from './random.ts';
export { IMAGE_RULES, type ImageRule } from './rules.ts';
