import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { TimeLimit } from '../../../emu/native/time-limit.ts';

beforeEach(() => vi.useFakeTimers({ toFake: ['performance'] }));
afterEach(() => vi.useRealTimers());

/** A limit of 100 ms that is asked at times by the clock, with the time on a CPU so far at each. */
function answers(asked: readonly (readonly [clock: number, used: number | undefined])[]): boolean[] {
  let used: number | undefined;
  const limit = new TimeLimit(100, () => used);
  limit.start();
  let now = 0;
  return asked.map(([clock, usedThen]) => {
    vi.advanceTimersByTime(clock - now);
    now = clock;
    used = usedThen;
    return limit.isOver();
  });
}

test('is over when the CPU time is used up, and not before', () => {
  expect(
    answers([
      [1, 1000],
      [99, 1090],
      [101, 1100],
    ]),
  ).toEqual([false, false, true]);
});

test('waits for a guest that gets no CPU', () => {
  expect(
    answers([
      [1, 1000],
      [150, 1020],
      [200, 1050],
      [230, 1051],
      [280, 1101],
    ]),
  ).toEqual([false, false, false, false, true]);
});

test('but not for ever', () => {
  expect(
    answers([
      [1, 1000],
      [399, 1000],
      [400, 1000],
    ]),
  ).toEqual([false, false, true]);
});

test('goes by the clock alone where nobody keeps account', () => {
  expect(
    answers([
      [1, undefined],
      [99, undefined],
      [100, undefined],
    ]),
  ).toEqual([false, false, true]);
});

test('starts afresh', () => {
  const limit = new TimeLimit(100, () => undefined);
  limit.start();
  vi.advanceTimersByTime(150);
  expect(limit.isOver()).toBe(true);
  limit.start();
  expect(limit.isOver()).toBe(false);
});
