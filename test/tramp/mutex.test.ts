import { expect, test } from 'vitest';
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
