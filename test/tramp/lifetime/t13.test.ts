import { expect, test } from 'vitest';
import type { KernelBug } from '../../../tramp/index.ts';
import { Stage } from './stage.ts';

/** T13: the poke that puts a freplace program in place fails. */
async function pokeFails(bugs: readonly KernelBug[]) {
  const stage = await Stage.create({ bugs });
  const f = stage.guest.addFunction('f', { origin: 'kernel', plain: true });
  const r = stage.guest.addProgram('R', 'freplace', { returns: 42 });
  // somebody else has the trampoline too, so that it outlives the failure
  stage.kernel.trampolines.get(stage.kernel, f.key, f);
  stage.kernel.fail.arm('poke');
  expect(() => stage.attach(r, f)).toThrow(/poke/);
  return { stage, f, r };
}

test('nothing is recorded: the same program attaches at the next try', async () => {
  const { stage, f, r } = await pokeFails([]);
  stage.attach(r, f);
  const task = stage.task('t1', f);
  expect(stage.finish(task)).toBeUndefined();
  expect(task.results).toEqual([42n]);
  expect([r.runs(), f.runs()]).toEqual([1n, 0n]);
  stage.close();
});

test('T13: the program that never got there keeps everybody out', async () => {
  const { stage, f, r } = await pokeFails(['T13']);
  expect(() => stage.attach(r, f)).toThrow(/replaced by R.*EBUSY/);
  expect(() => stage.attach(stage.guest.addProgram('P', 'fentry'), f)).toThrow(/replaced by R.*EBUSY/);
  stage.close();
});
