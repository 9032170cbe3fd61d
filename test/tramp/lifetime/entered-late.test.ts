import { describe, expect, test } from 'vitest';
import { Stage, type StageOptions } from './stage.ts';

/*
 * An fentry-only image waits for sleepable programs, and then for tasks. A task that is in the image and in
 * no sleepable program during the first wait can pass the second by sleeping in one. Found by a storm;
 * the protocol is the seeds' own.
 *
 *   task                                      host
 *   is preempted before S
 *                                             detaches S: the image waits for rcu-tasks-trace
 *                                             nobody is in a sleepable program: over; waits for rcu-tasks
 *   enters S, sleeps: a voluntary switch
 *                                             over; the image is freed
 *   returns from S
 */
async function beforeTheFirst(options: StageOptions) {
  const stage = await Stage.create(options);
  const f = stage.guest.addFunction('f');
  const s = stage.guest.addProgram('S', 'fentry', { sleepable: true, sleeps: true });
  stage.attach(s, f);
  const image = stage.image(f);
  const task = stage.task('t1', f);
  stage.runTo(task, stage.helper('__bpf_prog_enter_sleepable'));
  if (options.preemption) stage.preempt(task);
  stage.detach(s, f);
  stage.settle();
  expect(image.state).toBe('rcu-tasks');
  expect(stage.run(task).what).toBe('slept');
  stage.settle();
  return { stage, task, image };
}

/** The same between two: the task leaves the first, and sleeps in the second. */
async function betweenTwo(options: StageOptions) {
  const stage = await Stage.create(options);
  const f = stage.guest.addFunction('f');
  const programs = ['second', 'first'].map((name) =>
    stage.guest.addProgram(name, 'fentry', { sleepable: true, sleeps: true }),
  );
  for (const program of programs) stage.attach(program, f);
  const image = stage.image(f);
  const task = stage.task('t1', f);
  expect(stage.run(task).what).toBe('slept');
  for (const program of programs) stage.detach(program, f);
  stage.settle();
  expect(image.state).toBe('rcu-tasks-trace');
  stage.sched.wake(task);
  stage.sched.dispatch(task);
  stage.runTo(task, stage.helper('__bpf_prog_enter_sleepable'));
  if (options.preemption) stage.preempt(task);
  stage.settle();
  expect(image.state).toBe('rcu-tasks');
  expect(stage.run(task).what).toBe('slept');
  stage.settle();
  return { stage, task, image };
}

describe.each([
  { where: 'before the first sleepable program', situation: beforeTheFirst },
  { where: 'between two sleepable programs', situation: betweenTwo },
])('$where', ({ situation }) => {
  describe.each([true, false])('preemption %s', (preemption) => {
    test.each<StageOptions>([
      { programLifetime: 'kernel', preemption },
      { programLifetime: 'held', bugs: ['one-trace-wait'], preemption },
    ])('waiting once: the image is freed under the task (%o)', async (options) => {
      const { stage, task, image } = await situation(options);
      expect(image.state).toBe('freed');
      expect(stage.finish(task)).toMatchObject({ kind: 'freed-image', symbol: { name: image.ksym.name } });
      stage.close();
    });

    test('waiting for each sleepable program: it stays', async () => {
      const { stage, task, image } = await situation({ programLifetime: 'held', preemption });
      expect(image.state).toBe('rcu-tasks-trace');
      expect(stage.finish(task)).toBeUndefined();
      stage.settle();
      expect(image.state).toBe('freed');
      stage.close();
    });
  });
});
