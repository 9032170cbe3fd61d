import { expect, test } from 'vitest';
import type { KernelBug } from '../../../tramp/index.ts';
import { Stage } from './stage.ts';

/*
 * L8: an exiting task, which the list of tasks has no more, calls a traced function and is preempted in
 * the image.
 */
async function exitingTaskInAnImage(bugs: readonly KernelBug[]) {
  const stage = await Stage.create({ bugs });
  const f = stage.guest.addFunction('f');
  const p = stage.guest.addProgram('P', 'fentry');
  stage.attach(p, f);
  const image = stage.image(f);
  const task = stage.task('t1', f, { exiting: true });
  stage.runTo(task, stage.helper('__bpf_prog_enter'));
  expect(task.exiting).toBe(true);
  stage.preempt(task);
  stage.detach(p, f);
  stage.settle();
  return { stage, task, image };
}

test('RCU-tasks waits for the exiting task', async () => {
  const { stage, task, image } = await exitingTaskInAnImage([]);
  expect(image.state).toBe('rcu-tasks');
  expect(stage.kernel.grace.flavours['rcu-tasks'].holdouts).toEqual([task.id]);
  expect(stage.finish(task)).toBeUndefined();
  stage.settle();
  expect(image.state).toBe('freed');
  stage.close();
});

test('L8: nobody waits for it, and it goes on in freed text', async () => {
  const { stage, task, image } = await exitingTaskInAnImage(['L8']);
  expect(image.state).toBe('freed');
  expect(stage.finish(task)).toMatchObject({ kind: 'freed-image', symbol: { name: image.ksym.name } });
  stage.close();
});
