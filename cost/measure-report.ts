/* The standard set: every mix of every revision counted and timed, and what the harness costs. */

import { createMachine } from '../emu/index.ts';
import type { ManagedRevision } from '../tramp/index.ts';
import { HARNESS_PARTS, measureHarness } from './harness/harness.ts';
import { describeHost } from './host.ts';
import { countMix } from './measure.ts';
import { type Mix, mixesOf } from './mix.ts';
import { type CostReport, mixCost, type NoTimes, type RevisionCost } from './report.ts';
import { NativeTimer, type NativeTimes } from './time.ts';

export interface ReportOptions {
  readonly revisions: readonly ManagedRevision[];
  /** Which mixes; default all. */
  readonly mixes?: (mix: Mix) => boolean;
  /** Take times on the host CPU. */
  readonly times: boolean;
  /** Measure what the harness costs. */
  readonly harness: boolean;
  /** Hears what is done of `total` and what comes next. */
  readonly onProgress?: (done: number, total: number, text: string) => void;
}

export async function measureReport(options: ReportOptions): Promise<CostReport> {
  const { onProgress = () => undefined } = options;
  const wanted = options.revisions.map((revision) => ({
    revision,
    mixes: mixesOf(revision).filter(options.mixes ?? (() => true)),
  }));
  const nrMixes = wanted.reduce((sum, { mixes }) => sum + mixes.length, 0);
  const total = nrMixes + (options.harness ? HARNESS_PARTS : 0);
  let done = 0;
  const tell = (text: string): void => onProgress(done++, total, text);

  const timer = options.times ? await NativeTimer.open() : { none: 'not asked for' };
  try {
    const revisions: RevisionCost[] = [];
    for (const { revision, mixes } of wanted) {
      const costs = [];
      for (const mix of mixes) {
        tell(`${revision}: ${mix.name}`);
        const counted = await countMix(revision, mix);
        const time = timer instanceof NativeTimer ? await timer.mix(revision, mix) : null;
        costs.push(mixCost(counted, time));
      }
      revisions.push({ revision, mixes: costs });
    }
    const native: NativeTimes | NoTimes = timer instanceof NativeTimer ? await timer.rest() : timer;
    const harness = options.harness ? await measureHarness(tell) : null;
    return { host: describeHost(await emulatorName()), revisions, native, harness };
  } finally {
    if (timer instanceof NativeTimer) timer.close();
  }
}

async function emulatorName(): Promise<string> {
  const machine = await createMachine();
  machine.close();
  return machine.engine;
}
