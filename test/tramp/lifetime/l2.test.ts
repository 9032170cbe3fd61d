import { expect, test } from 'vitest';
import { Stage, type StageOptions } from './stage.ts';

/*
 * L2: an image calls S, which is sleepable, and then P.
 *
 *   task                                      host
 *   sleeps in S
 *                                             detaches P: a new image with S alone
 *                                             puts P; a grace period: the task is in no rcu_read_lock
 *                                             P is freed; the old image waits for S
 *   is woken, returns from S
 *   __bpf_prog_enter(P), P
 */
async function sleepsInAnEarlierProgram(options: StageOptions) {
  const stage = await Stage.create(options);
  const f = stage.guest.addFunction('f');
  const p = stage.guest.addProgram('P', 'fentry');
  const s = stage.guest.addProgram('S', 'fentry', { sleepable: true, sleeps: true });
  stage.attach(p, f);
  // the newest program runs first
  stage.attach(s, f);
  const image = stage.image(f);
  const task = stage.task('t1', f);
  expect(stage.run(task).what).toBe('slept');
  stage.unload(p, f);
  stage.settle();
  return { stage, task, f, p, s, image };
}

test.each([true, false])(
  'as the seeds have it: P is freed and called (preemption %s)',
  async (preemption) => {
    const { stage, task, p, s, image } = await sleepsInAnEarlierProgram({
      programLifetime: 'kernel',
      preemption,
    });
    expect(p.prog.freed).toBe(true);
    expect(image.state).toBe('rcu-tasks-trace');
    expect(s.runs()).toBe(1n);
    const fault = stage.finish(task);
    expect(fault).toMatchObject({ kind: 'read-unmapped', symbol: { name: '__bpf_prog_enter' } });
    expect(fault?.address).toBe(p.prog.address + 0x28n);
    expect(fault?.detail).toContain('bpf_prog P was there, and is freed');
    stage.close();
  },
);

test.each([true, false])('held by the old image, P runs once more (preemption %s)', async (preemption) => {
  const { stage, task, f, p, s, image } = await sleepsInAnEarlierProgram({
    programLifetime: 'held',
    preemption,
  });
  expect(p.prog.freed).toBe(false);
  expect(stage.finish(task)).toBeUndefined();
  expect([s.runs(), p.runs(), f.runs()]).toEqual([1n, 1n, 1n]);
  stage.settle();
  expect(image.state).toBe('freed');
  expect(p.prog.freed).toBe(true);
  stage.close();
});

test.each(['L1', 'L2'] as const)('%s: an image that lets go before its last caller has left', async (bug) => {
  const { stage, task, p, image } = await sleepsInAnEarlierProgram({ programLifetime: 'held', bugs: [bug] });
  expect([p.prog.freed, image.state]).toEqual([true, 'rcu-tasks-trace']);
  expect(stage.finish(task)?.detail).toContain('bpf_prog P was there, and is freed');
  stage.close();
});
