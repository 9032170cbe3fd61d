import { expect, test } from 'vitest';
import { Stage, type StageOptions } from './stage.ts';

/*
 * L3: a task sleeps in the original function, called by an image with an fexit program. RCU-tasks does
 * not wait for a task that sleeps; the percpu_ref that the task took in __bpf_tramp_enter does.
 */
async function sleepsInTheOriginal(options: StageOptions) {
  const stage = await Stage.create(options);
  const f = stage.guest.addFunction('f', { sleeps: true });
  const p = stage.guest.addProgram('P', 'fexit');
  stage.attach(p, f);
  const image = stage.image(f);
  const task = stage.task('t1', f);
  expect(stage.run(task).what).toBe('slept');
  stage.unload(p, f);
  stage.settle();
  return { stage, task, f, p, image };
}

test.each([true, false])('percpu_ref: the image waits for the call (preemption %s)', async (preemption) => {
  const { stage, task, f, p, image } = await sleepsInTheOriginal({ preemption });
  expect(image.state).toBe('percpu-ref');
  expect(image.pcref.references()).toBe(1n);
  expect(stage.finish(task)).toBeUndefined();
  expect(task.results).toEqual([3n]);
  // detached while the call was inside: it leaves by the jump at ip_after_call
  expect([f.runs(), p.runs()]).toEqual([1n, 0n]);
  stage.settle();
  expect(image.state).toBe('freed');
  expect([stage.kernel.images.size, stage.kernel.modmem.pages]).toEqual([0, 0]);
  stage.close();
});

const WITHOUT = (['L3', 'no-kill'] as const).flatMap((bug) =>
  [true, false].map((preemption) => ({ bug, preemption })),
);

test.each(WITHOUT)(
  '$bug: freed under the call, which returns into it (preemption $preemption)',
  async ({ bug, preemption }) => {
    const { stage, task, image } = await sleepsInTheOriginal({ bugs: [bug], preemption });
    expect(image.state).toBe('freed');
    const fault = stage.finish(task);
    expect(fault).toMatchObject({ kind: 'freed-image', symbol: { name: image.ksym.name } });
    stage.close();
  },
);
