/*
 * Every image that the kernels' own emitters made is judged: their bytes, at their addresses, with the real
 * enter and exit functions behind the addresses that they call, and programs that log what they see.
 */

import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type GivenImage, ImageChecker, type ImageReport, type Variant } from '../../check/index.ts';
import { type RevisionName, TrampFlag } from '../../jit/index.ts';
import { Bug, fromHex, toHex } from '../../lib/index.ts';
import { trampolineVectors } from '../vectors.ts';

interface GoldenImage extends GivenImage {
  readonly id: number;
  readonly group: string;
}

const REVISIONS = ['v5.13', 'v5.15', 'v6.1', 'v6.12'] as const satisfies readonly RevisionName[];

function imagesOf(revision: RevisionName): readonly GoldenImage[] {
  return trampolineVectors(revision).flatMap((vector) =>
    vector.bytes === undefined ? [] : [{ ...vector, bytes: vector.bytes }],
  );
}

const COUNTS: Readonly<
  Record<(typeof REVISIONS)[number], { images: number; calls: Readonly<Record<Variant, number>> }>
> = {
  'v5.13': {
    images: 364,
    calls: {
      plain: 364,
      'arguments at their boundaries': 1092,
      'fmod_ret speaks': 3960,
      'every other program recurs': 577,
      'all programs recur': 348,
      statistics: 2898,
      retired: 285,
      'retired, and fmod_ret speaks': 384,
      'a program calls again': 689,
      'programs write their context': 668,
    },
  },
  'v5.15': {
    images: 491,
    calls: {
      plain: 491,
      'arguments at their boundaries': 1473,
      'fmod_ret speaks': 6030,
      'every other program recurs': 773,
      'all programs recur': 455,
      statistics: 4158,
      retired: 378,
      'retired, and fmod_ret speaks': 598,
      'a program calls again': 914,
      'programs write their context': 890,
    },
  },
  'v6.1': {
    images: 495,
    calls: {
      plain: 495,
      'arguments at their boundaries': 1485,
      'fmod_ret speaks': 4420,
      'every other program recurs': 727,
      'all programs recur': 462,
      statistics: 3366,
      retired: 353,
      'retired, and fmod_ret speaks': 422,
      'a program calls again': 873,
      'programs write their context': 894,
    },
  },
  'v6.12': {
    images: 690,
    calls: {
      plain: 690,
      'arguments at their boundaries': 2070,
      'fmod_ret speaks': 7210,
      'every other program recurs': 1041,
      'all programs recur': 641,
      statistics: 4284,
      retired: 501,
      'retired, and fmod_ret speaks': 688,
      'a program calls again': 1232,
      'programs write their context': 1246,
    },
  },
};

/** Where a rule cannot be judged: one vector's struct bpf_tramp_image has the address of our own text. */
const UNJUDGED: Readonly<Partial<Record<RevisionName, readonly string[]>>> = {
  'v6.1': ['image-reference: im is in text of the machine, where nothing can be counted'],
};

