import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { createGuest, errorOf, type Guest, type GuestFunction, stateOf } from '../../check/index.ts';
import { addrAdd } from '../../lib/index.ts';
import { parseElf } from '../../obj/index.ts';
import { KModule, linkProg, loadModule, type Trampoline, unlinkProg } from '../../tramp/index.ts';
import { buildObject } from '../obj/elf-builder.ts';

let guest: Guest;
let f: GuestFunction;

beforeEach(async () => {
  guest = await createGuest();
  f = guest.addFunction('f');
});
afterEach(() => guest.close());

const get = (fn: GuestFunction): Trampoline => guest.kernel.trampolines.get(guest.kernel, fn.key, fn);
const program = (name = 'p', kind: 'fentry' | 'fexit' = 'fentry') => guest.addProgram(name, kind).prog;

describe('the reference to a module', () => {
  test('is taken once, at registration, and dropped at unregistration', () => {
    const tr = get(f);
    const [a, b] = [program('a'), program('b', 'fexit')];
    expect([f.module.references, tr.module]).toEqual([0, undefined]);
    linkProg(guest.kernel, a, tr);
    expect([f.module.references, tr.module]).toEqual([1, f.module]);
    linkProg(guest.kernel, b, tr);
    unlinkProg(guest.kernel, a, tr);
    expect(f.module.references).toBe(1);
    unlinkProg(guest.kernel, b, tr);
    expect([f.module.references, tr.module]).toEqual([0, undefined]);
  });

  test('is dropped when registering fails', () => {
    const tr = get(f);
    guest.kernel.fail.arm('register');
    expect(errorOf(() => linkProg(guest.kernel, program(), tr))).toMatchObject({ code: 'EBUSY' });
    expect([f.module.references, tr.module]).toEqual([0, undefined]);
  });

  test('is dropped when a bare nop in module text cannot be poked', () => {
    const bare = guest.addFunction('bare', { plain: true });
    const tr = get(bare);
    expect(errorOf(() => linkProg(guest.kernel, program(), tr))).toMatchObject({
      code: 'EINVAL',
      op: 'bpf_arch_text_poke',
    });
    expect([bare.module.references, tr.module, guest.kernel.images.size]).toEqual([0, undefined, 0]);
  });

  test('is not needed for text that belongs to no module', () => {
    const tr = guest.kernel.trampolines.get(guest.kernel, 1n, {
      addr: guest.kernel.helpers['sched_clock'] as typeof f.addr,
      model: f.model,
    });
    // Not a nop there: the poke refuses, after no module was found.
    expect(errorOf(() => linkProg(guest.kernel, program(), tr))).toMatchObject({ code: 'EBUSY' });
    expect(tr.module).toBeUndefined();
  });

  test('keeps the module loaded', () => {
    const tr = get(f);
    const prog = program();
    linkProg(guest.kernel, prog, tr);
    const before = stateOf(guest.kernel, [f]);
    expect(errorOf(() => f.module.unload())).toMatchObject({ code: 'EBUSY', op: 'delete_module' });
    expect(stateOf(guest.kernel, [f])).toEqual(before);
    unlinkProg(guest.kernel, prog, tr);
    const other = guest.addFunction('other');
    f.module.unload();
    expect(guest.kernel.modules).toEqual([other.module]);
    expect(errorOf(() => f.module.unload())).toMatchObject({ code: 'ENOENT', op: 'delete_module' });
    expect(guest.kernel.modules).toEqual([other.module]);
    expect(guest.kernel.kallsyms.named('f')).toBeUndefined();
    expect(guest.kernel.ftrace.location(f.addr)).toBeUndefined();
  });

  test('L4: the bug takes none, and the module goes while it is traced', async () => {
    const buggy = await createGuest({ bugs: ['L4'] });
    const target = buggy.addFunction('target');
    const tr = buggy.kernel.trampolines.get(buggy.kernel, target.key, target);
    linkProg(buggy.kernel, buggy.addProgram('p', 'fexit').prog, tr);
    target.module.unload();
    expect(buggy.machine.cpus[0]?.call(target.addr, [1n, 2n]).fault?.kind).toBe('freed-image');
    buggy.close();
  });

  test('is put no more often than it was taken', () => {
    expect(() => f.module.put()).toThrow('module f is put once too often');
  });
});

