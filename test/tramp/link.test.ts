import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import {
  createGuest,
  errorOf,
  type Guest,
  type GuestFunction,
  MODEL,
  siteBytes,
  stateOf,
} from '../../check/index.ts';
import { NOP5, patchBytes } from '../../jit/index.ts';
import { type Kaddr, toHex } from '../../lib/index.ts';
import {
  type AttachKind,
  type BpfProg,
  linkProg,
  type Trampoline,
  trampKind,
  unlinkProg,
} from '../../tramp/index.ts';

let guest: Guest;
/** In a module, with a site. */
let f: GuestFunction;
/** In kernel text, a bare nop. */
let plain: GuestFunction;

beforeEach(async () => {
  guest = await createGuest();
  f = guest.addFunction('f');
  plain = guest.addFunction('plain', { plain: true, origin: 'kernel' });
});
afterEach(() => guest.close());

const get = (fn: GuestFunction): Trampoline => guest.kernel.trampolines.get(guest.kernel, fn.key, fn);
const add = (kind: AttachKind, name: string = kind): BpfProg => guest.addProgram(name, kind).prog;
const link = (prog: BpfProg, tr: Trampoline): BpfProg => {
  linkProg(guest.kernel, prog, tr);
  return prog;
};
const nop = toHex(Uint8Array.from(NOP5));
const jump = (from: Kaddr, to: Kaddr): string => toHex(patchBytes('JUMP', from, to) ?? new Uint8Array());
const call = (fn: GuestFunction): bigint => {
  const result = guest.machine.cpus[0]?.call(fn.addr, [2n, 3n]);
  expect(result?.fault).toBeNull();
  return result?.ret ?? -1n;
};

describe('the list that a program goes to', () => {
  const voidModel = { ...MODEL, ret: { ...MODEL.ret, sizeBytes: 0 } } as const;
  test.each([
    ['fentry', 'fentry', 'fentry'],
    ['fmod_ret', 'fmod_ret', 'fmod_ret'],
    ['fexit', 'fexit', 'fexit'],
    ['lsm', 'fmod_ret', 'fexit'],
    ['freplace', 'replace', 'replace'],
  ] as const)('%s: %s with a result, %s without', (kind, withResult, without) => {
    expect(trampKind(kind, MODEL)).toBe(withResult);
    expect(trampKind(kind, voidModel)).toBe(without);
  });

  test('an lsm program of a hook with a result may refuse', () => {
    const tr = get(f);
    link(guest.addProgram('deny', 'lsm', { returns: -1 }).prog, tr);
    expect(tr.progs.fmod_ret).toHaveLength(1);
    expect(BigInt.asIntN(64, call(f))).toBe(-1n);
    expect(f.runs()).toBe(0n);
  });

  test('an lsm program of a void hook runs behind it', () => {
    const hook = guest.addFunction('hook', { retSize: 0 });
    const tr = get(hook);
    const { prog, runs } = guest.addProgram('watch', 'lsm', { returns: -1 });
    link(prog, tr);
    expect(tr.progs.fexit).toEqual([prog]);
    call(hook);
    expect([hook.runs(), runs()]).toEqual([1n, 1n]);
    unlinkProg(guest.kernel, prog, tr);
    expect(tr.progs.fexit).toEqual([]);
  });
});

test('programs of a kind are listed and run newest first', () => {
  const tr = get(f);
  const [older, newer] = [
    guest.addProgram('older', 'fmod_ret'),
    guest.addProgram('newer', 'fmod_ret', { returns: 9 }),
  ];
  link(older.prog, tr);
  link(newer.prog, tr);
  expect(tr.progs.fmod_ret).toEqual([newer.prog, older.prog]);
  expect(call(f)).toBe(9n);
  expect([newer.runs(), older.runs()]).toEqual([1n, 0n]);
});

