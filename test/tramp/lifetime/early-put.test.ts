import { expect, test } from 'vitest';
import type { KernelBug } from '../../../tramp/index.ts';
import { Stage } from './stage.ts';

/*
 * A second program is attached to a function. Where the old image's ip_after_call is being poked,
 * another CPU calls the function.
 */
async function callsDuringRetirement(bugs: readonly KernelBug[]) {
  const stage = await Stage.create({ bugs });
  const f = stage.guest.addFunction('f');
  const first = stage.guest.addProgram('first', 'fexit');
  const second = stage.guest.addProgram('second', 'fentry');
  stage.attach(first, f);
  const { ipAfterCall } = stage.image(f);
  const task = stage.task('t1', f);
  const { kernel } = stage;
  kernel.sync = () => {
    const int3 = kernel.machine.memory.bytes(ipAfterCall ?? f.addr, 1)[0] === 0xcc;
    if (!int3 || task.results.length > 0) return;
    expect(stage.finish(task)).toBeUndefined();
  };
  stage.attach(second, f);
  expect(task.results).toEqual([3n]);
  stage.close();
  return { first: first.runs(), second: second.runs() };
}

test('it goes through the new image: both programs see the call', async () => {
  expect(await callsDuringRetirement([])).toEqual({ first: 1n, second: 1n });
});

test('early-put: it goes through the old image, and a program that is attached all the time misses it', async () => {
  expect(await callsDuringRetirement(['early-put'])).toEqual({ first: 0n, second: 0n });
});

/*
 * The only program is detached. Where its image's ip_after_call is being poked, another CPU calls the
 * function: nothing must lead into an image that is being retired.
 */
async function callsWhileTheLastGoes(bugs: readonly KernelBug[]) {
  const stage = await Stage.create({ bugs });
  const f = stage.guest.addFunction('f');
  const last = stage.guest.addProgram('last', 'fmod_ret');
  stage.attach(last, f);
  const { ipAfterCall } = stage.image(f);
  const task = stage.task('t1', f);
  const { kernel } = stage;
  kernel.sync = () => {
    const int3 = kernel.machine.memory.bytes(ipAfterCall ?? f.addr, 1)[0] === 0xcc;
    if (!int3 || task.results.length > 0) return;
    expect(stage.finish(task)).toBeUndefined();
  };
  stage.detach(last, f);
  expect([task.results, f.runs()]).toEqual([[3n], 1n]);
  stage.close();
  return last.runs();
}

test('it goes past the image', async () => {
  expect(await callsWhileTheLastGoes([])).toBe(0n);
});

test('early-put-last: it goes into it', async () => {
  expect(await callsWhileTheLastGoes(['early-put-last'])).toBe(1n);
});
