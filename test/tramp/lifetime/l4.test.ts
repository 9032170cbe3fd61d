import { expect, test } from 'vitest';
import type { KernelBug } from '../../../tramp/index.ts';
import { Stage } from './stage.ts';

/** L4: a module goes away while its function is traced. */
async function unloadWhileTraced(bugs: readonly KernelBug[]) {
  const stage = await Stage.create({ bugs });
  const f = stage.guest.addFunction('f');
  const p = stage.guest.addProgram('P', 'fexit');
  stage.attach(p, f);
  const task = stage.task('t1', f);
  stage.runTo(task, stage.helper('__bpf_tramp_enter'));
  return { stage, task, f, p };
}

test('a traced module is not unloaded, and goes once it is traced no more', async () => {
  const { stage, task, f, p } = await unloadWhileTraced([]);
  expect(() => f.module.unload()).toThrow(/1 trampolines hold it.*EBUSY/);
  expect(stage.finish(task)).toBeUndefined();
  stage.detach(p, f);
  f.module.unload();
  expect(stage.kernel.modules).toEqual([]);
  stage.close();
});

test('L4: the module is gone when the image calls its function', async () => {
  const { stage, task, f } = await unloadWhileTraced(['L4']);
  expect(f.module.references).toBe(0);
  f.module.unload();
  expect(stage.finish(task)).toMatchObject({ kind: 'freed-image', symbol: { name: 'f', offset: 5 } });
  stage.close();
});
