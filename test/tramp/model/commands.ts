/* What can happen in a history, as fast-check commands. */

import fc from 'fast-check';
import { FAIL_POINTS, type FailPoint, RCU_FLAVOURS } from '../../../tramp/index.ts';
import type { History, Meanwhile } from './history.ts';

/** Counts the commands that were executed. */
export interface Counter {
  steps: number;
}

class Step implements fc.Command<Counter, History> {
  readonly #name: string;
  readonly #run: (history: History) => void;

  constructor(name: string, run: (history: History) => void) {
    this.#name = name;
    this.#run = run;
  }

  check(): boolean {
    return true;
  }

  run(counter: Counter, history: History): void {
    counter.steps++;
    this.#run(history);
  }

  toString(): string {
    return this.#name;
  }
}

const small = fc.nat({ max: 11 });
const cpu = fc.nat({ max: 3 });
const arg = fc.bigInt({ min: 0n, max: 1000n });
const steps = fc.oneof(fc.integer({ min: 1, max: 12 }), fc.integer({ min: 1, max: 120 }), fc.constant(1000));
/** Mostly none: an operation that fails leaves less to look at. */
const inject = fc.oneof(
  { weight: 5, arbitrary: fc.constant(undefined) },
  { weight: 1, arbitrary: fc.constantFrom(...(Object.keys(FAIL_POINTS) as FailPoint[])) },
);
/** Mostly the function that sleeps: what is spread over four seldom meets. */
const target = fc.oneof(
  { weight: 3, arbitrary: fc.constant(2) },
  { weight: 2, arbitrary: fc.nat({ max: 3 }) },
);
const meanwhile: fc.Arbitrary<Meanwhile[]> = fc.array(
  fc.record({ cpu, steps: fc.integer({ min: 1, max: 60 }) }),
  {
    maxLength: 6,
  },
);

const attach = fc
  .tuple(target, small, inject, meanwhile)
  .map(
    ([f, p, fail, slices]) =>
      new Step(`attach(${f}, free ${p}, ${fail}, ${JSON.stringify(slices)})`, (h) =>
        h.attach(h.fn(f), h.free(p), fail, slices),
      ),
  );
const attachAny = fc
  .tuple(target, small)
  .map(([f, p]) => new Step(`attach(${f}, ${p})`, (h) => h.attach(h.fn(f), h.prog(p))));
const detach = fc
  .tuple(small, inject, meanwhile)
  .map(
    ([p, fail, slices]) =>
      new Step(`detach(attached ${p}, ${fail}, ${JSON.stringify(slices)})`, (h) =>
        h.detach(h.attached(p), fail, slices),
      ),
  );
const get = fc
  .tuple(target, inject)
  .map(([f, fail]) => new Step(`get(${f}, ${fail})`, (h) => void h.get(h.fn(f), fail)));
const put = target.map(
  (f) =>
    new Step(`put(${f})`, (h) => {
      if (h.canPut(h.fn(f))) h.put(h.fn(f));
    }),
);
const unload = target.map(
  (f) =>
    new Step(`unload(${f})`, (h) => {
      if (h.canUnload(h.fn(f))) h.unload(h.fn(f));
    }),
);
const replaceProgram = small.map(
  (p) =>
    new Step(`replaceProgram(${p})`, (h) => {
      if (h.canReplace(h.prog(p))) h.replaceProgram(h.prog(p));
    }),
);
const stats = meanwhile.map(
  (slices) => new Step(`stats(${JSON.stringify(slices)})`, (h) => h.switchStats(slices)),
);
const spawn = fc
  .tuple(target, cpu, arg, arg)
  .map(([f, c, a, b]) => new Step(`call(${f}, ${c})`, (h) => h.spawn(h.fn(f), c % h.model.cpus, [a, b])));
const go = fc
  .tuple(cpu, steps, small)
  .map(([c, n, pick]) => new Step(`go(${c}, ${n}, ${pick})`, (h) => h.go(c % h.model.cpus, n, pick)));
const preempt = cpu.map((c) => new Step(`preempt(${c})`, (h) => h.preempt(c % h.model.cpus)));
const wake = small.map((pick) => new Step(`wake(${pick})`, (h) => h.wake(pick)));
const migrate = fc
  .tuple(small, cpu)
  .map(([pick, c]) => new Step(`migrate(${pick}, ${c})`, (h) => h.migrate(pick, c % h.model.cpus)));
const tick = fc
  .constantFrom(...RCU_FLAVOURS)
  .map((flavour) => new Step(`tick(${flavour})`, (h) => h.tick(flavour)));
const work = fc.constant(new Step('work', (h) => h.work()));
const settle = fc.constant(new Step('settle', (h) => h.settle()));

/** Histories of at most `length` steps. A kind that is there twice happens twice as often. */
export function histories(length: number): fc.Arbitrary<Iterable<fc.Command<Counter, History>>> {
  const kinds = [
    ...[attach, attach, attach, attachAny, detach, detach],
    ...[spawn, spawn, go, go, go, go, go],
    ...[preempt, wake, wake, migrate, tick, tick, tick, work, settle],
    ...[get, put, unload, replaceProgram, stats],
  ];
  return fc.commands(kinds, { maxCommands: length, size: 'max' });
}
