/* What can happen in a history, as fast-check commands. */

import fc from 'fast-check';
import { FAIL_POINTS, type FailPoint } from '../../../tramp/index.ts';
import type { History, Meanwhile } from './history.ts';

/** A history under way, and how often each kind of command did something in all histories so far. */
export interface Counted {
  readonly history: History;
  readonly counts: Map<string, number>;
}

interface StepOptions {
  /** What it was drawn with, for the report of a difference. */
  readonly drawn?: readonly unknown[];
  /** Whether it would do anything now. Default always. */
  readonly possible?: (history: History) => boolean;
  readonly run: (history: History) => void;
}

/** A command that is left out of a history, and not counted, where it would do nothing. */
class Step implements fc.Command<Counted, History> {
  readonly #kind: string;
  readonly #options: StepOptions;

  constructor(kind: string, options: StepOptions) {
    this.#kind = kind;
    this.#options = options;
  }

  check({ history }: Counted): boolean {
    return this.#options.possible?.(history) ?? true;
  }

  run({ counts }: Counted, history: History): void {
    counts.set(this.#kind, (counts.get(this.#kind) ?? 0) + 1);
    this.#options.run(history);
  }

  toString(): string {
    return `${this.#kind}(${(this.#options.drawn ?? []).map((one) => JSON.stringify(one) ?? 'none').join(', ')})`;
  }
}

/** A command that is done to one of `among`, all of which it can be done to. */
function chosen<T>(
  kind: string,
  pick: number,
  among: (history: History) => readonly T[],
  run: (history: History, one: T) => void,
  drawn: readonly unknown[] = [],
): Step {
  return new Step(kind, {
    drawn: [pick, ...drawn],
    possible: (history) => among(history).length > 0,
    run: (history) => {
      const all = among(history);
      run(history, all[pick % all.length] as T);
    },
  });
}

const small = fc.nat({ max: 11 });
const cpu = fc.nat({ max: 3 });
const arg = fc.bigInt({ min: 0n, max: 1000n });
/** Mostly less than a call has, so that others come in between. */
const steps = fc.oneof(
  { weight: 6, arbitrary: fc.integer({ min: 1, max: 12 }) },
  { weight: 6, arbitrary: fc.integer({ min: 1, max: 80 }) },
  { weight: 1, arbitrary: fc.constant(1000) },
);
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

const attach = fc.tuple(target, small, inject, meanwhile).map(([f, p, ...rest]) =>
  chosen(
    'attach',
    p,
    (h) => h.free(h.fn(f)),
    (h, prog) => h.attach(h.fn(f), prog, ...rest),
    [f, ...rest],
  ),
);
const attachAny = fc.tuple(target, small).map(([f, p]) =>
  chosen(
    'attach any',
    p,
    (h) => h.attachable(h.fn(f)),
    (h, prog) => h.attach(h.fn(f), prog),
    [f],
  ),
);
const detach = fc.tuple(small, inject, meanwhile).map(([p, ...rest]) =>
  chosen(
    'detach',
    p,
    (h) => h.attached,
    (h, prog) => h.detach(prog, ...rest),
    rest,
  ),
);
const get = fc
  .tuple(target, inject)
  .map(([f, fail]) => new Step('get', { drawn: [f, fail], run: (h) => void h.get(h.fn(f), fail) }));
const put = small.map((pick) =>
  chosen(
    'put',
    pick,
    (h) => h.puttable,
    (h, fn) => h.put(fn),
  ),
);
const unload = small.map((pick) =>
  chosen(
    'unload',
    pick,
    (h) => h.unloadable,
    (h, fn) => h.unload(fn),
  ),
);
const replaceProgram = small.map((pick) =>
  chosen(
    'replace program',
    pick,
    (h) => h.replaceable,
    (h, prog) => h.replaceProgram(prog),
  ),
);
const stats = meanwhile.map(
  (slices) => new Step('stats', { drawn: slices, run: (h) => h.switchStats(slices) }),
);
const spawn = fc.tuple(target, cpu, arg, arg).map(
  ([f, c, a, b]) =>
    new Step('call', {
      drawn: [f, c, `${a}`, `${b}`],
      possible: (h) => h.mayCall,
      run: (h) => h.spawn(h.fn(f), c % h.model.cpus, [a, b]),
    }),
);
const go = fc.tuple(cpu, steps, small).map(([c, n, pick]) =>
  chosen(
    'go',
    c,
    (h) => h.busy,
    (h, id) => h.go(id, n, pick),
    [n, pick],
  ),
);
const preempt = cpu.map((c) =>
  chosen(
    'preempt',
    c,
    (h) => h.preemptible,
    (h, id) => h.preempt(id),
  ),
);
const wake = small.map((pick) =>
  chosen(
    'wake',
    pick,
    (h) => h.asleep,
    (h, task) => h.wake(task),
  ),
);
const migrate = fc.tuple(small, small).map(([pick, c]) =>
  chosen(
    'migrate',
    pick,
    (h) => h.movable,
    (h, task) => h.migrate(task, c),
    [c],
  ),
);
const tick = small.map((pick) =>
  chosen(
    'tick',
    pick,
    (h) => h.waitedFor,
    (h, flavour) => h.tick(flavour),
  ),
);
const work = fc.constant(
  new Step('work', { possible: (h) => h.kernel.grace.pendingWork > 0, run: (h) => h.work() }),
);
const settle = fc.constant(new Step('settle', { possible: (h) => h.unsettled, run: (h) => h.settle() }));

/** Histories of at most `length` steps. A kind that is there twice is drawn twice as often. */
export function histories(length: number): fc.Arbitrary<Iterable<fc.Command<Counted, History>>> {
  const kinds = [
    ...[attach, attach, attach, attachAny, detach, detach, detach],
    ...[spawn, spawn, spawn, spawn, ...Array.from({ length: 12 }, () => go)],
    ...[preempt, preempt, preempt, preempt, preempt, wake, wake, migrate],
    ...[tick, tick, tick, work, work, settle, settle],
    ...[get, put, unload, replaceProgram, stats],
  ];
  return fc.commands(kinds, { maxCommands: length, size: 'max' });
}
