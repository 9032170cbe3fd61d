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
