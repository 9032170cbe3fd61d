import { Random } from '../check/index.ts';
import type { FamilyName, Plan } from './plan.ts';
import type { Families } from './subjects.ts';

/** One case in this many of a mixed campaign is a history. */
const HISTORY_ONCE_IN = 300;

/** A case and where it came from. */
export interface Drawn {
  readonly number: number;
  readonly family: FamilyName;
  readonly one: unknown;
}

type Source = Pick<Plan, 'seed' | 'family' | 'revisions'>;

/** A case of a campaign: of its seed and the case's number, and of nothing that a worker knows. */
export function draw(families: Families, source: Source, number: number): Drawn {
  const random = new Random(source.seed, number);
  const family = pick(source, random);
  return { number, family, one: families[family].generate(random, { revisions: source.revisions }) };
}

/** The family of a case. */
export function familyOf(source: Source, number: number): FamilyName {
  return pick(source, new Random(source.seed, number));
}

function pick({ family }: Source, random: Random): FamilyName {
  if (family !== 'mixed') return family;
  return random.once(HISTORY_ONCE_IN) ? 'history' : 'image';
}
