import { describe, expect, it } from 'vitest';
import { kaddr } from '../../lib/index.ts';
import { findSection, parseElf, SectionFlag, SectionType } from '../../obj/index.ts';
import { buildObject } from './elf-builder.ts';
import { FIXTURES, fixture, fixtureBytes, IMAGE, inputError, OBJECTS, tool } from './support.ts';

describe('parseElf on compiled objects', () => {
  it('knows what is in the demo target', () => {
    const demo = fixture('demo.o');
    expect(demo).toMatchObject({ type: 'rel', machine: 'x86-64', entry: 0n, segments: [] });

    const text = findSection(demo, '.text');
    expect(text?.flags).toBe(SectionFlag.ALLOC | SectionFlag.EXECINSTR);
    expect(text?.data.length).toBe(text?.sizeBytes);
    const bss = findSection(demo, '.bss');
    expect(bss).toMatchObject({ type: SectionType.NOBITS, sizeBytes: 8 });
    expect(bss?.data.length).toBe(0);

    const beans = demo.symbols.find((symbol) => symbol.name === 'beans');
    expect(beans).toMatchObject({ binding: 'global', type: 'object', sizeBytes: 4, value: 0n });
    expect(beans?.section).toBe(findSection(demo, '.data')?.index);
    expect(demo.symbols.find((symbol) => symbol.name === '__fentry__')?.section).toBe('undef');

    const functions = demo.symbols.filter((symbol) => symbol.type === 'func').map((symbol) => symbol.name);
    expect(functions).toEqual([
      'grind_beans',
      'schedule_coffee',
      'shave_yak',
      'cpu_is_awake',
      'panic_reason',
    ]);

    const first = demo.relocations.get(text?.index ?? -1)?.[0];
    expect(first).toMatchObject({ offset: 1, type: 4, addend: -4n, symbol: { name: '__fentry__' } });
  });

  it('knows what is in the image', () => {
    const image = fixture(IMAGE);
    expect(image.type).toBe('exec');
    expect(image.relocations.size).toBe(0);
    expect(image.segments.map(({ read, write, execute }) => [read, write, execute])).toEqual([
      [true, false, false],
      [true, false, true],
      [true, false, false],
      [true, true, false],
    ]);
    expect(image.segments[0]?.address).toBe(0xffff_ffff_8100_0000n);
    expect(image.entry).toBe(image.symbols.find((symbol) => symbol.name === '_start')?.value);
  });

  it('has common and weak symbols', () => {
    const { symbols } = fixture('control.o');
    const calls = symbols.find((symbol) => symbol.name === 'calls_made');
    expect(calls).toMatchObject({ section: 'common', value: 8n, sizeBytes: 8 });
    const hook = symbols.find((symbol) => symbol.name === 'optional_hook');
    expect(hook).toMatchObject({ section: 'undef', binding: 'weak' });
  });

  describe.each([...OBJECTS, IMAGE])('%s as binutils read it', (name) => {
    const object = fixture(name);

    it('sections', (context) => {
      const text = tool('readelf', ['-SW', FIXTURES + name]);
      if (text === undefined) return context.skip('no readelf');
      const rows = [
        ...text.matchAll(/^ +\[ *(\d+)\] (\S*) +(\S+) +([0-9a-f]{16}) ([0-9a-f]{6}) ([0-9a-f]{6})/gm),
      ];
      const expected = rows.map(([, index, section, , address, offset, size]) =>
        [index, section, BigInt(`0x${address}`), Number(`0x${offset}`), Number(`0x${size}`)].join(' '),
      );
      const ours = object.sections.map((section) =>
        [section.index, section.name, section.address, section.fileOffset, section.sizeBytes].join(' '),
      );
      // The null section has no name, which readelf prints as its type.
      expect(ours.slice(1)).toEqual(expected.slice(-object.sections.length + 1));
      expect(ours.length).toBeGreaterThan(5);
    });

    it('symbols', (context) => {
      const text = tool('readelf', ['-sW', FIXTURES + name]);
      if (text === undefined) return context.skip('no readelf');
      const rows = [...text.matchAll(/^ +(\d+): ([0-9a-f]{16}) +(\d+) (\w+) +(\w+) +\w+ +(\w+) ?(.*)$/gm)];
      const expected = rows.map(([, index, value, size, type, binding, section, symbol]) => {
        const names = type === 'SECTION' ? '' : symbol;
        return [index, BigInt(`0x${value}`), size, type, binding, section, names].join(' ');
      });
      const places = { undef: 'UND', abs: 'ABS', common: 'COM' };
      const ours = object.symbols.map((symbol) =>
        [
          symbol.index,
          symbol.value,
          symbol.sizeBytes,
          symbol.type.toUpperCase(),
          symbol.binding.toUpperCase(),
          typeof symbol.section === 'number' ? symbol.section : places[symbol.section],
          symbol.name,
        ].join(' '),
      );
      expect(ours.map((row) => row.replace(' COMMON GLOBAL', ' OBJECT GLOBAL'))).toEqual(expected);
    });

    it('relocations', (context) => {
      const text = tool('readelf', ['-rW', FIXTURES + name]);
      if (text === undefined) return context.skip('no readelf');
      const rows = [
        ...text.matchAll(/^([0-9a-f]{16}) +([0-9a-f]{16}) R_X86_64_\S+ .* ([+-]) ([0-9a-f]+)$/gm),
      ];
      const expected = rows.map(([, offset, info, sign, addend]) =>
        [BigInt(`0x${offset}`), BigInt(`0x${info}`), `${sign}${BigInt(`0x${addend}`)}`].join(' '),
      );
      const ours = [...object.relocations.values()].flat().map(({ offset, type, symbol, addend }) => {
        const info = (BigInt(symbol.index) << 32n) | BigInt(type);
        return [BigInt(offset), info, addend < 0n ? String(addend) : `+${addend}`].join(' ');
      });
      expect(ours).toEqual(expected);
    });
  });
});

