import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { createGuest, errorOf, type Guest, type GuestFunction } from '../../check/index.ts';
import { linkProg, unlinkProg } from '../../tramp/index.ts';
import { hash64 } from '../../tramp/trampoline.ts';

let guest: Guest;
let f: GuestFunction;
let g: GuestFunction;

beforeEach(async () => {
  guest = await createGuest();
  f = guest.addFunction('f');
  g = guest.addFunction('g');
});
afterEach(() => guest.close());

const get = (key: bigint, fn: GuestFunction = f) => guest.kernel.trampolines.get(guest.kernel, key, fn);
const put = (tr: ReturnType<typeof get>): void => guest.kernel.trampolines.put(guest.kernel, tr);
const list = () => guest.kernel.trampolines.list();

// Computed by hand: (key * 0x61c8864680b583eb mod 2^64) / 2^54.
test.each([
  [0n, 0],
  [1n, 391],
  [2n, 782],
  [0x1_8000_0001n, 139],
  [0x1_8000_0002n, 530],
  [0x1234_5678_9abc_def0n, 219],
  [0xffff_ffff_ffff_ffffn, 632],
])('hash_64(%s, 10) is %i', (key, bucket) => {
  expect(hash64(key, 10)).toBe(bucket);
});

// All three hash to 139.
const CHAIN = [0x1_8000_0001n, 0x1_8000_03dcn, 0x1_8000_063en] as const;

test('keys of one bucket share a chain, newest first, and leave it one by one', () => {
  expect(CHAIN.map((key) => hash64(key, 10))).toEqual([139, 139, 139]);
  const [a, b, c] = CHAIN.map((key) => get(key));
  if (a === undefined || b === undefined || c === undefined) throw new RangeError('three');
  expect(list()).toEqual([c, b, a]);
  expect(get(CHAIN[1])).toBe(b);
  put(b);
  put(b);
  expect(list()).toEqual([c, a]);
  put(a);
  put(c);
  expect(list()).toEqual([]);
});

describe('lookup', () => {
  test('makes a trampoline with one reference and nothing else', () => {
    const tr = guest.kernel.trampolines.lookup(guest.kernel, 7n);
    expect(tr).toMatchObject({ key: 7n, references: 1, func: undefined, selector: 0, curImage: undefined });
    expect(() => tr.target).toThrow('trampoline 7 has no function yet');
  });

  test('finds it again and takes another reference', () => {
    const tr = guest.kernel.trampolines.lookup(guest.kernel, 7n);
    expect(guest.kernel.trampolines.lookup(guest.kernel, 7n)).toBe(tr);
    expect(tr.references).toBe(2);
  });

  test('without memory makes nothing', () => {
    guest.kernel.fail.arm('alloc-trampoline');
    expect(errorOf(() => get(7n))).toMatchObject({ code: 'ENOMEM' });
    expect(list()).toEqual([]);
  });

  test('needs no memory for one that is there', () => {
    const tr = get(7n);
    guest.kernel.fail.arm('alloc-trampoline');
    expect(get(7n)).toBe(tr);
  });
});

describe('get', () => {
  test('names the function of one that lookup made', () => {
    const tr = guest.kernel.trampolines.lookup(guest.kernel, 7n);
    get(7n, f);
    expect(tr.target).toBe(f);
  });

  test('sets model and address once', () => {
    const tr = get(7n, f);
    expect(get(7n, g)).toBe(tr);
    expect(tr.target.addr).toBe(f.addr);
    expect(tr.target.model).toBe(f.model);
  });
});

describe('put', () => {
  test('leaves it until the last reference is gone', () => {
    const tr = get(7n);
    get(7n);
    put(tr);
    expect(list()).toEqual([tr]);
    put(tr);
    expect(list()).toEqual([]);
    expect(guest.kernel.warnings).toEqual([]);
    expect(() => put(tr)).toThrow('trampoline 7 is put once too often');
  });

  test.each(['fentry', 'fexit'] as const)('warns and leaves it while %s programs are attached', (kind) => {
    const tr = get(f.key);
    const { prog } = guest.addProgram('p', kind);
    linkProg(guest.kernel, prog, tr);
    put(tr);
    expect(guest.kernel.warnings).toEqual([`bpf_trampoline_put: ${f.key} has ${kind} programs`]);
    expect(list()).toEqual([tr]);
    expect(tr.curImage?.state).toBe('live');
    // The count is at zero by now, so the next get is one too many for the kernel.
    expect(get(f.key)).toBe(tr);
    expect(guest.kernel.warnings.at(-1)).toMatch(/^refcount_t: /);
    unlinkProg(guest.kernel, prog, tr);
    put(tr);
    expect(list()).toEqual([]);
  });

  test('does not look at fmod_ret programs, as in the kernel', () => {
    const tr = get(f.key);
    const { prog } = guest.addProgram('p', 'fmod_ret');
    linkProg(guest.kernel, prog, tr);
    put(tr);
    expect(guest.kernel.warnings).toEqual([]);
    expect(list()).toEqual([]);
    expect(tr.curImage?.state).toBe('live');
  });

  test('may come before the last image is gone', () => {
    const tr = get(f.key);
    const { prog } = guest.addProgram('p', 'fexit');
    linkProg(guest.kernel, prog, tr);
    const im = tr.curImage;
    const cpu = guest.machine.cpus[0];
    if (im === undefined || cpu === undefined) throw new RangeError('image and CPU');
    cpu.begin(f.addr, [1n, 2n]);
    cpu.run({ stopAt: im.image });
    unlinkProg(guest.kernel, prog, tr);
    put(tr);
    guest.kernel.settle();
    expect(list()).toEqual([]);
    expect(im.state).toBe('rcu-tasks');
    expect(cpu.run()).toMatchObject({ reason: 'returned' });
    guest.kernel.settle();
    expect(im.state).toBe('freed');
    expect(guest.kernel.images.size).toBe(0);
  });
});