describe.each(REVISIONS)('images of %s', (revision) => {
  const images = imagesOf(revision);
  const reports: ImageReport[] = [];

  beforeAll(async () => {
    const checker = await ImageChecker.open(
      revision,
      images.map(({ request }) => request),
    );
    for (const image of images) reports.push(await checker.check(image));
    checker.close();
  });

  test('every image is called in every situation that it can meet', () => {
    const calls: Partial<Record<Variant, number>> = {};
    for (const { variant } of reports.flatMap(({ situations }) => situations)) {
      calls[variant] = (calls[variant] ?? 0) + 1;
    }
    expect({ images: reports.length, calls }).toEqual(COUNTS[revision]);
    expect(reports.flatMap(({ unjudged }) => unjudged)).toEqual(UNJUDGED[revision] ?? []);
  });

  test('none breaks a rule', () => {
    const wrong = reports.flatMap(({ findings }, i) =>
      findings.map(({ rule, detail }) => `${images[i]?.group} ${images[i]?.id}: ${rule}: ${detail}`),
    );
    expect(wrong).toEqual([]);
  });

  test('and what the rules leave open comes out as the kernel’s frame has it, to the last word', () => {
    const others = images.filter((_, i) => reports[i]?.exact !== true).map(({ id }) => id);
    expect(others).toEqual([]);
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
  const chosen = [whole, returning, structOps].filter((image) => image !== undefined);
  let checker: ImageChecker;

  beforeAll(async () => {
    expect(chosen).toHaveLength(3);
    checker = await ImageChecker.open(
      'v5.15',
      chosen.map(({ request }) => request),
    );
  });
  afterAll(() => {
    checker.close();
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

  const FORGERIES: readonly [string, string, GoldenImage | undefined, RegExp, string][] = [
    ['two slots swapped', 'args-seen', whole, /48 89 7d (..) 48 89 75 (..)/, '48 89 7d $2 48 89 75 $1'],
    ['an argument not reloaded', 'original-args', whole, /48 8b 75 .. e8/, '0f 1f 40 00 e8'],
    [
      'two registers swapped',
      'original-args',
      whole,
      /48 8b 7d (..) 48 8b 75 (..)/,
      '48 8b 75 $1 48 8b 7d $2',
    ],
    ['a skipped program runs', 'skipped-runs-nothing', whole, /48 85 c0 74 09/, '48 85 c0 74 04'],
    ['a skipped program misses its exit', 'enter-exit-pair', whole, /48 85 c0 74 09/, '48 85 c0 74 1b'],
    ['fmod_ret values taken for 32 bits', 'fmod-ret-chain', whole, /48 83 7d f8 00/, '90 83 7d f8 00'],
    ['fmod_ret branch turned round', 'fmod-ret-chain', whole, /0f 85/, '0f 84'],
    ['start time cut to 32 bits', 'start-time', whole, /48 89 c3/, '90 89 c3'],
    ['rbx not restored', 'callee-saved', whole, /5b c9/, '90 c9'],
    ['the frame not skipped', 'return-place', whole, /48 83 c4 08 c3/, '0f 1f 40 00 c3'],
    ['function address one byte off', 'func-ip', whole, /48 83 e8 05/, '48 83 e8 04'],
    ['direction flag left set', 'direction-flag', whole, /5b c9 48 83 c4 08 c3/, '5b c9 5a 90 90 fd c3'],
    [
      'a narrow argument reloaded with its slot',
      'restored-args',
      returning,
      /48 0f b7 7d (..)/,
      '90 48 8b 7d $1',
    ],
    ['a result not kept', 'return-value', structOps, /48 89 45 f8/, '0f 1f 40 00'],
    ['rbx pushed into the caller’s frame', 'writes-outside-frame', whole, /48 83 ec ../, '48 83 ec c6'],
    ['a frame reckoned on the lowest byte', 'writes-outside-frame', whole, /48 83 ec/, '40 80 ec'],
    ['a frame reckoned on 16 bits', 'writes-outside-frame', whole, /48 83 ec/, '66 83 ec'],
    ['the result read from below rsp', 'return-value', whole, /48 8b 45 f8 5b c9/, 'c9 48 8b 44 24 f0'],
    ['a stack that is none', 'tramp-enter-exit', whole, /48 bf/, '48 bc'],
    ['the floating-point unit reset', 'foreign-state', whole, /48 85 c0 74/, 'db e3 90 74'],
    ['a word sent to a port', 'foreign-state', whole, /48 85 c0 74/, '90 90 ef 74'],
  ];

  test.each(FORGERIES)('%s: %s', async (_, rule, image, pattern, by) => {
    const { findings } = await checker.check(forge(image, pattern, by));
    expect(findings.map((finding) => finding.rule)).toContain(rule);
  });

  test('and the same images, not forged, are not', async () => {
    for (const image of chosen) expect((await checker.check(image)).findings).toEqual([]);
  });
});
