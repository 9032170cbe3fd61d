import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type CaseRunner, IMAGE_FAMILY, type ImageCase, Random } from '../../check/index.ts';
import { type Emission, piece, type RevisionName, rbx, revisions } from '../../jit/index.ts';
import { asJson, hex64, InputError } from '../../lib/index.ts';
import { nativeMissing } from '../emu/machines.ts';

const REVISIONS: readonly RevisionName[] = ['v5.13', 'v5.15'];
const SEED = 2;

const made = (number: number, seed = SEED): ImageCase =>
  IMAGE_FAMILY.generate(new Random(seed, number), { revisions: REVISIONS });
const many = (count: number, from = 0): ImageCase[] =>
  Array.from({ length: count }, (_, i) => made(from + i));

/** An emitter whose images lose rbx. */
const losesRbx = Object.fromEntries(
  REVISIONS.map((name) => {
    const ret = piece('forget', ({ asm }: Emission) => {
      asm.alu('xor', rbx.as(4), rbx.as(4));
      asm.ret();
    });
    return [name, { ...revisions[name], ret }];
  }),
);

describe('cases of images', () => {
  test('depend on seed and number, and on nothing else', () => {
    expect(made(7)).toEqual(made(7));
    expect(made(7)).not.toEqual(made(8));
    expect(made(7)).not.toEqual(made(7, SEED + 1));
  });

  test('come back from JSON as they were', () => {
    for (const one of many(200)) {
      expect(IMAGE_FAMILY.parse(asJson(one))).toEqual(one);
    }
  });

  test.each([
    ['case.revision', { revision: 'v4.19' }],
    ['case.args[0].sizeBytes', { args: [{ sizeBytes: 3, signed: false }] }],
    ['case.fentry', { fentry: null }],
    ['case.clock', { clock: '17' }],
    ['case.registers', { registers: 5 }],
  ])('a bad field is named: %s', (field, change) => {
    const bad = { ...(asJson(made(0)) as object), ...change };
    expect(() => IMAGE_FAMILY.parse(bad)).toThrow(InputError);
    expect(() => IMAGE_FAMILY.parse(bad)).toThrow(field);
  });

  test('have every manner, placing and boundary among them', () => {
    const cases = many(4000);
    const programs = cases.flatMap(({ fentry, fmodRet, fexit }) => [...fentry, ...fmodRet, ...fexit]);
    const some = (what: string, found: boolean): string[] => (found ? [] : [what]);
    expect([
      ...some(
        'running',
        programs.some(({ running }) => running),
      ),
      ...some(
        'calls',
        programs.some(({ calls }) => calls),
      ),
      ...some(
        'faults',
        programs.some(({ faults }) => faults),
      ),
      ...some(
        'writes',
        programs.some(({ writes }) => writes !== null),
      ),
      ...some(
        'interpreted',
        programs.some(({ jited }) => !jited),
      ),
      ...some(
        'sleepable',
        programs.some(({ sleepable }) => sleepable),
      ),
      ...some(
        'retired',
        cases.some(({ retired }) => retired),
      ),
      ...some(
        'watched',
        cases.some(({ watched }) => watched),
      ),
      ...some(
        'seven arguments',
        cases.some(({ args }) => args.length === 7),
      ),
      ...some(
        '38 of a kind',
        cases.some(({ fentry }) => fentry.length === 38),
      ),
      ...some(
        'low',
        cases.some(({ placing }) => placing.low),
      ),
      ...(['exact', 'short', 'none'] as const).flatMap((room) =>
        some(
          room,
          cases.some(({ placing }) => placing.room === room),
        ),
      ),
      ...(['helper', 'program', 'original'] as const).flatMap((far) =>
        some(
          far,
          cases.some(({ placing }) => placing.far === far),
        ),
      ),
      ...some(
        'flags of its own',
        cases.some(({ flags }) => flags === 16),
      ),
      ...some(
        'a clock at 0',
        cases.some(({ clock }) => clock === 0n),
      ),
    ]).toEqual([]);
  });

  test('shrink to a case from which nothing can be taken, in steps that each make them smaller', () => {
    const size = (one: ImageCase): number => JSON.stringify(asJson(one)).length;
    let one = made(SEED);
    let steps = 0;
    for (let next: ImageCase | undefined = one; next !== undefined; steps++) {
      one = next;
      [next] = IMAGE_FAMILY.shrink(one);
      expect(steps).toBeLessThan(500);
    }
    expect(size(one)).toBeLessThan(size(made(SEED)));
    expect([one.fentry, one.fmodRet, one.fexit, one.args]).toEqual([[], [], [], []]);
  });
});

