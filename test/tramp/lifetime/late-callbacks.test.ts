import { expect, test } from 'vitest';
import type { KernelBug } from '../../../tramp/index.ts';
import { Stage } from './stage.ts';

/*
 * A grace period of RCU-tasks is under way for f's image and waits for t1. Then t2 enters g's image, which is
 * retired too: its callback came too late for this grace period, which did not look at t2.
 */
async function retiredMeanwhile(bugs: readonly KernelBug[]) {
  const stage = await Stage.create({ bugs, cpus: 2 });
  const [f, g] = [stage.guest.addFunction('f'), stage.guest.addFunction('g')];
  const p = stage.guest.addProgram('P', 'fentry');
  const q = stage.guest.addProgram('Q', 'fentry');
  stage.attach(p, f);
  stage.attach(q, g);
  const t1 = stage.task('t1', f);
  stage.runTo(t1, stage.helper('__bpf_prog_enter'));
  stage.preempt(t1);
  stage.detach(p, f);
  stage.settle();
  expect(stage.kernel.grace.flavours['rcu-tasks'].holdouts).toEqual([t1.id]);

  const image = stage.image(g);
  const t2 = stage.task('t2', g, { cpu: 1 });
  stage.runTo(t2, stage.helper('__bpf_prog_enter'));
  stage.preempt(t2);
  stage.detach(q, g);
  stage.settle();
  expect(image.state).toBe('rcu-tasks');
  expect(stage.finish(t1)).toBeUndefined();
  stage.settle();
  return { stage, t2, image };
}

test('the next grace period waits for the second task', async () => {
  const { stage, t2, image } = await retiredMeanwhile([]);
  expect(image.state).toBe('rcu-tasks');
  expect(stage.finish(t2)).toBeUndefined();
  stage.settle();
  expect(image.state).toBe('freed');
  stage.close();
});

test('late-callbacks: the first one frees its image', async () => {
  const { stage, t2, image } = await retiredMeanwhile(['late-callbacks']);
  expect(image.state).toBe('freed');
  expect(stage.finish(t2)).toMatchObject({ kind: 'freed-image', symbol: { name: image.ksym.name } });
  stage.close();
});
