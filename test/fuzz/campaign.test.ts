import { describe, expect, test } from 'vitest';
import { Crew } from '../../fuzz/crew.ts';
import { makePlan } from '../../fuzz/index.ts';
import { summarize } from '../../fuzz/report.ts';
import { loadSubjects } from '../../fuzz/subjects.ts';
import { joinTallies } from '../../fuzz/tally.ts';
import { tryCases } from '../../fuzz/trial.ts';
import { campaign, lasting, SMALL, subjects } from './support.ts';

const WRONG = { wrong: { odd: 97 } };

describe('a campaign', () => {
  test('counts what its cases did', async () => {
    const report = await campaign({}, WRONG);
    expect(report).toMatchObject({ cases: 200, planned: 200, complete: true, seed: 1 });
    expect(report.calls).toBeGreaterThan(200);
    expect(report.rules['no-multiple']).toBe(report.broken);
    expect(report.coverage.image).toMatchObject({ hit: 6, all: 8, missing: ['image of 0', 'image of 7'] });
  });

  test('misses no cell of a revision that it leaves out', async () => {
    const plan = makePlan({ seed: 1, family: 'image', revisions: ['v6.1'], cases: 10 });
    const { families } = await loadSubjects(subjects());
    const named = { ...families.image, cells: ['v6.1 a', 'v6.12 a', 'x: v5.13', 'any'] };
    const both = { ...families, image: named };
    const { coverage } = summarize(both, plan, joinTallies(both, []));
    expect(coverage).toEqual({ image: { hit: 0, all: 2, missing: ['v6.1 a', 'any'] } });
  });

  test('is the same whatever the workers and the blocks', async () => {
    const one = await campaign({}, { ...WRONG, workers: 1 });
    expect(one.findings.length).toBeGreaterThan(3);
    expect(lasting(await campaign({}, { ...WRONG, workers: 3 }))).toEqual(lasting(one));
    expect(lasting(await campaign({ blockCases: 64 }, WRONG))).toEqual(lasting(one));
  });

  test('is another one with another seed', async () => {
    const [one, other] = [await campaign({}), await campaign({ seed: 2 })];
    expect(other.digest).not.toBe(one.digest);
  });

  test('has histories among its images', async () => {
    const { coverage } = await campaign({ cases: 3000, blockCases: 500 });
    expect(coverage.history?.hit).toBeGreaterThan(2);
  });

  test('ends in time', async () => {
    const report = await campaign({ cases: null }, { seconds: 0.3, wrong: { slow: 1 } });
    expect(report.complete).toBe(false);
    expect(report.cases % 10).toBe(0);
    expect(report.cases).toBeGreaterThan(0);
  });
});

describe('a finding', () => {
  test('is made minimal', async () => {
    const { findings } = await campaign({}, WRONG);
    const single = findings.filter(({ rule }) => rule === 'no-multiple');
    expect(single).toHaveLength(3);
    // The only smaller case is one whose term is no multiple of 97.
    for (const { minimized } of single) expect(minimized).toMatchObject({ terms: [97] });
    const pair = findings.find(({ rule }) => rule === 'alone');
    expect((pair?.minimized as { terms: number[] } | undefined)?.terms.sort()).toEqual([1, 97]);
    expect(pair?.about).toMatch(/^v5\.1[35]: (1 \+ 97|97 \+ 1)$/);
  });

  test('is where engines differ', async () => {
    const report = await campaign({ engine: 'both' }, { wrong: { differ: 97 } });
    expect(Object.keys(report.rules)).toEqual(['engines-agree']);
    expect(report.findings[0]).toMatchObject({ expected: '97 on unicorn', seen: '97 on native' });
    expect((await campaign({ engine: 'both' })).broken).toBe(0);
  });
});

describe('a worker', () => {
  test('that dies is a finding for the case it ran', async () => {
    const plan = { cases: 30 };
    const report = await campaign(plan, { wrong: { crash: 127 } });
    expect(report.cases).toBe(30);
    expect(report.rules).toEqual({ 'engine-crash': report.broken });
    expect(report.broken).toBeGreaterThan(0);
    for (const { minimized } of report.findings) expect(minimized).toMatchObject({ terms: [127] });
    // The other cases of the block count as they would have.
    const odd = await campaign(plan, { wrong: { odd: 127 } });
    expect(report.broken).toBe(odd.broken);
    const lost = report.findings.map(({ request }) => (request as { terms: number[] }).terms.length);
    expect(report.calls).toBe(odd.calls - lost.reduce((sum, calls) => sum + calls, 0));
  });

  test('that throws, too', async () => {
    const report = await campaign({ cases: 40 }, { wrong: { throw: 97 } });
    expect(report.rules).toEqual({ 'judge-error': report.broken });
    expect(report.findings[0]).toMatchObject({ detail: 'RangeError: no 97', minimized: { terms: [97] } });
  });

  test('that never comes back is ended', async () => {
    const crew = new Crew({
      ...SMALL,
      subjects: subjects({ hang: 2 }),
      limits: { range: 1000, cases: 1000 },
    });
    const terms = (...list: number[]): unknown => ({ revision: 'v5.15', terms: list });
    try {
      const setting = { engine: 'unicorn', mutant: null } as const;
      const [fine, hung, other] = await tryCases(crew, setting, 'image', [terms(1), terms(3, 4), terms(5)]);
      expect([fine?.calls, fine?.findings, other?.calls]).toEqual([1, [], 1]);
      expect(hung?.findings).toMatchObject([{ rule: 'terminates' }]);
    } finally {
      await crew.close();
    }
  });

  test('that is only slow for a while broke nothing', async () => {
    const limits = { range: 100, cases: 5000 };
    const report = await campaign({ cases: 20 }, { wrong: { slow: 15 }, limits });
    expect(report).toMatchObject({ cases: 20, broken: 0 });
    expect(report.digest).toBe((await campaign({ cases: 20 })).digest);
  });
});
