import { Bench } from 'tinybench';
import { Bug } from '../../lib/index.ts';

/** A figure from several rounds: nanoseconds. */
export interface Time {
  readonly medianNs: number;
  readonly fastestNs: number;
  /** The round below which three quarters lie, and the one below which a quarter does. */
  readonly quartilesNs: readonly [number, number];
  readonly rounds: number;
}

export function timeOf(rounds: readonly number[]): Time {
  const sorted = rounds.toSorted((a, b) => a - b);
  const at = (part: number): number => {
    const value = sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))];
    if (value === undefined) throw new Bug('no round was measured');
    return value;
  };
  return { medianNs: at(0.5), fastestNs: at(0), quartilesNs: [at(0.25), at(0.75)], rounds: sorted.length };
}

/** Something to be timed: does its work `batch` times. */
export interface Subject {
  readonly name: string;
  readonly batch: number;
  readonly run: () => void;
}

/**
 * Times several things in turn, round after round, so that what else the machine does falls on all of
 * them alike. Ratios between them are what counts.
 * @returns per subject the median nanoseconds of one of `batch`, for every round
 */
export async function inTurn(
  subjects: readonly Subject[],
  options: { readonly rounds: number; readonly timeMs: number },
): Promise<ReadonlyMap<string, number[]>> {
  const found = new Map<string, number[]>(subjects.map(({ name }) => [name, []]));
  for (let round = 0; round < options.rounds; round++) {
    const bench = new Bench({ time: options.timeMs, warmupTime: options.timeMs / 3, throws: true });
    for (const { name, run } of subjects) bench.add(name, run);
    await bench.run();
    for (const { name, result } of bench.tasks) {
      const batch = subjects.find((subject) => subject.name === name)?.batch;
      if (batch === undefined || !('latency' in result)) throw new Bug(`${name} was not timed`);
      found.get(name)?.push((result.latency.p50 * 1e6) / batch);
    }
  }
  return found;
}
