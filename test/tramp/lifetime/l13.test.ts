import { expect, test } from 'vitest';
import type { KernelBug } from '../../../tramp/index.ts';
import { Stage } from './stage.ts';

/** L13: a program calls the function that it traces. */
async function callsWhatItTraces(bugs: readonly KernelBug[]) {
  const stage = await Stage.create({ bugs });
  const f = stage.guest.addFunction('f');
  const p = stage.guest.addProgram('P', 'fentry', { calls: f.addr });
  stage.attach(p, f);
  return { stage, f, p, fault: stage.finish(stage.task('t1', f)) };
}

test('the counter lets it in once', async () => {
  const { stage, f, p, fault } = await callsWhatItTraces([]);
  expect(fault).toBeUndefined();
  expect([p.runs(), p.prog.counters(0).misses, f.runs()]).toEqual([1n, 1n, 2n]);
  expect(p.prog.counters(0).active).toBe(0);
  stage.close();
});

test('L13: it goes deeper until the stack is full', async () => {
  const { stage, f, p, fault } = await callsWhatItTraces(['L13']);
  expect(fault?.kind).toBe('stack-overflow');
  expect(p.runs()).toBeGreaterThan(50n);
  expect(f.runs()).toBe(0n);
  stage.close();
});
