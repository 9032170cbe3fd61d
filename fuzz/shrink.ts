import type { CaseOutcome, Finding } from '../check/index.ts';
import type { Crew } from './crew.ts';
import type { FamilyName } from './plan.ts';
import type { Setting } from './station.ts';
import type { Families } from './subjects.ts';
import { tryCases } from './trial.ts';

/** Cases that are run at most for one finding. A count and not a time, so that the result is always the same. */
export const SHRINK_CASES = 2000;
/** Cases that are run at a time. */
const BATCH = 16;

/** A minimal case and what it breaks. */
export interface Shrunk {
  readonly one: unknown;
  readonly finding: Finding;
}

/**
 * The smallest case that still breaks the rule, found by taking the first smaller one that does, over and
 * over. Undefined when the case does not break it when run alone.
 */
export async function shrink(
  crew: Crew,
  families: Families,
  setting: Setting,
  family: FamilyName,
  given: unknown,
  rule: string,
  limit: number = SHRINK_CASES,
): Promise<Shrunk | undefined> {
  const find = ({ findings }: CaseOutcome): Finding | undefined =>
    findings.find((candidate) => candidate.rule === rule);
  const broken = async (cases: readonly unknown[]): Promise<Shrunk | undefined> => {
    const outcomes = await tryCases(crew, setting, family, cases, (outcome) => find(outcome) !== undefined);
    for (const [i, outcome] of outcomes.entries()) {
      const finding = find(outcome);
      if (finding !== undefined) return { one: cases[i], finding };
    }
    return undefined;
  };

  let best = await broken([given]);
  let left = limit;
  for (let smaller = best; smaller !== undefined; ) {
    best = smaller;
    smaller = undefined;
    for (const batch of batches(families[family].shrink(best.one), left)) {
      left -= batch.length;
      smaller = await broken(batch);
      if (smaller !== undefined) break;
    }
  }
  return best;
}

/** At most `limit` of the cases, in batches. */
function* batches(cases: Iterable<unknown>, limit: number): Generator<readonly unknown[]> {
  let batch: unknown[] = [];
  let taken = 0;
  for (const one of cases) {
    if (taken === limit) break;
    taken++;
    batch.push(one);
    if (batch.length < BATCH) continue;
    yield batch;
    batch = [];
  }
  if (batch.length > 0) yield batch;
}
