import { describe, expect, it } from 'vitest';
import type { Combination, ProgramSpec, Step } from '../../conformance/combination.ts';
import { usualSteps } from '../../conformance/combination.ts';
import { COMBINATIONS } from '../../conformance/combinations.ts';
import { type EmulateOptions, emulate } from '../../conformance/emulate.ts';
import { type CallSeen, difference, type Observation } from '../../conformance/observation.ts';
import type { Recorded } from '../../conformance/recorder.ts';
import type { Target } from '../../conformance/target.ts';
import {
  arrayDelete,
  fentryTest2,
  futexRequeue,
  lsmSocketCreate,
  pipeRead,
  taskGetpgid,
} from '../../conformance/targets.ts';
import { kaddr } from '../../lib/index.ts';

/** A kernel without an ENDBR before its functions, and one with it. */
const OLD: EmulateOptions = { kernel: '6.1', revision: 'v6.1', ibt: false };
const NEW: EmulateOptions = { kernel: '6.12', revision: 'v6.12', ibt: true };

function combine(target: Target, programs: readonly ProgramSpec[], steps?: readonly Step[]): Combination {
  return { name: 'test', target, programs, steps: steps ?? usualSteps(programs), kernels: ['6.1'] };
}

/** A kernel that saw nothing but pointers of its own. */
function blind(combination: Combination, given: bigint): Observation {
  const { target, programs, steps } = combination;
  const record: Recorded = {
    runs: 1n,
    order: 1n,
    funcIp: 0n,
    cookie: 0n,
    argCount: 0n,
    ret: 0n,
    args: target.args.map(() => given),
  };
  const seen: CallSeen = { outcome: undefined, records: programs.map(() => record) };
  const calls = new Map(
    [...steps.entries()]
      .filter(([, step]) => step.do === 'call' || step.do === 'wake')
      .map(([at]) => [at, seen]),
  );
  return { attached: new Map(), calls, counters: [], address: kaddr(0) };
}

describe.each([
  ['v6.1', OLD],
  ['v6.12', NEW],
] as const)('a combination in our lab as %s', (_, options) => {
  const run = (combination: Combination, given = 0n): Promise<Observation> =>
    emulate(combination, blind(combination, given), options);

  it('gives each program its turn, its arguments, and what the function returned', async () => {
    const combination = combine(fentryTest2, [
      { kind: 'fexit', funcIp: true, argCount: true },
      { kind: 'fentry', cookie: 0x1234_5678_9abc_def0n },
      { kind: 'fentry' },
    ]);
    const { attached, calls, counters, address } = await run(combination);
    expect([...attached.values()]).toEqual([0, 0, 0]);
    const call = calls.get(5);
    expect(call?.outcome).toEqual({ result: 0, retval: 0 });
    expect(call?.records.map(({ order }) => order)).toEqual([3n, 2n, 1n]);
    for (const record of call?.records ?? []) expect(record.args).toEqual([2n, 3n]);
    expect(call?.records[0]).toMatchObject({ ret: 5n, funcIp: address, argCount: 2n });
    expect(call?.records[1]?.cookie).toBe(0x1234_5678_9abc_def0n);
    expect(counters).toEqual(Array.from({ length: 3 }, () => ({ runs: 1n, misses: 0n })));
  });

  it('is told by an fmod_ret program what to return', async () => {
    const combination = combine(taskGetpgid, [{ kind: 'fmod_ret', returns: -1 }, { kind: 'fexit' }]);
    const { calls } = await run(combination, 0xffff_8880_0123_4000n);
    expect(calls.get(4)?.outcome).toEqual({ result: -1 });
    expect(BigInt.asIntN(32, calls.get(4)?.records[1]?.ret ?? 0n)).toBe(-1n);
    expect(calls.get(4)?.records[0]?.args).toEqual([0xffff_8880_0123_4000n]);
  });

  it('is told by a program of a cgroup whether to go on', async () => {
    for (const returns of [0, 1]) {
      const { calls, counters } = await run(combine(lsmSocketCreate, [{ kind: 'lsm_cgroup', returns }]));
      expect(calls.get(3)?.outcome).toEqual({ result: returns === 0 ? -1 : -97 });
      expect(calls.get(3)?.records[0]?.args).toEqual([3n, 2n, 5n, 0n]);
      expect(counters).toEqual([{ runs: 1n, misses: 0n }]);
    }
  });

  it('counts the calls that a program makes of what it traces', async () => {
    const { counters, calls } = await run(combine(arrayDelete, [{ kind: 'fentry', recurses: true }]));
    expect(counters).toEqual([{ runs: 1n, misses: 1n }]);
    expect(calls.get(3)?.outcome).toEqual({ result: -22 });
  });

  it('skips the programs of an image that is retired while the function sleeps', async () => {
    const steps: Step[] = [
      { do: 'attach', program: 0 },
      { do: 'look' },
      { do: 'park' },
      { do: 'detach', program: 0 },
      { do: 'lookAgain' },
      { do: 'wake' },
    ];
    const { calls } = await run(combine(pipeRead, [{ kind: 'fexit' }], steps));
    expect(calls.get(5)?.outcome).toEqual({ result: 3 });
    expect(calls.get(5)?.records[0]?.runs).toBe(0n);
  });

  it('passes more words than there are registers, or is refused with the errno', async () => {
    const combination = combine(futexRequeue, [{ kind: 'fexit', argCount: true }]);
    const { attached, calls } = await run(combination, 0x77n);
    expect(attached.get(1)).toBe(options === OLD ? -524 : 0);
    if (options === OLD) return;
    expect(calls.get(3)?.records[0]?.args).toEqual([0x77n, 0x77n, 0x77n, 0x77n, 2n, 3n, 0n, 0n]);
    expect(calls.get(3)?.records[0]?.argCount).toBe(8n);
  });

  it('calls one member of a struct by its pointer', async () => {
    const combination = COMBINATIONS.find(({ name }) => name === 'struct-ops') as Combination;
    const { calls, counters } = await run(combination, 0x1234n);
    const [call] = [...calls.values()];
    expect(call?.fault).toBeUndefined();
    expect(call?.records.map(({ runs, args }) => [runs, ...args])).toEqual([
      [0n, 0n],
      [0n, 0n],
      [0n, 0n],
      [1n, 0x1234n],
    ]);
    expect(counters.map(({ runs }) => runs)).toEqual([0n, 0n, 0n, 1n]);
  });
});

