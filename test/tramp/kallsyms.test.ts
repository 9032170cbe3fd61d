import fc from 'fast-check';
import { expect, test } from 'vitest';
import { addrAdd, type Kaddr, kaddr } from '../../lib/index.ts';
import { Kallsyms, type Ksym } from '../../tramp/index.ts';

const BASE = kaddr(0xffff_ffff_a000_0000n);

function ksym(name: string, start: Kaddr, sizeBytes: number, kind: Ksym['kind'] = 'bpf'): Ksym {
  return { name, start, sizeBytes, kind };
}

test('a symbol covers its first byte and its last, and not the one after', () => {
  const kallsyms = new Kallsyms();
  const image = ksym('image', BASE, 4096);
  kallsyms.add(image);
  expect(kallsyms.lookup(BASE)).toEqual({ ksym: image, offset: 0 });
  expect(kallsyms.lookup(addrAdd(BASE, 4095))).toEqual({ ksym: image, offset: 4095 });
  expect(kallsyms.lookup(addrAdd(BASE, 4096))).toBeUndefined();
  expect(kallsyms.lookup(addrAdd(BASE, -1))).toBeUndefined();
  // also where the page goes on
  kallsyms.add(ksym('helper', addrAdd(BASE, 8192), 100));
  expect(kallsyms.lookup(addrAdd(BASE, 8192 + 99))?.offset).toBe(99);
  expect(kallsyms.lookup(addrAdd(BASE, 8192 + 100))).toBeUndefined();
});

test('one that spans pages is found in each, up to the end of the address space', () => {
  const kallsyms = new Kallsyms();
  kallsyms.add(ksym('wide', addrAdd(BASE, 4000), 9000));
  for (const offset of [0, 96, 4192, 8999]) {
    expect(kallsyms.lookup(addrAdd(BASE, 4000 + offset))?.offset).toBe(offset);
  }
  kallsyms.add(ksym('last', kaddr(-16n), 16));
  expect(kallsyms.lookup(kaddr(-1n))).toMatchObject({ offset: 15 });
  expect(kallsyms.lookup(kaddr(0))).toBeUndefined();
});

test('of several symbols with one name or at one place, the oldest answers', () => {
  const kallsyms = new Kallsyms();
  const [first, second] = [ksym('same', BASE, 8), ksym('same', addrAdd(BASE, 64), 8)];
  const alias = ksym('alias', BASE, 8);
  for (const each of [first, second, alias]) kallsyms.add(each);
  expect(kallsyms.named('same')).toBe(first);
  expect(kallsyms.lookup(BASE)?.ksym).toBe(first);
  kallsyms.remove(first);
  expect(kallsyms.named('same')).toBe(second);
  expect(kallsyms.lookup(BASE)?.ksym).toBe(alias);
});

test('prints as /proc/kallsyms does', () => {
  const kallsyms = new Kallsyms();
  kallsyms.add({ ...ksym('brew', addrAdd(BASE, 4096), 8, 'module'), module: 'coffee' });
  kallsyms.add(ksym('bpf_trampoline_6442450974_0', BASE, 4096));
  kallsyms.add(ksym('sched_clock', kaddr(0xffff_ffff_8100_0010n), 8, 'kernel'));
  expect(kallsyms.lines()).toEqual([
    'ffffffff81000010 t sched_clock',
    'ffffffffa0000000 t bpf_trampoline_6442450974_0\t[bpf]',
    'ffffffffa0001000 t brew\t[coffee]',
  ]);
  expect(kallsyms.nameOf(addrAdd(BASE, 4096))).toBe('brew');
  expect(kallsyms.nameOf(addrAdd(BASE, 4097))).toBe('brew+0x1');
  expect(kallsyms.nameOf(kaddr(0))).toBeUndefined();
});

test('adding, removing and finding agree with a plain list', () => {
  // Places do not overlap: 40 slots of 600 bytes, so that many lie across a page border.
  const SLOT = 600;
  const slot = fc.nat({ max: 39 });
  const change = fc.record({ slot, sizeBytes: fc.integer({ min: 1, max: SLOT }), remove: fc.boolean() });
  fc.assert(
    fc.property(
      fc.array(change, { maxLength: 60 }),
      fc.array(fc.nat({ max: 40 * SLOT })),
      (changes, places) => {
        const kallsyms = new Kallsyms();
        const model = new Map<number, Ksym>();
        for (const { slot: at, sizeBytes, remove } of changes) {
          const known = model.get(at);
          if (remove && known !== undefined) {
            kallsyms.remove(known);
            model.delete(at);
          } else if (known === undefined) {
            const made = ksym(`s${at % 7}`, addrAdd(BASE, at * SLOT), sizeBytes);
            kallsyms.add(made);
            model.set(at, made);
          }
        }
        const all = [...model.values()];
        for (const place of places) {
          const address = addrAdd(BASE, place);
          const wanted = all.find(
            ({ start, sizeBytes }) => address >= start && address < addrAdd(start, sizeBytes),
          );
          expect(kallsyms.lookup(address)?.ksym).toBe(wanted);
        }
        for (const name of ['s0', 's3', 's6']) {
          expect(kallsyms.named(name)).toBe(all.find((each) => each.name === name));
        }
        expect(kallsyms.list()).toEqual(all.toSorted((a, b) => Number(a.start - b.start)));
      },
    ),
  );
});
