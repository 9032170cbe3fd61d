import { describe, expect, it } from 'vitest';
import { type Btf, findSection, objectBtf, parseBtf } from '../../obj/index.ts';
import { type BtfSpec, buildBtf, func, int, KIND, proto, to } from './btf-builder.ts';
import { fixture, inputError } from './support.ts';

const parse = (types: readonly BtfSpec[]): Btf => parseBtf(buildBtf(types), 'x.btf');
const refusal = (types: readonly BtfSpec[]): string => inputError(() => parse(types)).message;

describe('parseBtf', () => {
  it('reads every kind', () => {
    const { types } = parse([
      int('int', 4, true), // 1
      to(KIND.PTR, 1), // 2
      { kind: KIND.ARRAY, tail: [1, 1, 8] }, // 3
      {
        kind: KIND.STRUCT,
        name: 's',
        value: 8,
        items: [
          ['a', 1, 0],
          ['next', 2, 32],
        ],
      }, // 4
      { kind: KIND.UNION, name: 'u', flag: true, value: 4, items: [['bits', 1, (3 << 24) | 5]] }, // 5
      {
        kind: KIND.ENUM,
        name: 'e',
        value: 4,
        items: [
          ['MINUS', -1],
          ['PLUS', 1],
        ],
      }, // 6
      { kind: KIND.FWD, name: 'later', flag: true }, // 7
      to(KIND.TYPEDEF, 1, 'number'), // 8
      to(KIND.VOLATILE, 8), // 9
      to(KIND.CONST, 9), // 10
      to(KIND.RESTRICT, 2), // 11
      proto(1, ['x', 10], ['', 0]), // 12
      func('f', 12), // 13
      { kind: KIND.VAR, name: 'v', value: 1, tail: [1] }, // 14
      { kind: KIND.DATASEC, name: '.bss', value: 16, items: [[14, 4, 4]] }, // 15
      { kind: KIND.FLOAT, name: 'double', value: 8 }, // 16
      { kind: KIND.DECL_TAG, name: 'tag', value: 13, tail: [-1] }, // 17
      to(KIND.TYPE_TAG, 1, 'user'), // 18
      { kind: KIND.ENUM64, name: 'big', flag: true, value: 8, items: [['ALL', 0xffff_ffff, 0xffff_ffff]] }, // 19
    ]);
    expect(types).toEqual([
      { kind: 'void' },
      { kind: 'int', name: 'int', sizeBytes: 4, bits: 32, signed: true, bool: false },
      { kind: 'ptr', type: 1 },
      { kind: 'array', type: 1, index: 1, length: 8 },
      {
        kind: 'struct',
        name: 's',
        sizeBytes: 8,
        members: [
          { name: 'a', type: 1, bitOffset: 0, bitSize: 0 },
          { name: 'next', type: 2, bitOffset: 32, bitSize: 0 },
        ],
      },
      {
        kind: 'union',
        name: 'u',
        sizeBytes: 4,
        members: [{ name: 'bits', type: 1, bitOffset: 5, bitSize: 3 }],
      },
      {
        kind: 'enum',
        name: 'e',
        sizeBytes: 4,
        signed: true,
        values: [
          { name: 'MINUS', value: -1n },
          { name: 'PLUS', value: 1n },
        ],
      },
      { kind: 'fwd', name: 'later', union: true },
      { kind: 'typedef', name: 'number', type: 1 },
      { kind: 'volatile', type: 8 },
      { kind: 'const', type: 9 },
      { kind: 'restrict', type: 2 },
      {
        kind: 'func_proto',
        type: 1,
        params: [
          { name: 'x', type: 10 },
          { name: '', type: 0 },
        ],
      },
      { kind: 'func', name: 'f', type: 12, linkage: 1 },
      { kind: 'var', name: 'v', type: 1, linkage: 1 },
      { kind: 'datasec', name: '.bss', sizeBytes: 16, vars: [{ type: 14, offset: 4, sizeBytes: 4 }] },
      { kind: 'float', name: 'double', sizeBytes: 8 },
      { kind: 'decl_tag', name: 'tag', type: 13, component: -1 },
      { kind: 'type_tag', name: 'user', type: 1 },
      { kind: 'enum64', name: 'big', sizeBytes: 8, signed: true, values: [{ name: 'ALL', value: -1n }] },
    ]);
  });

  it('lets types refer to themselves where C does', () => {
    const list = parse([
      int('int', 4, true),
      {
        kind: KIND.STRUCT,
        name: 'list',
        value: 16,
        items: [
          ['value', 1, 0],
          ['next', 3, 64],
        ],
      },
      to(KIND.PTR, 4),
      to(KIND.CONST, 2),
      { kind: KIND.STRUCT, name: 'ops', value: 8, items: [['call', 6, 0]] },
      to(KIND.PTR, 7),
      proto(1, ['ops', 8]),
      to(KIND.PTR, 5),
    ]);
    expect(list.types).toHaveLength(9);
  });

  it.each<[string, BtfSpec[], RegExp]>([
    ['a typedef of itself', [to(KIND.TYPEDEF, 1, 't')], /^x\.btf type 1: contains itself/],
    ['const of const', [to(KIND.CONST, 2), to(KIND.CONST, 1)], /type 2: contains itself through type 1/],
    ['a pointer to itself', [to(KIND.PTR, 2), to(KIND.TYPEDEF, 1, 'p')], /contains itself/],
    ['an array of itself', [int('int', 4), { kind: KIND.ARRAY, tail: [2, 1, 2] }], /type 2: contains itself/],
    [
      'a struct in itself',
      [to(KIND.CONST, 2), { kind: KIND.STRUCT, name: 's', value: 4, items: [['s', 1, 0]] }],
      /contains itself through type [12]: no type can/,
    ],
    [
      'two structs in each other',
      [1, 2].map((id) => ({ kind: KIND.STRUCT, name: `s${id}`, value: 4, items: [['m', 3 - id, 0]] })),
      /contains itself/,
    ],
    ['a type that is not there', [to(KIND.PTR, 99)], /^x\.btf type 1: ptr refers to type 99 of 2/],
    [
      'a function as a type',
      [proto(0), func('f', 1), to(KIND.PTR, 2)],
      /type 3: ptr uses the func 2 as a type/,
    ],
    [
      'a function without a prototype',
      [int('int', 4), func('f', 1)],
      /type 2: func f has type 1, no func_proto/,
    ],
    [
      'a void parameter',
      [int('int', 4), proto(1, ['x', 0], ['y', 1])],
      /type 2: func_proto has a parameter of type void/,
    ],
    ['an unknown kind', [{ kind: 25 }], /^x\.btf at offset 0x1c: type 1 is of the unknown kind 25/],
    ['kind 0', [{ kind: 0 }], /unknown kind 0/],
    ['an odd integer', [int('int24', 3)], /type 1 is an integer of 24 bits in 3 bytes/],
    [
      'more items than there are',
      [{ kind: KIND.FUNC_PROTO, count: 65535 }],
      /the type section ends before or inside a parameter name of type 1/,
    ],
  ])('refuses %s', (_what, types, message) => {
    expect(refusal(types)).toMatch(message);
  });

  it('refuses a damaged header', () => {
    const good = buildBtf([int('int', 4)]);
    const patched = (offset: number, value: number): string => {
      const bytes = good.slice();
      new DataView(bytes.buffer).setUint32(offset, value, true);
      return inputError(() => parseBtf(bytes, 'x.btf')).message;
    };
    expect(patched(0, 0x1234)).toMatch(/no BTF: the magic is 0x1234/);
    expect(patched(0, 0x0002_eb9f)).toMatch(/BTF version 2/);
    expect(patched(4, 8)).toMatch(/hdr_len is 8/);
    expect(patched(8, 0xffff_ffff)).toMatch(/the type section is .* past the end of the BTF/);
    expect(patched(12, 0xffff_ffff)).toMatch(/the type section is 0xffffffff bytes/);
    expect(patched(16, 2)).toMatch(/string section (is|begins)/);
    expect(patched(20, 3)).toMatch(/bytes follow the string section/);
    expect(patched(24, 0xffff)).toMatch(/its name of type 1 is at 0xffff of a string table/);
    expect(inputError(() => parseBtf(good.slice(0, 10), 'x')).message).toMatch(
      /ends \(at 0xa\) before or inside type_off/,
    );
    expect(inputError(() => parseBtf(new Uint8Array([...good, ...good]), 'x')).message).toMatch(
      /merged \(pahole\), not appended/,
    );
    const unterminated = good.slice();
    unterminated[good.length - 1] = 0x41;
    expect(inputError(() => parseBtf(unterminated, 'x')).message).toMatch(/end with a NUL/);
  });
});

