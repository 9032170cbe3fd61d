import { describe, expect, it } from 'vitest';
import { type BpfMapDef, type BpfObject, kconfigBytes, readBpfObject } from '../../bpf/index.ts';
import { type BtfSpec, buildBtf, func, int, KIND, proto, to } from '../obj/btf-builder.ts';
import { Bytes, type RelocSpec, type SectionSpec, type SymbolSpec } from '../obj/elf-builder.ts';
import { inputError } from '../obj/support.ts';
import { bpfObject, code, DATA_FLAGS, EXIT, functionAt, load64, readBuilt, ZERO } from './object-support.ts';

/* Map definitions, variables, configuration and `.BTF.ext` as no compiler would write them. */

const R_BPF_64_64 = 1;
const R_BPF_64_ABS64 = 2;
const R_BPF_64_ABS32 = 3;
const R_BPF_64_NODYLD32 = 4;

const btfSection = (types: readonly BtfSpec[]): SectionSpec => ({ name: '.BTF', data: buildBtf(types) });
const datasec = (name: string, ...vars: readonly (readonly [number, number, number])[]): BtfSpec => ({
  ...{ kind: KIND.DATASEC, name },
  items: vars,
});
const variable = (name: string, type: number, linkage = 1): BtfSpec => ({
  kind: KIND.VAR,
  name,
  value: type,
  tail: [linkage],
});
const array = (type: number, length: number): BtfSpec => ({ kind: KIND.ARRAY, tail: [type, 1, length] });
const struct = (
  name: string,
  sizeBytes: number,
  ...fields: readonly (readonly [string, number])[]
): BtfSpec => ({
  ...{ kind: KIND.STRUCT, name, value: sizeBytes },
  items: fields.map(([field, type], i) => [field, type, 64 * i]),
});
const message = (work: () => unknown): string => inputError(work).message;

