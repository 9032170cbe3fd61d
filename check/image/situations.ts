/* The calls that a given image is judged by: one or more per thing that can happen to it, the same every time. */

import { TrampFlag } from '../../jit/index.ts';
import { Random } from '../random.ts';
import {
  FAR_STACK_WORDS,
  flagsOf,
  type ImageCase,
  KINDS,
  type Kind,
  knownFlags,
  type ProgramCase,
  programsOf,
  STACK_ARG_WORDS,
} from './case.ts';
import { BOUNDARIES } from './generate.ts';
import { GARBAGE_FOR_ZERO } from './guest.ts';
import { countWords } from './words.ts';

/** What can happen to a call. */
export const VARIANTS = [
  'plain',
  'arguments at their boundaries',
  'fmod_ret speaks',
  'every other program recurs',
  'all programs recur',
  'statistics',
  'retired',
  'retired, and fmod_ret speaks',
  'a program calls again',
  'programs write their context',
] as const;
export type Variant = (typeof VARIANTS)[number];

/** Variants of which the first call is watched: together they go every way through an image. */
const WATCHED: readonly Variant[] = [
  'plain',
  'fmod_ret speaks',
  'every other program recurs',
  'all programs recur',
  'retired',
];

export interface Situation {
  readonly variant: Variant;
  readonly one: ImageCase;
}

/** What an fmod_ret program answers to end the chain: once something negative, once one that is zero below. */
const SPOKEN: readonly (readonly bigint[])[] = [
  [0xffff_ffff_ffff_ffffn, 0xffff_ffff_ffff_ffean, 0x8000_0000_0000_0001n, 0x8000_0000_ffff_ffffn],
  [1n << 32n, 1n << 62n],
];
/** And a single bit in each byte, others from program to program: whoever looks at some bits only must be found. */
const BYTE_BITS = 8;

const CLOCK = 1_000_000_000n;
/** Start times that are zero in their lower half: as signed numbers one is negative and one is not. */
const LATE_CLOCKS = [1n << 63n, 1n << 40n];
/** What each reading adds to the clock. */
const TICK = 10n;
/** What callees leave behind in calls whose arguments are nothing but boundaries. */
const GARBAGE = [0n, 0xffff_ffff_ffff_ffffn, GARBAGE_FOR_ZERO];
/** And how far their frames are moved: to each other multiple of 8 below 32. */
const STACK_WORDS = [1, 2, 3];

/**
 * The calls for an image.
 * @param plain the image's case, whatever its registers and its programs' manners are
 * @param seed decides the random values
 */
