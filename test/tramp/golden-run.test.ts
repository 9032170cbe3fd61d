/*
 * Every image that the kernels' own emitters made is run: their bytes, at their addresses, with the real
 * enter and exit functions behind the addresses that they call, and programs that log what they see.
 * What has to come out is simulated from the rules (golden-run/simulate.ts), not from our emitters.
 */

import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { TrampFlag } from '../../jit/index.ts';
import { Bug, fromHex, toHex } from '../../lib/index.ts';
import { MANAGED_REVISIONS, type ManagedRevision } from '../../tramp/index.ts';
import { trampolineVectors } from '../vectors.ts';
import { differences } from './golden-run/compare.ts';
import { simulate } from './golden-run/simulate.ts';
import { type Case, cases, type Variant } from './golden-run/situations.ts';
import { CLOCK_TICK, type GoldenImage, GoldenWorld } from './golden-run/world.ts';

interface Outcome extends Case {
  readonly image: GoldenImage;
  /** What differs from the rules. */
  readonly found: readonly string[];
  /** What the rules say of the caller's rbx. */
  readonly keepsRbx: boolean;
  /** Whether the rules end in a fault: null or a non-canonical address for a struct. */
  readonly faults: boolean;
}

function imagesOf(revision: ManagedRevision): readonly GoldenImage[] {
  return trampolineVectors(revision).flatMap((vector) =>
    vector.bytes === undefined ? [] : [{ ...vector, bytes: vector.bytes }],
  );
}

/** Runs all cases of an image, or of a forged one in its place. */
function runCases(world: GoldenWorld, revision: ManagedRevision, image: GoldenImage): Outcome[] {
  return cases(image, CLOCK_TICK).map((one) => {
    const { situation } = one;
    const place = world.place();
    const expected = simulate(revision, image.request, situation, place);
    const observed = world.run(image, situation, expected, place);
    return {
      ...one,
      image,
      found: differences(expected, observed, place),
      keepsRbx: expected.saved.rbx === situation.saved.rbx,
      faults: expected.faultAt !== undefined,
    };
  });
}

const COUNTS: Readonly<Record<ManagedRevision, { images: number; runs: Readonly<Record<Variant, number>> }>> =
  {
    'v5.13': {
      images: 364,
      runs: {
        plain: 364,
        'fmod_ret speaks': 792,
        'one program recurs': 348,
        'all programs recur': 348,
        statistics: 1449,
        retired: 285,
      },
    },
    'v5.15': {
      images: 491,
      runs: {
        plain: 491,
        'fmod_ret speaks': 1206,
        'one program recurs': 455,
        'all programs recur': 455,
        statistics: 2079,
        retired: 378,
      },
    },
  };

describe.each(MANAGED_REVISIONS)('images of %s', (revision) => {
  const images = imagesOf(revision);
  let outcomes: Outcome[] = [];

  beforeAll(async () => {
    const world = await GoldenWorld.create(revision, images);
    outcomes = images.flatMap((image) => runCases(world, revision, image));
    world.close();
  });

  test('every image is run, in every situation that it can meet', () => {
    const runs: Partial<Record<Variant, number>> = {};
    for (const { variant } of outcomes) runs[variant] = (runs[variant] ?? 0) + 1;
    expect({ images: new Set(outcomes.map(({ image }) => image.id)).size, runs }).toEqual(COUNTS[revision]);
  });

  test('arguments, results, registers, stack, flags and counters are what the rules say', () => {
    const wrong = outcomes.flatMap(({ image, variant, found }) =>
      found.map((line) => `${image.group} ${image.id}, ${variant}: ${line}`),
    );
    expect(wrong).toEqual([]);
  });

  test('rbx is lost only where fmod_ret has no slot but the one of the saved rbx', () => {
    // No attach asks for such an image: fmod_ret programs imply CALL_ORIG there.
    const known = revision === 'v5.13' ? 7 : 0x1f;
    const slotless = images.filter(({ request: { flags, argSizes, fmodRet } }) => {
      const slots = TrampFlag.CALL_ORIG | TrampFlag.RET_FENTRY_RET | TrampFlag.IP_ARG;
      return (flags & known & slots) === 0 && argSizes.length === 0 && fmodRet.length > 0;
    });
    const losing = outcomes.filter(({ keepsRbx }) => !keepsRbx).map(({ image }) => image.id);
    expect([...new Set(losing)]).toEqual(slotless.map(({ id }) => id));
  });

  test('structs at no possible address fault in the function that reads them', () => {
    // Vectors about the forms of a mov: im 0, prog 0, prog 0x8000000000000000.
    const faulting = outcomes.filter(({ faults }) => faults).map(({ image }) => image.id);
    expect([...new Set(faulting)]).toEqual(revision === 'v5.13' ? [1274, 1285, 1302] : [1945]);
  });
});

