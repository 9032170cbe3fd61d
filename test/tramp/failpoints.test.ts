/*
 * Every place where an operation can fail, in every operation that passes it: afterwards everything is
 * as before, and the same operation then succeeds. Where the kernel itself leaves something behind,
 * that is said and checked.
 */

import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import {
  createGuest,
  errorOf,
  type Guest,
  type GuestFunction,
  type KernelState,
  Ledger,
  stateOf,
} from '../../check/index.ts';
import type { ErrnoName } from '../../lib/index.ts';
import {
  type BpfProg,
  FAIL_POINTS,
  type FailPoint,
  FailPoints,
  linkProg,
  type Trampoline,
  unlinkProg,
} from '../../tramp/index.ts';

type Kind = 'fentry' | 'fmod_ret' | 'fexit' | 'lsm';
const KINDS: readonly Kind[] = ['fentry', 'fmod_ret', 'fexit', 'lsm'];
const POINTS = Object.keys(FAIL_POINTS) as FailPoint[];

/** What each place returns when it fails. */
const ERRNO: Readonly<Record<FailPoint, ErrnoName>> = {
  'alloc-trampoline': 'ENOMEM',
  'alloc-ops': 'ENOMEM',
  'alloc-progs': 'ENOMEM',
  size: 'EFAULT',
  'alloc-im': 'ENOMEM',
  charge: 'EPERM',
  'alloc-image': 'ENOMEM',
  'percpu-ref': 'ENOMEM',
  emit: 'EFAULT',
  protect: 'EINVAL',
  filter: 'ENOMEM',
  register: 'EBUSY',
  modify: 'ENODEV',
  'ftrace-hash': 'ENOMEM',
  unregister: 'ENODEV',
  poke: 'EBUSY',
};

/** What making an image passes. */
const IMAGE: readonly FailPoint[] = [
  'alloc-progs',
  'alloc-im',
  'charge',
  'alloc-image',
  'percpu-ref',
  'emit',
];

const SITES = ['ftrace site in a module', 'nop in kernel text'] as const;
type Site = (typeof SITES)[number];

let guest: Guest;
let fn: GuestFunction;
let tr: Trampoline;
/** What patching the site passes. */
let pokes: readonly FailPoint[];
let memory: Ledger;

function setUp(site: Site): void {
  const plain = site === 'nop in kernel text';
  fn = guest.addFunction('f', plain ? { plain, origin: 'kernel' } : {});
  pokes = plain ? ['poke'] : ['ftrace-hash'];
  memory = new Ledger(guest.machine);
}

/** With `held` programs each image has a reference to those that it calls, and a failure must leave no more. */
const LIFETIMES = ['kernel', 'held'] as const;

const open = async (programLifetime: (typeof LIFETIMES)[number]): Promise<void> => {
  guest = await createGuest({ programLifetime });
};
afterEach(() => guest.close());

const state = (): KernelState => stateOf(guest.kernel, [fn]);
const link = (prog: BpfProg): void => linkProg(guest.kernel, prog, tr);
const unlink = (prog: BpfProg): void => unlinkProg(guest.kernel, prog, tr);

interface Operation {
  /** Programs that are there before, oldest first. */
  readonly present: readonly Kind[];
  readonly run: (present: readonly BpfProg[], prog: BpfProg) => void;
  /** Kind of the program that `run` is given beside those. */
  readonly kind: Kind | 'freplace';
  readonly path: () => readonly FailPoint[];
  /** Places to fail at; default all. */
  readonly points?: readonly FailPoint[];
  /** Images that call the function are patched when they are retired; that failing is a warning only. */
  readonly retiresCalling?: boolean;
  /** What a failure leaves, where that is not what was there before. */
  readonly leaves?: (before: KernelState) => KernelState;
}