describe('a map definition', () => {
  /** 1 int, 2 u64, 3 variable, 4 .maps, 5 the struct; the rest as given. Numbers are made at 20 + n. */
  const numbers = (from: number, ...values: readonly number[]): BtfSpec[] =>
    values.flatMap((value, i) => [to(KIND.PTR, from + 2 * i + 1), array(1, value)]);
  const object = (
    fields: readonly (readonly [string, number])[],
    more: readonly BtfSpec[],
    symbols: readonly SymbolSpec[] = [],
    relocs: readonly RelocSpec[] = [],
    sizeBytes = 8 * fields.length,
  ): BpfObject =>
    readBuilt(
      [
        { name: '.maps', flags: DATA_FLAGS, data: new Uint8Array(sizeBytes) },
        btfSection([
          ...[int('int', 4, true), int('u64', 8), variable('m', 5), datasec('.maps', [3, 0, sizeBytes])],
          struct('', 8 * fields.length, ...fields),
          ...more,
        ]),
        code('socket', [ZERO, EXIT]),
      ],
      [functionAt('prog', 2, 0, 2), ...symbols],
      relocs,
    );
  const only = (...built: Parameters<typeof object>): BpfMapDef | undefined => object(...built).maps[0];

  it('gives numbers as lengths, types by pointers', () => {
    const map = only(
      [
        ...([
          ['type', 6],
          ['max_entries', 8],
          ['map_flags', 10],
          ['numa_node', 12],
          ['pinning', 14],
        ] as const),
        ...([
          ['key', 16],
          ['value_size', 17],
          ['map_extra', 19],
        ] as const),
      ],
      [
        ...numbers(6, 2, 300, 1 << 12, 3, 1),
        to(KIND.PTR, 2),
        to(KIND.PTR, 18),
        array(1, 5),
        { kind: KIND.ENUM64, value: 8, items: [['x', 7, 9]] },
      ],
    );
    expect(map).toMatchObject({
      ...{ name: 'm', type: 'ARRAY', typeId: 2, maxEntries: 300, flags: 1 << 12, numaNode: 3, pinned: true },
      ...{ keyBytes: 8, keyType: 2, valueBytes: 5, valueType: undefined, extra: (9n << 32n) | 7n },
    });
    expect(only([['type', 6]], numbers(6, 200))?.type).toBe('200');
  });

  it.each<[string, (readonly [string, number])[], BtfSpec[], RegExp]>([
    [
      'no type',
      [['max_entries', 6]],
      numbers(6, 4),
      /\(\.BTF\): map m does not say its type: add __uint\(type, BPF_MAP_TYPE_\.\.\.\)/,
    ],
    [
      'an unknown field',
      [
        ['type', 6],
        ['speed', 6],
      ],
      numbers(6, 2),
      /map m has the unknown field speed/,
    ],
    ['a number that is none', [['type', 1]], [], /map m: type is no number, write __uint\(type, \.\.\.\)/],
    [
      'a key without a size',
      [
        ['type', 6],
        ['key', 8],
      ],
      [...numbers(6, 2), to(KIND.PTR, 0)],
      /map m: key is no type with a size, write __type\(key/,
    ],
    [
      'two sizes',
      [
        ['type', 6],
        ['value', 8],
        ['value_size', 9],
      ],
      [...numbers(6, 2), to(KIND.PTR, 2), ...numbers(9, 4)],
      /map m: value_size makes it 4 bytes, where 8 were said before/,
    ],
    [
      'values of a plain array',
      [
        ['type', 6],
        ['values', 8],
      ],
      [...numbers(6, 2), array(9, 0), to(KIND.PTR, 5)],
      /map m has values, which only maps of maps and program arrays may/,
    ],
    [
      'values before other fields',
      [
        ['type', 6],
        ['values', 8],
        ['map_flags', 6],
      ],
      [...numbers(6, 3), array(9, 0), to(KIND.PTR, 5)],
      /map m has a member behind values, which must be the last/,
    ],
    [
      'values that are no pointers',
      [
        ['type', 6],
        ['values', 8],
      ],
      [...numbers(6, 3), array(1, 0)],
      /map m: values is no array of pointers, write __array/,
    ],
    [
      'programs that are no functions',
      [
        ['type', 6],
        ['values', 8],
      ],
      [...numbers(6, 3), array(9, 0), to(KIND.PTR, 1)],
      /map m: values of a program array must be functions/,
    ],
    [
      'inner maps that have maps',
      [
        ['type', 6],
        ['values', 8],
      ],
      [...numbers(6, 12), array(9, 0), to(KIND.PTR, 5)],
      /map m is an inner map with values of its own: maps nest only once/,
    ],
    [
      'inner maps that are pinned',
      [
        ['type', 6],
        ['values', 8],
      ],
      [...numbers(6, 12), array(9, 0), to(KIND.PTR, 10), struct('', 16, ['type', 6], ['pinning', 6])],
      /map m is an inner map, which cannot be pinned/,
    ],
  ])('refuses %s', (_, fields, more, expected) => {
    expect(message(() => only(fields, more))).toMatch(expected);
  });

  it('must lie in .maps and be a struct', () => {
    const built = (types: readonly BtfSpec[]): string =>
      message(() =>
        readBuilt([{ name: '.maps', flags: DATA_FLAGS, data: new Uint8Array(8) }, btfSection(types)]),
      );
    expect(built([int('int', 4), variable('m', 1), datasec('.maps', [2, 0, 4])])).toMatch(
      /map m is no struct but int/,
    );
    expect(built([int('u64', 8), variable('m', 1), datasec('.maps', [2, 4, 8])])).toMatch(
      /type 2: map m does not lie within \.maps/,
    );
    expect(built([int('u64', 8)])).toMatch(/BTF has no types for section \.maps: compile with -g/);
  });

  it('takes programs and maps as first values, and nothing else', () => {
    const programs: readonly BtfSpec[] = [...numbers(6, 3), array(9, 0), to(KIND.PTR, 10), proto(1)];
    const fields = [
      ['type', 6],
      ['values', 8],
    ] as const;
    const symbols: readonly SymbolSpec[] = [{ name: 'm', section: 0, size: 16 }];
    const at = (offset: number, symbol: number, type = R_BPF_64_ABS64): RelocSpec[] => [
      { section: 0, offset, type, symbol },
    ];
    expect(only(fields, programs, symbols, at(24, 0), 48)?.slots).toEqual([
      { slot: 2, kind: 'program', index: 0 },
    ]);
    const refuse = (relocs: readonly RelocSpec[], more = programs): string =>
      message(() => only(fields, more, symbols, relocs, 48));
    expect(refuse(at(24, 1))).toMatch(/R_BPF_64_ABS64 in \.maps: m is no program, which map m takes/);
    expect(refuse(at(0, 0))).toMatch(/no slot of values of map m/);
    expect(refuse(at(20, 0))).toMatch(/no slot of values of map m/);
    expect(refuse(at(24, 0, R_BPF_64_64))).toMatch(
      /R_BPF_64_64 in \.maps: only the addresses of maps and programs are taken/,
    );
    const maps = [...numbers(6, 12), array(9, 0), to(KIND.PTR, 10), struct('', 8, ['type', 6])];
    expect(refuse(at(24, 0), maps)).toMatch(/prog is no map, which map m takes/);
    // A map may well hold itself as far as this reader is concerned: the kernel decides.
    expect(only(fields, maps, symbols, at(24, 1), 48)?.slots).toEqual([{ slot: 2, kind: 'map', index: 0 }]);
  });
});

describe('variables', () => {
  const object = (types: readonly BtfSpec[], relocs: readonly RelocSpec[] = []): BpfObject =>
    readBuilt(
      [{ name: '.bss', type: 8, flags: DATA_FLAGS, size: 64 }, btfSection(types), code('socket', [EXIT])],
      [functionAt('prog', 2, 0, 1), { name: 'x', section: 0, value: 16n, type: 1, size: 8 }],
      relocs,
    );
  const x = [int('u64', 8), variable('x', 1, 0), datasec('.bss', [2, 4, 8])] as const;
  // The header, then three types: int with a word, var with a word, datasec with three.
  const offsetField = 24 + 16 + 16 + 12 + 4;

  it('have the offsets that relocations give them', () => {
    const reloc = (type: number): RelocSpec[] => [{ section: 1, offset: offsetField, type, symbol: 1 }];
    expect(object(x).globals[0]?.variables).toMatchObject([
      { name: 'x', offset: 4, sizeBytes: 8, linkage: 'static' },
    ]);
    for (const type of [R_BPF_64_NODYLD32, R_BPF_64_ABS32]) {
      expect(object(x, reloc(type)).globals[0]?.variables[0]?.offset).toBe(20);
    }
    expect(message(() => object(x, reloc(R_BPF_64_ABS64)))).toMatch(
      /R_BPF_64_ABS64 in \.BTF, where only 32-bit fields are relocated/,
    );
    expect(message(() => object(x, [{ section: 1, offset: 4000, type: R_BPF_64_ABS32, symbol: 1 }]))).toMatch(
      /a relocation past the end of \.BTF/,
    );
  });

  it('lie within their section', () => {
    const far = [int('u64', 8), variable('x', 1), datasec('.bss', [2, 60, 8])];
    expect(message(() => object(far))).toMatch(
      /type 2: variable x is 0x8 bytes at 0x3c of \.bss, which has 0x40/,
    );
  });

  it('lie in maps that are named after object and section', () => {
    const named = (file: string, section: string): string | undefined => {
      const data = { name: section, flags: DATA_FLAGS, data: new Uint8Array(8) };
      return readBpfObject(bpfObject([data]), { file }).globals[0]?.mapName;
    };
    expect(named('x.bpf.o', '.data')).toBe('x.data');
    expect(named('dir.d/very-long.name.o', '.data')).toBe('very_lon.data');
    expect(named('very-long.name.o', '.rodata')).toBe('very_lon.rodata');
    // Sections with a name of their own need no help.
    expect(named('x.o', '.data.very_long_name_indeed')).toBe('.data.very_long');
  });
});

describe('externs', () => {
  const object = (
    types: readonly BtfSpec[],
    symbols: readonly SymbolSpec[],
    relocs: readonly RelocSpec[] = [],
  ): BpfObject =>
    readBuilt(
      [code('socket', [...load64(), { ...ZERO, code: 0x85, src: 1, imm: -1 }, EXIT]), btfSection(types)],
      [functionAt('prog', 0, 0, 4), ...symbols],
      relocs,
    );
  const types = [
    ...[int('int', 4, true), proto(1, ['', 1]), { ...func('kfunc', 2), count: 2 }, variable('typed', 1, 2)],
    ...[to(KIND.CONST, 0), variable('bare', 5, 2), datasec('.ksyms', [3, 0, 0], [4, 0, 4], [6, 0, 0])],
    ...[
      { kind: KIND.FLOAT, name: 'float', value: 4 },
      variable('CONFIG_F', 8, 2),
      datasec('.kconfig', [9, 0, 4]),
    ],
  ];
  const undef = (name: string, binding: 'global' | 'weak' = 'global'): SymbolSpec => ({
    name,
    section: 'undef',
    binding,
  });

  it('are functions, typed variables and bare addresses', () => {
    const { externs, programs } = object(
      types,
      [undef('kfunc', 'weak'), undef('typed'), undef('bare')],
      [
        { section: 0, offset: 0, type: R_BPF_64_64, symbol: 2 },
        { section: 0, offset: 16, type: 10, symbol: 1 },
      ],
    );
    expect(externs).toEqual([
      { name: 'kfunc', kind: 'function', weak: true, type: 3 },
      { name: 'typed', kind: 'variable', weak: false, type: 1 },
      { name: 'bare', kind: 'variable', weak: false, type: undefined },
    ]);
    expect(programs[0]?.references).toEqual([
      { insn: 0, kind: 'ksym', extern: 1 },
      { insn: 2, kind: 'kfunc-call', extern: 0 },
    ]);
    expect(programs[0]?.insns.map(({ src, imm }) => [src, imm])).toEqual([
      [3, 0],
      [0, 0],
      [2, 0],
      [0, 0],
    ]);
  });

  it('must be declared, and used as what they are', () => {
    expect(message(() => object(types, [undef('unknown')]))).toMatch(
      /unknown is not defined: define it, or declare it with __ksym or __kconfig/,
    );
    expect(
      message(() => object(types, [undef('typed')], [{ section: 0, offset: 16, type: 10, symbol: 1 }])),
    ).toMatch(/prog, instruction 2, calls typed, which is no function/);
    expect(message(() => object(types, [undef('CONFIG_F')]))).toMatch(
      /the __kconfig variable CONFIG_F is no integer, enum libbpf_tristate or array of char/,
    );
  });
});

describe('the configuration', () => {
  const BOOL = { kind: KIND.INT, name: 'bool', value: 1, tail: [(4 << 24) | 8] };
  const TRISTATE = {
    kind: KIND.ENUM,
    name: 'libbpf_tristate',
    value: 4,
    items: [
      ['N', 0],
      ['Y', 1],
      ['M', 2],
    ] as const,
  };
  /** One variable of the type given as the first. */
  const one = (
    name: string,
    type: BtfSpec,
    binding: 'global' | 'weak' = 'global',
    more: readonly BtfSpec[] = [],
  ): BpfObject =>
    readBuilt(
      [
        code('socket', [EXIT]),
        btfSection([type, variable(name, 1, 2), datasec('.kconfig', [2, 0, 0]), ...more]),
      ],
      [functionAt('prog', 0, 0, 1), { name, section: 'undef', binding }],
    );
  const bytes = (object: BpfObject, options: Readonly<Record<string, string>> = {}): number[] => {
    const section = object.globals.at(-1);
    if (section === undefined) throw new Error('no .kconfig');
    return [
      ...kconfigBytes(object, section, {
        version: [6, 12, 300],
        options: new Map(Object.entries(options)),
        hasBpfCookie: true,
      }),
    ];
  };
  const take = (type: BtfSpec, value: string, more: readonly BtfSpec[] = []): number[] =>
    bytes(one('CONFIG_X', type, 'global', more), { CONFIG_X: value });

  it('has values of each type', () => {
    expect(take(int('int', 4, true), '-2')).toEqual([0xfe, 0xff, 0xff, 0xff]);
    expect(take(int('u64', 8), '0xffffffffffffffff')).toEqual(Array(8).fill(0xff));
    expect(take(int('char', 1, true), 'm')).toEqual([0x6d]);
    expect(take(int('char', 1, true), '7')).toEqual([7]);
    expect(take(BOOL, 'y')).toEqual([1]);
    expect(take(TRISTATE, 'm')).toEqual([2, 0, 0, 0]);
    const text = array(4, 4);
    expect(take(text, '"ab"', [int('char', 1, true)])).toEqual([97, 98, 0, 0]);
    expect(take(text, '"abcdef"', [int('char', 1, true)])).toEqual([97, 98, 99, 0]);
  });

  it('has what libbpf knows by itself', () => {
    expect(bytes(one('LINUX_KERNEL_VERSION', int('int', 4, true)))).toEqual([255, 12, 6, 0]);
    expect(bytes(one('LINUX_HAS_BPF_COOKIE', BOOL))).toEqual([1]);
    expect(bytes(one('LINUX_HAS_SYSCALL_WRAPPER', BOOL))).toEqual([1]);
  });

  it('refuses what is missing or does not fit', () => {
    expect(bytes(one('CONFIG_X', int('int', 4), 'weak'))).toEqual([0, 0, 0, 0]);
    expect(message(() => bytes(one('CONFIG_X', int('int', 4))))).toMatch(
      /^x\.bpf\.o: CONFIG_X is not in the kernel's configuration: give it a value, or declare it __weak$/,
    );
    expect(message(() => take(int('u8', 1), '256'))).toMatch(
      /CONFIG_X is an integer of 1 bytes in the program, but 256 in the kernel's/,
    );
    expect(message(() => take(int('u32', 4), '-1'))).toMatch(/an integer of 4 bytes in the program, but -1/);
    expect(message(() => take(int('u32', 4), 'y'))).toMatch(/an integer in the program, but y/);
    expect(message(() => take(BOOL, 'm'))).toMatch(/a bool in the program, but m/);
    expect(message(() => take(TRISTATE, '2'))).toMatch(/a tristate in the program, but 2/);
    expect(message(() => take(array(4, 4), 'ab', [int('char', 1, true)]))).toMatch(
      /text in the program, but ab/,
    );
  });
});

describe('.BTF.ext', () => {
  const types = [int('int', 4, true), proto(1), func('prog', 2)];
  /** Tables as words; a string is its offset in the string section. */
  const strings = new Map<string, number>();
  const names: BtfSpec[] = ['socket', 'a.c', 'return 0;', '0:0'].map((name) => ({ kind: KIND.FWD, name }));
  let end = 1;
  for (const name of ['int', 'prog', 'socket', 'a.c', 'return 0;', '0:0']) {
    strings.set(name, end);
    end += name.length + 1;
  }
  const ext = (
    tables: readonly (readonly (number | string)[])[],
    header: Partial<Record<'magic' | 'version' | 'length', number>> = {},
  ): SectionSpec => {
    const { magic = 0xeb9f, version = 1, length = 32 } = header;
    const file = new Bytes();
    file.u16(magic);
    file.u8(version);
    file.u8(0);
    file.u32(length);
    let offset = 0;
    for (const table of tables) {
      file.u32(offset);
      file.u32(4 * table.length);
      offset += 4 * table.length;
    }
    for (const table of tables)
      for (const word of table) file.u32(typeof word === 'string' ? (strings.get(word) ?? 0) : word);
    return { name: '.BTF.ext', data: file.done() };
  };
  const object = (section: SectionSpec): BpfObject =>
    readBuilt(
      [code('socket', [ZERO, EXIT]), btfSection([...types, ...names]), section],
      [functionAt('prog', 0, 0, 2)],
    );
  const line = (number: number, column: number): number => number * 1024 + column;

  it('knows functions, lines and what depends on types, in records of any length', () => {
    const read = object(
      ext([
        [12, 'socket', 1, 0, 3, 999],
        [16, 'socket', 2, 8, 'a.c', 0, line(8, 3), 0, 'a.c', 'return 0;', line(7, 1023)],
        [16, 'socket', 1, 8, 1, '0:0', 12],
      ]),
    );
    const [program] = read.programs;
    expect(program?.funcInfo).toEqual([{ insn: 0, type: 3 }]);
    expect(program?.subprogs[0]?.type).toBe(3);
    expect(program?.lineInfo).toEqual([
      { insn: 0, file: 'a.c', text: 'return 0;', line: 7, column: 1023 },
      { insn: 1, file: 'a.c', text: '', line: 8, column: 3 },
    ]);
    expect(program?.coreRelocs).toEqual([{ insn: 1, type: 1, access: '0:0', kind: 'type_matches' }]);
    // Without the third table, as compilers wrote it before CO-RE; and of sections that are not there.
    const old = object(ext([[8, 'prog', 1, 0, 3], []], { length: 24 }));
    expect(old.programs[0]).toMatchObject({ funcInfo: [], lineInfo: [], coreRelocs: [] });
  });

  it.each<[string, SectionSpec, RegExp]>([
    ['another magic', ext([[], [], []], { magic: 0x9feb }), /the magic is 0x9feb, expected 0xeb9f/],
    ['another version', ext([[], [], []], { version: 2 }), /BTF\.ext version 2; only version 1 is known/],
    ['a short header', ext([[], [], []], { length: 20 }), /hdr_len is 20; the header has 24 bytes/],
    [
      'short records',
      ext([[4, 'socket', 1, 0], [], []]),
      /records of func_info have 4 bytes; expected 8 or more/,
    ],
    ['odd records', ext([[10, 'socket', 1, 0, 0, 0], [], []]), /records of func_info have 10 bytes/],
    [
      'too many records',
      ext([[8, 'socket', 1 << 30, 0, 3], [], []]),
      /1073741824 records of 8 bytes reach past the end of func_info/,
    ],
    ['half an instruction', ext([[8, 'socket', 1, 4, 3], [], []]), /insn_off is 4, no multiple of 8/],
    [
      'an unknown kind',
      ext([[], [], [16, 'socket', 1, 0, 1, '0:0', 13]]),
      /CO-RE relocation of kind 13; 0 to 12 are known/,
    ],
    [
      'a string outside',
      ext([[8, 4000, 0], [], []]),
      /a string at 0xfa0, past the end of the string section/,
    ],
    ['a cut table', ext([[8, 'socket'], [], []]), /before or inside the number of records in func_info/],
  ])('refuses %s', (_, section, expected) => {
    expect(message(() => object(section))).toMatch(expected);
  });
});