describe('REPLACE', () => {
  test('jumps to the program, and back to the nop', () => {
    const tr = get(plain);
    const { prog, runs } = guest.addProgram('r', 'freplace', { returns: 42 });
    link(prog, tr);
    expect(tr.extension).toBe(prog);
    expect(siteBytes(guest.kernel, plain.addr)).toBe(jump(plain.addr, prog.bpfFunc));
    expect([call(plain), runs(), plain.runs()]).toEqual([42n, 1n, 0n]);
    unlinkProg(guest.kernel, prog, tr);
    expect(tr.extension).toBeUndefined();
    expect(siteBytes(guest.kernel, plain.addr)).toBe(nop);
    expect([call(plain), runs(), plain.runs()]).toEqual([5n, 1n, 1n]);
  });

  test('takes no image, no charge and no module reference', () => {
    link(add('freplace'), get(plain));
    expect(guest.kernel.images.size).toBe(0);
    expect(guest.kernel.modmem.pages).toBe(0);
    expect(plain.module.references).toBe(0);
  });

  test.each(['fentry', 'fmod_ret', 'fexit', 'lsm', 'freplace'] as const)('blocks %s', (kind) => {
    const tr = get(plain);
    link(add('freplace', 'first'), tr);
    const prog = add(kind);
    const before = stateOf(guest.kernel, [f, plain]);
    expect(errorOf(() => link(prog, tr))).toMatchObject({ code: 'EBUSY', op: 'bpf_trampoline_link_prog' });
    expect(stateOf(guest.kernel, [f, plain])).toEqual(before);
  });

  test.each(['fentry', 'fexit'] as const)('is blocked by %s', (kind) => {
    const tr = get(plain);
    link(add(kind), tr);
    const replacement = add('freplace');
    const before = stateOf(guest.kernel, [f, plain]);
    expect(errorOf(() => link(replacement, tr))).toMatchObject({
      code: 'EBUSY',
      op: 'bpf_trampoline_link_prog',
    });
    expect(stateOf(guest.kernel, [f, plain])).toEqual(before);
  });

  test('is not refused because of fmod_ret programs, but the poke finds their call', () => {
    const tr = get(plain);
    link(add('fmod_ret'), tr);
    const replacement = add('freplace');
    const before = stateOf(guest.kernel, [f, plain]);
    expect(errorOf(() => link(replacement, tr))).toMatchObject({ code: 'EBUSY', op: 'bpf_arch_text_poke' });
    expect(stateOf(guest.kernel, [f, plain])).toEqual(before);
  });

  test('in module text is refused by the poke', () => {
    const tr = get(f);
    expect(errorOf(() => link(add('freplace'), tr))).toMatchObject({
      code: 'EINVAL',
      op: 'bpf_arch_text_poke',
    });
    expect(tr.extension).toBeUndefined();
    link(add('fentry'), tr);
  });

  test('forgets the program although the jump back fails, as in the kernel', () => {
    const tr = get(plain);
    const prog = link(add('freplace'), tr);
    guest.kernel.fail.arm('poke');
    expect(errorOf(() => unlinkProg(guest.kernel, prog, tr))).toMatchObject({ code: 'EBUSY' });
    expect(tr.extension).toBeUndefined();
    expect(siteBytes(guest.kernel, plain.addr)).toBe(jump(plain.addr, prog.bpfFunc));
  });

  test('is not detached by another program', () => {
    const tr = get(plain);
    link(add('freplace'), tr);
    expect(() => unlinkProg(guest.kernel, add('freplace', 'other'), tr)).toThrow(
      'other does not replace plain',
    );
  });

  test('T13: the bug keeps a program whose poke failed, and refuses all others', async () => {
    const buggy = await createGuest({ bugs: ['T13'] });
    const target = buggy.addFunction('target', { plain: true, origin: 'kernel' });
    const tr = buggy.kernel.trampolines.get(buggy.kernel, target.key, target);
    buggy.kernel.fail.arm('poke');
    const replacement = buggy.addProgram('r', 'freplace').prog;
    expect(errorOf(() => linkProg(buggy.kernel, replacement, tr))).toMatchObject({ code: 'EBUSY' });
    const { prog } = buggy.addProgram('p', 'fentry');
    expect(errorOf(() => linkProg(buggy.kernel, prog, tr))).toMatchObject({ code: 'EBUSY' });
    buggy.close();
  });
});

