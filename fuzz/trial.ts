/*
 * Cases that are run whatever they do to whoever runs them. When a worker is lost, what it was doing is
 * done again, case by case, until it is known which case it was; that one broke a rule, and the others
 * count as they would have.
 */

import type { CaseOutcome, Finding } from '../check/index.ts';
import { type Crew, Loss } from './crew.ts';
import { familyOf } from './draw.ts';
import type { FamilyName, Plan, Range } from './plan.ts';
import type { Setting } from './station.ts';
import type { Families } from './subjects.ts';
import { joinTallies, SPENT_NOTHING, type Tally, Tallying } from './tally.ts';

/** The rule that a lost worker means. */
const LOSS_RULES: Readonly<Record<Loss['how'], string>> = {
  crashed: 'engine-crash',
  hung: 'terminates',
  threw: 'judge-error',
};

/**
 * Runs a range of a campaign.
 * @param first only the first case that breaks a rule is wanted: what comes after it may be left out
 * @throws InputError for what the user can mend
 */
export async function tryRange(
  crew: Crew,
  families: Families,
  plan: Plan,
  range: Range,
  first = false,
): Promise<Tally> {
  const tally = await crew.range(plan, range);
  if (!(tally instanceof Loss)) return tally;
  // A process can die of something else, such as a machine without memory. A mistake of the case stays one.
  const again = tally.how === 'crashed' ? await crew.range(plan, range) : tally;
  if (!(again instanceof Loss)) return again;

  const alone: Tally[] = [];
  let lost = 0;
  for (let number = range.from; number < range.to; number++) {
    const one = await crew.range(plan, { from: number, to: number + 1 });
    const result = one instanceof Loss ? lossTally(families, plan, number, lossFinding(one)) : one;
    alone.push(result);
    if (one instanceof Loss) lost++;
    if (first && result.broken > 0) return joinTallies(families, alone);
  }
  // Slowness that comes and goes is not the cases' doing.
  if (lost > 0 || again.how === 'hung') return joinTallies(families, alone);
  return blameAll(joinTallies(families, alone), plan, range, lossFinding(again));
}

/**
 * Runs given cases.
 * @param enough tells an outcome after which the others are not wanted: they may be left out
 * @throws InputError for what the user can mend
 */
export async function tryCases(
  crew: Crew,
  setting: Setting,
  family: FamilyName,
  cases: readonly unknown[],
  enough: (outcome: CaseOutcome) => boolean = () => false,
): Promise<readonly CaseOutcome[]> {
  const outcomes = await crew.cases(setting, family, cases);
  if (!(outcomes instanceof Loss)) return outcomes;
  if (cases.length === 1) return [{ calls: 0, cells: [], findings: [lossFinding(outcomes)] }];
  const alone: CaseOutcome[] = [];
  for (const one of cases) {
    alone.push(...(await tryCases(crew, setting, family, [one])));
    if (enough(alone.at(-1) as CaseOutcome)) break;
  }
  return alone;
}

function lossFinding({ how, detail }: Loss): Finding {
  return { rule: LOSS_RULES[how], detail };
}

function lossTally(families: Families, plan: Plan, number: number, finding: Finding): Tally {
  const tallying = new Tallying(families);
  tallying.add(number, familyOf(plan, number), { calls: 0, cells: [], findings: [finding] });
  return tallying.tally(SPENT_NOTHING);
}

/** No case does it alone, all together do: the first one of them has to stand for it. */
function blameAll(tally: Tally, plan: Plan, { from, to }: Range, { rule, detail }: Finding): Tally {
  const finding = { rule, detail: `${detail}, running the cases ${from} to ${to - 1} one after the other` };
  return {
    ...tally,
    broken: tally.broken + 1,
    rules: { ...tally.rules, [rule]: 1 },
    firsts: [{ number: from, family: familyOf(plan, from), finding }, ...tally.firsts],
  };
}