describe('parseElf refuses', () => {
  const good = fixtureBytes('demo.o');
  const patched = (patch: (view: DataView) => void): Uint8Array => {
    const bytes = good.slice();
    patch(new DataView(bytes.buffer));
    return bytes;
  };
  const view = new DataView(good.buffer, good.byteOffset);
  const shoff = Number(view.getBigUint64(40, true));
  const header = (name: string, field: number): number => {
    const index = findSection(fixture('demo.o'), name)?.index ?? -1;
    return shoff + 64 * index + field;
  };

  it.each<[string, Uint8Array, RegExp]>([
    ['an empty file', new Uint8Array(), /^x\.o at offset 0x0: no ELF file: shorter than/],
    [
      'text',
      new TextEncoder().encode('int f(int a) { return a; }'.repeat(9)),
      /at offset 0x0: no ELF file: it does not/,
    ],
    ['ELF32', patched((v) => v.setUint8(4, 1)), /at offset 0x4: EI_CLASS is 1; only 64-bit/],
    ['big-endian', patched((v) => v.setUint8(5, 2)), /at offset 0x5: EI_DATA is 2, big-endian: compile for/],
    ['another version', patched((v) => v.setUint32(20, 7, true)), /e_version is 7/],
    [
      'another machine',
      patched((v) => v.setUint16(18, 183, true)),
      /at offset 0x12: e_machine is 183; expected x86-64/,
    ],
    ['a BPF object', patched((v) => v.setUint16(18, 247, true)), /e_machine is 247 \(bpf\); expected x86-64/],
    ['a shared object', patched((v) => v.setUint16(16, 3, true)), /e_type is 3 \(a shared object.*-no-pie/],
    ['an unknown type', patched((v) => v.setUint16(16, 77, true)), /e_type is 77; expected a relocatable/],
    ['no sections', patched((v) => v.setUint16(60, 0, true)), /e_shnum is 0/],
    [
      'more section headers than bytes',
      patched((v) => v.setUint16(60, 60000, true)),
      /at offset 0x28: the section header table \(e_shoff, 60000 entries\).*past the end/,
    ],
    [
      'a section table near 2^64',
      patched((v) => v.setBigUint64(40, 2n ** 64n - 64n, true)),
      /e_shoff is 0xffffffffffffffc0, larger than any file/,
    ],
    ['an odd header size', patched((v) => v.setUint16(58, 40, true)), /e_shentsize is 40; ELF64 has 64/],
    [
      'section names elsewhere',
      patched((v) => v.setUint16(62, 999, true)),
      /e_shstrndx is 999, which is no string table/,
    ],
    [
      'a section past the end',
      patched((v) => v.setBigUint64(header('.text', 32), 0xffffffn, true)),
      /section 1 is 0xffffff bytes at 0x40, past the end/,
    ],
    [
      'a section offset near 2^64',
      patched((v) => v.setBigUint64(header('.text', 24), 2n ** 64n - 1n, true)),
      /sh_offset of section 1 is 0xffffffffffffffff/,
    ],
    [
      'an alignment of 3',
      patched((v) => v.setBigUint64(header('.text', 48), 3n, true)),
      /sh_addralign of section 1 is 0x3/,
    ],
    [
      'overlapping sections',
      patched((v) => v.setBigUint64(header('.data', 24), 0x50n, true)),
      /sections 1 and 3 share bytes/,
    ],
    [
      'a name past the names',
      patched((v) => v.setUint32(header('.text', 0), 0xffff, true)),
      /the name of section 1 is at 0xffff of a string table/,
    ],
    [
      'half a symbol',
      patched((v) => v.setBigUint64(header('.symtab', 32), 25n, true)),
      /sh_size of .symtab is 25, no multiple of 24/,
    ],
    ['two symbol tables', patched((v) => v.setUint32(header('.text', 4), 2, true)), /a second symbol table/],
    ['SHT_REL', patched((v) => v.setUint32(header('.rela.text', 4), 9, true)), /is of type SHT_REL; x86-64/],
    [
      'relocations of nothing',
      patched((v) => v.setUint32(header('.rela.text', 44), 500, true)),
      /sh_info of .rela.text is 500/,
    ],
    [
      'relocations against no symbols',
      patched((v) => v.setUint32(header('.rela.text', 40), 1, true)),
      /sh_link of .rela.text is 1/,
    ],
  ])('%s', (_what, bytes, message) => {
    const error = inputError(() => parseElf(bytes, 'x.o'));
    expect(error.message).toMatch(message);
    expect(error.file).toBe('x.o');
  });

  it('a symbol beyond its section, a relocation of a symbol that is not there, an unterminated name', () => {
    const text = { name: '.text', flags: 6, data: new Uint8Array(16) };
    const long = buildObject([text], [{ name: 'f', section: 0, value: 8n, size: 9 }]);
    expect(inputError(() => parseElf(long, 'x.o')).message).toMatch(
      /symbol 1 \(f\) is 0x9 bytes at 0x8 of a section of 0x10/,
    );
    const nowhere = buildObject([text], [{ name: 'f', section: 200 }]);
    expect(inputError(() => parseElf(nowhere, 'x.o')).message).toMatch(
      /symbol 1 \(f\) is in section 201 of 5/,
    );
    const dangling = buildObject([text], [], [{ section: 0, offset: 0, type: 2, symbol: 7 }]);
    expect(inputError(() => parseElf(dangling, 'x.o')).message).toMatch(/names symbol 8 of 1/);
    const endless = buildObject([text], [{ name: 'x'.repeat(2000), section: 0 }]);
    expect(inputError(() => parseElf(endless, 'x.o')).message).toMatch(
      /the name of symbol 1 has more than 1024 bytes/,
    );
  });

  it('takes the machines it is told to take', () => {
    const text = { name: '.text', flags: 6, data: new Uint8Array(16) };
    const relocs = [{ section: 0, offset: 8, type: 10, symbol: 0 }];
    const bpf = buildObject([text], [{ name: 'f', section: 0 }], relocs, 'bpf');
    const read = parseElf(bpf, 'x.o', ['bpf']);
    expect(read.machine).toBe('bpf');
    expect(read.relocations.get(1)).toMatchObject([
      { offset: 8, type: 10, symbol: { name: 'f' }, addend: 0n },
    ]);
    expect(inputError(() => parseElf(bpf, 'x.o')).message).toMatch(
      /e_machine is 247 \(bpf\); expected x86-64/,
    );
    expect(inputError(() => parseElf(good, 'x.o', ['bpf'])).message).toMatch(
      /e_machine is 62 \(x86-64\); expected bpf/,
    );
  });

  it('takes of each machine the relocation tables that its compilers write', () => {
    const rela = patched((v) => v.setUint16(18, 247, true));
    expect(inputError(() => parseElf(rela, 'x.o', ['bpf'])).message).toMatch(
      /is of type SHT_RELA; bpf relocations are SHT_REL$/,
    );
  });

  it('shows foreign names on one line', () => {
    const text = { name: '.te\nxt', type: 9, data: new Uint8Array() };
    const error = inputError(() => parseElf(buildObject([text]), 'x.o'));
    expect(error.message).toContain('.te\\x0axt is of type SHT_REL');
    expect(error.message).not.toContain('\n');
  });
});

describe('an image', () => {
  const good = fixtureBytes(IMAGE);
  const patched = (offset: number, value: number): Uint8Array => {
    const bytes = good.slice();
    new DataView(bytes.buffer).setUint32(offset, value, true);
    return bytes;
  };

  it('must be static and whole', () => {
    expect(inputError(() => parseElf(patched(64, 3), 'x')).message).toMatch(
      /dynamically linked executable \(PT_INTERP\)/,
    );
    expect(inputError(() => parseElf(patched(64 + 32, 0x7fff_ffff), 'x')).message).toMatch(
      /p_filesz of segment 0 is larger/,
    );
    expect(inputError(() => parseElf(good.slice(0, good.length - 1), 'x')).message).toMatch(
      /past the end of the file/,
    );
  });

  it('keeps every symbol at its address', () => {
    const image = fixture(IMAGE);
    const fentry = image.symbols.find((symbol) => symbol.name === '__fentry__');
    expect(fentry && kaddr(fentry.value) >= (image.segments[1]?.address ?? kaddr(0))).toBe(true);
  });
});
