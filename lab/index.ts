export { formatReport, type KernelReport } from '../tramp/index.ts';
export { readBytes, readText } from './files.ts';
export type { GlobalVariable } from './globals.ts';
export {
  type Attachment,
  type CallArgument,
  type CallReport,
  createLab,
  Lab,
  type LabCallOptions,
  type LabOptions,
  type TrampolineInfo,
} from './lab.ts';
export { type ProgramCode, ProgramObject } from './program.ts';
export type { Target } from './target.ts';
export { type Scalar, show, showPrototype } from './values.ts';
export type { Seen, TraceEvent } from './watch.ts';
