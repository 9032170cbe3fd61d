/* Trampolines that share their sites with live patches. */

import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import {
  createGuest,
  errorOf,
  type Guest,
  type GuestFunction,
  siteBytes,
  stateOf,
} from '../../../check/index.ts';
import { NOP5, patchBytes, TrampFlag } from '../../../jit/index.ts';
import { type Kaddr, toHex } from '../../../lib/index.ts';
import {
  type AttachKind,
  type BpfProg,
  linkProg,
  livepatch,
  type TrampImage,
  type Trampoline,
  unlinkProg,
} from '../../../tramp/index.ts';

const { CALL_ORIG, ORIG_STACK, RESTORE_REGS, SHARE_IPMODIFY, SKIP_FRAME } = TrampFlag;
const CALLS = CALL_ORIG | SKIP_FRAME;
const SHARES = CALLS | SHARE_IPMODIFY | ORIG_STACK;
const NOP = toHex(Uint8Array.from(NOP5));

let guest: Guest;
let f: GuestFunction;
/** What live patches put in place of f: it returns 1000 + a. */
let patched: Kaddr;

const setUp = async (revision: 'v5.15' | 'v6.1' | 'v6.12'): Promise<void> => {
  guest = await createGuest({ revision });
  f = guest.addFunction('f');
  patched = guest.addProgram('patched', 'freplace', { returns: 1000 }).prog.bpfFunc;
};
afterEach(() => guest.machine.close());

const get = (): Trampoline => guest.kernel.trampolines.get(guest.kernel, f.key, f);
const add = (kind: AttachKind, name: string = kind, returns = 0) => guest.addProgram(name, kind, { returns });
const link = (prog: BpfProg, tr: Trampoline): void => linkProg(guest.kernel, prog, tr);
const call = (): bigint => {
  const result = guest.machine.cpus[0]?.call(f.addr, [2n, 3n]);
  expect(result?.fault).toBeNull();
  return result?.ret ?? -1n;
};
const image = ({ curImage }: Trampoline): TrampImage => {
  if (curImage === undefined) throw new RangeError('no image');
  return curImage;
};
const calls = (target: Kaddr): string => toHex(patchBytes('CALL', f.addr, target) ?? new Uint8Array());

