/*
 * What a campaign is: the numbers that say which cases it has and how they are run. A plan is plain data.
 * It is written into the campaign's folder, so that a resumed campaign, or one put together from shards,
 * can be seen to be the same campaign.
 *
 *   seed, number --Random--> case          of nothing else: any worker can make any case
 *   cases 0 .. n-1, in blocks of 500       a block is what one worker does at a time, and what is kept
 *   blocks 0 .. m-1, dealt to the shards   shard i of n has the blocks i, i+n, i+2n, ...
 */

import { JUDGED_REVISIONS } from '../check/index.ts';
import type { EngineName } from '../emu/index.ts';
import { REVISIONS, type RevisionName } from '../jit/index.ts';
import { InputError } from '../lib/index.ts';

export const FAMILY_NAMES = ['image', 'history'] as const;
export type FamilyName = (typeof FAMILY_NAMES)[number];

/** One family alone, or images with a history now and then. */
export const FAMILY_CHOICES = ['mixed', 'image', 'history'] as const;
export type FamilyChoice = (typeof FAMILY_CHOICES)[number];

/** `both` runs every case on Unicorn and on the host CPU and compares them. */
export const FUZZ_ENGINES = ['unicorn', 'unicorn.js', 'native', 'both'] as const;
export type FuzzEngine = EngineName | 'both';

/** One of `of` equal parts of a campaign, counted from 0. */
export interface Shard {
  readonly index: number;
  readonly of: number;
}

export interface Plan {
  readonly seed: number;
  /** How many cases, or null: as many as there is time for. */
  readonly cases: number | null;
  readonly family: FamilyChoice;
  readonly revisions: readonly RevisionName[];
  readonly engine: FuzzEngine;
  readonly shard: Shard;
  readonly blockCases: number;
  /** The mutant on trial, or null: our own parts. */
  readonly mutant: string | null;
}

/** Case numbers, `to` not included. */
export interface Range {
  readonly from: number;
  readonly to: number;
}

/** A history takes as long as some hundred images. */
const BLOCK_CASES: Readonly<Record<FamilyChoice, number>> = { mixed: 500, image: 500, history: 20 };

/**
 * A plan; what is not given is the default.
 * @throws InputError naming the option, for a number out of range
 */
export function makePlan(given: Partial<Plan> & Pick<Plan, 'seed'>): Plan {
  const family = given.family ?? 'mixed';
  const plan: Plan = {
    cases: null,
    revisions: JUDGED_REVISIONS,
    engine: 'unicorn',
    shard: { index: 0, of: 1 },
    blockCases: BLOCK_CASES[family],
    mutant: null,
    ...given,
    family,
  };
  const { index, of } = plan.shard;
  whole('--seed', plan.seed, 0);
  if (plan.cases !== null) whole('--cases', plan.cases, 1);
  whole('block size', plan.blockCases, 1);
  whole('--shard', of, 1);
  if (!Number.isInteger(index) || index < 0 || index >= of) {
    throw new InputError('--shard', undefined, `shards of ${of} are 0 to ${of - 1}, not ${index}`);
  }
  if (plan.revisions.length === 0) throw new InputError('--revision', undefined, 'at least one is needed');
  return plan;
}

function whole(what: string, value: number, least: number): void {
  if (!Number.isSafeInteger(value) || value < least) {
    throw new InputError(what, undefined, `must be a whole number from ${least} to 2^53-1, not ${value}`);
  }
}

/** The cases of a block. */
export function rangeOf({ blockCases, cases }: Plan, block: number): Range {
  const from = block * blockCases;
  return { from, to: Math.min(from + blockCases, cases ?? Number.POSITIVE_INFINITY) };
}

/** The blocks of the plan's shard, in order; without end where the plan has none. */
export function* blocksOf({ cases, blockCases, shard }: Plan): Generator<number> {
  const end = cases === null ? Number.POSITIVE_INFINITY : Math.ceil(cases / blockCases);
  for (let block = shard.index; block < end; block += shard.of) yield block;
}

/** How many cases the plan's shard has; without end where the plan has none. */
export function shardCases(plan: Plan): number {
  const { cases, blockCases, shard } = plan;
  if (cases === null) return Number.POSITIVE_INFINITY;
  const blocks = Math.ceil(cases / blockCases);
  const mine = Math.max(0, Math.ceil((blocks - shard.index) / shard.of));
  // Only the very last block may be a short one.
  return mine * blockCases - (hasBlock(plan, blocks - 1) ? blocks * blockCases - cases : 0);
}

/** Whether a block is one of the plan's shard. */
export function hasBlock({ cases, blockCases, shard }: Plan, block: number): boolean {
  if (!Number.isSafeInteger(block) || block < 0 || block % shard.of !== shard.index) return false;
  return cases === null || block * blockCases < cases;
}

/**
 * A plan out of JSON.
 * @param where what the JSON was read from
 * @throws InputError naming `where`, unless it is one
 */
export function parsePlan(json: unknown, where: string): Plan {
  const { seed, cases, family, revisions, engine, shard, blockCases, mutant } = (json ?? {}) as Partial<Plan>;
  const fits =
    typeof seed === 'number' &&
    (cases === null || typeof cases === 'number') &&
    FAMILY_CHOICES.some((name) => name === family) &&
    Array.isArray(revisions) &&
    revisions.every((name) => REVISIONS.some((known) => known === name)) &&
    FUZZ_ENGINES.some((name) => name === engine) &&
    typeof shard === 'object' &&
    typeof blockCases === 'number' &&
    (mutant === null || typeof mutant === 'string');
  if (!fits)
    throw new InputError(where, undefined, 'is no plan of a campaign; was it written by tramplab fuzz?');
  return makePlan({ seed, cases, family, revisions, engine, shard, blockCases, mutant } as Plan);
}

/** The first difference between two plans that makes them different campaigns, in words; undefined: none. */
export function differs(one: Plan, other: Plan, besides: readonly (keyof Plan)[] = []): string | undefined {
  for (const key of Object.keys(one) as (keyof Plan)[]) {
    if (besides.includes(key)) continue;
    const [a, b] = [one[key], other[key]].map(inWords);
    if (a !== b) return `${key} ${a}, not ${b}`;
  }
  return undefined;
}

function inWords(value: Plan[keyof Plan]): string {
  if (value === null) return 'none';
  if (Array.isArray(value)) return value.join(' and ');
  return typeof value === 'object' && 'of' in value ? `${value.index}/${value.of}` : String(value);
}
