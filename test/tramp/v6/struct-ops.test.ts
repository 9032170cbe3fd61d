/* Structs whose functions are programs. */

import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { createGuest, errorOf, type Guest, Ledger, MODEL } from '../../../check/index.ts';
import { dword, prepareTrampoline, ptr, qword, rdx, TrampFlag } from '../../../jit/index.ts';
import { addrAdd, type Kaddr, kaddr, toHex } from '../../../lib/index.ts';
import { BpfProg, type KernelOptions, StructOps, type StructOpsMember } from '../../../tramp/index.ts';

const { INDIRECT, RET_FENTRY_RET } = TrampFlag;
const VOID = { ...MODEL, ret: { ...MODEL.ret, sizeBytes: 0 } };

let guest: Guest;
afterEach(() => guest.machine.close());

/** Takes (a, b); returns what it is told, or nothing. */
const member = (name: string, returns = 0, model = MODEL): StructOpsMember & { runs: () => bigint } => {
  const code = guest.addProgram(name, 'fentry', { returns });
  const prog = new BpfProg(guest.kernel, {
    name,
    kind: 'fentry',
    type: 'struct_ops',
    bpfFunc: code.prog.bpfFunc,
  });
  return { name, model: { ...model, name }, prog, runs: code.runs };
};
const call = (pointer: Kaddr): bigint | undefined => {
  const result = guest.machine.cpus[0]?.call(pointer, [1n, 2n]);
  expect(result?.fault).toBeNull();
  return result?.ret;
};
const open = async (options: KernelOptions): Promise<void> => {
  guest = await createGuest(options);
};
const bytes = (at: Kaddr, length: number): string => toHex(guest.machine.memory.bytes(at, length));

describe.each(['v6.1', 'v6.12'] as const)('%s', (revision) => {
  beforeEach(() => open({ revision }));

  test('a member runs its program and answers what that returned', () => {
    const [a, b] = [member('ssthresh', 7), member('undo_cwnd', 8)];
    const ops = new StructOps(guest.kernel, 'tcp_congestion_ops', [a, b]);
    expect([call(ops.pointer('ssthresh')), call(ops.pointer('undo_cwnd'))]).toEqual([7n, 8n]);
    expect([a.runs(), b.runs()]).toEqual([1n, 1n]);
    expect(() => ops.pointer('init')).toThrow('no member init; there are ssthresh, undo_cwnd');
  });

  test('the bytes are those of the emitter, with the flags of this revision', () => {
    const members = [member('gives', 7), member('nothing', 0, VOID)];
    const stub = kaddr(0xffff_ffff_8123_4560n);
    const ops = new StructOps(
      guest.kernel,
      'ops',
      members.map((one) => ({ ...one, stub })),
    );
    const known = revision === 'v6.12' ? INDIRECT : 0;
    for (const [i, { image, length }] of ops.members.entries()) {
      const { prog, model } = members[i] as StructOpsMember;
      const made = prepareTrampoline(revision, {
        image,
        imageSize: 4096,
        im: kaddr(0),
        origCall: revision === 'v6.12' ? stub : kaddr(0),
        argSizes: model.args.map(({ sizeBytes }) => sizeBytes),
        flags: known | (i === 0 ? RET_FENTRY_RET : 0),
        fentry: [{ ...prog.ref(), kind: 2, cookie: 0n }],
        fmodRet: [],
        fexit: [],
        helpers: guest.kernel.helpers,
      });
      expect(bytes(image, length)).toBe(toHex(made.bytes ?? new Uint8Array()));
    }
    expect(guest.kernel.warnings).toEqual([]);
  });

  test('members are packed by what the emitter answers', () => {
    const ops = new StructOps(
      guest.kernel,
      'ops',
      ['a', 'b', 'c'].map((name) => member(name, 1)),
    );
    const spare = revision === 'v6.12' ? 64 : 0;
    const [a, b, c] = ops.members;
    expect([a?.image, b?.image, c?.image].map((at) => (at ?? 0n) % 4096n)).toEqual([
      0n,
      BigInt((a?.length ?? 0) + spare),
      BigInt((a?.length ?? 0) + (b?.length ?? 0) + 2 * spare),
    ]);
    expect(ops.pages).toBe(1);
  });

  test('a program may run inside of itself: nobody counts', () => {
    const cell = guest.machine.memory.kmalloc(16, 'pointer and depth');
    const code = guest.addProgram('nests', 'fentry', {
      returns: 3,
      // calls what the cell holds, but not from inside
      enter: (asm) => {
        const inside = asm.label('inside');
        asm.movImm64(rdx, addrAdd(cell, 8));
        asm.inc(qword(ptr(rdx)));
        asm.testImm(dword(ptr(rdx)), 2);
        asm.jccShort('ne', inside);
        asm.callIndirect(ptr(rdx, -8));
        asm.bind(inside);
      },
    });
    const prog = new BpfProg(guest.kernel, {
      name: 'nests',
      kind: 'fentry',
      type: 'struct_ops',
      bpfFunc: code.prog.bpfFunc,
    });
    const ops = new StructOps(guest.kernel, 'ops', [{ name: 'nests', model: MODEL, prog }]);
    guest.machine.memory.writeU64(cell, ops.pointer('nests'));
    expect([call(ops.pointer('nests')), code.runs(), prog.counters(0).misses]).toEqual([3n, 2n, 0n]);
  });

  test('unregistering gives everything back, when nobody can be in a member', () => {
    const before = new Ledger(guest.machine);
    const one = member('one', 1);
    const own = before.taken;
    const ops = new StructOps(guest.kernel, 'ops', [one]);
    expect(one.prog.references).toBe(2);
    ops.unregister();
    expect(call(ops.pointer('one'))).toBe(1n);
    guest.kernel.settle();
    expect([before.taken, one.prog.references, guest.kernel.modmem.bytes]).toEqual([own, 1, 0]);
    expect(guest.machine.cpus[0]?.call(ops.pointer('one'), [1n, 2n]).fault?.kind).toBe('freed-image');
    expect(() => ops.unregister()).toThrow('it is unregistered already');
  });

  test('what is refused leaves nothing', () => {
    const wide = {
      ...MODEL,
      args: Array.from({ length: 13 }, () => MODEL.args[0]).flatMap((arg) => arg ?? []),
    };
    const [good, bad] = [member('good', 1), member('bad', 1, wide)];
    const tracing = guest.addProgram('tracing', 'fentry').prog;
    const ledger = new Ledger(guest.machine);
    const { taken } = ledger;
    const op = revision === 'v6.12' ? 'arch_bpf_trampoline_size' : 'arch_prepare_bpf_trampoline';
    expect(errorOf(() => new StructOps(guest.kernel, 'ops', [good, bad]))).toMatchObject({
      code: 'ENOTSUPP',
      op,
    });
    expect([ledger.taken, good.prog.references, guest.kernel.modmem.bytes]).toEqual([taken, 1, 0]);
    const make =
      (...members: StructOpsMember[]) =>
      () =>
        new StructOps(guest.kernel, 'ops', members);
    expect(make()).toThrow('give each member once, and one at least');
    expect(make(good, good)).toThrow('give each member once');
    expect(make({ name: 'x', model: MODEL, prog: tracing })).toThrow(
      'tracing is of type tracing, not struct_ops',
    );
  });
});

