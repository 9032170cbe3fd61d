import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { kaddr, toHex } from '../../lib/index.ts';
import {
  findSymbol,
  functionAt,
  type LinkedObject,
  layoutObject,
  linkedBytes,
  linkObject,
  parseElf,
} from '../../obj/index.ts';
import { buildObject, type RelocSpec, type SectionSpec, type SymbolSpec } from './elf-builder.ts';
import {
  BASES,
  FIXTURES,
  fixture,
  IMAGE,
  inputError,
  knowing,
  linked,
  placeAtBases,
  tool,
} from './support.ts';

const WRITE = 1;
const ALLOC = 2;
const EXEC = 4;
const NOBITS = 8;

const text: SectionSpec = { name: '.text', flags: ALLOC | EXEC, align: 16, data: new Uint8Array(32) };
const data: SectionSpec = { name: '.data', flags: ALLOC | WRITE, align: 8, data: new Uint8Array(32) };
const bss: SectionSpec = { name: '.bss', flags: ALLOC | WRITE, align: 8, type: NOBITS, size: 64 };

function build(
  sections: readonly SectionSpec[],
  symbols: readonly SymbolSpec[] = [],
  relocs: readonly RelocSpec[] = [],
): ReturnType<typeof parseElf> {
  return parseElf(buildObject(sections, symbols, relocs), 'x.o');
}

/** The bytes at .text+8 after one relocation there against an undefined symbol of a given address. */
function relocated(type: number, symbol: bigint, addend: bigint, width: 4 | 8): bigint {
  const object = build(
    [text],
    [{ name: 'there', section: 'undef' }],
    [{ section: 0, offset: 8, type, symbol: 0, addend }],
  );
  const { groups } = linked(object, { there: symbol });
  const bytes = linkedBytes(groups, kaddr(BASES.text + 8n), width);
  return BigInt(`0x${toHex((bytes ?? new Uint8Array()).slice().reverse())}`);
}