describe('a module that is going', () => {
  test('gives no reference: attaching ends with ENOENT and leaves nothing', () => {
    const address = guest.machine.memory.allocText(4096, 'going');
    const symbol = { name: 'g', address, sizeBytes: 64, binding: 'global', type: 'func' } as const;
    const prog = program();
    const tr = guest.kernel.trampolines.get(guest.kernel, 2n, { addr: address, model: f.model });
    const ends: unknown[] = [];
    const module = new KModule(guest.kernel, {
      name: 'going',
      text: [{ address, sizeBytes: 4096 }],
      symbols: [symbol],
      functions: [symbol],
      sites: [{ address, function: 'g', offset: 0, kind: 'nop' }],
      origin: 'module',
      exit: () => ends.push(errorOf(() => linkProg(guest.kernel, prog, tr))),
      free: () => guest.machine.memory.freeText(address),
    });
    module.unload();
    expect(ends).toMatchObject([{ code: 'ENOENT', op: 'bpf_trampoline_module_get' }]);
    expect([prog.linked, tr.module, tr.curImage, guest.kernel.images.size]).toEqual([
      false,
      undefined,
      undefined,
      0,
    ]);
    expect(guest.kernel.modules).toEqual([f.module]);
  });
});

describe('kernel text', () => {
  test('takes no object that is aligned to more than a page; a module does', () => {
    const text = { name: '.text', flags: 6, align: 8192, data: Uint8Array.of(0xc3) };
    const object = parseElf(buildObject([text]), 'wide.o');
    const before = stateOf(guest.kernel, [f]);
    expect(() => loadModule(guest.kernel, object, 'wide', 'kernel')).toThrow('alignment 8192');
    expect(stateOf(guest.kernel, [f])).toEqual(before);
    const { contents } = loadModule(guest.kernel, object, 'wide');
    expect((contents.text[0]?.address ?? 1n) % 8192n).toBe(0n);
  });

  test('is traced like a module, but never unloaded', () => {
    const k = guest.addFunction('k', { origin: 'kernel' });
    expect(errorOf(() => k.module.unload())).toMatchObject({ code: 'EBUSY', op: 'delete_module' });
    linkProg(guest.kernel, program(), get(k));
    expect(guest.machine.cpus[0]?.call(k.addr, [1n, 2n])).toMatchObject({ ret: 3n, fault: null });
  });
});

describe('a function whose site is not at its start', () => {
  test('is refused with EFAULT and a warning, before a module reference is taken', () => {
    const tr = guest.kernel.trampolines.get(guest.kernel, 3n, { addr: addrAdd(f.addr, 2), model: f.model });
    const before = stateOf(guest.kernel, [f]);
    expect(errorOf(() => linkProg(guest.kernel, program(), tr))).toMatchObject({
      code: 'EFAULT',
      op: 'is_ftrace_location',
    });
    expect(guest.kernel.warnings).toEqual(['is_ftrace_location: inside a site, not at it']);
    const { sites, directs, images, modules } = stateOf(guest.kernel, [f]);
    expect({ sites, directs, images, modules }).toEqual({
      sites: before.sites,
      directs: before.directs,
      images: before.images,
      modules: before.modules,
    });
  });
});

describe('which module an address belongs to', () => {
  const at = (offset: number) => guest.kernel.moduleText.at(addrAdd(f.addr, offset));

  test('is told by its text, to the byte', () => {
    const size = f.module.contents.text[0]?.sizeBytes ?? 0;
    expect([at(0), at(size - 1), at(size), at(-1)]).toEqual([f.module, f.module, undefined, undefined]);
  });

  test('also when modules share a page, and when one of them goes', () => {
    const none = { symbols: [], functions: [], sites: [], origin: 'module', free: () => undefined } as const;
    const make = (name: string, offset: number) =>
      new KModule(guest.kernel, {
        ...none,
        name,
        text: [{ address: addrAdd(f.addr, offset), sizeBytes: 16 }],
      });
    const [a, b] = [make('a', 0x800), make('b', 0xff8)];
    expect([at(0x800), at(0xff8), at(0x1007), at(0x1008)]).toEqual([a, b, b, undefined]);
    a.unload();
    expect([at(0), at(0x800), at(0xff8)]).toEqual([f.module, undefined, b]);
    b.unload();
    expect(at(0x1007)).toBeUndefined();
  });
});