export function situationsOf(plain: ImageCase, seed: number): readonly Situation[] {
  const random = new Random(0, seed);
  const count = programsOf(plain).length;
  const found: Situation[] = [];
  const add = (variant: Variant, change: (one: ImageCase) => ImageCase = (one) => one): void => {
    found.push({ variant, one: change(ordinary(plain, random)) });
  };
  const hasResult =
    (flagsOf(plain) & knownFlags(plain.revision) & (TrampFlag.CALL_ORIG | TrampFlag.RET_FENTRY_RET)) !== 0;
  const words = countWords(plain).all + (hasResult ? 1 : 0);

  add('plain', (one) => ({ ...one, registers: { ...one.registers, stackWords: FAR_STACK_WORDS } }));
  for (const garbage of GARBAGE) {
    // Where callees leave 0, all else is 0, too, as far as the caller decides it.
    const allZero = garbage === 0n;
    const boundary = (): bigint => (allZero ? garbage : random.pick(BOUNDARIES));
    const args = Array.from({ length: 6 }, boundary);
    const stackWords = STACK_WORDS[GARBAGE.indexOf(garbage)] ?? 0;
    const stack = onStack(plain, boundary);
    const answers = { original: random.pick(BOUNDARIES), body: random.pick(BOUNDARIES) };
    add('arguments at their boundaries', (one) => ({
      ...one,
      registers: {
        ...one.registers,
        ...(allZero ? { saved: args, rax: garbage } : {}),
        ...{ args, garbage, stackWords, stack },
      },
      returns: answers,
    }));
  }
  const speaks = (speaker: number, returns: bigint): void => {
    add('fmod_ret speaks', (one) =>
      withProgram(one, plain.fentry.length + speaker, (prog) => ({ ...prog, returns })),
    );
  };
  plain.fmodRet.forEach((_, speaker) => {
    for (const answers of SPOKEN) {
      const returns = random.pick(answers);
      speaks(speaker, returns);
    }
    for (let bit = speaker % BYTE_BITS; bit < 64; bit += BYTE_BITS) speaks(speaker, 1n << BigInt(bit));
  });
  if (count > 0) {
    // Behind one that was refused there is no start time that could be taken for the next one's.
    for (const first of count > 1 ? [0, 1] : [0]) {
      add('every other program recurs', (one) =>
        withPrograms(one, (prog, i) => (i % 2 === first ? { ...prog, running: true } : prog)),
      );
    }
    // Callees leave 1 in rcx, which a loop instruction would count down to 0.
    add('all programs recur', (one) => ({
      ...withPrograms(one, (prog) => ({ ...prog, running: true })),
      registers: { ...one.registers, garbage: 1n },
    }));
  }
  // Each program that runs reads the clock twice: every one starts at the awkward time once.
  for (let i = 0; i < count; i++) {
    for (const late of LATE_CLOCKS) {
      const clock = late - BigInt(2 * i) * TICK;
      add('statistics', (one) => ({ ...one, statistics: true, clock }));
    }
  }
  if ((flagsOf(plain) & TrampFlag.CALL_ORIG) !== 0) {
    add('retired', (one) => ({ ...one, retired: true }));
    plain.fmodRet.forEach((_, speaker) => {
      add('retired, and fmod_ret speaks', (one) => ({
        ...withProgram(one, plain.fentry.length + speaker, (prog) => ({ ...prog, returns: 1n })),
        retired: true,
      }));
    });
  }
  for (const first of firstOfKinds(plain)) {
    add('a program calls again', (one) => withProgram(one, first, (prog) => ({ ...prog, calls: true })));
  }
  // Each word from the first on, and from the last one, which is the result where there is one.
  for (const first of count > 0 && words > 0 ? [0, words - 1] : []) {
    add('programs write their context', (one) =>
      withPrograms(one, (prog, i) => ({
        ...prog,
        writes: { word: (first + i) % words, value: random.u64() },
      })),
    );
  }
  return found.map(({ variant, one }, i) => {
    const first = found.findIndex((other) => other.variant === variant) === i;
    return { variant, one: { ...one, watched: first && WATCHED.includes(variant) } };
  });
}

/** Random registers and answers, and no fmod_ret program says anything. */
function ordinary(plain: ImageCase, random: Random): ImageCase {
  const word = (): bigint => random.u64();
  const words = (): bigint[] => Array.from({ length: 6 }, word);
  const firstFmod = plain.fentry.length;
  const lastFmod = firstFmod + plain.fmodRet.length;
  const one: ImageCase = {
    ...plain,
    // All 64 bits are random: a narrow argument has garbage above it.
    registers: {
      args: words(),
      saved: words(),
      rax: word(),
      stack: onStack(plain, word),
      stackWords: 0,
      garbage: word(),
    },
    returns: { original: word(), body: word() },
    statistics: false,
    clock: CLOCK,
    retired: false,
    watched: false,
  };
  return withPrograms(one, (prog, i) => ({
    ...prog,
    running: false,
    writes: null,
    calls: false,
    faults: false,
    returns: i >= firstFmod && i < lastFmod ? 0n : word(),
  }));
}

/** Words for arguments on the stack, where there are any. */
function onStack(plain: ImageCase, word: () => bigint): readonly bigint[] {
  const some = countWords(plain).stack > 0;
  return Array.from({ length: STACK_ARG_WORDS }, () => (some ? word() : 0n));
}

function withPrograms(one: ImageCase, change: (prog: ProgramCase, index: number) => ProgramCase): ImageCase {
  let index = 0;
  const all = (kind: Kind): readonly ProgramCase[] => one[kind].map((prog) => change(prog, index++));
  const fentry = all('fentry');
  const fmodRet = all('fmodRet');
  return { ...one, fentry, fmodRet, fexit: all('fexit') };
}

function withProgram(one: ImageCase, index: number, change: (prog: ProgramCase) => ProgramCase): ImageCase {
  return withPrograms(one, (prog, i) => (i === index ? change(prog) : prog));
}

/** Places of the first program of each kind. */
function firstOfKinds(one: ImageCase): readonly number[] {
  let first = 0;
  return KINDS.flatMap((kind) => {
    const at = first;
    first += one[kind].length;
    return one[kind].length === 0 ? [] : [at];
  });
}
