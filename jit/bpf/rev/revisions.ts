import type { BpfJitRevision } from '../context.ts';
import { v5_15 } from './v5-15.ts';
import { v5_15_0 } from './v5-15-0.ts';
import { v6_1 } from './v6-1.ts';
import { v6_12 } from './v6-12.ts';

/** Kernels whose JIT is known. v5.15 means 5.15.16; the others as their files say. */
export const BPF_JIT_REVISIONS = ['v5.13', 'v5.15.0', 'v5.15', 'v6.1', 'v6.12'] as const;
export type BpfJitRevisionName = (typeof BPF_JIT_REVISIONS)[number];

/** The JITs by name. simplified: v5.13 compiles as v5.15. */
export const bpfJitRevisions: Readonly<Record<BpfJitRevisionName, BpfJitRevision>> = {
  'v5.13': v5_15,
  'v5.15.0': v5_15_0,
  'v5.15': v5_15,
  'v6.1': v6_1,
  'v6.12': v6_12,
};