describe('the limit', () => {
  const fill = (tr: Trampoline, kinds: Partial<Record<AttachKind, number>>): void => {
    for (const [kind, count] of Object.entries(kinds)) {
      for (let i = 0; i < count; i++) link(add(kind as AttachKind, `${kind}${i}`), tr);
    }
  };

  test('counts fentry and fexit together', () => {
    const tr = get(f);
    fill(tr, { fentry: 19, fexit: 19 });
    for (const kind of ['fentry', 'fexit', 'fmod_ret', 'lsm'] as const) {
      const prog = add(kind, `late ${kind}`);
      const before = stateOf(guest.kernel, [f, plain]);
      expect(errorOf(() => link(prog, tr))).toMatchObject({ code: 'E2BIG', op: 'bpf_trampoline_link_prog' });
      expect(stateOf(guest.kernel, [f, plain])).toEqual(before);
    }
  });

  test('all 38 run', () => {
    const tr = get(f);
    const progs = Array.from({ length: 38 }, (_, i) =>
      guest.addProgram(`p${i}`, i % 2 === 0 ? 'fentry' : 'fexit'),
    );
    for (const { prog } of progs) link(prog, tr);
    expect(call(f)).toBe(5n);
    expect(progs.map(({ runs }) => runs())).toEqual(progs.map(() => 1n));
  });

  test('does not count fmod_ret, but the 39th would overflow its array', () => {
    const tr = get(f);
    fill(tr, { fmod_ret: 38 });
    expect(tr.progs.fmod_ret).toHaveLength(38);
    const late = add('fmod_ret', 'late');
    const before = stateOf(guest.kernel, [f, plain]);
    expect(errorOf(() => link(late, tr))).toMatchObject({ code: 'E2BIG', op: 'bpf_trampoline_link_prog' });
    expect(stateOf(guest.kernel, [f, plain])).toEqual(before);
    // A program of another kind is not refused for their number.
    expect(link(add('fentry'), tr).linked).toBe(true);
  });

  test('T1: the bug lets the 39th in', async () => {
    const buggy = await createGuest({ bugs: ['T1'] });
    const target = buggy.addFunction('target');
    const tr = buggy.kernel.trampolines.get(buggy.kernel, target.key, target);
    for (let i = 0; i < 39; i++) linkProg(buggy.kernel, buggy.addProgram(`p${i}`, 'fmod_ret').prog, tr);
    expect(tr.progs.fmod_ret).toHaveLength(39);
    buggy.close();
  });
});

describe('a program that is linked', () => {
  test('cannot be linked again, here or elsewhere', () => {
    const [here, elsewhere] = [get(f), get(plain)];
    const prog = link(add('fentry'), here);
    const before = stateOf(guest.kernel, [f, plain]);
    for (const tr of [here, elsewhere]) {
      expect(errorOf(() => link(prog, tr))).toMatchObject({ code: 'EBUSY', op: 'bpf_trampoline_link_prog' });
    }
    expect(stateOf(guest.kernel, [f, plain])).toEqual(before);
  });

  test('can be linked again once it is unlinked', () => {
    const prog = link(add('fentry'), get(f));
    unlinkProg(guest.kernel, prog, get(f));
    expect(prog.linked).toBe(false);
    link(prog, get(plain));
    expect(prog.linked).toBe(true);
  });

  test('is not unlinked from a trampoline that it is not on', () => {
    const prog = link(add('fentry'), get(f));
    expect(() => unlinkProg(guest.kernel, prog, get(plain))).toThrow('fentry is not attached to plain');
  });
});

describe('the order of the checks', () => {
  test('replaced comes before too many', () => {
    const tr = get(plain);
    link(add('freplace'), tr);
    // put on the list by hand: no program can be linked behind a replacement
    tr.links.fentry.push(...Array.from({ length: 38 }, (_, i) => add('fentry', `listed${i}`).link));
    expect(errorOf(() => link(add('fentry'), tr))).toMatchObject({ code: 'EBUSY' });
  });

  test('too many comes before linked already', () => {
    const tr = get(f);
    const prog = link(add('fentry'), tr);
    for (let i = 0; i < 37; i++) link(add('fexit', `fexit${i}`), tr);
    expect(errorOf(() => link(prog, tr))).toMatchObject({ code: 'E2BIG' });
  });

  test('a replacement is refused for programs there, not for their number', () => {
    const tr = get(plain);
    for (let i = 0; i < 38; i++) link(add('fentry', `fentry${i}`), tr);
    expect(errorOf(() => link(add('freplace'), tr))).toMatchObject({ code: 'EBUSY' });
  });
});
