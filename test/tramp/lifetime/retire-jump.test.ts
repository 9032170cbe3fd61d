import { expect, test } from 'vitest';
import { Stage, type StageOptions } from './stage.ts';

/** A call is inside the original while its image is retired; it comes back to ip_after_call. */
async function comesBackLate(options: StageOptions) {
  const stage = await Stage.create(options);
  const f = stage.guest.addFunction('f', { sleeps: true });
  const p = stage.guest.addProgram('P', 'fexit');
  stage.attach(p, f);
  const image = stage.image(f);
  const task = stage.task('t1', f);
  expect(stage.run(task).what).toBe('slept');
  stage.unload(p, f);
  stage.settle();
  const fault = stage.finish(task);
  stage.settle();
  return { stage, p, fault, image, result: task.results[0] };
}

test.each(['kernel', 'held'] as const)('it jumps over the fexit programs (%s)', async (programLifetime) => {
  const { stage, p, fault, image, result } = await comesBackLate({ programLifetime });
  expect(fault).toBeUndefined();
  expect([p.runs(), result]).toEqual([0n, 3n]);
  expect(image.state).toBe('freed');
  stage.close();
});

test('no-retire-jump: it runs a program that was detached', async () => {
  const { stage, p, fault } = await comesBackLate({ bugs: ['no-retire-jump'] });
  expect(fault).toBeUndefined();
  expect(p.runs()).toBe(1n);
  stage.close();
});

test('no-retire-jump, programs as the seeds have them: it runs a program that was freed', async () => {
  const { stage, p, fault } = await comesBackLate({ bugs: ['no-retire-jump'], programLifetime: 'kernel' });
  expect(p.prog.freed).toBe(true);
  expect(fault).toMatchObject({ kind: 'read-unmapped', symbol: { name: '__bpf_prog_enter' } });
  stage.close();
});
