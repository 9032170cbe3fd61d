export { Apt } from './apt.ts';
export { KERNELS, type KernelName } from './combination.ts';
export { combinationsOf, SHORT } from './combinations.ts';
export {
  askKernel,
  type CombinationResult,
  type ConformanceOptions,
  type ConformanceReport,
} from './conformance.ts';
export { conformancePage } from './markdown.ts';
export { type Progress, SILENT, terminalProgress } from './progress.ts';
export { type PartPlan, Store } from './store.ts';
export { Unavailable } from './unavailable.ts';
