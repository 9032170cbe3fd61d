import { expect, test } from 'vitest';
import { Stage, type StageOptions } from './stage.ts';

/*
 * A freplace program has no image: the function's entry jumps right into it, and no enter helper marks who is
 * inside. A task is preempted there; the program is detached, put, and everything that can be over is over.
 *
 *   task                                      host
 *   calls f, jumps to R
 *   is preempted in R
 *                                             detaches R, puts it
 *                                             grace periods
 *   goes on in R
 */
async function preemptedInside(options: StageOptions) {
  const stage = await Stage.create(options);
  const f = stage.guest.addFunction('f', { origin: 'kernel', plain: true });
  const r = stage.guest.addProgram('R', 'freplace', { returns: 42 });
  stage.attach(r, f);
  const task = stage.task('t1', f);
  stage.runTo(task, r.prog.bpfFunc);
  expect(stage.sched.run(0, 1).what).toBe('ran');
  stage.preempt(task);
  stage.unload(r, f);
  stage.settle();
  return { stage, f, r, task };
}

test('held: it stays until the task has left', async () => {
  const { stage, f, r, task } = await preemptedInside({ programLifetime: 'held' });
  expect([r.prog.freed, r.prog.references]).toEqual([false, 1]);
  expect(stage.finish(task)).toBeUndefined();
  expect(task.results).toEqual([42n]);
  expect([r.runs(), f.runs()]).toEqual([1n, 0n]);
  stage.settle();
  expect([r.prog.freed, r.prog.references]).toEqual([true, 0]);
  stage.close();
});

test('held: a task that calls the function afterwards does not hold it', async () => {
  const { stage, f, r, task } = await preemptedInside({ programLifetime: 'held' });
  expect(stage.finish(task)).toBeUndefined();
  const later = stage.task('t2', f);
  stage.settle();
  expect(r.prog.freed).toBe(true);
  expect(stage.finish(later)).toBeUndefined();
  expect(later.results).toEqual([3n]);
  stage.close();
});

test('held: a jump that was never put in place holds nothing', async () => {
  const stage = await Stage.create({ programLifetime: 'held' });
  const f = stage.guest.addFunction('f', { origin: 'kernel', plain: true });
  const r = stage.guest.addProgram('R', 'freplace');
  stage.kernel.fail.arm('poke');
  expect(() => stage.attach(r, f)).toThrow(/poke/);
  expect(r.prog.references).toBe(1);
  r.prog.put();
  stage.settle();
  expect(r.prog.freed).toBe(true);
  stage.close();
});

test('replacement-unheld: the text is freed under the task', async () => {
  const { stage, r, task } = await preemptedInside({ programLifetime: 'held', bugs: ['replacement-unheld'] });
  expect(r.prog.freed).toBe(true);
  expect(stage.finish(task)).toMatchObject({ kind: 'freed-image', symbol: { name: 'bpf_prog_R' } });
  stage.close();
});

test('as the seeds have it: the text is freed under the task', async () => {
  const { stage, r, task } = await preemptedInside({ programLifetime: 'kernel' });
  expect(r.prog.freed).toBe(true);
  expect(stage.finish(task)).toMatchObject({ kind: 'freed-image', symbol: { name: 'bpf_prog_R' } });
  stage.close();
});
