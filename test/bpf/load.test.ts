import { describe, expect, test } from 'vitest';
import { LoadedBpf, ProgArrayMap } from '../../bpf/index.ts';
import type { EngineName } from '../../emu/index.ts';
import type { BpfPrograms, Lab } from '../../lab/index.ts';
import { InputError, type Kaddr, KernelError } from '../../lib/index.ts';
import { MANAGED_REVISIONS, type ManagedRevision } from '../../tramp/index.ts';
import { nativeMissing } from '../emu/machines.ts';
import { shop } from './load-support.ts';
import { BPF_FIXTURES } from './object-support.ts';

const object = (lab: Lab, name: string, options = {}): BpfPrograms =>
  lab.loadBpf(`${BPF_FIXTURES}${name}.bpf.o`, options);

const attached = (lab: Lab, name: string, options = {}): BpfPrograms => {
  const programs = object(lab, name, options);
  programs.attachAll();
  return programs;
};

const engines: readonly EngineName[] = nativeMissing === undefined ? ['unicorn', 'native'] : ['unicorn'];

/** What loading may leave behind: text, symbols, programs, attachments, maps. */
function stateOf({ kernel }: Lab): unknown {
  return [kernel.kallsyms.lines(), kernel.progs.size, kernel.trampolines.list().length, kernel.retired.size];
}

describe.each(['v5.15', 'v6.1', 'v6.12'] as const)('%s', (revision) => {
  test('a program and its subprogram are traced as functions of the kernel are', async () => {
    const lab = await shop({ revision });
    const base = attached(lab, 'freplace-base');
    const [main, rule] = base.program('on_policy').placed;
    const trace = object(lab, 'func-ip', {
      targets: { on_entry: 'rule', on_exit: 'rule', on_bell: 'on_policy' },
    });
    for (const name of ['on_entry', 'on_exit', 'on_bell']) trace.attach(name);
    const { seen, fault } = lab.call('policy', [4n], { watch: true });
    expect(fault).toBeNull();
    expect([base.get('answer'), base.get('base_runs')]).toEqual([5n, 1n]);
    expect([trace.get('entry_ip'), trace.get('exit_ip'), trace.get('bell_ip')]).toEqual([
      rule?.address,
      rule?.address,
      main?.address,
    ]);
    expect(seen.map(({ program, target, depth, ret }) => [program, target, depth, ret])).toEqual([
      ['on_policy', 'policy', 0, undefined],
      ['on_bell', 'on_policy', 1, undefined],
      ['on_entry', 'rule', 1, undefined],
      ['on_exit', 'rule', 1, 5n],
    ]);
    trace.close();
    lab.call('policy', [5n]);
    expect(base.get('answer')).toBe(6n);
  });

  test('freplace stands in for a subprogram, which is itself again afterwards', async () => {
    const lab = await shop({ revision });
    const base = attached(lab, 'freplace-base');
    const other = attached(lab, 'freplace');
    lab.call('policy', [4n]);
    expect([base.get('answer'), other.get('new_runs')]).toEqual([40n, 1n]);
    other.close();
    lab.call('policy', [4n]);
    expect([base.get('answer'), base.get('base_runs')]).toEqual([5n, 1n]);
  });

  test('tail calls follow the slots of their map, direct and indirect ones', async () => {
    const lab = await shop({ revision });
    const tails = attached(lab, 'tail-calls');
    const { map } = tails.map('steps');
    if (!(map instanceof ProgArrayMap)) throw new Error('no prog array');
    const counts = (): unknown =>
      ['stepped', 'fell_through', 'rounds'].map((name) => Number(tails.get(name)));
    lab.call('open_door', [1n, 1n]);
    lab.call('open_door', [7n, 1n]);
    expect(counts()).toEqual([8, 0, 0]);
    const step = map.at(1);
    map.set(1, undefined);
    lab.call('open_door', [1n, 1n]);
    lab.call('open_door', [7n, 1n]);
    expect(counts()).toEqual([8, 2, 0]);
    map.set(1, tails.program('again').prog);
    lab.call('open_door', [1n, 1n]);
    expect(counts()).toEqual([8, 2, 33]);
    map.set(1, step);
    lab.call('open_door', [1n, 1n]);
    expect(counts()).toEqual([9, 2, 33]);
    const stranger = object(lab, 'plain').programs.values().next().value?.prog;
    expect(() => map.set(0, stranger)).toThrow(KernelError);
    expect(() => map.set(4, step)).toThrow('-E2BIG');
    expect(() => map.set(0, undefined)).toThrow('-ENOENT');
  });

  test('who traces a program that ends in tail calls does not add to their number', async () => {
    const lab = await shop({ revision });
    const tails = attached(lab, 'tail-calls');
    const trace = object(lab, 'func-ip', { targets: { on_entry: 'enter', on_exit: 'enter' } });
    trace.attach('on_entry');
    if (revision !== 'v5.15') trace.attach('on_exit');
    expect(lab.call('open_door', [2n, 3n]).fault).toBeNull();
    expect([tails.get('rounds'), tails.get('rounds_left')]).toEqual([33n, 1n]);
    expect(trace.get('entry_ip')).toBe(tails.program('enter').prog.bpfFunc);
  });
});

