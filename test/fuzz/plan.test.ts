import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { JUDGED_REVISIONS } from '../../check/index.ts';
import { makePlan, type Plan, shardCases } from '../../fuzz/index.ts';
import { blocksOf, differs, hasBlock, parsePlan, rangeOf } from '../../fuzz/plan.ts';

const plans = fc
  .record({
    seed: fc.nat(),
    cases: fc.integer({ min: 1, max: 300 }),
    blockCases: fc.integer({ min: 1, max: 50 }),
    of: fc.integer({ min: 1, max: 9 }),
  })
  .map(({ of, ...plan }) => ({ ...plan, of }));

describe('shards', () => {
  test('have every case once between them', () => {
    fc.assert(
      fc.property(plans, ({ of, ...given }) => {
        const seen: number[] = [];
        for (let index = 0; index < of; index++) {
          const plan = makePlan({ ...given, shard: { index, of } });
          const before = seen.length;
          for (const block of blocksOf(plan)) {
            expect(hasBlock(plan, block)).toBe(true);
            const { from, to } = rangeOf(plan, block);
            for (let number = from; number < to; number++) seen.push(number);
          }
          expect(seen.length - before).toBe(shardCases(plan));
        }
        expect(seen.sort((a, b) => a - b)).toEqual(Array.from({ length: given.cases }, (_, i) => i));
      }),
      { numRuns: 200 },
    );
  });

  test('have no blocks of others', () => {
    const plan = makePlan({ seed: 1, cases: 100, blockCases: 10, shard: { index: 1, of: 3 } });
    expect([...blocksOf(plan)]).toEqual([1, 4, 7]);
    const blocks = [-1, 0, 1.5, 2, 10, Number.NaN];
    for (const block of blocks) expect(hasBlock(plan, block), `${block}`).toBe(false);
  });
});

describe('a plan', () => {
  test('is read as it was written', () => {
    fc.assert(
      fc.property(plans, ({ of, ...given }) => {
        const plan = makePlan({ ...given, shard: { index: of - 1, of } });
        expect(parsePlan(JSON.parse(JSON.stringify(plan)), 'x')).toEqual(plan);
      }),
    );
  });

  test.each<[Partial<Plan>, string]>([
    [{ seed: -1 }, '--seed: must be a whole number from 0'],
    [{ seed: 0.5 }, '--seed: must be'],
    [{ cases: 0 }, '--cases: must be a whole number from 1'],
    [{ blockCases: 0 }, 'block size: must be'],
    [{ shard: { index: 0, of: 0 } }, '--shard: must be'],
    [{ shard: { index: 3, of: 3 } }, '--shard: shards of 3 are 0 to 2, not 3'],
    [{ revisions: [] }, '--revision: at least one'],
  ])('%j is none', (given, message) => {
    expect(() => makePlan({ seed: 1, cases: 5, ...given })).toThrow(message);
  });

  test('says where it differs', () => {
    const plan = makePlan({ seed: 1 });
    expect(differs(plan, plan)).toBeUndefined();
    const pairs: [Partial<Plan>, string][] = [
      [{ seed: 2 }, 'seed 1, not 2'],
      [{ cases: 7 }, 'cases none, not 7'],
      [{ revisions: ['v5.15'] }, `revisions ${JUDGED_REVISIONS.join(' and ')}, not v5.15`],
      [{ shard: { index: 1, of: 2 } }, 'shard 0/1, not 1/2'],
    ];
    for (const [other, text] of pairs) expect(differs(plan, makePlan({ ...plan, ...other }))).toBe(text);
    expect(differs(plan, makePlan({ ...plan, shard: { index: 1, of: 2 } }), ['shard'])).toBeUndefined();
  });
});
