/*
 * Linux v5.15.0: v5.15 before its first mended releases. Probe loads are guarded against NULL only, and what
 * faults goes on too far behind.
 */

import type { BpfJitRevision } from '../context.ts';
import { guardNull } from '../probe.ts';
import { probeRows, v5_15 } from './v5-15.ts';

export const v5_15_0: BpfJitRevision = {
  ...v5_15,
  opcodes: { ...v5_15.opcodes, ...probeRows(guardNull, { skipsGuard: true }) },
};