describe('funcModel', () => {
  const types: BtfSpec[] = [
    int('int', 4, true), // 1
    { kind: KIND.STRUCT, name: 's', value: 4, items: [['a', 1, 0]] }, // 2
    { kind: KIND.FLOAT, name: 'double', value: 8 }, // 3
    int('__int128', 16, true), // 4
    to(KIND.PTR, 2), // 5
    to(KIND.TYPE_TAG, 2, 'rcu'), // 6
    to(KIND.PTR, 6), // 7
    { kind: KIND.UNION, name: 'u', value: 4, items: [] }, // 8
    to(KIND.TYPEDEF, 8, 'u_t'), // 9
    { kind: KIND.ENUM64, name: 'wide', value: 8, items: [] }, // 10
    int('long long unsigned int', 8), // 11
    { kind: KIND.FWD, name: 'unseen' }, // 12
    to(KIND.PTR, 12), // 13
    to(KIND.TYPEDEF, 0, 'nothing_t'), // 14
    { kind: KIND.STRUCT, name: 'pair', value: 16, items: [] }, // 15
    { kind: KIND.STRUCT, name: 'triple', value: 24, items: [] }, // 16
    { kind: KIND.STRUCT, name: 'none', value: 0, items: [] }, // 17
    to(KIND.TYPEDEF, 15, 'pair_t'), // 18
  ];
  const model = (one: BtfSpec) => parse([...types, one, func('f', types.length + 1)]).funcModel('f');
  const args = (...params: (readonly [string, number])[]) =>
    model(proto(0, ...params))?.args.map((arg) => arg.type);

  it('follows tags, typedefs and forward declarations', () => {
    expect(args(['a', 7], ['b', 10], ['c', 11], ['d', 13])).toEqual([
      'struct s *',
      'enum wide',
      'unsigned long long',
      'struct unseen *',
    ]);
    expect(model(proto(14))?.ret).toEqual({ type: 'nothing_t', sizeBytes: 0, signed: false, pointer: false });
    expect(model(proto(5))?.ret).toEqual({ type: 'struct s *', sizeBytes: 8, signed: false, pointer: true });
  });

  it('takes structs of up to 16 bytes', () => {
    expect(model(proto(1, ['small', 2], ['pair', 18]))?.args).toEqual([
      { name: 'small', type: 'struct s', sizeBytes: 4, signed: false, pointer: false, struct: true },
      { name: 'pair', type: 'pair_t', sizeBytes: 16, signed: false, pointer: false, struct: true },
    ]);
  });

  it.each<[BtfSpec, RegExp]>([
    [proto(1, ['x', 3]), /^x\.btf: f: parameter 1 'x' \(double\) is a floating-point number/],
    [proto(1, ['a', 1], ['x', 16]), /f: parameter 2 'x' \(struct triple\) is a struct by value of 24 bytes/],
    [proto(1, ['x', 17]), /f: parameter 1 'x' \(struct none\) is a struct by value without any bytes/],
    [proto(1, ['', 9]), /f: parameter 1 \(u_t\) is a union by value/],
    [proto(1, ['x', 4]), /\(__int128\) is an integer of 128 bits/],
    [proto(1, ['x', 14]), /parameter 1 'x' \(nothing_t\) is void/],
    [proto(1, ['x', 1], ['', 0]), /f: it takes a variable number of arguments/],
    [proto(2), /f: the result \(struct s\) is a struct by value/],
    [proto(3), /f: the result \(double\) is a floating-point number/],
    [
      proto(1, ...Array.from({ length: 13 }, () => ['', 1] as const)),
      /f: it has 13 parameters; a trampoline takes at most 12/,
    ],
  ])('refuses %j', (one, message) => {
    expect(inputError(() => model(one)).message).toMatch(message);
  });

  it('takes twelve parameters, and knows no function that is not there', () => {
    expect(args(...Array.from({ length: 12 }, () => ['', 1] as const))).toHaveLength(12);
    expect(parse(types).funcModel('f')).toBeUndefined();
    expect(parse(types).funcId('f')).toBeUndefined();
  });

  it('spells even endlessly nested function pointers in bounded time', () => {
    const btf = parse([
      int('int', 4, true),
      { kind: KIND.FUNC_PROTO, value: 1, items: Array.from({ length: 1000 }, () => ['', 3]) },
      to(KIND.PTR, 2),
      proto(0, ['x', 3]),
      func('f', 4),
    ]);
    const arg = btf.funcModel('f')?.args[0];
    expect(arg).toMatchObject({ pointer: true, sizeBytes: 8 });
    expect(arg?.type.length).toBeLessThan(1000);
  });
});