test('v6.1: what does not fit one page is refused with EFAULT', async () => {
  await open({ revision: 'v6.1' });
  const members = Array.from({ length: 60 }, (_, i) => member(`m${i}`, i));
  expect(errorOf(() => new StructOps(guest.kernel, 'ops', members))).toMatchObject({ code: 'EFAULT' });
  const ops = new StructOps(guest.kernel, 'ops', members.slice(0, 20));
  expect([ops.pages, guest.kernel.modmem.bytes, call(ops.pointer('m19'))]).toEqual([1, 0, 19n]);
});

describe('v6.12', () => {
  beforeEach(() => open({ revision: 'v6.12' }));

  test('up to eight pages, each charged; E2BIG beyond', () => {
    const members = Array.from({ length: 220 }, (_, i) => member(`m${i}`, i));
    expect(errorOf(() => new StructOps(guest.kernel, 'ops', members))).toMatchObject({ code: 'E2BIG' });
    expect(guest.kernel.modmem.bytes).toBe(0);
    const ops = new StructOps(guest.kernel, 'ops', members.slice(0, 100));
    expect(ops.pages).toBeGreaterThan(2);
    expect(guest.kernel.modmem.bytes).toBe(4096 * ops.pages);
    expect([call(ops.pointer('m0')), call(ops.pointer('m99'))]).toEqual([0n, 99n]);
    for (const { image, length } of ops.members)
      expect(Number(image % 4096n) + length + 64).toBeLessThanOrEqual(4096);
  });

  test('each member has a symbol of its own, over what it takes', () => {
    const ops = new StructOps(guest.kernel, 'tcp_congestion_ops', [member('init', 1)]);
    const [made] = ops.members;
    const ksym = guest.kernel.kallsyms.named('bpf__tcp_congestion_ops_init');
    expect(ksym).toMatchObject({ start: made?.image, sizeBytes: (made?.length ?? 0) + 64 });
    ops.unregister();
    guest.kernel.settle();
    expect(guest.kernel.kallsyms.named('bpf__tcp_congestion_ops_init')).toBeUndefined();
  });

  test.each([
    [{ ibt: true }, 0],
    [{ ibt: true, cfi: { scheme: 'fineibt', hash: 1 } }, 16],
    [{ cfi: { scheme: 'kcfi', hash: 1 } }, 5],
    [{ cfi: { scheme: 'kcfi', hash: 1, callPadding: true } }, 16],
  ] as const)('built as %j, the pointer leaves out %i bytes of the preamble', async (config, offset) => {
    guest.machine.close();
    await open({ revision: 'v6.12', config });
    const ops = new StructOps(guest.kernel, 'ops', [member('m', 5)]);
    const [made] = ops.members;
    expect(made?.pointer).toBe(addrAdd(made?.image ?? kaddr(0), offset));
    expect(call(ops.pointer('m'))).toBe(5n);
  });
});

test('v5.15: not modelled, and it says so', async () => {
  await open({ revision: 'v5.15' });
  expect(() => new StructOps(guest.kernel, 'ops', [member('m')])).toThrow('not modelled in v5.15');
});
