import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { createGuest, errorOf, type Guest, type GuestFunction, siteBytes } from '../../check/index.ts';
import { NOP5, patchBytes } from '../../jit/index.ts';
import { type Kaddr, toHex } from '../../lib/index.ts';
import {
  type AttachKind,
  type BpfProg,
  linkProg,
  type ManagedRevision,
  type TrampImage,
  type Trampoline,
  unlinkProg,
} from '../../tramp/index.ts';

let guest: Guest;
/** With an ftrace site. */
let f: GuestFunction;
/** A bare nop in kernel text. */
let plain: GuestFunction;

async function setUp(options: Parameters<typeof createGuest>[0] = {}): Promise<void> {
  guest = await createGuest(options);
  f = guest.addFunction('f');
  plain = guest.addFunction('plain', { plain: true, origin: 'kernel' });
}

beforeEach(() => setUp());
afterEach(() => guest.close());

const get = (fn: GuestFunction): Trampoline => guest.kernel.trampolines.get(guest.kernel, fn.key, fn);
const add = (kind: AttachKind, name: string = kind): BpfProg => guest.addProgram(name, kind).prog;
const link = (prog: BpfProg, tr: Trampoline): BpfProg => {
  linkProg(guest.kernel, prog, tr);
  return prog;
};
const unlink = (prog: BpfProg, tr: Trampoline): void => unlinkProg(guest.kernel, prog, tr);
const image = (tr: Trampoline): TrampImage => {
  if (tr.curImage === undefined) throw new RangeError('no image');
  return tr.curImage;
};
const nop = toHex(Uint8Array.from(NOP5));
const callTo = (from: Kaddr, to: Kaddr): string => toHex(patchBytes('CALL', from, to) ?? new Uint8Array());
const ksymNames = (): string[] =>
  guest.kernel.kallsyms
    .list()
    .map(({ name }) => name)
    .filter((name) => name.startsWith('bpf_trampoline_'));

describe.each(['f', 'plain'] as const)('the call at the entry of %s', (name) => {
  const target = (): GuestFunction => (name === 'f' ? f : plain);

  test('is registered, modified and unregistered', () => {
    const tr = get(target());
    const { addr } = target();
    const a = link(add('fentry', 'a'), tr);
    expect(tr.ftraceManaged).toBe(name === 'f');
    const first = image(tr);
    expect(siteBytes(guest.kernel, addr)).toBe(callTo(addr, first.image));
    const b = link(add('fexit', 'b'), tr);
    const second = image(tr);
    expect(second).not.toBe(first);
    expect(siteBytes(guest.kernel, addr)).toBe(callTo(addr, second.image));
    expect(first.state).toBe('rcu-tasks-trace');
    unlink(a, tr);
    expect(siteBytes(guest.kernel, addr)).toBe(callTo(addr, image(tr).image));
    unlink(b, tr);
    expect(siteBytes(guest.kernel, addr)).toBe(nop);
    expect(guest.kernel.ftrace.direct(addr)).toBeUndefined();
    guest.kernel.settle();
    expect(guest.kernel.images.size).toBe(0);
  });

  test('images are numbered from 0 on, and from 0 again after the last program', () => {
    const tr = get(target());
    const { key } = target();
    const a = link(add('fentry', 'a'), tr);
    expect(image(tr).ksym.name).toBe(`bpf_trampoline_${key}_0`);
    const b = link(add('fentry', 'b'), tr);
    expect(image(tr).ksym.name).toBe(`bpf_trampoline_${key}_1`);
    unlink(a, tr);
    expect([image(tr).ksym.name, tr.selector]).toEqual([`bpf_trampoline_${key}_2`, 3]);
    unlink(b, tr);
    expect([tr.curImage, tr.selector]).toEqual([undefined, 0]);
    link(a, tr);
    expect(image(tr).ksym.name).toBe(`bpf_trampoline_${key}_0`);
    expect(guest.kernel.warnings).toEqual([]);
  });
});

describe('the number of images', () => {
  test('has 64 bits, of which the name shows 32', () => {
    const tr = get(f);
    link(add('fentry', 'a'), tr);
    tr.selector = 2 ** 32 + 7;
    link(add('fentry', 'b'), tr);
    expect([tr.selector, guest.kernel.warnings]).toEqual([2 ** 32 + 8, []]);
    expect(image(tr).ksym.name).toBe(`bpf_trampoline_${f.key}_7`);
  });

  test('is not 0 while there is an image, or there is a warning', () => {
    const tr = get(f);
    link(add('fentry', 'a'), tr);
    tr.selector = 0;
    link(add('fentry', 'b'), tr);
    expect(guest.kernel.warnings).toEqual(['bpf_trampoline_update: an image without number']);
  });

  test('is 0 before the first image, or there is a warning', () => {
    const tr = get(f);
    tr.selector = 5;
    link(add('fentry'), tr);
    expect(guest.kernel.warnings).toEqual(['bpf_trampoline_update: a number without image']);
    expect(image(tr).ksym.name).toBe(`bpf_trampoline_${f.key}_5`);
  });
});

