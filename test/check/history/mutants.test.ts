/*
 * Bugs that histories find at once: one of each sort. All of them, and the cases that each takes, are in the
 * kill matrix (docs/mutants.md); the two rules that need a race are shown to speak here.
 */

import { expect, test } from 'vitest';
import { HISTORY_FAMILY, HISTORY_REVISIONS, type HistoryRule, Random } from '../../../check/index.ts';
import { BUG_REVISIONS, KERNEL_BUGS, type KernelBug } from '../../../tramp/index.ts';

const SEED = 1;
/** Cases within which each is found. */
const WITHIN = 150;

const QUICK: readonly (readonly [KernelBug, readonly HistoryRule[]])[] = [
  ['L1', ['freed-program']],
  ['L3', ['freed-image', 'runs-agree']],
  ['L12', ['read-side']],
  ['L16', ['balanced']],
  ['no-tasks-after-release', ['freed-image']],
  ['no-tasks-after-trace', ['freed-image']],
  ['own-reference-kept', ['everything-given-back']],
  ['T2', ['attach-errno']],
  ['T7-site', ['site-bytes']],
  ['poke-short', ['site-bytes', 'no-fault']],
  ['torn-write', ['no-fault']],
  ['ref-put-twice', ['everything-given-back', 'broken-invariant']],
  ['L14', ['runs-agree']],
  ['L15', ['balanced', 'no-fault']],
  ['cookie-lost', ['cookie']],
  ['self-unasked', ['table-agrees']],
  ['T7-shared', ['runs-agree', 'freed-image', 'recursion']],
  ['room-of-a-page', ['table-agrees']],
  ['flags-kept', ['failed-operation-changes-nothing', 'table-agrees']],
];

test.each(QUICK)('%s is found', async (bug, rules) => {
  const revisions = BUG_REVISIONS[bug] ?? HISTORY_REVISIONS;
  const runner = await HISTORY_FAMILY.open({ engine: 'unicorn', bugs: [bug] });
  let found: string | undefined;
  for (let number = 0; number < WITHIN && found === undefined; number++) {
    const one = HISTORY_FAMILY.generate(new Random(SEED, number), { revisions });
    const [outcome] = await runner.run([one]);
    found = outcome?.findings[0]?.rule;
  }
  runner.close();
  expect(rules, KERNEL_BUGS[bug]).toContain(found);
});
