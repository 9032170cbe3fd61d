/*
 * The rules that look at the kernel while a history goes on and at its end: each broken by one bug, in a
 * history that breaks none without it.
 */

import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import {
  type CaseRunner,
  HISTORY_FAMILY,
  HISTORY_RULES,
  type HistoryCase,
  type HistoryRule,
  type Operation,
  type Suspects,
} from '../../../check/index.ts';
import { type Emission, piece, type Revision, revisions } from '../../../jit/index.ts';
import { Bug } from '../../../lib/index.ts';
import type { KernelBug } from '../../../tramp/index.ts';
import { FUNCTION, history, PROGRAM } from './histories.ts';

const runners: CaseRunner<HistoryCase>[] = [];
afterAll(() => {
  for (const runner of runners) runner.close();
});

async function open(suspects: Suspects = {}): Promise<(one: HistoryCase) => Promise<string[]>> {
  const runner = await HISTORY_FAMILY.open({ engine: 'unicorn', ...suspects });
  runners.push(runner);
  return async (one) => {
    const [outcome] = await runner.run([one]);
    return outcome?.findings.map(({ rule }) => rule) ?? [];
  };
}

let right: (one: HistoryCase) => Promise<string[]>;
beforeAll(async () => {
  right = await open();
});

/** An emitter whose images begin with something else. */
const beginning = (emit: (emission: Emission) => void): Revision => ({
  ...revisions['v5.15'],
  prologue: piece('prologue', emit),
});

const attach = (program: number, more: Partial<Extract<Operation, { op: 'attach' }>> = {}): Operation => ({
  op: 'attach',
  program,
  fn: 0,
  cookie: null,
  fail: null,
  ...more,
});
const detach = (program: number): Operation => ({ op: 'detach', program, fail: null });

/** By rule: the bug, or the emitter, that breaks it, and the history that shows it. */
const SHOWN: Readonly<Partial<Record<HistoryRule, { by: KernelBug | Revision; in: HistoryCase }>>> = {
  'no-fault': {
    by: beginning(({ asm }) => asm.raw([0x0f, 0x0b], 'ud2')),
    in: history({ operations: [attach(0)], tasks: [{ cpu: 0, after: 1, calls: [0], exiting: false }] }),
  },
  'broken-invariant': {
    by: beginning(() => {
      throw new Bug('an emitter that gives up');
    }),
    in: history({ operations: [attach(0)] }),
  },
  terminates: {
    by: beginning(({ asm }) => asm.raw([0xeb, 0xfe], 'jmp $')),
    in: history({ operations: [attach(0)], tasks: [{ cpu: 0, after: 1, calls: [0], exiting: false }] }),
  },
  'attach-errno': { by: 'linked-unchecked', in: history({ operations: [attach(0), attach(0)] }) },
  'failed-operation-changes-nothing': {
    by: 'charge-kept',
    in: history({ operations: [attach(0, { fail: 'alloc-image' })] }),
  },
  'table-agrees': {
    by: 'oldest-first',
    in: history({ programs: [PROGRAM, PROGRAM], operations: [attach(0), attach(1)] }),
  },
  'site-bytes': { by: 'poke-long', in: history({ operations: [attach(0)] }) },
  warnings: {
    by: 'sleepable-in-rcu',
    in: history({
      programs: [{ ...PROGRAM, sleepable: true, sleeps: true }],
      operations: [attach(0)],
      tasks: [{ cpu: 0, after: 1, calls: [0], exiting: false }],
    }),
  },
  balanced: {
    by: 'rcu-left-locked',
    in: history({ operations: [attach(0)], tasks: [{ cpu: 0, after: 1, calls: [0, 0], exiting: false }] }),
  },
  'everything-given-back': { by: 'pcref-kept', in: history({ operations: [attach(0), detach(0)] }) },
};

/** Rules of the log: judge.test.ts breaks each alone. */
const LOGGED: readonly HistoryRule[] = [
  ...(['runs-agree', 'return-value', 'func-ip', 'cookie', 'read-side', 'recursion'] as const),
  ...(['counters-add-up', 'splats'] as const),
];
/** Rules that need a race: mutants.test.ts. */
const RACES: readonly HistoryRule[] = ['freed-image', 'freed-program'];

test('every rule is tested here, in judge.test.ts or in mutants.test.ts', () => {
  const tested = [...Object.keys(SHOWN), ...LOGGED, ...RACES];
  expect(tested.sort()).toEqual(Object.keys(HISTORY_RULES).sort());
});

describe.each(Object.entries(SHOWN))('%s', (rule, shown) => {
  test('is broken by one bug, and by nothing without it', async () => {
    const { by } = shown;
    const suspects = typeof by === 'string' ? { bugs: [by] } : { emitters: { 'v5.15': by } };
    expect(await right(shown.in)).toEqual([]);
    expect(await (await open(suspects))(shown.in)).toEqual([rule]);
  });
});

test('the histories are such as a family makes', () => {
  for (const { in: one } of Object.values(SHOWN)) {
    expect(HISTORY_FAMILY.parse(JSON.parse(JSON.stringify(one)))).toEqual(one);
  }
  expect(FUNCTION.calls).toBeNull();
});
