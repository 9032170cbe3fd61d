import { expect, test } from 'vitest';
import type { KernelBug } from '../../../tramp/index.ts';
import { Stage } from './stage.ts';

/*
 * An image that calls the original, each of its waits left out or out of order.
 *
 *   image:   save  | __bpf_tramp_enter .. original .. __bpf_tramp_exit |  leave, ret
 *   held by: tasks |                  percpu_ref                       |  tasks
 */

/** Before __bpf_tramp_enter: no reference yet. Then it takes one and sleeps in the original. */
async function beforeEnter(bugs: readonly KernelBug[], preemption: boolean) {
  const stage = await Stage.create({ bugs, preemption });
  const f = stage.guest.addFunction('f', { sleeps: true });
  const p = stage.guest.addProgram('P', 'fexit');
  stage.attach(p, f);
  const image = stage.image(f);
  const task = stage.task('t1', f);
  stage.runTo(task, stage.helper('__bpf_tramp_enter'));
  if (preemption) stage.preempt(task);
  stage.detach(p, f);
  stage.settle();
  const waitsFor = image.state;
  expect(stage.run(task).what).toBe('slept');
  stage.settle();
  const asleep = image.state;
  const fault = stage.finish(task);
  stage.settle();
  stage.close();
  return {
    waitsFor,
    asleep,
    fault: fault?.kind,
    name: fault?.symbol?.name === image.ksym.name,
    end: image.state,
  };
}

const safe = { asleep: 'percpu-ref', fault: undefined, name: false, end: 'freed' };
const freedUnderIt = { asleep: 'freed', fault: 'freed-image', name: true, end: 'freed' };

test('preemptible: the kill waits for the task', async () => {
  expect(await beforeEnter([], true)).toEqual({ waitsFor: 'rcu-tasks', ...safe });
});

test('no-tasks-before-kill: released before the call took its reference', async () => {
  expect(await beforeEnter(['no-tasks-before-kill'], true)).toEqual({
    waitsFor: 'rcu-tasks-epilogue',
    ...freedUnderIt,
  });
});

test('swap-tasks-kill: the same; two grace periods of a task that sleeps are no better than one', async () => {
  expect(await beforeEnter(['swap-tasks-kill'], true)).toEqual({ waitsFor: 'rcu-tasks', ...freedUnderIt });
});

/*
 * Not preemptible, there is no first wait. The task is on a CPU, the confirmation of the kill is an RCU
 * grace period, and RCU waits for that CPU: to kill at once is right.
 */
test.each<KernelBug[][]>([[[]], [['no-tasks-before-kill']], [['swap-tasks-kill']]])(
  'not preemptible: the confirmation of the kill waits for the CPU (bugs: %s)',
  async (bugs) => {
    expect(await beforeEnter(bugs, false)).toEqual({ waitsFor: 'percpu-ref', ...safe });
  },
);

/** Behind __bpf_tramp_exit: no reference any more, and some instructions to go. */
async function behindExit(bugs: readonly KernelBug[], preemption: boolean) {
  const stage = await Stage.create({ bugs, preemption });
  const f = stage.guest.addFunction('f', { sleeps: true });
  const p = stage.guest.addProgram('P', 'fexit');
  stage.attach(p, f);
  const image = stage.image(f);
  const task = stage.task('t1', f);
  expect(stage.run(task).what).toBe('slept');
  // retired while the call sleeps, so that only its own end is left to wait for
  stage.detach(p, f);
  stage.settle();
  stage.sched.wake(task);
  stage.sched.dispatch(task);
  stage.runTo(task, stage.helper('__bpf_tramp_exit'));
  stage.runOut(task);
  if (preemption) stage.preempt(task);
  stage.settle();
  const waitsFor = image.state;
  const fault = stage.finish(task);
  stage.settle();
  stage.close();
  return { waitsFor, fault: fault?.kind, end: image.state };
}

test.each([true, false])('tasks behind the exit are waited for (preemption %s)', async (preemption) => {
  expect(await behindExit([], preemption)).toEqual({
    waitsFor: 'rcu-tasks-epilogue',
    fault: undefined,
    end: 'freed',
  });
});

test.each([true, false])('no-tasks-after-release: freed under them (preemption %s)', async (preemption) => {
  expect(await behindExit(['no-tasks-after-release'], preemption)).toEqual({
    waitsFor: 'freed',
    fault: 'freed-image',
    end: 'freed',
  });
});

test.each([true, false])('swap-kill-release: the same (preemption %s)', async (preemption) => {
  expect(await behindExit(['swap-kill-release'], preemption)).toEqual({
    waitsFor: 'freed',
    fault: 'freed-image',
    end: 'freed',
  });
});
