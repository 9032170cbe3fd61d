import { expect, test } from 'vitest';
import type { KernelBug } from '../../../tramp/index.ts';
import { Stage } from './stage.ts';

/** L12: a task sleeps in a sleepable program, and the scheduler would like it on another CPU. */
async function sleepsAndMoves(bugs: readonly KernelBug[]) {
  const stage = await Stage.create({ bugs, cpus: 2 });
  const f = stage.guest.addFunction('f');
  const s = stage.guest.addProgram('S', 'fentry', { sleepable: true, sleeps: true });
  stage.attach(s, f);
  const task = stage.task('t1', f);
  expect(stage.run(task).what).toBe('slept');
  const moved = stage.sched.migrate(task, 1);
  expect(stage.finish(task)).toBeUndefined();
  const active = [0, 1].map((cpu) => s.prog.counters(cpu).active);
  // does it still run, on either CPU?
  for (const cpu of [0, 1]) {
    expect(stage.finish(stage.task(`later${cpu}`, f, { cpu }))).toBeUndefined();
  }
  const misses = [0, 1].map((cpu) => s.prog.counters(cpu).misses);
  stage.close();
  return { moved, active, misses, runs: s.runs() };
}

test('a sleepable program keeps its task on its CPU', async () => {
  expect(await sleepsAndMoves([])).toEqual({ moved: false, active: [0, 0], misses: [0n, 0n], runs: 3n });
});

test("L12: the other CPU's counter is decremented, and the program never runs again on either", async () => {
  expect(await sleepsAndMoves(['L12'])).toEqual({
    moved: true,
    active: [1, 0xffff_ffff],
    misses: [1n, 1n],
    runs: 1n,
  });
});