/** Fails `operation` at every place once, and succeeds afterwards. */
function failEverywhere(
  operation: Operation,
  redo: (present: readonly BpfProg[], prog: BpfProg) => void,
): void {
  const { kernel } = guest;
  for (const point of operation.points ?? POINTS) {
    tr = kernel.trampolines.get(kernel, fn.key, fn);
    const present = operation.present.map((kind, i) => guest.addProgram(`${kind}${i}`, kind).prog);
    const prog = guest.addProgram('late', operation.kind).prog;
    for (const one of present) link(one);
    kernel.settle();
    const { taken } = memory;
    const before = state();
    const references = () => [...present, prog].map((one) => one.references);
    const held = references();
    kernel.fail.arm(point);
    const error = errorOf(() => operation.run(present, prog));
    if (operation.path().includes(point)) {
      expect(error?.code, point).toBe(ERRNO[point]);
      expect(state(), point).toEqual(operation.leaves?.(before) ?? before);
      expect(memory.taken, point).toEqual(taken);
      expect(references(), point).toEqual(held);
      kernel.fail.pass(point);
      expect(
        errorOf(() => redo(present, prog)),
        point,
      ).toBeUndefined();
    } else {
      expect(error, point).toBeUndefined();
      const warned = kernel.warnings.length > 0;
      expect(warned, point).toBe(
        point === 'poke' && operation.retiresCalling === true && !pokes.includes('poke'),
      );
      kernel.fail.disarm();
    }
    // and away with everything
    for (const one of [...present, prog]) {
      if (one.linked || tr.extension === one) unlink(one);
      one.put();
    }
    if (tr.curImage !== undefined) throw new RangeError('an image is left over');
    kernel.trampolines.put(kernel, tr);
    kernel.settle();
    kernel.warnings.length = 0;
    const after = state();
    expect({ ...after, ksyms: after.ksyms.length }, point).toMatchObject({
      images: [],
      programs: [],
      trampolines: [],
    });
    expect([kernel.modmem.pages, fn.module.references, after.sites['f']]).toEqual([0, 0, '0f1f440000']);
  }
}

const calls = (kinds: readonly Kind[]): boolean => kinds.some((kind) => kind !== 'fentry');

const WORLDS = LIFETIMES.flatMap((lifetime) => SITES.map((site) => ({ lifetime, site })));

describe.each(WORLDS)('$site, programs as with $lifetime', ({ lifetime, site }) => {
  beforeEach(async () => {
    await open(lifetime);
    setUp(site);
  });

  test.each(KINDS)('attach of the first program: %s', (kind) => {
    const run = (_: readonly BpfProg[], prog: BpfProg): void => link(prog);
    failEverywhere({ present: [], kind, run, path: () => [...IMAGE, 'register', ...pokes] }, run);
  });

  test.each(KINDS.flatMap((there) => KINDS.map((kind) => [there, kind] as const)))(
    'attach beside %s: %s',
    (there, kind) => {
      const run = (_: readonly BpfProg[], prog: BpfProg): void => link(prog);
      const path = (): readonly FailPoint[] => [...IMAGE, 'modify', ...pokes];
      failEverywhere({ present: [there], kind, run, path, retiresCalling: calls([there]) }, run);
    },
  );

  test.each(KINDS.flatMap((first) => KINDS.map((second) => [first, second] as const)))(
    'detach of one of %s and %s',
    (...kinds) => {
      for (const gone of [0, 1]) {
        const run = (present: readonly BpfProg[]): void => unlink(present[gone] as BpfProg);
        // Attached again and detached once more, to have the image agree with the list.
        const redo = (present: readonly BpfProg[]): void => {
          link(present[gone] as BpfProg);
          run(present);
        };
        const path = (): readonly FailPoint[] => [...IMAGE, 'modify', ...pokes];
        const name = `${kinds[gone]}${gone}`;
        failEverywhere(
          {
            present: kinds,
            kind: 'fentry',
            run,
            path,
            retiresCalling: calls(kinds),
            leaves: (before) => withoutProg(before, name),
          },
          redo,
        );
      }
    },
  );

  test.each(KINDS)('detach of the last program: %s, before the entry is touched', (kind) => {
    const run = ([prog]: readonly BpfProg[]): void => unlink(prog as BpfProg);
    const redo = (present: readonly BpfProg[]): void => {
      link(present[0] as BpfProg);
      run(present);
    };
    const path = (): readonly FailPoint[] => ['alloc-progs'];
    // What fails at the entry leaves the image retired and the call in place: update.test.ts.
    const points = POINTS.filter((point) => point !== 'unregister' && !pokes.includes(point));
    const leaves = (before: KernelState): KernelState => withoutProg(before, `${kind}0`);
    failEverywhere(
      { present: [kind], kind: 'fentry', run, path, points, retiresCalling: calls([kind]), leaves },
      redo,
    );
  });

  test('get of a new trampoline', () => {
    const { kernel } = guest;
    for (const point of POINTS) {
      const before = state();
      kernel.fail.arm(point);
      const error = errorOf(() => kernel.trampolines.get(kernel, fn.key, fn));
      expect(error?.code, point).toBe(point === 'alloc-trampoline' ? 'ENOMEM' : undefined);
      kernel.fail.disarm();
      for (const made of kernel.trampolines.list()) kernel.trampolines.put(kernel, made);
      expect(state(), point).toEqual(before);
    }
  });
});

