import { expect, test } from 'vitest';
import { Stage, type StageOptions } from './stage.ts';

/*
 * L1: a task is preempted in an image just before the enter helper. It is in no read-side section, so
 * the program's own grace period does not wait for it.
 *
 *   task                                      host
 *   calls f, is in its image
 *   is preempted before __bpf_prog_enter
 *                                             detaches P, puts it
 *                                             a grace period: nobody to wait for
 *                                             P is freed; the image is not
 *   goes on: __bpf_prog_enter(P), P
 */
async function preemptedBeforeEnter(options: StageOptions & { readonly sleepable?: boolean }) {
  const stage = await Stage.create(options);
  const suffix = options.sleepable === true ? '_sleepable' : '';
  const f = stage.guest.addFunction('f');
  const p = stage.guest.addProgram('P', 'fentry', { sleepable: options.sleepable ?? false });
  stage.attach(p, f);
  const image = stage.image(f);
  const task = stage.task('t1', f);
  stage.runTo(task, stage.helper(`__bpf_prog_enter${suffix}`));
  if (options.preemption !== false) stage.preempt(task);

  stage.unload(p, f);
  stage.settle();
  return { stage, task, f, p, image };
}

const sorts = [
  { sleepable: false, symbol: '__bpf_prog_enter' },
  { sleepable: true, symbol: '__bpf_prog_enter_sleepable' },
];

test.each(sorts)('as the seeds have it: the program is freed under the task, $symbol', async (sort) => {
  const { stage, task, p, image } = await preemptedBeforeEnter({
    programLifetime: 'kernel',
    sleepable: sort.sleepable,
  });
  expect(p.prog.freed).toBe(true);
  expect(image.state).toBe('rcu-tasks');
  const fault = stage.finish(task);
  expect(fault).toMatchObject({ kind: 'read-unmapped', symbol: { name: sort.symbol } });
  // what it read was the program
  expect(fault?.address).toBe(p.prog.address + 0x28n);
  expect(fault?.detail).toContain('bpf_prog P was there, and is freed');
  stage.close();
});

test.each(sorts)('with programs held by their images: it waits with its image, $symbol', async (sort) => {
  const { stage, task, f, p, image } = await preemptedBeforeEnter({
    programLifetime: 'held',
    sleepable: sort.sleepable,
  });
  expect(p.prog.freed).toBe(false);
  expect(stage.finish(task)).toBeUndefined();
  expect([p.runs(), f.runs()]).toEqual([1n, 1n]);
  stage.settle();
  expect(image.state).toBe('freed');
  expect(p.prog.freed).toBe(true);
  stage.close();
});

/*
 * Without CONFIG_PREEMPTION a task in an image is on a CPU, and RCU waits for that. RCU-tasks-trace,
 * which a sleepable program is freed after, does not.
 */
test('not preemptible: RCU waits for the CPU that is in the image', async () => {
  const { stage, task, p } = await preemptedBeforeEnter({ programLifetime: 'kernel', preemption: false });
  expect(p.prog.freed).toBe(false);
  expect(stage.finish(task)).toBeUndefined();
  stage.settle();
  expect(p.prog.freed).toBe(true);
  stage.close();
});

test('not preemptible, sleepable: freed under the task all the same', async () => {
  const { stage, task, p } = await preemptedBeforeEnter({
    programLifetime: 'kernel',
    preemption: false,
    sleepable: true,
  });
  expect(p.prog.freed).toBe(true);
  expect(stage.finish(task)?.kind).toBe('read-unmapped');
  stage.close();
});

test.each(sorts)('L1: an image that lets go when it is retired does not help, $symbol', async (sort) => {
  const { stage, task, p } = await preemptedBeforeEnter({
    programLifetime: 'held',
    bugs: ['L1'],
    sleepable: sort.sleepable,
  });
  expect(p.prog.freed).toBe(true);
  expect(stage.finish(task)).toMatchObject({ kind: 'read-unmapped', symbol: { name: sort.symbol } });
  stage.close();
});

/* L2 lets go when no task runs in the old image, which is late enough for this one. */
test('L2: it waits for the preempted task', async () => {
  const { stage, task, p } = await preemptedBeforeEnter({ programLifetime: 'held', bugs: ['L2'] });
  expect(p.prog.freed).toBe(false);
  expect(stage.finish(task)).toBeUndefined();
  stage.close();
});