describe.each(['v6.1', 'v6.12'] as const)('%s', (revision) => {
  beforeEach(() => setUp(revision));

  test('alone: the other function runs, until the patch is removed', () => {
    const patch = livepatch(guest.kernel, f.addr, patched);
    expect([call(), f.runs()]).toEqual([1000n, 0n]);
    patch.remove();
    expect([call(), f.runs(), siteBytes(guest.kernel, f.addr)]).toEqual([5n, 1n, NOP]);
    expect(() => patch.remove()).toThrow('it is removed already');
  });

  test('SELF: an image that calls the original is made again by the return address, and calls the patch', () => {
    livepatch(guest.kernel, f.addr, patched);
    const site = siteBytes(guest.kernel, f.addr);
    const tr = get();
    const exit = add('fexit');
    link(exit.prog, tr);
    expect(tr.flags).toBe(SHARES);
    expect([call(), f.runs(), exit.runs()]).toEqual([1000n, 0n, 1n]);
    // the site calls ftrace's code as before, and that the image
    expect([siteBytes(guest.kernel, f.addr), guest.kernel.ftrace.direct(f.addr)]).toEqual([
      site,
      image(tr).image,
    ]);
    expect([guest.kernel.images.size, guest.kernel.warnings, guest.kernel.modmem.bytes]).toEqual([
      1,
      [],
      image(tr).sizeBytes,
    ]);
    unlinkProg(guest.kernel, exit.prog, tr);
    expect([call(), exit.runs()]).toEqual([1000n, 1n]);
  });

  test('SELF: an fentry-only image needs nothing; its programs see the call, the patch runs', () => {
    livepatch(guest.kernel, f.addr, patched);
    const tr = get();
    const entry = add('fentry');
    link(entry.prog, tr);
    expect(tr.flags).toBe(RESTORE_REGS);
    expect([call(), f.runs(), entry.runs()]).toEqual([1000n, 0n, 1n]);
  });

  test('SELF: an image that shares already and does not know is refused, with a warning', () => {
    livepatch(guest.kernel, f.addr, patched);
    const tr = get();
    tr.entry.ops?.filter.add(f.addr);
    tr.flags = CALLS | SHARE_IPMODIFY;
    const caller = guest.addProgram('x', 'fentry').prog.bpfFunc;
    expect(errorOf(() => guest.kernel.ftrace.registerDirect(f.addr, caller, tr.entry.ops))).toMatchObject({
      code: 'EBUSY',
      op: 'bpf_tramp_ftrace_ops_func',
    });
    expect(guest.kernel.warnings).toHaveLength(1);
    tr.flags = 0;
  });

  test('SELF: the fmod_ret program still decides', () => {
    livepatch(guest.kernel, f.addr, patched);
    const tr = get();
    link(add('fmod_ret', 'deny', 9).prog, tr);
    expect([call(), f.runs()]).toEqual([9n, 0n]);
  });

  test('PEER on and off: the image is made again each time', () => {
    const tr = get();
    const exit = add('fexit');
    link(exit.prog, tr);
    const first = image(tr);
    expect([call(), f.runs()]).toEqual([5n, 1n]);
    const patch = livepatch(guest.kernel, f.addr, patched);
    const second = image(tr);
    expect([tr.flags, second === first, first.state]).toEqual([SHARES, false, 'rcu-tasks']);
    expect([call(), f.runs(), exit.runs()]).toEqual([1000n, 1n, 2n]);
    patch.remove();
    expect([tr.flags, image(tr) === second]).toEqual([CALLS, false]);
    expect([call(), f.runs(), exit.runs()]).toEqual([5n, 2n, 3n]);
    expect(siteBytes(guest.kernel, f.addr)).toBe(calls(image(tr).image));
    unlinkProg(guest.kernel, exit.prog, tr);
    guest.kernel.settle();
    expect([siteBytes(guest.kernel, f.addr), guest.kernel.images.size, guest.kernel.warnings]).toEqual([
      NOP,
      0,
      [],
    ]);
  });

  test('PEER on: an fentry-only image stays, is noted as shared, and is made right by the next update', () => {
    const tr = get();
    link(add('fentry').prog, tr);
    const first = image(tr);
    const patch = livepatch(guest.kernel, f.addr, patched);
    expect([tr.flags, image(tr)]).toEqual([RESTORE_REGS | SHARE_IPMODIFY, first]);
    expect(call()).toBe(1000n);
    const exit = add('fexit');
    link(exit.prog, tr);
    expect([tr.flags, call(), f.runs(), exit.runs()]).toEqual([SHARES, 1000n, 0n, 1n]);
    patch.remove();
    expect([tr.flags, call()]).toEqual([CALLS, 5n]);
  });

  test('an image made beside a patch without asking calls the original past it, as in the kernel', () => {
    livepatch(guest.kernel, f.addr, patched);
    const tr = get();
    link(add('fentry').prog, tr);
    // modifying a call asks nobody, and nothing was noted when an fentry-only image was registered
    link(add('fexit').prog, tr);
    expect([tr.flags, call(), f.runs()]).toEqual([CALLS, 5n, 1n]);
  });

  test('PEER: a trampoline whose mutex is taken is asked again, a millisecond later', () => {
    const tr = get();
    link(add('fexit').prog, tr);
    const { kernel } = guest;
    const start = kernel.clock;
    tr.mutex.lock();
    let waits = 0;
    kernel.sync = () => {
      // somebody else lets go in the third millisecond; what follows are the pokes of the update
      if (++waits === 3) tr.mutex.unlock();
    };
    livepatch(kernel, f.addr, patched);
    kernel.sync = () => undefined;
    expect([kernel.clock - start, tr.flags, tr.mutex.held]).toEqual([3_000_000n, SHARES, false]);
    expect(call()).toBe(1000n);
  });

  test('PEER: when nobody ever lets go, that is a bug, and nothing has changed', () => {
    const tr = get();
    link(add('fexit').prog, tr);
    tr.mutex.lock();
    const before = stateOf(guest.kernel, [f]);
    expect(() => livepatch(guest.kernel, f.addr, patched)).toThrow('nobody lets go');
    expect(stateOf(guest.kernel, [f])).toEqual(before);
    tr.mutex.unlock();
  });

  test('PEER off: a trampoline whose mutex is taken goes on sharing', () => {
    const tr = get();
    link(add('fexit').prog, tr);
    const patch = livepatch(guest.kernel, f.addr, patched);
    tr.mutex.lock();
    patch.remove();
    tr.mutex.unlock();
    expect(tr.flags).toBe(SHARES);
    // by the return address, which is the function's own now
    expect([call(), f.runs()]).toEqual([5n, 1n]);
  });

  test('PEER on: what making the image again meets is the answer, and the patch is not there', () => {
    const tr = get();
    link(add('fexit').prog, tr);
    const before = stateOf(guest.kernel, [f]);
    guest.kernel.fail.arm('alloc-image');
    expect(errorOf(() => livepatch(guest.kernel, f.addr, patched))).toMatchObject({ code: 'ENOMEM' });
    // but the trampoline is noted as shared, as in the kernel: the next image calls by the return address
    expect(tr.flags).toBe(CALLS | SHARE_IPMODIFY);
    tr.flags = CALLS;
    expect(stateOf(guest.kernel, [f])).toEqual(before);
    tr.flags |= SHARE_IPMODIFY;
    link(add('fentry').prog, tr);
    expect([tr.flags, call(), f.runs()]).toEqual([SHARES, 5n, 1n]);
  });

  test('what cannot be patched', () => {
    const plain = guest.addFunction('plain', { plain: true, origin: 'kernel' });
    const patch = livepatch(guest.kernel, f.addr, patched);
    expect(errorOf(() => livepatch(guest.kernel, f.addr, patched))).toMatchObject({ code: 'EBUSY' });
    expect(errorOf(() => livepatch(guest.kernel, plain.addr, patched))).toMatchObject({ code: 'EINVAL' });
    guest.kernel.fail.arm('ftrace-hash');
    expect(errorOf(() => patch.remove())).toMatchObject({ code: 'ENOMEM' });
    expect(call()).toBe(1000n);
    patch.remove();
    expect(call()).toBe(5n);
  });
});

test('before v6.1 the two do not share', async () => {
  await setUp('v5.15');
  const tr = get();
  const { prog } = add('fexit');
  link(prog, tr);
  expect(errorOf(() => livepatch(guest.kernel, f.addr, patched))).toMatchObject({ code: 'EBUSY' });
  unlinkProg(guest.kernel, prog, tr);
  livepatch(guest.kernel, f.addr, patched);
  expect(errorOf(() => link(prog, tr))).toMatchObject({ code: 'EBUSY', op: 'register_ftrace_direct' });
  expect(call()).toBe(1000n);
});