describe('what an image is made with', () => {
  test('is known as long as it lives', () => {
    const tr = get(f);
    const prog = link(add('fentry'), tr);
    const im = image(tr);
    expect(im.code()?.bytes).toEqual(im.bytes());
    unlink(prog, tr);
    guest.kernel.settle();
    expect(im.code()).toBeUndefined();
  });

  test('without fexit and fmod_ret it does not call the function', () => {
    const tr = get(f);
    link(add('fentry'), tr);
    expect(image(tr).ipAfterCall).toBeUndefined();
    expect(image(tr).ipEpilogue).toBeUndefined();
  });

  test.each(['fexit', 'fmod_ret', 'lsm'] as const)(
    'with %s it calls the function and skips its frame',
    (kind) => {
      const tr = get(f);
      link(add(kind), tr);
      const { ipAfterCall, ipEpilogue } = image(tr);
      expect(ipAfterCall).toBeGreaterThan(image(tr).image);
      expect(ipEpilogue).toBeGreaterThan(ipAfterCall ?? 0n);
      const calls = image(tr)
        .code()
        ?.relocs.map(({ symbol }) => symbol);
      expect(calls).toContain('__bpf_tramp_enter');
    },
  );

  test('a program that is detached does not run any more', () => {
    const tr = get(f);
    const [a, b] = [guest.addProgram('a', 'fentry'), guest.addProgram('b', 'fexit')];
    link(a.prog, tr);
    link(b.prog, tr);
    guest.machine.cpus[0]?.call(f.addr, [1n, 2n]);
    unlink(b.prog, tr);
    guest.machine.cpus[0]?.call(f.addr, [1n, 2n]);
    expect([a.runs(), b.runs(), f.runs()]).toEqual([2n, 1n, 2n]);
  });
});

describe("the traced function's address", () => {
  // One word more in the frame, and the instructions that fill it.
  const lengthWith = async (revision: ManagedRevision, kind: AttachKind, asks: boolean): Promise<number> => {
    guest.close();
    await setUp({ revision });
    const tr = get(f);
    link(add('fentry'), tr);
    link(guest.addProgram('asks', kind, { callsGetFuncIp: asks }).prog, tr);
    link(add('fexit'), tr);
    return image(tr).length;
  };

  test.each(['fentry', 'fmod_ret', 'fexit', 'lsm'] as const)(
    'is kept in v5.15 when a %s program asks',
    async (kind) => {
      expect(await lengthWith('v5.15', kind, true)).toBeGreaterThan(await lengthWith('v5.15', kind, false));
    },
  );

  test('is not kept in v5.13, where no program is asked', async () => {
    expect(await lengthWith('v5.13', 'fexit', true)).toBe(await lengthWith('v5.13', 'fexit', false));
  });
});

describe('memory', () => {
  test('one page and one symbol for each image that is not freed', () => {
    const { kernel } = guest;
    const tr = get(f);
    const progs = ['a', 'b', 'c'].map((name) => link(add('fentry', name), tr));
    expect(kernel.modmem.pages).toBe(3);
    expect(ksymNames()).toHaveLength(3);
    kernel.settle();
    expect(kernel.modmem.pages).toBe(1);
    expect(ksymNames()).toEqual([image(tr).ksym.name]);
    for (const prog of progs) unlink(prog, tr);
    kernel.settle();
    expect([kernel.modmem.pages, ksymNames(), kernel.images.size]).toEqual([0, [], 0]);
  });

  test('the limit counts retired images, and refuses with EPERM', async () => {
    guest.close();
    await setUp({ modmemLimitPages: 2 });
    const { kernel } = guest;
    const tr = get(f);
    link(add('fentry', 'a'), tr);
    link(add('fentry', 'b'), tr);
    const refused = add('fentry', 'c');
    expect(errorOf(() => link(refused, tr))).toMatchObject({ code: 'EPERM', op: 'bpf_jit_charge_modmem' });
    expect([refused.linked, kernel.modmem.pages, tr.progs.fentry.length]).toEqual([false, 2, 2]);
    kernel.settle();
    expect(link(refused, tr).linked).toBe(true);
  });
});

