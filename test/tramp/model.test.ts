/*
 * Random histories of the whole manager against a plain model of it, on one to four CPUs. More of them:
 * `npm run model`, which sets TRAMPLAB_MODEL_STEPS.
 */

import { describe, expect, test } from 'vitest';
import { KERNEL_BUGS, type KernelBug } from '../../tramp/index.ts';
import { campaign } from './model/campaign.ts';

const SEED = 20_261_121;
/** Steps that do something, as many as a campaign shall have; 0 for the 10,000 histories of every run of the tests. */
const STEPS = Number(process.env['TRAMPLAB_MODEL_STEPS'] ?? 0);
const CAMPAIGN = STEPS > 0;

const total = (counts: ReadonlyMap<string, number>): number =>
  [...counts.values()].reduce((sum, count) => sum + count, 0);

if (CAMPAIGN) {
  test('a campaign of histories', { timeout: 24 * 3_600_000 }, async () => {
    const seed = Number(process.env['TRAMPLAB_MODEL_SEED'] ?? SEED);
    let [histories, steps] = [0, 0];
    const all = new Map<string, number>();
    for (let part = 0; steps < STEPS; part++) {
      const result = await campaign({ seed: seed + part, histories: 2000, length: 60 });
      histories += result.histories;
      for (const [kind, count] of result.counts) all.set(kind, (all.get(kind) ?? 0) + count);
      steps = total(all);
      console.log(`seed ${seed}: ${histories} histories, ${steps} steps, no difference`);
    }
    for (const [kind, count] of [...all].sort(([, a], [, b]) => b - a)) console.log(`${kind}: ${count}`);
    expect(steps).toBeGreaterThanOrEqual(STEPS);
  });
} else {
  test('10,000 histories are as the model says', { timeout: 300_000 }, async () => {
    const { histories, counts } = await campaign({ seed: SEED, histories: 10_000, length: 56 });
    expect(histories).toBe(10_000);
    expect(total(counts)).toBeGreaterThan(100_000);
    // no kind of command is there in name only
    expect(counts.size).toBe(16);
    for (const [kind, count] of counts) expect(count, kind).toBeGreaterThan(100);
  });

  describe('the model finds', () => {
    // Bugs that need one certain instruction to be interrupted are for the lifetime tests.
    const found: readonly KernelBug[] = [
      ...(['L3', 'L4', 'L5', 'L12', 'L13', 'T13'] as const),
      ...(['torn-write', 'no-trace-wait', 'no-retire-jump', 'early-put'] as const),
    ];
    test.each(found)(`%s`, async (bug) => {
      const hunt = campaign({ seed: SEED, histories: 2000, length: 60, bugs: [bug], asFound: true });
      await expect(hunt, KERNEL_BUGS[bug]).rejects.toThrow('Property failed');
    });
  });
}
