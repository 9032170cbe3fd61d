/* What images of v6 kernels are made with, where they are put, and what failures leave. */

import { afterEach, describe, expect, test } from 'vitest';
import {
  createGuest,
  errorOf,
  type Guest,
  type GuestFunction,
  Ledger,
  stateOf,
} from '../../../check/index.ts';
import { prepareTrampoline, TrampFlag } from '../../../jit/index.ts';
import { toHex } from '../../../lib/index.ts';
import {
  type AttachKind,
  BpfProg,
  CHUNK_BYTES,
  FAIL_POINTS,
  type FailPoint,
  imageRequest,
  type KernelOptions,
  linkProg,
  PackMemory,
  type TrampImage,
  TrampLink,
  type Trampoline,
  unlinkProg,
} from '../../../tramp/index.ts';

const { CALL_ORIG, IP_ARG, RESTORE_REGS, SKIP_FRAME, TAIL_CALL_CTX } = TrampFlag;
const CALLS = CALL_ORIG | SKIP_FRAME;

let guest: Guest;
afterEach(() => guest.machine.close());

const open = async (options: KernelOptions): Promise<GuestFunction> => {
  guest = await createGuest(options);
  return guest.addFunction('f');
};
const get = (fn: GuestFunction): Trampoline => guest.kernel.trampolines.get(guest.kernel, fn.key, fn);
const add = (kind: AttachKind, name: string = kind, callsGetFuncIp = false): BpfProg =>
  guest.addProgram(name, kind, { callsGetFuncIp }).prog;
const link = (what: BpfProg | TrampLink, tr: Trampoline): void => linkProg(guest.kernel, what, tr);
const image = (tr: Trampoline): TrampImage => {
  if (tr.curImage === undefined) throw new RangeError('no image');
  return tr.curImage;
};

