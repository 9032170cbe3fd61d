export { Ftrace } from './ftrace.ts';
export { IMAGE_BYTES, type ImageState, ModmemCharge, type TrampImage } from './image.ts';
export { Kallsyms, type Ksym, type KsymHit, type KsymKind } from './kallsyms.ts';
export { Kernel, type KernelOptions } from './kernel.ts';
export { KModule, loadModule, type ModuleContents, resolveSymbol } from './module.ts';
export { PercpuRef } from './percpu-ref.ts';
export { BpfProg, PROG_KINDS, type ProgCounters, type ProgKind, type ProgOptions } from './prog.ts';
export { GracePeriods, RCU_FLAVOURS, RcuFlavour, type RcuFlavourName, type RcuTask } from './rcu.ts';
export { textPoke } from './text-poke.ts';
export {
  type AttachTarget,
  linkProg,
  MAX_TRAMP_PROGS,
  type Trampoline,
  TrampolineTable,
  unlinkProg,
} from './trampoline.ts';
