import { expect, test } from 'vitest';
import type { KernelBug } from '../../../tramp/index.ts';
import { Stage } from './stage.ts';

/** L17: a program that does not sleep calls a function with a sleepable one, which might. */
async function mightFaultInRcu(bugs: readonly KernelBug[]) {
  const stage = await Stage.create({ bugs });
  const g = stage.guest.addFunction('g');
  const f = stage.guest.addFunction('f');
  const p = stage.guest.addProgram('P', 'fentry', { calls: g.addr });
  const s = stage.guest.addProgram('S', 'fentry', { sleepable: true });
  stage.attach(p, f);
  stage.attach(s, g);
  expect(stage.finish(stage.task('t1', f))).toBeUndefined();
  expect([p.runs(), s.runs()]).toEqual([1n, 1n]);
  const splats = stage.kernel.mightFaultSplats(0);
  stage.close();
  return splats;
}

test('might_fault says so', async () => {
  expect(await mightFaultInRcu([])).toBe(1);
});

test('L17: nobody does', async () => {
  expect(await mightFaultInRcu(['L17'])).toBe(0);
});
