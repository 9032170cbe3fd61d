export { ENGINES_AGREE } from './both.ts';
export { type CampaignOptions, type Progress, runCampaign } from './campaign.ts';
export { hasCampaign, readJournal } from './journal.ts';
export {
  killMatrix,
  listMutants,
  type MatrixOptions,
  MUTANT_CASES,
  type MutantVerdict,
} from './kill-matrix.ts';
export { type MergeOptions, mergeCampaigns } from './merge.ts';
export {
  FAMILY_CHOICES,
  FAMILY_NAMES,
  type FamilyChoice,
  type FamilyName,
  FUZZ_ENGINES,
  type FuzzEngine,
  makePlan,
  type Plan,
  type Shard,
  shardCases,
} from './plan.ts';
export type { FindingRecord } from './record.ts';
export { type Replay, replay } from './replay.ts';
export type { CampaignReport, Coverage } from './report.ts';
export type { Families, Mutant, Subjects } from './subjects.ts';
export type { Broken, Spent, Tally } from './tally.ts';
