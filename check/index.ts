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
export {
  type FunctionSpec,
  HISTORY_REVISIONS,
  type HistoryCase,
  type HistoryRevision,
  type Operation,
  type ProgramSpec,
  parseCase as parseHistoryCase,
  type ScheduleSpec,
  type TaskSpec,
} from './history/case.ts';
export { HISTORY_FAMILY, playCase } from './history/family.ts';
export {
  createGuest,
  type FunctionOptions,
  Guest,
  type GuestFunction,
  type GuestProgram,
  MODEL,
  type ProgramOptions,
} from './history/guest.ts';
export { type HistoryFinding, type Judgement, judge as judgeHistory } from './history/judge.ts';
export { Ledger, leaked, type Taken } from './history/ledger.ts';
export { type LogEntry, Note } from './history/log.ts';
export {
  LIST_KINDS,
  type ListKind,
  ModelFunction,
  type ModelImage,
  ModelLink,
  ModelProgram,
  TableModel,
  type Verdict,
} from './history/model.ts';
export type { Played } from './history/play.ts';
export {
  type CallRecord,
  type HistoryRecord,
  type LoadedLink,
  LoadedProgram,
  type LoggedImage,
  type ProgramCounts,
  type Span,
  type Version,
  type Way,
} from './history/record.ts';
export { HISTORY_RULES, type HistoryRule } from './history/rules.ts';
export { errorOf, type KernelState, siteBytes, stateDifference, stateOf } from './history/state.ts';
export { type ImageCase, JUDGED_REVISIONS } from './image/case.ts';
export {
  type GivenImage,
  ImageChecker,
  type ImageFinding,
  type ImageReport,
  plainCase,
  sameImage,
} from './image/check-image.ts';
export { programsIn } from './image/given.ts';
export { IMAGE_FAMILY } from './image/image-family.ts';
export { parseImageCase } from './image/parse.ts';
export { type Situation, situationsOf, VARIANTS, type Variant } from './image/situations.ts';
export { Random } from './random.ts';
export { IMAGE_RULES, type ImageRule } from './rules.ts';