describe.each(['v6.1', 'v6.12'] as const)('%s', (revision) => {
  test('flags are kept in the trampoline, and follow from what is attached', async () => {
    const f = await open({ revision });
    const tr = get(f);
    const [entry, asks, exit] = [add('fentry'), add('fentry', 'asks', true), add('fexit')];
    const flags: number[] = [];
    for (const prog of [entry, asks, exit]) {
      link(prog, tr);
      flags.push(tr.flags);
    }
    for (const prog of [exit, asks, entry]) {
      unlinkProg(guest.kernel, prog, tr);
      flags.push(tr.flags);
    }
    const ip = RESTORE_REGS | IP_ARG;
    // the last ones stay: nobody updates an image that there is not
    expect(flags).toEqual([RESTORE_REGS, ip, CALLS | IP_ARG, ip, RESTORE_REGS, RESTORE_REGS]);
  });

  test.each(['alloc-image', 'emit', 'register'] as const)(
    'flags are put back when %s fails',
    async (point) => {
      const f = await open({ revision });
      const tr = get(f);
      tr.flags = TAIL_CALL_CTX;
      guest.kernel.fail.arm(point);
      expect(errorOf(() => link(add('fexit'), tr))).toBeDefined();
      expect(tr.flags).toBe(TAIL_CALL_CTX);
      link(add('fexit'), tr);
      expect(tr.flags).toBe(TAIL_CALL_CTX | CALLS);
    },
  );

  test('a target that can end in a tail call has its count passed through, from then on', async () => {
    const f = await open({ revision });
    const target = new BpfProg(guest.kernel, {
      name: 'target',
      kind: 'fentry',
      bpfFunc: f.addr,
      tailCallReachable: true,
    });
    const tr = guest.kernel.trampolines.get(guest.kernel, f.key, { ...f, prog: target });
    const prog = add('fentry');
    link(prog, tr);
    expect(tr.flags).toBe(RESTORE_REGS | TAIL_CALL_CTX);
    // rax comes to the function as its caller left it
    const code = image(tr).code();
    expect(code?.insns.some(({ step }) => step.name === 'tail_call_ctx')).toBe(true);
    expect(guest.machine.cpus[0]?.call(f.addr, [1n, 2n]).ret).toBe(3n);
    unlinkProg(guest.kernel, prog, tr);
    link(add('fexit'), tr);
    expect(tr.flags).toBe(CALLS | TAIL_CALL_CTX);
    expect(guest.machine.cpus[0]?.call(f.addr, [1n, 2n]).ret).toBe(3n);
  });

  test.each([
    [['fentry'], RESTORE_REGS],
    [['fexit'], CALLS],
    [['fmod_ret'], CALLS],
    [['fentry', 'lsm', 'fexit'], CALLS],
  ] as const)('the bytes of %j are those of the emitter for flags %i', async (kinds, flags) => {
    const f = await open({ revision });
    const tr = get(f);
    for (const [i, kind] of kinds.entries()) link(new TrampLink(add(kind), BigInt(i) << 60n), tr);
    const im = image(tr);
    const asked = imageRequest(guest.kernel, tr);
    expect(asked.flags).toBe(flags);
    const { fentry, fmod_ret, fexit } = tr.links;
    const ref = ({ prog, cookie }: TrampLink) => ({
      prog: prog.address,
      bpfFunc: prog.bpfFunc,
      insnsi: prog.address,
      sleepable: false,
      jited: true,
      kind: prog.kind === 'lsm' ? (2 as const) : (0 as const),
      cookie,
    });
    const made = prepareTrampoline(revision, {
      image: im.image,
      imageSize: im.sizeBytes,
      im: im.address,
      origCall: f.addr,
      argSizes: [8, 8],
      flags,
      fentry: fentry.map(ref),
      fmodRet: fmod_ret.map(ref),
      fexit: fexit.map(ref),
      helpers: guest.kernel.helpers,
    });
    expect(toHex(im.bytes())).toBe(toHex(made.bytes ?? new Uint8Array()));
    expect(im.length).toBe(im.bytes().length);
  });

  test('symbols have no number, and cover the room of an image', async () => {
    const f = await open({ revision });
    const tr = get(f);
    for (const kind of ['fentry', 'fexit', 'fmod_ret'] as const) {
      link(add(kind), tr);
      const { ksym } = image(tr);
      expect([ksym.name, ksym.start, tr.selector]).toEqual([`bpf_trampoline_${f.key}`, image(tr).image, 0]);
      expect(ksym.sizeBytes).toBe(revision === 'v6.1' ? 4096 : image(tr).length + 64);
    }
    expect(guest.kernel.warnings).toEqual([]);
  });

  test('what is charged is counted in bytes', async () => {
    const f = await open({ revision });
    const { modmem } = guest.kernel;
    const tr = get(f);
    const prog = add('fexit');
    link(prog, tr);
    expect([modmem.units, modmem.bytes]).toEqual([image(tr).sizeBytes, image(tr).sizeBytes]);
    unlinkProg(guest.kernel, prog, tr);
    guest.kernel.settle();
    expect(modmem.bytes).toBe(0);
  });

  const IMAGE: readonly FailPoint[] = [
    ...(['alloc-progs', 'alloc-im', 'charge', 'alloc-image', 'percpu-ref', 'emit'] as const),
    ...(revision === 'v6.12' ? (['size', 'protect'] as const) : []),
  ];
  const ATTACH: readonly FailPoint[] = [...IMAGE, 'filter', 'register', 'ftrace-hash'];

  test.each(ATTACH)('a first attach that fails at %s leaves nothing, at once', async (point) => {
    const f = await open({ revision });
    const tr = get(f);
    const prog = add('fexit');
    const ledger = new Ledger(guest.machine);
    const [before, taken] = [stateOf(guest.kernel, [f]), ledger.taken];
    guest.kernel.fail.arm(point);
    // v6.1 does not look whether the filter could be set: ftrace finds it empty
    const code = point === 'filter' && revision === 'v6.1' ? 'EINVAL' : FAIL_POINTS[point];
    expect(errorOf(() => link(prog, tr))).toMatchObject({ code });
    expect(stateOf(guest.kernel, [f])).toEqual(before);
    expect(ledger.taken).toEqual(taken);
    expect(guest.kernel.images.size).toBe(0);
    link(prog, tr);
    expect(guest.machine.cpus[0]?.call(f.addr, [1n, 2n]).ret).toBe(3n);
  });

  test.each([...IMAGE, 'modify', 'ftrace-hash'] as const)(
    'a second attach that fails at %s leaves the first',
    async (point) => {
      const f = await open({ revision });
      const tr = get(f);
      link(add('fexit', 'first'), tr);
      const prog = add('fentry');
      const before = stateOf(guest.kernel, [f]);
      guest.kernel.fail.arm(point);
      expect(errorOf(() => link(prog, tr))).toMatchObject({ code: FAIL_POINTS[point] });
      expect(stateOf(guest.kernel, [f])).toEqual(before);
      link(prog, tr);
    },
  );

  test('a trampoline whose ftrace user cannot be had is not made', async () => {
    const f = await open({ revision });
    guest.kernel.fail.arm('alloc-ops');
    expect(errorOf(() => get(f))).toMatchObject({ code: 'ENOMEM' });
    expect(guest.kernel.trampolines.list()).toEqual([]);
  });

  test('without direct calls, ftrace keeps its sites to itself; bare nops are patched', async () => {
    const f = await open({ revision, directCalls: false });
    const plain = guest.addFunction('plain', { plain: true, origin: 'kernel' });
    const before = stateOf(guest.kernel, [f]);
    expect(errorOf(() => link(add('fentry'), get(f)))).toMatchObject({
      code: 'ENOTSUPP',
      op: 'register_fentry',
    });
    expect(guest.kernel.images.size).toBe(0);
    expect(stateOf(guest.kernel, [f]).sites).toEqual(before.sites);
    link(add('fentry'), get(plain));
    expect(guest.machine.cpus[0]?.call(plain.addr, [1n, 2n]).ret).toBe(3n);
  });

  test('detaching the last when its call cannot be taken away: retired all the same, old flags', async () => {
    const f = await open({ revision });
    const tr = get(f);
    const prog = add('fexit');
    link(prog, tr);
    const old = image(tr);
    guest.kernel.fail.arm('unregister');
    expect(errorOf(() => unlinkProg(guest.kernel, prog, tr))).toMatchObject({ code: 'ENODEV' });
    expect([tr.curImage, prog.linked, tr.flags]).toEqual([undefined, false, CALLS]);
    expect(old.state).not.toBe('live');
  });
});

