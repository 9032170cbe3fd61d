import { describe, expect, it } from 'vitest';
import { fromHex, kaddr } from '../../lib/index.ts';
import { ftraceSites, linkedBytes, parseElf } from '../../obj/index.ts';
import { buildObject, type RelocSpec } from './elf-builder.ts';
import { BASES, fixture, IMAGE, inputError, linked } from './support.ts';

const DEMO = ['grind_beans', 'schedule_coffee', 'shave_yak', 'cpu_is_awake', 'panic_reason'];

describe('the sites of compiled files', () => {
  it.each([
    ['demo.o', 'call'],
    ['demo-no-btf.o', 'call'],
    ['demo-no-table.o', 'call'],
    ['demo-patchable.o', 'nop'],
    [IMAGE, 'call'],
  ])('%s: a %s at the start of each function', (name, kind) => {
    const target = linked(fixture(name));
    const sites = ftraceSites(target);
    expect(sites.map((site) => site.function)).toEqual(DEMO);
    for (const site of sites) {
      expect(site).toMatchObject({ kind, offset: 0 });
      const [first] = linkedBytes(target.groups, site.address, 5) ?? [];
      expect(first).toBe(kind === 'call' ? 0xe8 : 0x90);
    }
  });

  it('none where none were asked for, one for each traced function of the others', () => {
    expect(ftraceSites(linked(fixture('demo-untraced.o')))).toEqual([]);
    expect(ftraceSites(linked(fixture('probes.o'), { schedule_coffee: 0xffff_ffff_8190_0000n }))).toEqual([]);
    for (const name of ['wide.o', 'control.o']) {
      const target = linked(fixture(name));
      // gcc moves what it takes for rare out of line, to functions that nobody enters from the start.
      const functions = target.functions.map((symbol) => symbol.name).filter((one) => !one.endsWith('.cold'));
      expect(ftraceSites(target).map((site) => site.function)).toEqual(functions);
      expect(functions.length).toBeGreaterThan(10);
    }
  });

  it('also when __fentry__ is somewhere', () => {
    const target = linked(fixture('demo.o'), { __fentry__: 0xffff_ffff_8180_0000n });
    expect(ftraceSites(target)).toHaveLength(DEMO.length);
  });

  it('-fpic calls through the global offset table are refused by name', () => {
    expect(inputError(() => ftraceSites(linked(fixture('demo-pic.o')))).message).toBe(
      'demo-pic.o: grind_beans calls __fentry__ through the global offset table (6 bytes, ff 15), ' +
        'which ftrace cannot patch: compile with -fno-pic',
    );
  });
});

/** A function of these bytes with one record at an offset, and `__fentry__` relocations. */
function sitesOf(
  hex: string,
  records: readonly number[],
  calls: readonly RelocSpec[] = [],
  table = '__mcount_loc',
) {
  const object = buildObject(
    [
      { name: '.text', flags: 6, align: 16, data: fromHex(hex) ?? new Uint8Array() },
      { name: table, flags: 2, data: new Uint8Array(8 * records.length) },
    ],
    [
      { name: '.text', section: 0, type: 3, binding: 'local' },
      { name: 'f', section: 0, size: hex.length / 2, type: 2 },
      { name: '__fentry__', section: 'undef' },
    ],
    [
      ...records.map((offset, i) => ({
        section: 1,
        offset: 8 * i,
        type: 1,
        symbol: 0,
        addend: BigInt(offset),
      })),
      ...calls,
    ],
  );
  return ftraceSites(linked(parseElf(object, 'x.o')));
}

const callAt = (offset: number): RelocSpec => ({
  section: 0,
  offset: offset + 1,
  type: 4,
  symbol: 2,
  addend: -4n,
});

describe('what a record may point at', () => {
  it('a call after endbr64', () => {
    expect(sitesOf('f30f1efae800000000c3', [4], [callAt(4)])).toEqual([
      { address: BASES.text + 4n, function: 'f', offset: 4, kind: 'call' },
    ]);
  });

  it.each([
    '9090909090',
    '0f1f440000',
    '669090 9090'.replace(' ', ''),
    '0f1f00 6690'.replace(' ', ''),
    '900f1f4000',
  ])('the nops %s', (nops) => {
    expect(sitesOf(`${nops}c3`, [0], [], '__patchable_function_entries')).toMatchObject([
      { kind: 'nop', offset: 0 },
    ]);
  });

  it('one listed twice is one; one not listed is found all the same', () => {
    expect(sitesOf('e800000000c3', [0, 0], [callAt(0)])).toHaveLength(1);
    expect(
      sitesOf('e800000000c3e800000000c3', [0], [callAt(0), callAt(6)]).map((site) => site.offset),
    ).toEqual([0, 6]);
  });

  it.each<[string, string, number, RegExp]>([
    [
      'a call of something else',
      'e800000000c3',
      0,
      /^x\.o __mcount_loc\+0x0: the record is 0xffffffff81000000 \(f\), where e800000000 is neither/,
    ],
    [
      'four nops',
      '90909090c3c3',
      0,
      /where 90909090c3 is neither a call of __fentry__ nor five bytes of nops/,
    ],
    ['nops cut by the end', '90909090', 0, /is 0xffffffff81000000 \(f\), which is not in loaded text/],
    ['nothing loaded', '9090909090', 0x1000, /is 0xffffffff81001000, which is not in loaded text/],
    [
      'a call through the GOT',
      'ff1500000000c3',
      0,
      /^x\.o: f calls __fentry__ through the global offset table/,
    ],
  ])('not %s', (_what, hex, record, message) => {
    expect(inputError(() => sitesOf(hex, [record])).message).toMatch(message);
  });

  it('not sites that overlap, not half a record', () => {
    expect(inputError(() => sitesOf('90909090909090', [0, 2])).message).toMatch(
      /0xffffffff81000000 and 0xffffffff81000002 overlap/,
    );
    const half = buildObject([{ name: '__mcount_loc', flags: 2, data: new Uint8Array(12) }]);
    expect(inputError(() => linked(parseElf(half, 'x.o'))).message).toMatch(
      /__mcount_loc is 12 bytes; its records are 8/,
    );
  });

  it('a zero is no record; a relative record is refused', () => {
    const object = buildObject([{ name: '__mcount_loc', flags: 2, data: new Uint8Array(16) }]);
    expect(ftraceSites(linked(parseElf(object, 'x.o')))).toEqual([]);
    const relative = buildObject(
      [{ name: '__mcount_loc', flags: 2, data: new Uint8Array(8) }],
      [{ name: 'f', section: 'abs', value: 4n }],
      [{ section: 0, offset: 0, type: 2, symbol: 0 }],
    );
    expect(inputError(() => linked(parseElf(relative, 'x.o'))).message).toMatch(/holds only addresses/);
  });

  it('in an image, a call must lead to __fentry__ itself', () => {
    const image = fixture(IMAGE);
    const symbols = image.symbols.map((symbol) =>
      symbol.name === '__fentry__' ? { ...symbol, value: kaddr(symbol.value + 1n) } : symbol,
    );
    expect(inputError(() => ftraceSites(linked({ ...image, symbols }))).message).toMatch(
      /^demo\.image __mcount_loc\+0x0: the record is .*\(grind_beans\), where e8.* is neither/,
    );
  });
});
