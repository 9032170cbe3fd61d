export type { ProgramListing, ProgramListingPart } from '../bpf/index.ts';
export { formatReport, type KernelReport, type Livepatch } from '../tramp/index.ts';
export { type AttachBpfOptions, BpfPrograms, type LoadBpfFileOptions } from './bpf.ts';
export { type BpfRecord, LabMap } from './bpf-map.ts';
export type { CInput, CValue } from './bpf-values.ts';
export { readBytes, readText } from './files.ts';
export type { GlobalVariable } from './globals.ts';
export {
  type Attachment,
  type AttachOptions,
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