describe('a detach whose update fails', () => {
  test('with programs left: off the list, while the old image still runs it', () => {
    const tr = get(f);
    const gone = guest.addProgram('gone', 'fentry');
    const stays = guest.addProgram('stays', 'fentry');
    link(gone.prog, tr);
    link(stays.prog, tr);
    const old = image(tr);
    guest.kernel.fail.arm('alloc-image');
    expect(errorOf(() => unlink(gone.prog, tr))).toMatchObject({ code: 'ENOMEM' });
    expect([gone.prog.linked, tr.progs.fentry]).toEqual([false, [stays.prog]]);
    expect(image(tr)).toBe(old);
    expect(old.state).toBe('live');
    expect(siteBytes(guest.kernel, f.addr)).toBe(callTo(f.addr, old.image));
    guest.machine.cpus[0]?.call(f.addr, [1n, 2n]);
    expect([gone.runs(), stays.runs()]).toEqual([1n, 1n]);
    // The next update puts it right.
    link(add('fexit'), tr);
    guest.machine.cpus[0]?.call(f.addr, [1n, 2n]);
    expect([gone.runs(), stays.runs()]).toEqual([1n, 2n]);
  });

  test('of the last program, for want of memory: the image stays and is replaced by the next attach', () => {
    const tr = get(f);
    const gone = link(add('fentry'), tr);
    guest.kernel.fail.arm('alloc-progs');
    expect(errorOf(() => unlink(gone, tr))).toMatchObject({ code: 'ENOMEM' });
    expect([tr.progs.fentry, image(tr).state, tr.selector]).toEqual([[], 'live', 1]);
    expect(f.module.references).toBe(1);
    const next = link(add('fexit'), tr);
    expect(tr.selector).toBe(2);
    unlink(next, tr);
    guest.kernel.settle();
    expect([siteBytes(guest.kernel, f.addr), guest.kernel.images.size, f.module.references]).toEqual([
      nop,
      0,
      0,
    ]);
  });

  test.each([
    ['f', 'unregister', 'ENODEV'],
    ['plain', 'poke', 'EBUSY'],
  ] as const)(
    'of the last program of %s, at %s: the image is retired and forgotten all the same',
    (name, point, code) => {
      const fn = name === 'f' ? f : plain;
      const tr = get(fn);
      const prog = link(add('fentry'), tr);
      const old = image(tr);
      guest.kernel.fail.arm(point);
      expect(errorOf(() => unlink(prog, tr))).toMatchObject({ code });
      expect([tr.curImage, tr.selector, prog.linked]).toEqual([undefined, 0, false]);
      expect(old.state).toBe('rcu-tasks-trace');
      // The site still calls it, and the reference to the module is not dropped.
      expect(siteBytes(guest.kernel, fn.addr)).toBe(callTo(fn.addr, old.image));
      expect(fn.module.references).toBe(1);
      guest.kernel.settle();
      expect(old.state).toBe('freed');
      expect(guest.machine.cpus[0]?.call(fn.addr, [1n, 2n]).fault?.kind).toBe('freed-image');
      // Nothing can be attached there any more.
      expect(errorOf(() => link(prog, tr))).toMatchObject({ code: 'EBUSY' });
      expect(guest.kernel.images.size).toBe(0);
    },
  );

  test('an image that cannot be patched while it is retired is warned about, and retired', () => {
    const tr = get(f);
    const prog = link(add('fexit'), tr);
    const old = image(tr);
    guest.kernel.fail.arm('poke');
    unlink(prog, tr);
    expect(guest.kernel.warnings).toHaveLength(1);
    expect(guest.kernel.warnings[0]).toMatch(/^bpf_tramp_image_put: /);
    guest.kernel.settle();
    expect(old.state).toBe('freed');
  });
});

test('an update with nothing attached, before or after, is a bug of the caller', () => {
  const tr = get(f);
  const prog = add('fentry');
  tr.links.fentry.push(prog.link);
  prog.link.linked = true;
  expect(() => unlink(prog, tr)).toThrow(`trampoline ${f.key} had nothing attached`);
});

test('L5: the bug leaks the image that could not be registered', async () => {
  guest.close();
  await setUp({ bugs: ['L5'] });
  guest.kernel.fail.arm('register');
  expect(errorOf(() => link(add('fentry'), get(f)))).toMatchObject({ code: 'EBUSY' });
  guest.kernel.settle();
  expect([guest.kernel.images.size, guest.kernel.modmem.pages]).toEqual([1, 1]);
});

test('a model of more than six arguments is refused by the emitter, and nothing is left', () => {
  const seven = {
    ...f.model,
    args: Array.from({ length: 7 }, () => f.model.args[0]).flatMap((arg) => (arg ? [arg] : [])),
  };
  const tr = guest.kernel.trampolines.get(guest.kernel, f.key, { addr: f.addr, model: seven });
  expect(errorOf(() => link(add('fentry'), tr))).toMatchObject({
    code: 'ENOTSUPP',
    op: 'arch_prepare_bpf_trampoline',
  });
  expect([guest.kernel.images.size, guest.kernel.modmem.pages, tr.progs.fentry]).toEqual([0, 0, []]);
});
