import { expect, test } from 'vitest';
import { createGuest } from '../../check/index.ts';
import { Mutex } from '../../tramp/index.ts';

test('whoever finds a mutex taken waits for ever, which is a bug; trying is none', () => {
  const mutex = new Mutex('m');
  expect(mutex.with(() => [mutex.held, mutex.tryLock()])).toEqual([true, false]);
  expect([mutex.held, mutex.tryLock()]).toEqual([false, true]);
  expect(() => mutex.with(() => undefined)).toThrow('m is taken already: deadlock');
  expect(mutex.held).toBe(true);
  mutex.unlock();
  expect(() => mutex.unlock()).toThrow('m is not taken');
});

test('what is thrown while it is taken lets it go', () => {
  const mutex = new Mutex('m');
  expect(() =>
    mutex.with(() => {
      throw new RangeError('thrown');
    }),
  ).toThrow('thrown');
  expect(mutex.held).toBe(false);
});

test('the last put of a trampoline whose mutex is taken is warned about', async () => {
  const { kernel, machine } = await createGuest();
  const tr = kernel.trampolines.lookup(kernel, 7n);
  tr.mutex.lock();
  kernel.trampolines.put(kernel, tr);
  expect(kernel.warnings).toEqual(['bpf_trampoline_put: the mutex of trampoline 7 is taken']);
  expect(kernel.trampolines.find(7n)).toBeUndefined();
  machine.close();
});