describe('callbacks run in the guest', () => {
  test.each(engines)(
    '%s: their steps count, watched or not; a limit ends them, and the next call is fine',
    async (engine) => {
      const lab = await shop({ engine, cpus: 3 });
      const walk = attached(lab, 'for-each');
      const whole = lab.call('open_door', [10n, 1n]);
      expect(whole.fault).toBeNull();
      const watched = lab.call('open_door', [10n, 1n], { watch: true });
      expect([watched.instructions, watched.seen.length]).toEqual([whole.instructions, 1]);
      const callback = walk.program('on_door').placed[1];
      const places: (string | undefined)[] = [];
      lab.call('open_door', [10n, 1n], { onInstruction: ({ place }) => places.push(place) });
      const entered = places.filter((place) => place?.endsWith(`_${callback?.name}+0x0`));
      expect(entered).toHaveLength(5 + 3 + 2);
      // What died in the program still counts as running it, on its CPU.
      for (const [cpu, steps] of [whole.instructions >> 1, whole.instructions - 1].entries()) {
        expect(lab.call('open_door', [10n, 1n], { cpu, steps }).fault?.kind).toBe('step-limit');
      }
      expect(lab.call('open_door', [10n, 1n], { cpu: 2 }).instructions).toBe(whole.instructions);
      expect([walk.get('array_calls'), walk.get('hash_calls'), walk.get('stopped_calls')]).toEqual([
        5n,
        3n,
        2n,
      ]);
    },
  );
});

test.each(engines)('%s: 100,000 updates from four CPUs add up', async (engine) => {
  const CPUS = 4;
  const CALLS = 250;
  const lab = await shop({ engine, cpus: CPUS, counting: false });
  const counts = attached(lab, 'adds-up');
  counts.map('hashed').set(7, [0, 0, 0, 0]);
  const bell = lab.kernel.modules[0]?.symbol('ring_bell')?.address as Kaddr;
  const calls = Array.from({ length: CPUS }, (_, cpu) => ({ cpu, fn: bell }));
  for (let i = 0; i < CALLS; i++) {
    for (const { fault } of lab.machine.callAll(calls)) expect(fault).toBeNull();
  }
  expect(counts.get('shared')).toBe(BigInt(96 * CPUS * CALLS));
  const sums = counts.map('cells').entries();
  expect(sums).toEqual(sums.map((_, i) => [BigInt(i), BigInt(i * CPUS * CALLS)]));
  const each = Array<bigint>(CPUS).fill(BigInt(CALLS));
  expect(counts.map('own').get(0)).toEqual(each);
  expect(counts.map('hashed').get(7)).toEqual(each);
});

