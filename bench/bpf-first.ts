/*
 * From an object on disk to the first result of a traced call: `npm run bench:bpf-first`. Each round is a lab of its
 * own; the first also pays for what a process does once. Nothing asserts a time.
 */

import { cpus } from 'node:os';
import { performance } from 'node:perf_hooks';
import { createLab } from '../lab/index.ts';
import { MANAGED_REVISIONS } from '../tramp/index.ts';

/** From the project's folder, where npm runs this. */
const FIXTURES = 'test/fixtures/bpf/';
const ROUNDS = 20;
const STEPS = ['make the lab, load the target', 'load the object', 'attach', 'call'] as const;

async function round(revision: (typeof MANAGED_REVISIONS)[number]): Promise<number[]> {
  const times = [performance.now()];
  const lab = await createLab({ revision });
  lab.load(`${FIXTURES}targets.o`);
  times.push(performance.now());
  const programs = lab.loadBpf(`${FIXTURES}hash-map.bpf.o`);
  times.push(performance.now());
  programs.attachAll();
  times.push(performance.now());
  lab.call('sell', [1, 5]);
  times.push(performance.now());
  lab.close();
  return STEPS.map((_, i) => (times[i + 1] as number) - (times[i] as number));
}

const middle = (values: readonly number[]): number =>
  values.toSorted((a, b) => a - b)[values.length >> 1] as number;
const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0);

console.log(`${cpus()[0]?.model}, Node ${process.version}; hash-map.bpf.o, median of ${ROUNDS} rounds, ms`);
for (const revision of MANAGED_REVISIONS) {
  const rounds: number[][] = [];
  for (let i = 0; i < ROUNDS; i++) rounds.push(await round(revision));
  const each = STEPS.map(
    (step, i) => `${step} ${middle(rounds.map((times) => times[i] as number)).toFixed(1)}`,
  );
  const whole = rounds.map(sum);
  console.log(
    `${revision}  ${each.join(', ')}; whole ${middle(whole).toFixed(1)}, first ${(whole[0] as number).toFixed(1)}`,
  );
}
