import { expect, test } from 'vitest';
import type { KernelBug } from '../../../tramp/index.ts';
import { Stage } from './stage.ts';

/** L14: two tasks on one CPU call a hook, and the first sleeps in its LSM program. */
async function meetInLsmProgram(bugs: readonly KernelBug[], revision: 'v5.15' | 'v6.1' | 'v6.12') {
  const stage = await Stage.create({ bugs, revision });
  const f = stage.guest.addFunction('f');
  const s = stage.guest.addProgram('S', 'lsm', { sleepable: true, sleeps: true });
  stage.attach(s, f);
  const first = stage.task('t1', f);
  expect(stage.run(first).what).toBe('slept');
  expect(stage.finish(stage.task('t2', f))).toBeUndefined();
  expect(stage.finish(first)).toBeUndefined();
  const { active, misses } = s.prog.counters(0);
  stage.close();
  return { runs: s.runs(), misses, active };
}

test.each(['v6.1', 'v6.12'] as const)('%s: both run it', async (revision) => {
  expect(await meetInLsmProgram([], revision)).toEqual({ runs: 2n, misses: 0n, active: 0 });
});

test.each(['v6.1', 'v6.12'] as const)('%s, L14: the second loses its run', async (revision) => {
  expect(await meetInLsmProgram(['L14'], revision)).toEqual({ runs: 1n, misses: 1n, active: 0 });
});

test('before v6.1 every kernel had L14', async () => {
  expect(await meetInLsmProgram([], 'v5.15')).toEqual({ runs: 1n, misses: 1n, active: 0 });
});
