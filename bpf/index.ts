export { type CoreOutcome, type CoreResult, relocateCore } from './core.ts';
export { isPoison, POISON_IMM } from './core-patch.ts';
export { checkProgram } from './fixup/check.ts';
export type { CheckedFunction, CheckedProgram } from './fixup/checked.ts';
export {
  type CompileOptions,
  compileAt,
  compileProgram,
  interpretable,
  type PlacedFunction,
} from './fixup/images.ts';
export type { Helper, HelperCall, HelperWorld } from './helpers/helper.ts';
export { HELPERS as HELPER_ROWS, helpersOf } from './helpers/table.ts';
export {
  type BpfWorld,
  type Interpreted,
  type InterpretOptions,
  interpret,
} from './interp/interpreter.ts';
export { type BpfMemory, FlatMemory, MemoryFault } from './interp/memory.ts';
export { type KernelConfig, kconfigBytes } from './kconfig.ts';
export { listProgram, type ProgramListing, type ProgramListingPart } from './load/listing.ts';
export { type LoadBpfOptions, LoadedBpf, loadBpfObject } from './load/object.ts';
export type { LoadedProgram } from './load/program.ts';
export { BpfRuntime } from './load/runtime.ts';
export { ArrayMap } from './maps/array.ts';
export { BPF_ANY, BPF_EXIST, BPF_NOEXIST, BpfMap, type MapHome, type MapSpec } from './maps/map.ts';
export { PerfEventArrayMap, type PerfListener } from './maps/perf-event-array.ts';
export { ProgArrayMap } from './maps/prog-array.ts';
export { QueueStackMap } from './maps/queue-stack.ts';
export { RingbufMap } from './maps/ringbuf.ts';
export { createMap, MAP_TYPES, type MapType } from './maps/table.ts';
export type {
  BpfCoreReloc,
  BpfExtern,
  BpfFuncInfo,
  BpfGlobals,
  BpfLineInfo,
  BpfMapDef,
  BpfMapSlot,
  BpfObject,
  BpfProgram,
  BpfProgramKind,
  BpfReference,
  BpfReferent,
  BpfSubprog,
  BpfVariable,
  CoreKind,
} from './model.ts';
export { type ReadBpfOptions, readBpfObject } from './object.ts';
export { type SectionMeaning, sectionMeaning } from './section-name.ts';
export { entryAt } from './verify/entry.ts';
export type {
  BpfCode,
  BpfEntry,
  BpfEnvironment,
  BpfExternPlace,
  BpfGlobalPlace,
  BpfMapPlace,
  BpfTypeRef,
  BpfWord,
} from './verify/environment.ts';
export { helperId, helperName } from './verify/helper-names.ts';
export { HELPERS, type HelperArg, type HelperProto, type HelperResult } from './verify/helpers.ts';