describe('a difference', () => {
  const combination = combine(fentryTest2, [{ kind: 'fexit', funcIp: true, cookie: 3n, argCount: true }]);
  const record: Recorded = {
    runs: 1n,
    order: 1n,
    funcIp: 64n,
    cookie: 3n,
    argCount: 2n,
    ret: 5n,
    args: [2n, 3n],
  };
  const with_ = (changed: Partial<Recorded>, more: Partial<Observation> = {}): Observation => ({
    attached: new Map([[1, 0]]),
    calls: new Map([[3, { outcome: { result: 0, retval: 0 }, records: [{ ...record, ...changed }] }]]),
    counters: [{ runs: 1n, misses: 0n }],
    address: kaddr(64),
    ...more,
  });

  it('is none where all is the same, wherever the functions are, whatever stands above a small argument', () => {
    expect(difference(combination, with_({}), with_({}))).toBeUndefined();
    expect(difference(combination, with_({ args: [2n | (7n << 32n), 3n] }), with_({}))).toBeUndefined();
    expect(
      difference(combination, with_({}), with_({ funcIp: 128n }, { address: kaddr(128) })),
    ).toBeUndefined();
  });

  it.each([
    ['number of runs', with_({ runs: 2n })],
    ['turn', with_({ order: 2n })],
    ['argument word 0', with_({ args: [1n, 3n] })],
    ['argument word 1', with_({ args: [2n, 3n | (1n << 40n)] })],
    ['return value', with_({ ret: 6n })],
    ['function address', with_({ funcIp: 65n })],
    ['cookie', with_({ cookie: 4n })],
    ['argument count', with_({ argCount: 1n })],
    ['runs', with_({}, { counters: [{ runs: 2n, misses: 0n }] })],
    ['misses', with_({}, { counters: [{ runs: 1n, misses: 1n }] })],
    ['attachment', with_({}, { attached: new Map([[1, -16]]) })],
    ['the call gives', with_({}, { calls: new Map([[3, { outcome: { result: -14 }, records: [record] }]]) })],
  ])('is found in the %s', (what, other) => {
    expect(difference(combination, with_({}), other)).toContain(what);
    expect(difference(combination, other, with_({}))).toContain(what);
  });

  it('is also an attachment that was taken or refused by both, and should not have been', () => {
    const refused = with_({}, { attached: new Map([[1, -7]]), calls: new Map() });
    expect(difference(combination, refused, refused)).toContain('was not expected');
  });
});
