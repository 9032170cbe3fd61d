/* LSM programs of cgroups, and the shims that run them. */

import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import {
  createGuest,
  errorOf,
  type Guest,
  type GuestFunction,
  Ledger,
  MODEL,
  siteBytes,
} from '../../../check/index.ts';
import type { Vcpu } from '../../../emu/index.ts';
import { NOP5 } from '../../../jit/index.ts';
import { addrAdd, toHex } from '../../../lib/index.ts';
import { BpfProg, cgroupRunner, linkProg, type Trampoline, unlinkProg } from '../../../tramp/index.ts';

let guest: Guest;
let hook: GuestFunction;
afterEach(() => guest.machine.close());

const NOP = toHex(Uint8Array.from(NOP5));
const EPERM = 0xffff_ffff_ffff_ffffn;

/** A program for cgroups; 1 allows, 0 refuses. */
const program = (name: string, returns: 0 | 1): { prog: BpfProg; runs: () => bigint } => {
  const { prog, runs } = guest.addProgram(name, 'lsm', { returns });
  const options = { name, kind: 'lsm', type: 'lsm_cgroup', bpfFunc: prog.bpfFunc } as const;
  return { prog: new BpfProg(guest.kernel, options), runs };
};
const attach = (prog: BpfProg, fn = hook): Trampoline => guest.kernel.cgroupLsm.attach(prog, fn.key, fn);
const detach = (prog: BpfProg, fn = hook): void => guest.kernel.cgroupLsm.detach(prog, fn.key);
const call = (fn = hook): bigint => {
  const result = guest.machine.cpus[0]?.call(fn.addr, [2n, 3n]);
  expect(result?.fault).toBeNull();
  return result?.ret ?? -1n;
};

test.each([
  ['struct socket *', '__cgroup_bpf_run_lsm_socket'],
  ['struct sock *', '__cgroup_bpf_run_lsm_sock'],
  ['struct task_struct *', '__cgroup_bpf_run_lsm_current'],
] as const)('a hook of %s has the runner %s', async (type, runner) => {
  guest = await createGuest();
  const [first] = MODEL.args;
  if (first === undefined) throw new RangeError('no argument');
  expect(cgroupRunner({ ...MODEL, args: [{ ...first, type, pointer: true }] })).toBe(runner);
  expect(cgroupRunner({ ...MODEL, args: [] })).toBe('__cgroup_bpf_run_lsm_current');
});

