/* Which programs may be attached where in v6 kernels: links, limits, freplace. */

import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import {
  createGuest,
  errorOf,
  type Guest,
  type GuestFunction,
  siteBytes,
  stateOf,
} from '../../../check/index.ts';
import { NOP5 } from '../../../jit/index.ts';
import { toHex } from '../../../lib/index.ts';
import {
  type AttachKind,
  attachProg,
  BpfProg,
  detachProg,
  linkProg,
  ProgArray,
  TrampLink,
  type Trampoline,
  unlinkProg,
} from '../../../tramp/index.ts';

describe.each(['v6.1', 'v6.12'] as const)('%s', (revision) => {
  let guest: Guest;
  /** In a module, with a site. */
  let f: GuestFunction;
  /** In kernel text, a bare nop. */
  let plain: GuestFunction;

  beforeEach(async () => {
    guest = await createGuest({ revision });
    f = guest.addFunction('f');
    plain = guest.addFunction('plain', { plain: true, origin: 'kernel' });
  });
  afterEach(() => guest.machine.close());

  const get = (fn: GuestFunction): Trampoline => guest.kernel.trampolines.get(guest.kernel, fn.key, fn);
  const add = (kind: AttachKind, name: string = kind): BpfProg => guest.addProgram(name, kind).prog;
  const link = (what: BpfProg | TrampLink, tr: Trampoline): void => linkProg(guest.kernel, what, tr);
  const state = (): unknown => stateOf(guest.kernel, [f, plain]);
  const refuses = (what: BpfProg | TrampLink, tr: Trampoline, code: string, op: string): void => {
    const before = state();
    expect(errorOf(() => link(what, tr))).toMatchObject({ code, op });
    expect(state()).toEqual(before);
  };
  const OP = 'bpf_trampoline_link_prog';

  describe('links', () => {
    test('a program may be in several trampolines at once, by a link for each', () => {
      const { prog, runs } = guest.addProgram('p', 'fentry');
      const [one, other] = [new TrampLink(prog, 1n), new TrampLink(prog, 2n)];
      link(one, get(f));
      link(other, get(plain));
      expect([prog.linked, prog.linkedBy.size]).toEqual([true, 2]);
      guest.machine.cpus[0]?.call(f.addr, [1n, 2n]);
      guest.machine.cpus[0]?.call(plain.addr, [1n, 2n]);
      expect(runs()).toBe(2n);
      unlinkProg(guest.kernel, one, get(f));
      expect([one.linked, other.linked, prog.linked]).toEqual([false, true, true]);
      unlinkProg(guest.kernel, other, get(plain));
      expect(prog.linked).toBe(false);
    });

    test('and in two lists of one', () => {
      const tr = get(f);
      const code = guest.addProgram('p', 'fentry');
      const asExit = new BpfProg(guest.kernel, { name: 'p', kind: 'fexit', bpfFunc: code.prog.bpfFunc });
      link(code.prog, tr);
      link(asExit, tr);
      guest.machine.cpus[0]?.call(f.addr, [1n, 2n]);
      expect(code.runs()).toBe(2n);
    });

    test('a link is in one list', () => {
      const own = new TrampLink(add('fentry'));
      link(own, get(f));
      refuses(own, get(plain), 'EBUSY', OP);
      refuses(own, get(f), 'EBUSY', OP);
    });

    test('another link of a program that is in the list already is refused', () => {
      const prog = add('fexit');
      link(new TrampLink(prog, 1n), get(f));
      refuses(new TrampLink(prog, 2n), get(f), 'EBUSY', OP);
      link(new TrampLink(prog, 2n), get(plain));
    });

    test('attachProg and detachProg take links, too', () => {
      const one = new TrampLink(add('fentry'), 7n);
      const tr = attachProg(guest.kernel, one, f.key, f);
      expect(tr.links.fentry).toEqual([one]);
      detachProg(guest.kernel, one, tr);
      expect(guest.kernel.trampolines.find(f.key)).toBeUndefined();
    });

    test('a link that failed to be put in place is on no list', () => {
      const one = new TrampLink(add('fentry'));
      guest.kernel.fail.arm('register');
      refuses(one, get(f), 'EBUSY', 'register');
      expect([one.linked, f.module.references]).toEqual([false, 0]);
    });
  });

  describe('the limit of 38', () => {
    test.each([
      { fentry: 38 },
      { fmod_ret: 38 },
      { fexit: 37, lsm: 1 },
      { fentry: 13, fmod_ret: 12, fexit: 13 },
    ] as const)('is of all kinds together: %j', (kinds) => {
      const tr = get(f);
      for (const [kind, count] of Object.entries(kinds)) {
        for (let i = 0; i < count; i++) link(add(kind as AttachKind, `${kind}${i}`), tr);
      }
      for (const kind of ['fentry', 'fmod_ret', 'fexit', 'lsm'] as const) {
        refuses(add(kind, `late ${kind}`), tr, 'E2BIG', OP);
      }
    });

    test('comes before linked already, and behind replaced', () => {
      const tr = get(plain);
      const progs = Array.from({ length: 38 }, (_, i) => add('fmod_ret', `p${i}`));
      for (const prog of progs) link(prog, tr);
      refuses(progs[0] as BpfProg, tr, 'E2BIG', OP);
      refuses(add('freplace'), tr, 'EBUSY', OP);
      for (const prog of progs) unlinkProg(guest.kernel, prog, tr);
      link(add('freplace'), tr);
      tr.links.fentry.push(...progs.map((prog) => prog.link));
      expect(errorOf(() => link(add('fentry'), tr))).toMatchObject({ code: 'EBUSY' });
      tr.links.fentry.length = 0;
    });
  });

  describe('freplace', () => {
    test.each(['fentry', 'fmod_ret', 'fexit', 'lsm'] as const)('is kept out by %s', (kind) => {
      const tr = get(plain);
      link(add(kind), tr);
      refuses(add('freplace'), tr, 'EBUSY', OP);
    });

    /** A program that is traced itself. */
    const withTarget = (tailCallReachable = false): { tr: Trampoline; target: BpfProg } => {
      const target = new BpfProg(guest.kernel, {
        name: 'target',
        kind: 'fentry',
        bpfFunc: plain.addr,
        tailCallReachable,
      });
      const tr = guest.kernel.trampolines.get(guest.kernel, plain.key, { ...plain, prog: target });
      return { tr, target };
    };

    test('a program in a prog array is not replaced', () => {
      const { tr, target } = withTarget();
      const array = new ProgArray(2);
      array.set(0, target);
      array.set(1, target);
      refuses(add('freplace'), tr, 'EBUSY', OP);
      array.set(0, undefined);
      refuses(add('freplace'), tr, 'EBUSY', OP);
      array.clear();
      expect(target.references).toBe(1);
      link(add('freplace'), tr);
      expect(target.extended).toBe(true);
    });

    test('a program that is replaced goes into no prog array, until it is not any more', () => {
      const { tr, target } = withTarget();
      const replacement = add('freplace');
      link(replacement, tr);
      const array = new ProgArray(1);
      expect(errorOf(() => array.set(0, target))).toMatchObject({ code: 'EBUSY' });
      expect([array.get(0), target.references]).toEqual([undefined, 1]);
      unlinkProg(guest.kernel, replacement, tr);
      array.set(0, target);
      expect([array.get(0), target.references, target.extended]).toEqual([target, 2, false]);
      expect(() => array.set(1, target)).toThrow('no slot 1; there are 1');
      array.clear();
      target.put();
      expect(() => array.set(0, target)).toThrow('program target is gone');
      expect(() => target.leaveArray()).toThrow('target is in no prog array');
    });

    test('a poke that fails unmarks the target; with T13 the kernel leaves it marked, and busy', async () => {
      const { tr, target } = withTarget();
      guest.kernel.fail.arm('poke');
      refuses(add('freplace'), tr, 'EBUSY', 'poke');
      expect([tr.extension, target.extended]).toEqual([undefined, false]);
      guest.machine.close();
      guest = await createGuest({ revision, bugs: ['T13'] });
      plain = guest.addFunction('plain', { plain: true, origin: 'kernel' });
      const buggy = withTarget();
      guest.kernel.fail.arm('poke');
      expect(errorOf(() => link(add('freplace'), buggy.tr))).toMatchObject({ code: 'EBUSY' });
      expect([buggy.tr.extension?.name, buggy.target.extended]).toEqual(['freplace', true]);
    });

    test('the guard comes behind the count, and before the poke', () => {
      const { tr, target } = withTarget();
      const array = new ProgArray(1);
      array.set(0, target);
      guest.kernel.fail.arm('poke');
      expect(errorOf(() => link(add('freplace'), tr))).toMatchObject({ op: OP });
      guest.kernel.fail.disarm();
      link(add('fentry'), tr);
      expect(errorOf(() => link(add('freplace'), tr))?.message).toContain('programs');
    });
  });

  test.each(['fentry', 'fmod_ret', 'fexit'] as const)('the last put warns of %s programs', (kind) => {
    const tr = get(f);
    link(add(kind), tr);
    guest.kernel.trampolines.put(guest.kernel, tr);
    expect(guest.kernel.warnings).toEqual([`bpf_trampoline_put: ${f.key} has ${kind} programs`]);
    expect(guest.kernel.trampolines.find(f.key)).toBe(tr);
  });

  test('the last put of one without programs has no warning, and its filter is gone', () => {
    const tr = get(f);
    const prog = add('fentry');
    link(prog, tr);
    unlinkProg(guest.kernel, prog, tr);
    expect(tr.entry.ops?.filter.size).toBe(1);
    guest.kernel.trampolines.put(guest.kernel, tr);
    expect([guest.kernel.warnings, tr.entry.ops?.filter.size]).toEqual([[], 0]);
    expect(siteBytes(guest.kernel, f.addr)).toBe(toHex(Uint8Array.from(NOP5)));
  });
});

test('a program is in one place at a time before v6.1, whatever its link', async () => {
  const guest = await createGuest({ revision: 'v5.15' });
  const [f, g] = [guest.addFunction('f'), guest.addFunction('g')];
  const { prog } = guest.addProgram('p', 'fentry');
  const get = (fn: GuestFunction): Trampoline => guest.kernel.trampolines.get(guest.kernel, fn.key, fn);
  linkProg(guest.kernel, new TrampLink(prog), get(f));
  expect(errorOf(() => linkProg(guest.kernel, new TrampLink(prog), get(g)))).toMatchObject({ code: 'EBUSY' });
  expect(prog.linkedBy.size).toBe(1);
  guest.machine.close();
});
