export { compileBpf } from './bpf/compile.ts';
export type {
  BpfFrame,
  BpfJitRevision,
  InsnEmitter,
  JitPass,
  JitPiece,
  Opcodes,
} from './bpf/context.ts';
export { type DisasmOptions, disasmInsn } from './bpf/disasm.ts';
export {
  EX_ENTRY_BYTES,
  EX_TYPE_BPF,
  type ExFixup,
  exFixups,
  exTableOffset,
  withExTable,
} from './bpf/extable.ts';
export * from './bpf/insn.ts';
export { type BpfListingPart, formatBpfListing, listBpf } from './bpf/listing.ts';
export { type TailCallPoke, tailCallPokes } from './bpf/poke.ts';
export {
  type BpfImage,
  type BpfJitConfig,
  type BpfProgram,
  type ExEntry,
  PLAIN_BPF_JIT_CONFIG,
  type PokeDescriptor,
  type RefusedProgram,
} from './bpf/program.ts';
export type { ByteRange } from './bpf/provenance.ts';
export { home as bpfHome } from './bpf/registers.ts';
export { BPF_JIT_REVISIONS, type BpfJitRevisionName, bpfJitRevisions } from './bpf/rev/revisions.ts';
export { cfiOffset } from './cfi.ts';
export { ENDBR_BYTES, isEndbr } from './endbr.ts';
export { LONG_NOPS, type MovPtr, movPtr, movPtrSignExtended, NOP5, NOPS } from './kernel-encoding.ts';
export {
  formatListing,
  type ListingOptions,
  type ListingRow,
  listBytes,
  listCode,
  type Paint,
} from './listing.ts';
export { type Change, EMITTER_MUTANT_KINDS, EMITTER_MUTANTS, type EmitterMutant } from './mutants/index.ts';
export {
  decidePoke,
  POKE_BYTES,
  type PokeRequest,
  type PokeResult,
  type PokeType,
  patchBytes,
} from './poke.ts';
export {
  type CallDepthConfig,
  type CfiConfig,
  type HelperAddresses,
  HelperPair,
  type ProgRef,
  TrampFlag,
  type TrampolineConfig,
  type TrampolineRequest,
} from './request.ts';
export {
  type ArgWord,
  type Delivery,
  type Emission,
  type Frame,
  type Invocation,
  type Piece,
  REVISIONS,
  type RegWord,
  type Revision,
  type RevisionName,
  type StackWord,
} from './rev/revision.ts';
export { revisions } from './rev/revisions.ts';
export { RUNTIME_BUGS, type RuntimeBug } from './runtime/bugs.ts';
export { CGROUP_RUNNERS, type CgroupRunner } from './runtime/cgroup-run.ts';
export type { RuntimeLayout } from './runtime/context.ts';
export { GET_FUNC_IP } from './runtime/prog-helpers.ts';
export { STATS_KEY } from './runtime/prog-stats.ts';
export { emitRuntime, RuntimeData, type RuntimeOptions, SCHEDULE } from './runtime/runtime.ts';
export {
  BpfProg,
  BpfProgStats,
  BpfTrampImage,
  BpfTrampRunCtx,
  PercpuRef,
  TaskStruct,
} from './runtime/structs.ts';
export {
  type Prepared,
  prepareTrampoline,
  type RefusedImage,
  type TrampolineImage,
  trampolineSize,
} from './trampoline.ts';
export { Assembler, Label } from './x86/assembler.ts';
export {
  type Code,
  type CodeSymbol,
  type Insn,
  insnAt,
  outermostStep,
  type PatchSite,
  type Reloc,
  type RelocKind,
  type Step,
  stepPath,
} from './x86/code.ts';
export { type Disassembled, disassemble } from './x86/disasm.ts';
export type { AluOp, Cond } from './x86/encoding.ts';
export { linkCode } from './x86/link.ts';
export * from './x86/operand.ts';
export { OutOfRange } from './x86/rm.ts';
export { piece, step } from './x86/step.ts';
