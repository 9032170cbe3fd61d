import { expect, test } from 'vitest';
import { type KernelBug, MAX_TRAMP_PROGS } from '../../../tramp/index.ts';
import { Stage } from './stage.ts';

/** T1: more fmod_ret programs than their array has room for. */
async function oneTooMany(bugs: readonly KernelBug[]) {
  const stage = await Stage.create({ bugs });
  const f = stage.guest.addFunction('f');
  for (let i = 0; i < MAX_TRAMP_PROGS; i++) stage.attach(stage.guest.addProgram(`M${i}`, 'fmod_ret'), f);
  const attach = (): void => stage.attach(stage.guest.addProgram('last', 'fmod_ret'), f);
  return { stage, attach, attached: () => stage.kernel.trampolines.list()[0]?.progs.fmod_ret.length };
}

test('the 39th is refused', async () => {
  const { stage, attach, attached } = await oneTooMany([]);
  expect(attach).toThrow(/E2BIG/);
  expect(attached()).toBe(MAX_TRAMP_PROGS);
  stage.close();
});

test('T1: the 39th goes into an array of 38', async () => {
  const { stage, attach, attached } = await oneTooMany(['T1']);
  attach();
  expect(attached()).toBe(MAX_TRAMP_PROGS + 1);
  stage.close();
});