describe('a runner', () => {
  let runner: CaseRunner<ImageCase>;
  beforeAll(async () => {
    runner = await IMAGE_FAMILY.open({ engine: 'unicorn' });
  });
  afterAll(() => runner.close());

  test('finds nothing wrong with our emitters', async () => {
    const outcomes = await runner.run(many(1000));
    expect(outcomes.flatMap(({ findings }) => findings)).toEqual([]);
    // Programs call again, and some requests are refused.
    const calls = outcomes.reduce((sum, outcome) => sum + outcome.calls, 0);
    expect(calls).toBeGreaterThan(900);
    expect(outcomes.some((outcome) => outcome.calls === 0)).toBe(true);
    expect(outcomes.some((outcome) => outcome.calls > 1)).toBe(true);
  });

  test('names only cells that there are', async () => {
    const known = new Set(IMAGE_FAMILY.cells);
    const hit = (await runner.run(many(200))).flatMap(({ cells }) => cells);
    expect(hit.length).toBeGreaterThan(0);
    expect(hit.filter((cell) => !known.has(cell))).toEqual([]);
  });

  test('says of a case the same in any company', async () => {
    const suspects = { engine: 'unicorn', emitters: losesRbx } as const;
    const broken = await IMAGE_FAMILY.open(suspects);
    const cases = many(16);
    const together = await broken.run(cases);
    const backwards = (await broken.run(cases.toReversed())).toReversed();
    const other = await IMAGE_FAMILY.open(suspects);
    const alone = [];
    for (const one of cases) alone.push(...(await other.run([one])));
    broken.close();
    other.close();
    // Addresses differ from seat to seat; rules and places do not.
    const said = (outcomes: typeof together): unknown =>
      outcomes.map(({ calls, findings, cells }) => [
        calls,
        cells,
        findings.map(({ rule, at }) => [rule, at?.offset]),
      ]);
    expect(said(together)).toEqual(said(backwards));
    expect(said(together)).toEqual(said(alone));
    expect(together.some(({ findings }) => findings.length > 0)).toBe(true);
  });

  test('blames the instruction, by the step that made it', async () => {
    const broken = await IMAGE_FAMILY.open({ engine: 'unicorn', emitters: losesRbx });
    const plain = many(64).find(({ placing, fentry }) => placing.far === 'nothing' && fentry.length > 0);
    const outcomes = await broken.run([{ ...(plain as ImageCase), flags: null }]);
    broken.close();
    expect(outcomes[0]?.findings).toMatchObject([
      {
        rule: 'callee-saved',
        at: { instruction: 'xor ebx, ebx', step: expect.stringMatching(/forget$/) as string },
        expected: hex64((plain as ImageCase).registers.saved[0] as bigint),
        seen: '0x0',
      },
    ]);
  });

  test.skipIf(nativeMissing !== undefined)('says the same of a case on the host CPU', async () => {
    const said: unknown[] = [];
    for (const engine of ['unicorn', 'native'] as const) {
      const observing = await IMAGE_FAMILY.open({ engine, observe: true });
      const outcomes = await observing.run(many(64));
      observing.close();
      said.push(outcomes.map(({ observed }) => observed));
    }
    expect(said[1]).toEqual(said[0]);
  });

  test('tells where the time went', () => {
    const { emit, patch, run, check } = runner.timing;
    for (const spent of [emit, patch, run, check]) expect(spent).toBeGreaterThan(0);
  });
});