describe('lifetimes', () => {
  test('an attached program and its maps outlive their object, and go with the last attachment', async () => {
    const lab = await shop();
    const programs = object(lab, 'hash-map');
    const [attachment] = programs.attachAll();
    const before = lab.kernel.progs.size;
    programs.loaded.close();
    expect(lab.kernel.progs.size).toBe(before);
    expect(lab.call('sell', [1n, 5n])).toMatchObject({ fault: null });
    attachment?.detach();
    lab.kernel.settle();
    expect(lab.kernel.progs.size).toBe(0);
  });

  test.each([
    ['loop', 'helper 181 (bpf_loop) is unknown to v5.15'],
    ['inner-maps', 'type 12 is not here'],
    ['freplace', 'no program that is loaded has a function rule'],
  ])('%s: a refused object leaves nothing behind', async (name, why) => {
    const lab = await shop();
    object(lab, 'plain').close();
    const before = stateOf(lab);
    expect(() => object(lab, name)).toThrow(why);
    expect(stateOf(lab)).toEqual(before);
    expect(lab.bpf).toEqual([]);
  });

  test('when one program cannot attach, none of its object is', async () => {
    const lab = await shop();
    const first = attached(lab, 'freplace-base');
    attached(lab, 'freplace');
    const second = object(lab, 'freplace');
    expect(() => second.attachAll()).toThrow('-EBUSY');
    expect(lab.attachments().map(({ prog }) => prog.name)).toEqual(['on_policy', 'new_rule']);
    expect(first.loaded).toBeInstanceOf(LoadedBpf);
  });
});

test('a helper that is given an address where nothing is faults there, as in the kernel', async () => {
  const lab = await shop();
  object(lab, 'plain');
  const helper = lab.kernel.kallsyms.named('bpf_map_update_elem')?.start as Kaddr;
  const { fault } = lab.machine.cpus[0]?.call(helper, [0x10n, 0x20n, 0x30n, 0n]) ?? {};
  expect(fault).toMatchObject({
    kind: 'read-unmapped',
    address: 0x10n,
    symbol: { name: 'bpf_map_update_elem' },
  });
});

test('values of maps and variables by their types; what does not fit is told', async () => {
  const lab = await shop();
  const programs = attached(lab, 'globals');
  expect(programs.get('pair')).toEqual({ left: 0n, right: 0n });
  expect([programs.get('enabled'), programs.get('limits')]).toEqual([true, [3n, 9n]]);
  programs.set('seen', true);
  programs.set('pair', { left: 3, right: -4n });
  expect([programs.get('seen'), programs.get('pair')]).toEqual([true, { left: 3n, right: -4n }]);
  expect(() => programs.set('step', 1)).toThrow('read-only');
  expect(() => programs.set('nothing', 1)).toThrow('no variable nothing; there are');
  expect(() => programs.set('start', 2 ** 40)).toThrow(InputError);
  const accounts = attached(lab, 'spin-lock').map('accounts');
  accounts.set(0, { in: 5, out: 6n });
  lab.call('sell', [1n, 5n]);
  expect(accounts.get(0)).toMatchObject({ in: 6n, out: 11n, moves: 1n });
  expect(() => accounts.set(0, { gone: 1 })).toThrow('there is no member gone');
  expect(() => accounts.set(1, { in: 1 })).toThrow('-E2BIG');
  expect(() => programs.map('accounts')).toThrow('no map accounts; there is none');
});

test('records stream as they come', async () => {
  const lab = await shop();
  const programs = attached(lab, 'ringbuf');
  const events = programs.map('events');
  const stream = events.records();
  const first = stream.next();
  lab.call('sell', [0n, 5n]);
  const { value } = await first;
  expect(Buffer.from(value?.bytes ?? []).toString('hex')).toBe('00000000050000000100000000000000');
  expect((await stream.next()).value?.bytes.length).toBe(12);
  const waiting = stream.next();
  programs.close();
  expect(await waiting).toEqual({ value: undefined, done: true });
});

test('a listing shows all bytes of a program, with instructions and source lines', async () => {
  for (const revision of MANAGED_REVISIONS satisfies readonly ManagedRevision[]) {
    const lab = await shop({ revision });
    const programs = object(lab, 'subprogs');
    const listings = programs.listing('first_user');
    expect(listings.map(({ ksym }) => ksym.replace(/^bpf_prog_[0-9a-f]{16}_/, ''))).toEqual([
      'first_user',
      'deep',
      'deepest',
      'five_args',
    ]);
    for (const { bytes, parts } of listings) {
      const rows = parts.flatMap((part) => part.rows);
      expect(rows.map((row) => row.bytes).join('')).toBe(Buffer.from(bytes).toString('hex'));
      expect(parts.some(({ source }) => source?.text.includes('return'))).toBe(true);
    }
    expect(listings[1]?.parts.map(({ text }) => text).join('\n')).toMatch(/call bpf_prog_[0-9a-f]+_deepest/);
  }
});