describe.each(['v6.1', 'v6.12'] as const)('%s', (revision) => {
  beforeEach(async () => {
    guest = await createGuest({ revision });
    hook = guest.addFunction('hook');
  });

  test('the first attach makes a shim, the others hold it, the last detach unlinks it', () => {
    const { cgroupLsm } = guest.kernel;
    const [a, b] = [program('a', 1), program('b', 1)];
    const tr = attach(a.prog);
    expect([tr.links.fmod_ret.length, cgroupLsm.references(tr), tr.references]).toEqual([1, 1, 1]);
    attach(b.prog);
    expect([tr.links.fmod_ret.length, cgroupLsm.references(tr), tr.references]).toEqual([1, 2, 1]);
    expect([call(), hook.runs(), a.runs(), b.runs()]).toEqual([5n, 1n, 1n, 1n]);
    detach(a.prog);
    expect([call(), a.runs(), b.runs(), cgroupLsm.references(tr)]).toEqual([5n, 1n, 2n, 1]);
    detach(b.prog);
    expect([cgroupLsm.shims, tr.references, siteBytes(guest.kernel, hook.addr)]).toEqual([0, 0, NOP]);
    expect(guest.kernel.trampolines.find(hook.key)).toBeUndefined();
    expect([call(), guest.kernel.warnings]).toEqual([5n, []]);
  });

  test('one that answers 0 refuses the call, and the others run all the same', () => {
    const [a, no, b] = [program('a', 1), program('no', 0), program('b', 1)];
    for (const { prog } of [a, no, b]) attach(prog);
    expect([call(), hook.runs(), a.runs(), no.runs(), b.runs()]).toEqual([EPERM, 0n, 1n, 1n, 1n]);
    detach(no.prog);
    expect([call(), hook.runs()]).toEqual([5n, 1n]);
  });

  test('the shim is one instruction, not compiled, entered as an LSM program is', () => {
    const tr = attach(program('a', 1).prog);
    const [link] = tr.links.fmod_ret;
    const ref = link?.ref();
    expect(ref).toMatchObject({ jited: false, sleepable: false, kind: 2, cookie: 0n });
    expect(ref?.insnsi).toBe(addrAdd(ref?.prog ?? hook.addr, 0x48));
    expect(guest.kernel.kallsyms.nameOf(ref?.bpfFunc ?? hook.addr)).toBe('__cgroup_bpf_run_lsm_current');
    const symbols = tr.curImage?.code()?.relocs.map(({ symbol }) => symbol);
    expect(symbols).toContain('__bpf_prog_enter');
    expect(symbols).not.toContain('__bpf_prog_enter_lsm_cgroup');
  });

  test('statistics count the shim', () => {
    guest.kernel.statsEnabled = true;
    const tr = attach(program('a', 1).prog);
    call();
    expect(tr.links.fmod_ret[0]?.prog.counters(0).runs).toBe(1n);
  });

  test('and each program of the cgroup, with its time', () => {
    const [a, b] = [program('a', 1), program('b', 0)];
    for (const { prog } of [a, b]) attach(prog);
    expect([call(), a.prog.counters(0).runs]).toEqual([EPERM, 0n]);
    guest.kernel.statsEnabled = true;
    const { regs } = guest.machine.cpus[0] as Vcpu;
    const kept = ['rbx', 'rbp', 'r12', 'r13', 'r14', 'r15'] as const;
    for (const [i, name] of kept.entries()) regs.set(name, 0x1234n + BigInt(i));
    expect([call(), call()]).toEqual([EPERM, EPERM]);
    expect(kept.map((name) => regs.get(name) - 0x1234n)).toEqual([0n, 1n, 2n, 3n, 4n, 5n]);
    for (const { prog } of [a, b])
      expect(prog.counters(0)).toMatchObject({ runs: 2n, nsecs: 20n, misses: 0n });
  });

  test('hooks without a result run it behind them', () => {
    const watch = guest.addFunction('watch', { retSize: 0 });
    const tr = attach(program('a', 0).prog, watch);
    expect([tr.links.fexit.length, tr.links.fmod_ret.length]).toEqual([1, 0]);
    call(watch);
    expect(watch.runs()).toBe(1n);
  });

  test('a shim counts against the limit, and stands beside other programs', () => {
    const tr = attach(program('a', 1).prog);
    for (let i = 0; i < 37; i++) linkProg(guest.kernel, guest.addProgram(`p${i}`, 'fexit').prog, tr);
    const { prog } = guest.addProgram('late', 'fentry');
    expect(errorOf(() => linkProg(guest.kernel, prog, tr))).toMatchObject({ code: 'E2BIG' });
    // another cgroup program needs no place of its own
    attach(program('b', 1).prog);
    expect(call()).toBe(5n);
  });

  test.each(['alloc-image', 'register', 'alloc-progs'] as const)(
    'an attach that fails at %s leaves nothing',
    (point) => {
      const { prog } = program('a', 1);
      const warm = program('warm', 1);
      // the runners are placed once
      attach(warm.prog);
      detach(warm.prog);
      guest.kernel.settle();
      const ledger = new Ledger(guest.machine);
      const { taken } = ledger;
      guest.kernel.fail.arm(point);
      expect(errorOf(() => attach(prog))).toBeDefined();
      guest.kernel.settle();
      expect(ledger.taken).toEqual(taken);
      expect([guest.kernel.trampolines.list(), guest.kernel.cgroupLsm.shims, prog.references]).toEqual([
        [],
        0,
        1,
      ]);
      attach(prog);
      expect(call()).toBe(5n);
    },
  );

  test('everything is given back', () => {
    const first = program('first', 1);
    attach(first.prog);
    detach(first.prog);
    guest.kernel.settle();
    const ledger = new Ledger(guest.machine);
    const { taken } = ledger;
    const progs = [program('a', 1), program('b', 0)];
    const own = ledger.taken;
    for (const { prog } of progs) attach(prog);
    call();
    for (const { prog } of progs) detach(prog);
    guest.kernel.settle();
    expect(ledger.taken).toEqual(own);
    expect(own).not.toEqual(taken);
  });

  test('only programs of that type, and only those that are attached', () => {
    const other = guest.addProgram('other', 'lsm').prog;
    expect(() => attach(other)).toThrow('other is of type lsm, not lsm_cgroup');
    const { prog } = program('a', 1);
    attach(prog);
    expect(() => detach(program('b', 1).prog)).toThrow('b is not attached there');
    detach(prog);
  });

  test('the same hook as a plain LSM program stays when the shim goes', () => {
    const deny = guest.addProgram('deny', 'lsm', { returns: 13 });
    const cgroup = program('a', 1);
    const tr = attach(cgroup.prog);
    linkProg(guest.kernel, deny.prog, tr);
    expect(call()).toBe(13n);
    detach(cgroup.prog);
    expect([tr.links.fmod_ret.length, call()]).toEqual([1, 13n]);
    unlinkProg(guest.kernel, deny.prog, tr);
  });
});

test('v5.15 has none', async () => {
  guest = await createGuest({ revision: 'v5.15' });
  hook = guest.addFunction('hook');
  expect(() => attach(program('a', 1).prog)).toThrow('v5.15 has no LSM programs of cgroups');
});
