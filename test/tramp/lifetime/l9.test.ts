import { describe, expect, test } from 'vitest';
import type { KernelBug } from '../../../tramp/index.ts';
import { Stage } from './stage.ts';

/*
 * L9: a grace period of RCU-tasks-trace that ends too early. In the kernel it raced with the unlock; here it
 * is made in two places, each of which takes a reader for one that has left.
 */

/** A task sleeps in a sleepable program while its image is retired. */
async function asleep(bugs: readonly KernelBug[]) {
  const stage = await Stage.create({ bugs });
  const f = stage.guest.addFunction('f');
  const s = stage.guest.addProgram('S', 'fentry', { sleepable: true, sleeps: true });
  stage.attach(s, f);
  const image = stage.image(f);
  const task = stage.task('t1', f);
  expect(stage.run(task).what).toBe('slept');
  stage.detach(s, f);
  stage.settle();
  return { stage, task, image };
}

/** It has come from the outer program to an inner one, and sleeps there. */
async function asleepInside(bugs: readonly KernelBug[]) {
  const stage = await Stage.create({ bugs });
  const g = stage.guest.addFunction('g');
  const f = stage.guest.addFunction('f');
  const outer = stage.guest.addProgram('outer', 'fentry', { sleepable: true, calls: g.addr });
  const inner = stage.guest.addProgram('inner', 'fentry', { sleepable: true, sleeps: true });
  stage.attach(outer, f);
  stage.attach(inner, g);
  const image = stage.image(f);
  const task = stage.task('t1', f);
  expect(stage.run(task).what).toBe('slept');
  expect(task.trcReaderNesting).toBe(2);
  stage.detach(outer, f);
  stage.settle();
  return { stage, task, image };
}

describe.each([
  { bug: 'L9-asleep' as const, situation: asleep },
  { bug: 'L9' as const, situation: asleepInside },
])('$bug', ({ bug, situation }) => {
  test('the reader is waited for', async () => {
    const { stage, task, image } = await situation([]);
    expect(image.state).toBe('rcu-tasks-trace');
    expect(stage.finish(task)).toBeUndefined();
    stage.settle();
    expect(image.state).toBe('freed');
    stage.close();
  });

  test('it returns into freed text', async () => {
    const { stage, task, image } = await situation([bug]);
    expect(image.state).toBe('freed');
    expect(stage.finish(task)).toMatchObject({ kind: 'freed-image', symbol: { name: image.ksym.name } });
    stage.close();
  });
});