describe.each(LIFETIMES)('REPLACE, programs as with %s', (lifetime) => {
  beforeEach(async () => {
    await open(lifetime);
    setUp('nop in kernel text');
  });

  test('attach', () => {
    const run = (_: readonly BpfProg[], prog: BpfProg): void => link(prog);
    failEverywhere({ present: [], kind: 'freplace', run, path: () => ['poke'] }, run);
  });

  test('attach beside fmod_ret', () => {
    const { kernel } = guest;
    tr = kernel.trampolines.get(kernel, fn.key, fn);
    link(guest.addProgram('m', 'fmod_ret').prog);
    const { prog } = guest.addProgram('r', 'freplace');
    for (const point of POINTS) {
      const before = state();
      kernel.fail.arm(point);
      expect(
        errorOf(() => link(prog)),
        point,
      ).toMatchObject({ code: 'EBUSY' });
      expect(state(), point).toEqual(before);
      kernel.fail.disarm();
    }
  });
});

/** `before`, with one program off its list. */
function withoutProg(before: KernelState, gone: string): KernelState {
  const without = (names: readonly string[]): string[] => names.filter((name) => name !== gone);
  return {
    ...before,
    trampolines: before.trampolines.map((one) => {
      const progs = {
        fentry: without(one.progs.fentry),
        fmod_ret: without(one.progs.fmod_ret),
        fexit: without(one.progs.fexit),
      };
      const none = (names: readonly string[]): bigint[] => names.map(() => 0n);
      const cookies = {
        fentry: none(progs.fentry),
        fmod_ret: none(progs.fmod_ret),
        fexit: none(progs.fexit),
      };
      return { ...one, progs, cookies };
    }),
    programs: before.programs.map((one) => (one.name === gone ? { ...one, linked: false } : one)),
  };
}

describe('a failure point', () => {
  test('fails once, the nth time it is passed, with its errno', () => {
    const fail = new FailPoints();
    fail.arm('charge', 3);
    expect([1, 2, 3, 4].map(() => errorOf(() => fail.pass('charge'))?.code)).toEqual([
      undefined,
      undefined,
      'EPERM',
      undefined,
    ]);
  });

  test('is one of several, each on its own', () => {
    const fail = new FailPoints();
    fail.arm('emit');
    fail.arm('poke', 2);
    fail.pass('charge');
    fail.pass('poke');
    expect(errorOf(() => fail.pass('emit'))?.code).toBe('EFAULT');
    expect(errorOf(() => fail.pass('poke'))?.code).toBe('EBUSY');
  });

  test('is forgotten by disarm', () => {
    const fail = new FailPoints();
    fail.arm('emit');
    fail.disarm();
    expect(errorOf(() => fail.pass('emit'))).toBeUndefined();
  });

  test.each(POINTS)('%s: the errno', (point) => {
    expect(FAIL_POINTS[point]).toBe(ERRNO[point]);
  });
});
