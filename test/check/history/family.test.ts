/* Histories as cases: from a seed, to JSON and back, smaller, and the same wherever they are played. */

import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import {
  type CaseOutcome,
  type CaseRunner,
  HISTORY_FAMILY,
  HISTORY_REVISIONS,
  type HistoryCase,
  playCase,
  Random,
} from '../../../check/index.ts';
import type { RevisionName } from '../../../jit/index.ts';
import { InputError } from '../../../lib/index.ts';
import { nativeMissing } from '../../emu/machines.ts';
import { history } from './histories.ts';

const SEED = 4;
const make = (number: number): HistoryCase =>
  HISTORY_FAMILY.generate(new Random(SEED, number), { revisions: HISTORY_REVISIONS });
const cases = (count: number): HistoryCase[] => Array.from({ length: count }, (_, i) => make(i));

let runner: CaseRunner<HistoryCase>;
let outcomes: readonly CaseOutcome[];
beforeAll(async () => {
  runner = await HISTORY_FAMILY.open({ engine: 'unicorn' });
  outcomes = await runner.run(cases(250));
});
afterAll(() => runner.close());

test('nothing is wrong with the right manager', () => {
  const wrong = outcomes.flatMap(({ findings }, i) =>
    findings.map(({ rule, detail }) => ({ i, rule, detail })),
  );
  expect(wrong).toEqual([]);
  expect(outcomes.reduce((sum, { calls }) => sum + calls, 0)).toBeGreaterThan(900);
});

test('cases cover what there is to cover, and every cell that they hit has a name', () => {
  const hit = new Set(outcomes.flatMap(({ cells }) => cells));
  expect([...hit].filter((cell) => !HISTORY_FAMILY.cells.includes(cell))).toEqual([]);
  expect(hit.size / HISTORY_FAMILY.cells.length).toBeGreaterThan(0.65);
});

test('the time is told by what it went to', () => {
  const { emit, patch, run, check } = runner.timing;
  for (const part of [emit, patch, run, check]) expect(part).toBeGreaterThan(0);
  expect(run).toBeGreaterThan(check);
});

describe('a case', () => {
  test('comes from its numbers alone', () => {
    expect(make(7)).toEqual(make(7));
    expect(make(7)).not.toEqual(make(8));
  });

  test('goes to JSON and back', () => {
    for (const one of cases(50)) {
      expect(HISTORY_FAMILY.parse(JSON.parse(JSON.stringify(one)))).toEqual(one);
    }
  });

  test('ends the same alone, with its events written down, as among others', async () => {
    for (const number of [3, 30, 200]) {
      const { findings, calls, events, history: words } = await playCase(make(number), { engine: 'unicorn' });
      const again = await playCase(make(number), { engine: 'unicorn' }, 0);
      expect([again.events, again.history]).toEqual([events, '']);
      expect(words.split('\n').length).toBeGreaterThan(10);
      expect({ findings, calls }).toEqual({ findings: [], calls: outcomes[number]?.calls });
    }
  });

  test('that went wrong does not spoil the next one', async () => {
    const broken = await HISTORY_FAMILY.open({ engine: 'unicorn', bugs: ['L3', 'ksym-kept', 'torn-write'] });
    const first = await broken.run(cases(30));
    const second = await broken.run(cases(30).reverse());
    expect(second.toReversed()).toEqual(first);
    expect(first.filter(({ findings }) => findings.length > 0).length).toBeGreaterThan(10);
    broken.close();
  });

  test('is told in one line', () => {
    expect(HISTORY_FAMILY.describe(history({}))).toBe(
      'v5.15, 1 CPU, 1 function, 1 program, 0 tasks, 0 operations',
    );
  });
});

describe('smaller cases', () => {
  test('are cases, each another one', () => {
    for (const one of cases(25)) {
      const all = [...HISTORY_FAMILY.shrink(one)];
      expect(all.length).toBeGreaterThan(5);
      for (const smaller of all) {
        expect(HISTORY_FAMILY.parse(JSON.parse(JSON.stringify(smaller)))).toEqual(smaller);
        expect(smaller).not.toEqual(one);
      }
    }
  });

  test('come to an end, and of a broken rule to a history that a person can read', async () => {
    const suspect = await HISTORY_FAMILY.open({ engine: 'unicorn', bugs: ['no-retire-jump'] });
    const rule = async (one: HistoryCase): Promise<string | undefined> =>
      (await suspect.run([one]))[0]?.findings[0]?.rule;
    let smallest = make(await firstBroken(rule));
    for (let again = true; again; ) {
      again = false;
      for (const smaller of HISTORY_FAMILY.shrink(smallest)) {
        if ((await rule(smaller)) !== 'runs-agree') continue;
        smallest = smaller;
        again = true;
        break;
      }
    }
    suspect.close();
    expect(smallest.operations.length).toBeLessThanOrEqual(3);
    expect(smallest.tasks.length).toBeLessThanOrEqual(2);
    expect(smallest.programs.length).toBeLessThanOrEqual(2);
  });
});

/** The number of the first case that breaks `runs-agree`. */
async function firstBroken(rule: (one: HistoryCase) => Promise<string | undefined>): Promise<number> {
  for (let number = 0; ; number++) if ((await rule(make(number))) === 'runs-agree') return number;
}

describe('JSON that is no case is refused by its field', () => {
  const good = JSON.parse(JSON.stringify(make(1))) as Record<string, unknown>;

  test.each([
    ['case', 7],
    ['case.cpus', { ...good, cpus: 5 }],
    ['case.revision', { ...good, revision: 'v4.4' }],
    ['case.functions', { ...good, functions: [] }],
    ['case.schedule', { ...good, schedule: null }],
    ['operations[0].op', { ...good, operations: [{ op: 'explode' }] }],
    ['operations[0].fn', { ...good, operations: [{ op: 'reload', fn: 9 }] }],
    ['tasks[0].cpu', { ...good, tasks: [{ cpu: 9, after: 0, calls: [], exiting: false }] }],
    ['functions[0].site', { ...good, functions: [{ ...history({}).functions[0], site: 'nop' }] }],
  ])('%s', (field, json) => {
    expect(() => HISTORY_FAMILY.parse(json)).toThrow(InputError);
    expect(() => HISTORY_FAMILY.parse(json)).toThrow(`case ${field}:`);
  });
});

test('a revision without a manager is refused', () => {
  const revisions = ['v7.0' as RevisionName];
  expect(() => HISTORY_FAMILY.generate(new Random(1, 1), { revisions })).toThrow(
    /v7\.0: histories are played on v5\.13, v5\.15, v6\.1, v6\.12/,
  );
});

test('what is observed is told without addresses', async () => {
  const observer = await HISTORY_FAMILY.open({ engine: 'unicorn', observe: true });
  const [outcome] = await observer.run([make(3)]);
  observer.close();
  const lines = outcome?.observed ?? [];
  expect(lines.length).toBeGreaterThan(10);
  expect(lines.filter((line) => /0xffff|\?|nobody/.test(line))).toEqual([]);
  expect(lines.at(-1)).toMatch(/^\d+ splats$/);
});

test.skipIf(nativeMissing !== undefined)('the host CPU does the same as Unicorn, line by line', async () => {
  const engines = ['unicorn', 'native'] as const;
  const [unicorn, native] = await Promise.all(
    engines.map(async (engine) => {
      const observer = await HISTORY_FAMILY.open({ engine, observe: true });
      const outcome = await observer.run(cases(12));
      observer.close();
      return outcome;
    }),
  );
  expect(native).toEqual(unicorn);
});
