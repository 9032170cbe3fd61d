import { expect, test } from 'vitest';
import { addrAdd } from '../../../lib/index.ts';
import type { KernelBug } from '../../../tramp/index.ts';
import { Stage } from './stage.ts';

/*
 * percpu_ref_kill: the counters of all CPUs are counted together once a grace period has confirmed that
 * nobody is between looking at the mode and counting, and the owner's own reference goes.
 */

/** A task sleeps in the original on the second CPU while its image is retired. */
async function asleepElsewhere(bugs: readonly KernelBug[]) {
  const stage = await Stage.create({ bugs, cpus: 2 });
  const f = stage.guest.addFunction('f', { sleeps: true });
  const p = stage.guest.addProgram('P', 'fexit');
  stage.attach(p, f);
  const image = stage.image(f);
  const task = stage.task('t1', f, { cpu: 1 });
  expect(stage.run(task).what).toBe('slept');
  stage.detach(p, f);
  stage.settle();
  return { stage, task, image };
}

test('counters of every CPU count, and the last caller releases the image', async () => {
  const { stage, task, image } = await asleepElsewhere([]);
  expect([image.state, image.pcref.references()]).toEqual(['percpu-ref', 1n]);
  expect(stage.finish(task)).toBeUndefined();
  stage.settle();
  expect(image.state).toBe('freed');
  stage.close();
});

test('sum-one-cpu: the reference of the other CPU is not seen', async () => {
  const { stage, task, image } = await asleepElsewhere(['sum-one-cpu']);
  expect(image.state).toBe('freed');
  expect(stage.finish(task)).toMatchObject({ kind: 'freed-image', symbol: { name: image.ksym.name } });
  stage.close();
});

test('own-reference-kept: nobody drops the last reference', async () => {
  const { stage, task, image } = await asleepElsewhere(['own-reference-kept']);
  expect(stage.finish(task)).toBeUndefined();
  stage.settle();
  expect([image.state, image.pcref.references()]).toEqual(['percpu-ref', 1n]);
  stage.close();
});

/** Killed while a task is in __bpf_tramp_exit, has seen that it counts per CPU, and has not counted yet. */
async function killedBetween(bugs: readonly KernelBug[]) {
  const stage = await Stage.create({ bugs });
  const f = stage.guest.addFunction('f', { sleeps: true });
  const p = stage.guest.addProgram('P', 'fexit');
  stage.attach(p, f);
  const image = stage.image(f);
  const task = stage.task('t1', f);
  expect(stage.run(task).what).toBe('slept');
  stage.detach(p, f);
  const { grace } = stage.kernel;
  // the wait before the kill passes the task, which sleeps; the kill is still to come
  grace.tick('rcu-tasks');
  stage.sched.wake(task);
  stage.sched.dispatch(task);
  stage.runTo(task, stage.helper('__bpf_tramp_exit'));
  // current, rcu_read_lock, the mode, its test, the branch
  stage.runTo(task, addrAdd(stage.helper('__bpf_tramp_exit'), MODE_SEEN));
  stage.preempt(task);
  expect(task.rcuReadLockNesting).toBe(1);
  grace.flavours['rcu-tasks'].run();
  stage.settle();
  expect(stage.finish(task)).toBeUndefined();
  stage.settle();
  const { state } = image;
  stage.close();
  return state;
}

/** Offset of the counting in __bpf_tramp_exit: behind mov, inc, mov, test and jne. */
const MODE_SEEN = 9 + 2 + 4 + 6 + 2;

test('the confirmation of the kill waits for whoever has seen the mode', async () => {
  expect(await killedBetween([])).toBe('freed');
});

test('kill-unconfirmed: its put is lost, and the image stays', async () => {
  expect(await killedBetween(['kill-unconfirmed'])).toBe('percpu-ref');
});
