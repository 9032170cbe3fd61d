/* The calls that every image is run with: one or more per thing that can happen to it. */

import type { Kaddr } from '../../../lib/index.ts';
import type { Role, Situation } from './simulate.ts';
import type { GoldenImage } from './world.ts';

/** What can happen to a call. */
export type Variant =
  | 'plain'
  | 'fmod_ret speaks'
  | 'one program recurs'
  | 'all programs recur'
  | 'retired'
  | 'statistics';

export interface Case {
  readonly variant: Variant;
  readonly situation: Situation;
}

/** What an fmod_ret program answers to end the chain: once one of the first, once one that is zero below. */
const SPOKEN = [
  [-1n, -22n, 1n, 0xffff_ffffn],
  [1n << 32n, 1n << 63n],
];

const CLOCK = 1_000_000_000n;
/** A start time that is zero in its lower half and negative as a signed number. */
const LATE_CLOCK = 1n << 63n;

/**
 * The calls for an image, the same ones every time. Each fmod_ret program speaks twice.
 * @param clockTick what each reading adds to the clock, nanoseconds
 */
export function cases(image: GoldenImage, clockTick: bigint): readonly Case[] {
  const random = seeded(image.id);
  const pick = <T>(from: readonly T[]): T => from[Number(random() % BigInt(from.length))] as T;
  const { fentry, fmodRet, fexit } = image.request;
  const progs = [...fentry, ...fmodRet, ...fexit].map(({ prog }) => prog);
  const found: Case[] = [];
  const add = (variant: Variant, change: Partial<Situation> = {}): void => {
    found.push({ variant, situation: { ...ordinary(random), ...change } });
  };

  add('plain');
  fmodRet.forEach((_, speaker) => {
    for (const answers of SPOKEN) {
      const spoken = BigInt.asUintN(64, pick(answers));
      const { reply } = ordinary(random);
      add('fmod_ret speaks', {
        reply: (role, index) => (role === 'fmod_ret' && index === speaker ? spoken : reply(role, index)),
      });
    }
  });
  if (progs.length > 0) {
    add('one program recurs', { active: new Set([pick(progs)]) });
    add('all programs recur', { active: new Set(progs) });
  }
  // Each program that runs reads the clock twice: every one starts at the awkward time once.
  progs.forEach((_, index) => {
    add('statistics', { statistics: true, clock: LATE_CLOCK - BigInt(2 * index) * clockTick });
  });
  if (image.ipAfterCall !== null) add('retired', { retire: true });
  return found;
}

/** Random registers and answers, and no fmod_ret program says anything. */
function ordinary(random: () => bigint): Situation {
  const answers = new Map<string, bigint>();
  const reply = (role: Role, index: number): bigint => {
    if (role === 'fmod_ret') return 0n;
    const key = `${role} ${index}`;
    const answer = answers.get(key) ?? random();
    answers.set(key, answer);
    return answer;
  };
  return {
    // All 64 bits are random: a narrow argument has garbage above it.
    args: Array.from({ length: 6 }, random),
    saved: { rbx: random(), rbp: random(), r12: random(), r13: random(), r14: random(), r15: random() },
    reply,
    active: new Set<Kaddr>(),
    statistics: false,
    clock: CLOCK,
    retire: false,
  };
}

/** 64-bit values that are the same on every run. Algorithm: splitmix64. */
function seeded(seed: number): () => bigint {
  let state = BigInt(seed);
  const mix = (value: bigint, shift: bigint, factor: bigint): bigint =>
    BigInt.asUintN(64, (value ^ (value >> shift)) * factor);
  return () => {
    state = BigInt.asUintN(64, state + 0x9e37_79b9_7f4a_7c15n);
    const mixed = mix(mix(state, 30n, 0xbf58_476d_1ce4_e5b9n), 27n, 0x94d0_49bb_1331_11ebn);
    return mixed ^ (mixed >> 31n);
  };
}
