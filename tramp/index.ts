export { attachProg, detachProg } from './attach.ts';
export { BUG_REVISIONS, KERNEL_BUGS, type KernelBug, type KernelBugs, MANAGER_BUGS } from './bugs.ts';
export { CgroupLsm, cgroupRunner } from './cgroup-lsm.ts';
export { FAIL_POINTS, type FailPoint, FailPoints } from './failpoints.ts';
export { Ftrace, type FtraceCommand, type FtraceOps } from './ftrace.ts';
export { FtraceCaller } from './ftrace-caller.ts';
export type { ImageState, TrampImage } from './image.ts';
export { CHUNK_BYTES, IMAGE_BYTES, type ImageMemory, PackMemory, PageMemory } from './image-memory.ts';
export { imageRequest, imageSize, type Unplaced } from './image-request.ts';
export {
  formatReport,
  type ImageInfo,
  type ImageWait,
  introspect,
  type KernelReport,
  type KsymInfo,
  type ModuleInfo,
  type ProgInfo,
  reportToJson,
  type TrampolineState,
} from './introspect.ts';
export { Kallsyms, type Ksym, type KsymHit, type KsymKind } from './kallsyms.ts';
export { type BuildConfig, Kernel, type KernelOptions } from './kernel.ts';
export { TrampLink } from './link.ts';
export { Livepatch, livepatch } from './livepatch.ts';
export { loadModule, type Placement, resolveSymbol } from './load-module.ts';
export { ModmemCharge } from './modmem.ts';
export { KModule, type ModuleContents, ModuleText } from './module.ts';
export { Mutex } from './mutex.ts';
export { PercpuRef } from './percpu-ref.ts';
export {
  ATTACH_KINDS,
  type AttachKind,
  BpfProg,
  helperPair,
  PROG_KINDS,
  PROG_TYPES,
  type ProgCounters,
  type ProgKind,
  type ProgOptions,
  type ProgType,
  trampKind,
} from './prog.ts';
export { ProgArray } from './prog-array.ts';
export { GracePeriods, RCU_FLAVOURS, RcuFlavour, type RcuFlavourName, type RcuTask } from './rcu.ts';
export { managers } from './rev/managers.ts';
export type { FlagQuestion, ManagerRules, StructOpsRules, WaitConfig } from './rev/rules.ts';
export { MANAGED_REVISIONS, type ManagedRevision, managedRevision } from './revisions.ts';
export { RuntimeText } from './runtime-text.ts';
export { type RunOutcome, Scheduler } from './sched.ts';
export {
  type ScheduleEvent,
  Simulation,
  type SimulationFault,
  type SimulationOptions,
  WEIGHTS,
  type Weights,
} from './simulation.ts';
export { StructOps, type StructOpsImage, type StructOpsMember } from './struct-ops.ts';
export { Task, type TaskCall } from './task.ts';
export { TextPoker, textPoke } from './text-poke.ts';
export {
  type AttachTarget,
  linkProg,
  MAX_TRAMP_PROGS,
  type Trampoline,
  TrampolineTable,
  unlinkProg,
} from './trampoline.ts';
