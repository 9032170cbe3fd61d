/* Everything that `tramplab bench` measures, as one piece of data. */

import type { RevisionName } from '../jit/index.ts';
import type { Counts } from './counts.ts';
import { COUNTS } from './counts.ts';
import type { HarnessCost } from './harness/harness.ts';
import type { Host } from './host.ts';
import type { MixCounts } from './measure.ts';
import type { MixTime, NativeTimes } from './time.ts';

export interface CostReport {
  readonly host: Host;
  readonly revisions: readonly RevisionCost[];
  /** How the times of the mixes were taken, and what else the host CPU was asked; or why there are none. */
  readonly native: NativeTimes | NoTimes;
  /** What the harness itself costs; null when it was not measured. */
  readonly harness: HarnessCost | null;
}

/** No times, and why. */
export interface NoTimes {
  readonly none: string;
}

export interface RevisionCost {
  readonly revision: RevisionName;
  readonly mixes: readonly MixCost[];
}

export interface MixCost extends MixCounts {
  /** Traced less bare. */
  readonly over: Counts;
  /** On the host CPU; null where it was not measured. */
  readonly time: MixTime | null;
}

export function mixCost(counted: MixCounts, time: MixTime | null): MixCost {
  const { bare, traced } = counted;
  const over = Object.fromEntries(COUNTS.map((name) => [name, traced[name] - bare[name]]));
  return { ...counted, over: over as Record<keyof Counts, number>, time };
}