describe('the BTF of gcc', () => {
  it('has an id for each function of the demo target', () => {
    const btf = objectBtf(fixture('demo.o'));
    const id = btf?.funcId('schedule_coffee') ?? 0;
    expect(btf?.types[id]).toMatchObject({ kind: 'func', name: 'schedule_coffee' });
    expect(btf?.functionNames().sort()).toEqual([
      'cpu_is_awake',
      'grind_beans',
      'panic_reason',
      'schedule_coffee',
      'shave_yak',
    ]);
    expect(btf?.funcModel('schedule_coffee')).toEqual({
      name: 'schedule_coffee',
      args: [
        { name: 'cups', type: 'u8', sizeBytes: 1, signed: false, pointer: false },
        { name: 'sugar', type: 'int', sizeBytes: 4, signed: true, pointer: false },
        { name: 'deadline', type: 'u64', sizeBytes: 8, signed: false, pointer: false },
      ],
      ret: { type: 'int', sizeBytes: 4, signed: true, pointer: false },
    });
  });

  it('is found where it is, and not where it is not', () => {
    expect(objectBtf(fixture('demo.image'))?.funcModel('shave_yak')?.ret.type).toBe('u64');
    expect(findSection(fixture('demo-no-btf.o'), '.BTF')).toBeUndefined();
    expect(objectBtf(fixture('demo-no-btf.o'))).toBeUndefined();
  });
});