describe('relocation forms, S + A and so on by hand', () => {
  const T = BASES.text; // P is T + 8

  it.each<[string, number, 4 | 8, bigint, bigint, bigint]>([
    ['64', 1, 8, 0xffff_ffff_8123_4567n, 0x10n, 0xffff_ffff_8123_4577n],
    ['64 wraps', 1, 8, 0xffff_ffff_ffff_ffffn, 2n, 1n],
    ['PC32', 2, 4, T + 0x108n, -4n, 0xfcn],
    ['PC32 backwards', 2, 4, T, 0n, 0xffff_fff8n],
    ['PC32, farthest forward', 2, 4, T + 8n + 0x7fff_ffffn, 0n, 0x7fff_ffffn],
    ['PC32, farthest back', 2, 4, T + 8n - 0x8000_0000n, 0n, 0x8000_0000n],
    ['PLT32', 4, 4, T + 0x20n, -4n, 0x14n],
    ['32', 10, 4, 0xffff_fff0n, 0xfn, 0xffff_ffffn],
    ['32S of kernel text', 11, 4, 0xffff_ffff_8000_0000n, 0n, 0x8000_0000n],
    ['32S below 2 GiB', 11, 4, 0x7fff_fff0n, 0xfn, 0x7fff_ffffn],
    ['PC64', 24, 8, 0x1000n, 0n, BigInt.asUintN(64, 0x1000n - (T + 8n))],
  ])('R_X86_64_%s', (_name, type, width, symbol, addend, expected) => {
    expect(relocated(type, symbol, addend, width)).toBe(expected);
  });

  it.each<[string, number, bigint, bigint]>([
    ['PC32', 2, T + 8n + 0x8000_0000n, 0n],
    ['PC32', 2, T + 8n - 0x8000_0001n, 0n],
    ['PLT32', 4, 0xffff_8880_0000_0000n, -4n],
    ['32', 10, 0x1_0000_0000n, 0n],
    ['32', 10, 0xffff_ffff_8100_0000n, 0n],
    ['32S', 11, 0x8000_0000n, 0n],
    ['32S', 11, 0xffff_ffff_7fff_ffffn, 0n],
  ])('R_X86_64_%s refuses what does not fit', (name, type, symbol, addend) => {
    const { message } = inputError(() => relocated(type, symbol, addend, 4));
    expect(message).toContain(`x.o .text+0x8: R_X86_64_${name} against there`);
    expect(message).toContain('does not fit 4 bytes');
  });

  it.each([9, 41, 42])('GOTPCREL form %i goes through a slot with the address', (type) => {
    const object = build(
      [text],
      [{ name: 'there', section: 'undef' }],
      [
        { section: 0, offset: 8, type, symbol: 0, addend: -4n },
        { section: 0, offset: 16, type, symbol: 0, addend: -4n },
      ],
    );
    const { groups } = linked(object, { there: 0xffff_8880_1234_5678n });
    const code = new DataView(groups[0]?.bytes.buffer ?? new ArrayBuffer());
    const first = BASES.text + 8n + 4n + BigInt(code.getInt32(8, true));
    const second = BASES.text + 16n + 4n + BigInt(code.getInt32(16, true));
    expect(first).toBe(BASES.rodata);
    expect(second).toBe(first);
    expect(groups.map(({ kind, sizeBytes }) => [kind, sizeBytes])).toEqual([
      ['text', 32],
      ['rodata', 8],
    ]);
    expect(toHex(groups[1]?.bytes ?? new Uint8Array())).toBe('7856341280 88ffff'.replace(' ', ''));
  });

  it('NONE does nothing; an unknown type and one of another code model are named', () => {
    const one = (type: number): unknown =>
      linked(build([text], [{ name: 'f', section: 0 }], [{ section: 0, offset: 4, type, symbol: 0 }]));
    expect(one(0)).toBeDefined();
    expect(inputError(() => one(77)).message).toMatch(/^x\.o \.text\+0x4: relocation type 77 against f\+0x0/);
    expect(inputError(() => one(22)).message).toMatch(
      /R_X86_64_GOTTPOFF against f\+0x0: not used by kernel-style code/,
    );
  });

  it('refuses a relocation that does not lie within its section', () => {
    const object = build(
      [text],
      [{ name: 'f', section: 0 }],
      [{ section: 0, offset: 30, type: 2, symbol: 0 }],
    );
    expect(inputError(() => linked(object)).message).toMatch(
      /\.text\+0x1e: .* its 4 bytes are not within the section's 0x20/,
    );
    const empty = build(
      [bss, text],
      [{ name: 'f', section: 1 }],
      [{ section: 0, offset: 0, type: 1, symbol: 0 }],
    );
    expect(inputError(() => linked(empty)).message).toMatch(/its 8 bytes are not within the section's 0x0/);
  });
});

describe('symbols', () => {
  it('section, absolute, common, weak and null ones', () => {
    const object = build(
      [data, bss],
      [
        { name: 'here', section: 0, value: 16n },
        { name: 'fixed', section: 'abs', value: 0x1234n },
        { name: 'shared', section: 'common', value: 32n, size: 8 },
        { name: 'maybe', section: 'undef', binding: 'weak' },
      ],
      [0, 1, 2, 3, -1].map((symbol, i) => ({
        section: 0,
        offset: 8 * Math.min(i, 3),
        type: i === 4 ? 0 : 1,
        symbol,
      })),
    );
    const { groups, ...rest } = linked(object);
    const bytes = groups.find((group) => group.kind === 'data')?.bytes ?? new Uint8Array();
    const words = new BigUint64Array(bytes.slice().buffer);
    expect([...words]).toEqual([BASES.data + 16n, 0x1234n, BASES.bss + 64n, 0n]);
    expect(groups.find((group) => group.kind === 'bss')).toMatchObject({ sizeBytes: 72, alignBytes: 32 });
    expect(findSymbol({ groups, ...rest }, 'shared')?.address).toBe(BASES.bss + 64n);
    expect(findSymbol({ groups, ...rest }, 'maybe')).toBeUndefined();
  });

  it('a null symbol counts as zero', () => {
    const object = build([data], [], [{ section: 0, offset: 0, type: 1, symbol: -1, addend: 0x55n }]);
    expect(toHex(linked(object).groups[0]?.bytes.slice(0, 8) ?? new Uint8Array())).toBe('5500000000000000');
  });

  it('names all that are undefined in one error', () => {
    const object = build(
      [text, data],
      ['printk', 'kfree', 'jiffies', 'unused'].map((name) => ({ name, section: 'undef' })),
      [
        { section: 0, offset: 0, type: 4, symbol: 0 },
        { section: 0, offset: 8, type: 4, symbol: 1 },
        { section: 0, offset: 16, type: 4, symbol: 0 },
        { section: 1, offset: 0, type: 1, symbol: 2 },
      ],
    );
    expect(inputError(() => linked(object)).message).toBe(
      'x.o: undefined symbols jiffies, kfree, printk: load first what defines them',
    );
    expect(inputError(() => linked(object, { kfree: 0xffff_ffff_8100_1000n, jiffies: 0n })).message).toMatch(
      /undefined symbol printk: load first what defines it$/,
    );
  });

  it('__fentry__ may be missing where it is called, and only there', () => {
    const call = { ...text, data: Uint8Array.of(0xe8, 0, 0, 0, 0, 0xc3, 0, 0) };
    const fentry: SymbolSpec = { name: '__fentry__', section: 'undef' };
    const called = linked(
      build([call], [fentry], [{ section: 0, offset: 1, type: 4, symbol: 0, addend: -4n }]),
    );
    expect(called.fentryCalls).toEqual([{ displacement: BASES.text + 1n, throughGot: false }]);
    const stored = build([data], [fentry], [{ section: 0, offset: 0, type: 1, symbol: 0 }]);
    expect(inputError(() => linked(stored)).message).toContain('undefined symbol __fentry__');
    const jump = { ...text, data: Uint8Array.of(0xe9, 0, 0, 0, 0) };
    const jumped = build([jump], [fentry], [{ section: 0, offset: 1, type: 4, symbol: 0, addend: -4n }]);
    expect(inputError(() => linked(jumped)).message).toContain('undefined symbol __fentry__');
  });

  it('refuses thread-local and indirect ones, and sections that are not loaded', () => {
    const against = (symbol: SymbolSpec): string =>
      inputError(() =>
        linked(
          build(
            [data, { name: '.debug', data: new Uint8Array(8) }],
            [symbol],
            [{ section: 0, offset: 0, type: 1, symbol: 0 }],
          ),
        ),
      ).message;
    expect(against({ name: 't', section: 0, type: 6 })).toBe(
      'x.o: symbol t is thread-local; kernel code has none',
    );
    expect(against({ name: 'i', section: 0, type: 10 })).toBe(
      'x.o: symbol i is an indirect function; kernel code has none',
    );
    expect(against({ name: 'd', section: 1 })).toMatch(
      /R_X86_64_64 against d\+0x0: the symbol is not in a section that is loaded/,
    );
  });

  it('finds functions by address, global names first', () => {
    const object = build(
      [text],
      [
        { name: 'local_alias', section: 0, value: 4n, size: 8, type: 2, binding: 'local' },
        { name: 'f', section: 0, value: 4n, size: 8, type: 2 },
        { name: 'g', section: 0, value: 16n, size: 16, type: 2 },
        { name: 'label', section: 0, value: 6n },
      ],
    );
    const result = linked(object);
    const at = (offset: bigint): string | undefined => functionAt(result, kaddr(BASES.text + offset))?.name;
    expect([0n, 3n, 4n, 11n, 12n, 16n, 31n, 32n].map(at)).toEqual([
      undefined,
      undefined,
      'f',
      'f',
      undefined,
      'g',
      'g',
      undefined,
    ]);
  });
});

describe('layout', () => {
  it('groups sections by protection, aligned, text padded with int3', () => {
    const object = build([
      { name: '.text', flags: ALLOC | EXEC, align: 1, data: Uint8Array.of(0x90) },
      { name: '.rodata.str', flags: ALLOC, align: 1, data: Uint8Array.of(1, 2, 3) },
      { name: '.text.unlikely', flags: ALLOC | EXEC, align: 16, data: Uint8Array.of(0xc3) },
      { name: '.rodata', flags: ALLOC, align: 8, data: Uint8Array.of(4) },
      data,
      bss,
      { name: '.comment', data: Uint8Array.of(9) },
      { name: '.eh_frame', flags: ALLOC, data: Uint8Array.of(9) },
      { name: '.note.gnu.property', flags: ALLOC, data: Uint8Array.of(9) },
    ]);
    const { groups } = linked(object);
    expect(groups.map(({ kind, sizeBytes, alignBytes }) => [kind, sizeBytes, alignBytes])).toEqual([
      ['text', 17, 16],
      ['rodata', 9, 8],
      ['data', 32, 8],
      ['bss', 64, 8],
    ]);
    expect(toHex(groups[0]?.bytes ?? new Uint8Array())).toBe(`90${'cc'.repeat(15)}c3`);
    expect(toHex(groups[1]?.bytes ?? new Uint8Array())).toBe('010203000000000004');
    expect(groups[3]?.bytes.length).toBe(0);
  });

  it.each<[SectionSpec, RegExp]>([
    [{ name: '.tdata', flags: ALLOC | WRITE | 0x400, data: new Uint8Array(8) }, /\.tdata is thread-local/],
    [
      { name: '.wx', flags: ALLOC | WRITE | EXEC, data: new Uint8Array(8) },
      /\.wx is writable and executable/,
    ],
    [{ name: '.x', flags: ALLOC | EXEC, type: NOBITS, size: 8 }, /\.x is executable and without contents/],
    [
      { name: '.huge', flags: ALLOC | WRITE, type: NOBITS, size: 2 ** 40 },
      /section \.huge \(0x10000000000 bytes\) makes bss larger than 64 MiB/,
    ],
  ])('refuses %j', (section, message) => {
    expect(inputError(() => layoutObject(build([section]))).message).toMatch(message);
  });

  it('refuses common symbols of an odd alignment', () => {
    const object = build([data], [{ name: 'c', section: 'common', value: 12n, size: 8 }]);
    expect(inputError(() => layoutObject(object)).message).toMatch(
      /common symbol c asks for the alignment 0xc/,
    );
  });

  it('puts the segments of an image where they belong', () => {
    const image = fixture(IMAGE);
    const layout = layoutObject(image);
    expect(layout.groups.map((group) => group.fixed)).toEqual(
      image.segments.map((segment) => segment.address),
    );
    const result = linked(image);
    expect(result.groups.map((group) => group.kind)).toEqual(['rodata', 'text', 'rodata', 'data']);
    expect(result.groups.at(-1)?.sizeBytes).toBeGreaterThan(result.groups.at(-1)?.bytes.length ?? 0);
    expect(findSymbol(result, '_start')?.address).toBe(image.entry);
    expect(functionAt(result, image.entry)?.name).toBe('_start');
  });

  it('refuses an image with writable text, or with two protections on a page', () => {
    const image = fixture(IMAGE);
    const segments = image.segments.map((segment, i) => (i === 1 ? { ...segment, write: true } : segment));
    expect(inputError(() => layoutObject({ ...image, segments })).message).toMatch(
      /writable and executable: link without -N/,
    );
    const moved = image.segments.map((segment, i) =>
      i === 3 ? { ...segment, address: kaddr(segment.address - 0x1000n) } : segment,
    );
    expect(inputError(() => layoutObject({ ...image, segments: moved })).message).toMatch(
      /share a page under different protections/,
    );
    const onTop = image.segments.map((segment, i) =>
      i === 3 ? { ...segment, address: image.segments[2]?.address ?? kaddr(0) } : segment,
    );
    expect(inputError(() => layoutObject({ ...image, segments: onTop })).message).toMatch(/share memory/);
    expect(inputError(() => layoutObject({ ...image, segments: [] })).message).toMatch(/no segment to load/);
    const vast = image.segments.map((segment) => ({ ...segment, sizeBytes: 2 ** 40 }));
    expect(inputError(() => layoutObject({ ...image, segments: vast })).message).toMatch(
      /larger than 64 MiB/,
    );
  });
});

/** Contents of the sections of an object as GNU ld links it, each section put where we put it. */
function linkedByLd(
  name: string,
  result: LinkedObject,
  names: Readonly<Record<string, bigint>>,
): string | undefined {
  const layout = layoutObject(result.object);
  const folder = mkdtempSync(join(tmpdir(), 'tramplab-ld-'));
  try {
    const placed = layout.groups.flatMap(({ kind, sections }) =>
      sections.map(({ section, offset }) => ({ name: section.name, address: BASES[kind] + BigInt(offset) })),
    );
    const commons = [...layout.commons].map(([index, offset]) => {
      const symbol = result.object.symbols[index];
      return `${symbol?.name} = 0x${(BASES.bss + BigInt(offset)).toString(16)};`;
    });
    const lines = placed.map(
      ({ name: section, address }) => `${section} 0x${address.toString(16)} : { *(${section}) }`,
    );
    const script = `SECTIONS { ${lines.join('\n')} /DISCARD/ : { *(__mcount_loc) *(COMMON) } }\n${commons.join('\n')}`;
    writeFileSync(join(folder, 'script'), script);
    const defines = Object.entries(names).map(
      ([symbol, value]) => `--defsym=${symbol}=0x${value.toString(16)}`,
    );
    const out = join(folder, 'out');
    const args = [
      '-static',
      '--no-relax',
      '-e',
      '0',
      '-T',
      join(folder, 'script'),
      ...defines,
      '-o',
      out,
      FIXTURES + name,
    ];
    if (tool('ld', args) === undefined) return undefined;
    const theirs = parseElf(readFileSync(out), 'out');
    const wanted = new Set(placed.map(({ name: section }) => section));
    return theirs.sections
      .filter((section) => wanted.has(section.name) && section.data.length > 0)
      .map(({ name: section, data: bytes }) => `${section} ${toHex(bytes)}`)
      .sort()
      .join('\n');
  } finally {
    rmSync(folder, { recursive: true });
  }
}

describe('the same bytes as GNU ld', () => {
  const names = { __fentry__: 0xffff_ffff_8180_0000n, schedule_coffee: 0xffff_ffff_8190_0000n };

  it.for(['demo.o', 'wide.o', 'control.o', 'probes.o', 'demo-patchable.o'])('%s', (name, context) => {
    const result = linked(fixture(name), names);
    const theirs = linkedByLd(name, result, names);
    if (theirs === undefined) return context.skip('no ld');
    const ours = layoutObject(result.object).groups.flatMap(({ kind, sections }) =>
      sections
        .filter(({ section }) => section.data.length > 0)
        .map(({ section, offset }) => {
          const bytes = linkedBytes(result.groups, kaddr(BASES[kind] + BigInt(offset)), section.data.length);
          return `${section.name} ${toHex(bytes ?? new Uint8Array())}`;
        }),
    );
    expect(ours.sort().join('\n')).toBe(theirs);
  });
});

describe('placing', () => {
  it('changes nothing of the file', () => {
    const file = readFileSync(FIXTURES + IMAGE); // a Buffer, whose slice() would share memory
    const before = toHex(file);
    const result = linked(parseElf(file, IMAGE));
    for (const group of result.groups) group.bytes.fill(0xcc);
    for (const record of result.siteRecords) expect(record.address).toBeGreaterThan(0n);
    expect(toHex(file)).toBe(before);
  });

  it('takes the addresses from the caller, and only aligned ones', () => {
    const layout = layoutObject(fixture('demo.o'));
    const odd = (): unknown => linkObject(layout, () => kaddr(BASES.text + 1n), knowing({}));
    expect(odd).toThrow(/placed at 0xffffffff81000001/);
    expect(linkObject(layout, placeAtBases, knowing({})).groups.map((group) => group.address)).toEqual(
      layout.groups.map((group) => BASES[group.kind]),
    );
  });
});