describe('v6.1: a page for each', () => {
  test('is charged whole', async () => {
    const f = await open({ revision: 'v6.1' });
    link(add('fentry'), get(f));
    expect([guest.kernel.modmem.bytes, image(get(f)).sizeBytes, image(get(f)).image % 4096n]).toEqual([
      4096,
      4096,
      0n,
    ]);
  });

  test('holds the module as long as it is called', async () => {
    const f = await open({ revision: 'v6.1' });
    const prog = add('fentry');
    link(prog, get(f));
    expect(f.module.references).toBe(1);
    unlinkProg(guest.kernel, prog, get(f));
    expect(f.module.references).toBe(0);
  });

  test('tasks that have not entered are waited for under CONFIG_PREEMPTION', async () => {
    const waits = async (preemption: boolean, tasksRcu: boolean): Promise<string> => {
      const f = await open({ revision: 'v6.1', preemption, tasksRcu });
      const prog = add('fexit');
      link(prog, get(f));
      const old = image(get(f));
      unlinkProg(guest.kernel, prog, get(f));
      const { state } = old;
      return state;
    };
    expect(await waits(true, false)).toBe('rcu-tasks');
    guest.machine.close();
    expect(await waits(false, true)).toBe('percpu-ref');
  });
});

describe('v6.12: a part of a pack', () => {
  const pack = (): PackMemory => guest.kernel.imageMemory as PackMemory;
  const f12 = async (): Promise<GuestFunction> => open({ revision: 'v6.12' });

  test('images share a pack, chunk by chunk, and what is freed is used again', async () => {
    const f = await f12();
    const g = guest.addFunction('g');
    const [a, b] = [add('fentry', 'a'), add('fentry', 'b')];
    link(a, get(f));
    link(b, get(g));
    const [one, other] = [image(get(f)), image(get(g))];
    expect(pack().packs).toBe(1);
    expect(one.image % BigInt(CHUNK_BYTES)).toBe(0n);
    const chunks = Math.ceil(one.sizeBytes / CHUNK_BYTES);
    expect(other.image).toBe(one.image + BigInt(chunks * CHUNK_BYTES));
    unlinkProg(guest.kernel, a, get(f));
    guest.kernel.settle();
    expect(
      [...guest.machine.memory.bytes(one.image, chunks * CHUNK_BYTES)].every((byte) => byte === 0xcc),
    ).toBe(true);
    link(a, get(f));
    expect(image(get(f)).image).toBe(one.image);
    unlinkProg(guest.kernel, a, get(f));
    unlinkProg(guest.kernel, b, get(g));
    guest.kernel.settle();
    expect([pack().packs, guest.kernel.modmem.bytes]).toEqual([1, 0]);
  });

  test('what needs more than is free between others goes behind them; a full pack is followed by another', () => {
    const noKernel = { sites: new Map<bigint, number>(), next: 0x1000_0000n };
    const patched: [bigint, number][] = [];
    const memory = new PackMemory({
      memory: {
        allocText: (size: number) => {
          noKernel.next += BigInt(size);
          return noKernel.next;
        },
        freeText: () => undefined,
      },
      patchText: (at: bigint, bytes: Uint8Array) => patched.push([at, bytes.length]),
    } as never);
    guest = { machine: { close: () => undefined } } as never;
    const [a, b, c] = [memory.alloc(64, 'a'), memory.alloc(65, 'b'), memory.alloc(1, 'c')];
    expect([b - a, c - b]).toEqual([64n, 128n]);
    memory.free(b);
    expect(patched).toEqual([[b, 128]]);
    expect(memory.freedAt((b + 70n) as typeof b)).toEqual({ symbol: 'b (freed)', offset: 70 });
    expect(memory.freedAt(a)).toBeUndefined();
    expect(memory.alloc(192, 'd') - c).toBe(64n);
    expect(memory.alloc(128, 'e')).toBe(b);
    for (let i = 0; i < 511; i++) memory.alloc(4096, `page${i}`);
    expect(memory.packs).toBe(1);
    const over = memory.alloc(4096, 'over');
    expect(memory.packs).toBe(2);
    memory.free(over);
    expect(memory.packs).toBe(1);
    expect(() => memory.free((a + 64n) as typeof a)).not.toThrow();
    expect(() => memory.free((a + 64n) as typeof a)).toThrow('no image starts at');
  });

  test('a call that is still in an image that is freed hits int3, and the fault names the image', async () => {
    const f = await f12();
    const g = guest.addFunction('g');
    link(add('fentry', 'other'), get(g));
    const prog = add('fexit');
    link(prog, get(f));
    guest.kernel.fail.arm('unregister');
    errorOf(() => unlinkProg(guest.kernel, prog, get(f)));
    guest.kernel.settle();
    const fault = guest.machine.cpus[0]?.call(f.addr, [1n, 2n]).fault;
    expect(fault).toMatchObject({ kind: 'int3', symbol: { name: `bpf_trampoline_${f.key} (freed)` } });
  });

  test('flags, then the size, then memory: what the size refuses has taken nothing', async () => {
    const f = await f12();
    const many = {
      ...f.model,
      args: Array.from({ length: 13 }, () => f.model.args[0]).flatMap((a) => a ?? []),
    };
    const tr = guest.kernel.trampolines.get(guest.kernel, f.key, { addr: f.addr, model: many });
    const order: string[] = [];
    const { fail } = guest.kernel;
    const pass = fail.pass.bind(fail);
    fail.pass = (point) => {
      order.push(point);
      pass(point);
    };
    expect(errorOf(() => link(add('fentry'), tr))).toMatchObject({
      code: 'ENOTSUPP',
      op: 'arch_bpf_trampoline_size',
    });
    expect(order).toEqual(['alloc-progs', 'size']);
  });

  test('a program keeps the module of what it traces, until it is freed itself', async () => {
    const f = await f12();
    const { prog } = guest.addProgram('p', 'fentry');
    link(prog, get(f));
    link(add('fexit'), get(f));
    expect(f.module.references).toBe(2);
    unlinkProg(guest.kernel, prog, get(f));
    guest.kernel.settle();
    expect(f.module.references).toBe(2);
    prog.put();
    guest.kernel.settle();
    expect(f.module.references).toBe(1);
  });

  test('a module that is going is refused, and the program keeps nothing', async () => {
    const f = await f12();
    const prog = add('fentry');
    const tr = get(f);
    f.module.tryGet = () => false;
    expect(errorOf(() => link(prog, tr))).toMatchObject({ code: 'ENOENT' });
    expect([tr.links.fentry, prog.linked]).toEqual([[], false]);
  });

  test('tasks that have not entered are waited for under CONFIG_TASKS_RCU', async () => {
    for (const [tasksRcu, state] of [
      [true, 'rcu-tasks'],
      [false, 'percpu-ref'],
    ] as const) {
      const f = await open({ revision: 'v6.12', preemption: !tasksRcu, tasksRcu });
      const prog = add('fexit');
      link(prog, get(f));
      const old = image(get(f));
      unlinkProg(guest.kernel, prog, get(f));
      expect(old.state).toBe(state);
      if (tasksRcu) guest.machine.close();
    }
  });
});