describe('a forged image is found out', () => {
  const images = imagesOf('v5.15');
  const whole = images.find(
    ({ request: { flags, argSizes, fentry, fmodRet, fexit } }) =>
      flags === (TrampFlag.CALL_ORIG | TrampFlag.SKIP_FRAME | TrampFlag.IP_ARG) &&
      argSizes.length === 2 &&
      argSizes.every((size) => size === 8) &&
      [fentry, fmodRet, fexit].every(([first]) => first?.jited === true),
  );
  const returning = images.find(
    ({ request: { flags, argSizes } }) => flags === TrampFlag.RESTORE_REGS && argSizes[0] === 2,
  );
  const structOps = images.find(
    ({ request: { flags, fentry } }) => flags === TrampFlag.RET_FENTRY_RET && fentry.length > 0,
  );
  let world: GoldenWorld;

  beforeAll(async () => {
    world = await GoldenWorld.create('v5.15', images);
  });
  afterAll(() => {
    world.close();
  });

  /** Replaces the first match among the bytes, written as `48 89 7d f8`. */
  function forge(image: GoldenImage | undefined, pattern: RegExp, by: string): GoldenImage {
    if (image === undefined) throw new Bug('no such image among the vectors');
    const before = toHex(image.bytes).replaceAll(/../g, '$& ');
    const after = before.replace(pattern, by);
    const bytes = fromHex(after.replaceAll(' ', ''));
    if (bytes === undefined || bytes.length !== image.bytes.length || before === after) {
      throw new Bug(`image ${image.id} has no ${pattern.source}`);
    }
    return { ...image, bytes };
  }

  const FORGERIES: readonly [string, GoldenImage | undefined, RegExp, string][] = [
    ['two slots swapped', whole, /48 89 7d (..) 48 89 75 (..)/, '48 89 7d $2 48 89 75 $1'],
    ['an argument not reloaded', whole, /48 8b 75 .. e8/, '0f 1f 40 00 e8'],
    ['two registers swapped', whole, /48 8b 7d (..) 48 8b 75 (..)/, '48 8b 75 $1 48 8b 7d $2'],
    ['a skipped program runs', whole, /48 85 c0 74 09/, '48 85 c0 74 04'],
    ['a skipped program misses its exit', whole, /48 85 c0 74 09/, '48 85 c0 74 1b'],
    ['fmod_ret values taken for 32 bits', whole, /48 83 7d f8 00/, '90 83 7d f8 00'],
    ['fmod_ret branch turned round', whole, /0f 85/, '0f 84'],
    ['start time cut to 32 bits', whole, /48 89 c3/, '90 89 c3'],
    ['rbx not restored', whole, /5b c9/, '90 c9'],
    ['the frame not skipped', whole, /48 83 c4 08 c3/, '0f 1f 40 00 c3'],
    ['function address one byte off', whole, /48 83 e8 05/, '48 83 e8 04'],
    ['direction flag left set', whole, /5b c9 48 83 c4 08 c3/, '5b c9 5a 90 90 fd c3'],
    ['a narrow argument reloaded with its slot', returning, /48 0f b7 7d (..)/, '90 48 8b 7d $1'],
    ['a result not kept', structOps, /48 89 45 f8/, '0f 1f 40 00'],
  ];

  test.each(FORGERIES)('%s', (_, image, pattern, by) => {
    const forged = forge(image, pattern, by);
    expect(runCases(world, 'v5.15', forged).some(({ found }) => found.length > 0)).toBe(true);
  });

  test('and the same images, not forged, are not', () => {
    for (const image of [whole, returning, structOps]) {
      if (image === undefined) throw new Bug('no such image among the vectors');
      expect(runCases(world, 'v5.15', image).flatMap(({ found }) => found)).toEqual([]);
    }
  });
});
