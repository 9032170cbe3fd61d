import { describe, expect, test } from 'vitest';
import type { KernelBug } from '../../../tramp/index.ts';
import { Stage } from './stage.ts';

/*
 * An image that does not call the original, each of its waits left out or out of order. The waits are the
 * seeds' own, each once; what they miss is in entered-late.test.ts.
 *
 *   image:   save .. enter |  sleepable program  | exit .. restore, leave, ret
 *   held by: tasks         |  tasks trace        | tasks
 */

interface Outcome {
  readonly waitsFor: string;
  readonly fault: string | undefined;
  readonly end: string;
}

/** A task sleeps in a sleepable program while its image is retired. */
async function asleepInTheProgram(bugs: readonly KernelBug[], preemption: boolean): Promise<Outcome> {
  const stage = await Stage.create({ bugs, preemption, programLifetime: 'kernel' });
  const f = stage.guest.addFunction('f');
  const s = stage.guest.addProgram('S', 'fentry', { sleepable: true, sleeps: true });
  stage.attach(s, f);
  const image = stage.image(f);
  const task = stage.task('t1', f);
  expect(stage.run(task).what).toBe('slept');
  stage.detach(s, f);
  stage.settle();
  const waitsFor = image.state;
  const fault = stage.finish(task);
  stage.settle();
  stage.close();
  return { waitsFor, fault: fault?.kind, end: image.state };
}

/**
 * A task sleeps in a sleepable program while its image is retired, and is then stopped where it has left
 * the program's read-side section and not yet the image.
 */
async function behindTheProgram(bugs: readonly KernelBug[], preemption: boolean): Promise<Outcome> {
  const stage = await Stage.create({ bugs, preemption, programLifetime: 'kernel' });
  const f = stage.guest.addFunction('f');
  const s = stage.guest.addProgram('S', 'fentry', { sleepable: true, sleeps: true });
  stage.attach(s, f);
  const image = stage.image(f);
  const task = stage.task('t1', f);
  expect(stage.run(task).what).toBe('slept');
  stage.detach(s, f);
  stage.settle();
  stage.sched.wake(task);
  stage.sched.dispatch(task);
  stage.runTo(task, stage.helper('__bpf_prog_exit_sleepable'));
  stage.runOut(task);
  if (preemption) stage.preempt(task);
  stage.settle();
  const waitsFor = image.state;
  const fault = stage.finish(task);
  stage.settle();
  stage.close();
  return { waitsFor, fault: fault?.kind, end: image.state };
}

describe.each([true, false])('preemption %s', (preemption) => {
  const freed: Outcome = { waitsFor: 'freed', fault: 'freed-image', end: 'freed' };

  test('a sleeping program is waited for, and then the code around it', async () => {
    expect(await asleepInTheProgram([], preemption)).toEqual({
      waitsFor: 'rcu-tasks-trace',
      fault: undefined,
      end: 'freed',
    });
    expect(await behindTheProgram([], preemption)).toEqual({
      waitsFor: 'rcu-tasks',
      fault: undefined,
      end: 'freed',
    });
  });

  test('no-trace-wait: freed under the sleeping program', async () => {
    expect(await asleepInTheProgram(['no-trace-wait'], preemption)).toEqual(freed);
  });

  test('no-tasks-after-trace: freed under the code behind the program', async () => {
    expect(await behindTheProgram(['no-tasks-after-trace'], preemption)).toEqual(freed);
  });

  test('swap-trace-tasks: the task passes the first wait by sleeping, the second by leaving the program', async () => {
    expect(await behindTheProgram(['swap-trace-tasks'], preemption)).toEqual(freed);
  });
});
