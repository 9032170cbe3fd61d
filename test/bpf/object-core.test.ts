import { describe, expect, it } from 'vitest';
import {
  type BpfCoreReloc,
  type BpfObject,
  type BpfProgram,
  type CoreKind,
  type CoreResult,
  isPoison,
  POISON_IMM,
  relocateCore,
} from '../../bpf/index.ts';
import { type BpfInsn, bpfSize } from '../../jit/index.ts';
import { Btf, parseBtf } from '../../obj/index.ts';
import { type BtfSpec, buildBtf, int, KIND, proto, to } from '../obj/btf-builder.ts';
import { inputError } from '../obj/support.ts';
import { bpfFixture, EXIT, insn, load64, targetBtf } from './object-support.ts';

/* CO-RE against types made by hand: each rule of what may stand for what, and each way to say no. */

type Member = readonly [name: string, type: number, bits: number];
/** Members with their bit offsets. */
const struct = (name: string, sizeBytes: number, ...members: readonly Member[]): BtfSpec => ({
  kind: KIND.STRUCT,
  name,
  value: sizeBytes,
  items: members,
});
const union = (name: string, sizeBytes: number, ...members: readonly Member[]): BtfSpec => ({
  ...struct(name, sizeBytes, ...members),
  kind: KIND.UNION,
});
/** With bit-fields: the size in the upper byte of the offset. */
const packed = (
  name: string,
  sizeBytes: number,
  ...members: readonly (readonly [string, number, number, number])[]
): BtfSpec => ({
  ...{ kind: KIND.STRUCT, name, value: sizeBytes, flag: true },
  items: members.map(([field, type, offset, bits]) => [field, type, ((bits << 24) | offset) >>> 0]),
});
const array = (type: number, length: number): BtfSpec => ({ kind: KIND.ARRAY, tail: [type, 1, length] });
const enumOf = (name: string, ...values: readonly (readonly [string, number])[]): BtfSpec => ({
  ...{ kind: KIND.ENUM, name, value: 4, flag: values.some(([, value]) => value < 0) },
  items: values.map(([enumerator, value]) => [enumerator, value]),
});
const enum64 = (name: string, ...values: readonly (readonly [string, bigint])[]): BtfSpec => ({
  ...{ kind: KIND.ENUM64, name, value: 8 },
  items: values.map(([enumerator, value]) => [
    enumerator,
    Number(value & 0xffff_ffffn),
    Number(value >> 32n),
  ]),
});
const fwd = (name: string, isUnion = false): BtfSpec => ({ kind: KIND.FWD, name, flag: isUnion });

/** Types that both sides have: 1 u32, 2 u64, 3 u8, 4 s32, 5 u16. */
const INTS: readonly BtfSpec[] = [
  int('u32', 4),
  int('u64', 8),
  int('u8', 1),
  int('s32', 4, true),
  int('u16', 2),
];
const U32 = 1;
const U64 = 2;
const U8 = 3;
const S32 = 4;
const U16 = 5;

const types = (...more: readonly BtfSpec[]): Btf => parseBtf(buildBtf([...INTS, ...more]), 'types');

/** One relocation of one instruction. */
function relocate(
  local: Btf,
  targets: readonly Btf[],
  reloc: Partial<BpfCoreReloc> & { readonly kind: CoreKind },
  insns: readonly BpfInsn[] = [insn(0xb7), EXIT],
): CoreResult {
  const program: BpfProgram = {
    ...{
      name: 'prog',
      section: 'fentry/f',
      kind: 'fentry',
      target: 'f',
      attachTo: 'f',
      targetModule: undefined,
    },
    ...{ sleepable: false, autoload: true, programType: 'TRACING', attachType: 'TRACE_FENTRY' },
    ...{ subprogs: [], references: [], lineInfo: [], funcInfo: [] },
    insns,
    coreRelocs: [{ insn: 0, type: 6, access: '0', ...reloc }],
  };
  const object: BpfObject = {
    ...{
      file: 'x.bpf.o',
      license: 'GPL',
      programs: [program],
      maps: [],
      globals: [],
      externs: [],
      notes: [],
    },
    btf: local,
  };
  return relocateCore(object, program, targets);
}

type Question = Partial<BpfCoreReloc> & { readonly kind: CoreKind };

/**
 * The number that the target gives; undefined for a poisoned instruction.
 *
 * @param compiled the number that stands in the instruction: refused when the object's types give another
 */
function answer(
  local: Btf,
  target: Btf | readonly Btf[],
  question: Question,
  compiled: number | bigint,
): bigint | undefined {
  const value = BigInt.asUintN(64, BigInt(compiled));
  const targets = target instanceof Btf ? [target] : target;
  const insns = [...load64(Number(BigInt.asIntN(32, value)), Number(BigInt.asIntN(32, value >> 32n))), EXIT];
  const { relocs, insns: after } = relocate(local, targets, question, insns);
  const [outcome] = relocs;
  const [low, high] = after;
  if (outcome?.value === undefined) {
    expect([low, high].every((slot) => slot !== undefined && isPoison(slot))).toBe(true);
    expect(outcome?.poisoned).toMatch(/^the target has no such (field|enumerator)$/);
    return undefined;
  }
  // What is reported is what stands there.
  expect((BigInt(high?.imm ?? 0) << 32n) | BigInt((low?.imm ?? 0) >>> 0)).toBe(
    BigInt.asIntN(64, outcome.value),
  );
  return outcome.value;
}

const refusal = (work: () => unknown): string => inputError(work).message;

describe('a field', () => {
  /** 6 struct s { u32 a; struct { u64 x; }; u32 list[4]; } with the anonymous one as 7, the array as 8. */
  const local = types(
    struct('s', 32, ['a', U32, 0], ['', 7, 64], ['list', 8, 128]),
    struct('', 8, ['x', U64, 0]),
    array(U32, 4),
  );
  const offset = (access: string): Question => ({ kind: 'field_byte_offset', access });

  it('is found by its name, wherever it is', () => {
    const target = types(
      struct('s', 64, ['list', 7, 0], ['pad', U64, 128], ['x', U64, 192], ['a', U32, 256]),
      array(U32, 2),
    );
    expect(answer(local, target, offset('0:0'), 0)).toBe(32n);
    expect(answer(local, target, offset('0:1:0'), 8)).toBe(24n);
    expect(answer(local, target, offset('0:2'), 16)).toBe(0n);
    expect(answer(local, target, offset('0:2:1'), 20)).toBe(4n);
    // The target's array is shorter.
    expect(answer(local, target, offset('0:2:2'), 24)).toBeUndefined();
    expect(answer(local, target, { kind: 'field_exists', access: '0:2:2' }, 1)).toBe(0n);
    // The whole struct, and the element of an array of it.
    expect(answer(local, target, offset('0'), 0)).toBe(0n);
    expect(answer(local, target, offset('2:0'), 64)).toBe(160n);
  });

  it('may lie in anonymous structs and unions of the target, as deep as they go', () => {
    const target = types(
      struct('s', 64, ['b', U32, 0], ['', 7, 64]),
      union('', 32, ['', 8, 0], ['y', U64, 0]),
      struct('', 32, ['c', U64, 0], ['a', U32, 64], ['x', U64, 128]),
    );
    expect(answer(local, target, offset('0:0'), 0)).toBe(16n);
    expect(answer(local, target, offset('0:1:0'), 8)).toBe(24n);
    expect(answer(local, target, offset('0:2'), 16)).toBeUndefined();
  });

  it('is seen through typedefs and qualifiers on both sides', () => {
    const mine = types(
      to(KIND.CONST, 7),
      to(KIND.TYPEDEF, 8, 'td'),
      struct('s', 8, ['n', 9, 0]),
      to(KIND.VOLATILE, U64),
    );
    const target = types(to(KIND.TYPEDEF, 7, 'td'), struct('other', 16, ['n', U64, 64]));
    expect(answer(mine, target, { ...offset('0:0'), type: 7 }, 0)).toBe(8n);
    expect(refusal(() => answer(mine, target, { ...offset('0:0'), type: 6 }, 0))).toMatch(
      /a type without a name/,
    );
  });

  it('may end a struct as an array without a length', () => {
    const mine = types(struct('s', 4, ['n', U32, 0], ['tail', 7, 32]), array(U32, 0));
    const target = types(struct('s', 8, ['n', U64, 0], ['tail', 7, 64]), array(U32, 0));
    expect(answer(mine, target, offset('0:1:5'), 24)).toBe(28n);
    const middle = types(struct('s', 8, ['tail', 7, 0], ['n', U64, 0]), array(U32, 0));
    expect(answer(mine, middle, offset('0:1:5'), 24)).toBeUndefined();
  });

  it.each<[string, BtfSpec[], BtfSpec[], boolean]>([
    ['integers of any size', [int('char', 1, true)], [int('long', 8)], true],
    ['pointers to anything', [to(KIND.PTR, U32)], [to(KIND.PTR, 0)], true],
    ['a struct for a union', [struct('p', 0)], [union('q', 0)], true],
    ['an enum for an enum64 of its name', [enumOf('e', ['A', 1])], [enum64('e', ['B', 2n])], true],
    ['an enum for one without a name', [enumOf('e', ['A', 1])], [enumOf('', ['B', 2])], true],
    [
      'floating-point numbers',
      [{ kind: KIND.FLOAT, name: 'float', value: 4 }],
      [{ kind: KIND.FLOAT, name: 'double', value: 8 }],
      true,
    ],
    ['an enum of another name', [enumOf('e', ['A', 1])], [enumOf('f', ['A', 1])], false],
    ['an enum for an integer', [enumOf('e', ['A', 1])], [int('u32', 4)], false],
    ['a pointer for an integer', [to(KIND.PTR, 0)], [int('u64', 8)], false],
    ['an array for an element', [array(U32, 1)], [int('u32', 4)], false],
    ['arrays of like elements', [array(U32, 2)], [array(U64, 2)], true],
    ['arrays of unlike elements', [array(8, 2), struct('', 0), to(KIND.PTR, 0)], [array(U64, 2)], false],
  ])('may be of another type: %s', (_, mine, theirs, compatible) => {
    const side = (first: readonly BtfSpec[]): Btf => types(struct('s', 16, ['f', 7, 0]), ...first);
    const exists = answer(side(mine), side(theirs), { kind: 'field_exists', access: '0:0' }, 1);
    expect(exists).toBe(compatible ? 1n : 0n);
  });

  it('has a size and a sign', () => {
    const target = types(struct('s', 8, ['a', S32, 0]));
    expect(answer(local, target, { kind: 'field_byte_size', access: '0:0' }, 4)).toBe(4n);
    expect(answer(local, target, { kind: 'field_signed', access: '0:0' }, 0)).toBe(1n);
    expect(answer(local, target, { kind: 'field_lshift_u64', access: '0:0' }, 32)).toBe(32n);
    expect(answer(local, target, { kind: 'field_rshift_u64', access: '0:0' }, 32)).toBe(32n);
    const wide = types(struct('s', 8, ['a', U64, 0]));
    expect(answer(local, wide, { kind: 'field_byte_size', access: '0:0' }, 4)).toBe(8n);
    expect(answer(local, wide, { kind: 'field_rshift_u64', access: '0:0' }, 32)).toBe(0n);
  });

  it('of bits is loaded with the bytes around it', () => {
    const mine = types(packed('s', 8, ['f', U32, 0, 3]));
    // Bits 29 to 40: no aligned 4 bytes hold them, so 8 are loaded.
    const target = types(packed('s', 8, ['f', U32, 29, 12]));
    const ask = (kind: CoreKind, compiled: number) => answer(mine, target, { kind, access: '0:0' }, compiled);
    expect(ask('field_byte_offset', 0)).toBe(0n);
    expect(ask('field_byte_size', 4)).toBe(8n);
    expect(ask('field_lshift_u64', 61)).toBe(23n);
    expect(ask('field_rshift_u64', 61)).toBe(52n);
    // 64 bits from bit 33 on, which no load of 8 bytes holds.
    const odd = types(packed('s', 16, ['f', U64, 33, 64]));
    expect(refusal(() => answer(mine, odd, { kind: 'field_byte_size', access: '0:0' }, 4))).toMatch(
      /of struct s\.f in the target: a bit-field that no load of up to 8 bytes holds/,
    );
    // The compiler may have chosen another load; the sign and the last shift are never a choice.
    expect(ask('field_byte_size', 8)).toBe(8n);
    expect(refusal(() => ask('field_rshift_u64', 60))).toMatch(
      /holds 60 where the object's own types give 61/,
    );
  });
});

describe('candidates', () => {
  const local = types(struct('s___mine', 8, ['a', U32, 32]));
  const offset: Question = { kind: 'field_byte_offset', access: '0:0' };

  it('are all types of one name, flavors aside, and must agree', () => {
    const same = types(
      struct('s', 8, ['a', U32, 0]),
      struct('s___v2', 8, ['a', U32, 0]),
      struct('s', 8, ['b', U32, 0]),
    );
    expect(answer(local, same, offset, 4)).toBe(0n);
    const unlike = types(struct('s', 8, ['a', U32, 0]), struct('s___v2', 8, ['a', U32, 32]));
    expect(refusal(() => answer(local, unlike, offset, 4))).toMatch(
      /prog, instruction 0: CO-RE relocation field_byte_offset of struct s___mine\.a is ambiguous: the target has it in several types that differ/,
    );
  });

  it('in the kernel hide those in modules', () => {
    const kernel = types(struct('s', 8, ['b', U32, 0]));
    const module = types(struct('s', 16, ['a', U32, 64]));
    const empty = types();
    expect(answer(local, [kernel, module], offset, 4)).toBeUndefined();
    expect(answer(local, [empty, module], offset, 4)).toBe(8n);
    expect(answer(local, [empty, empty, module], offset, 4)).toBe(8n);
    expect(refusal(() => answer(local, [], offset, 4))).toMatch(
      /needs the types of the target: compile it with BTF/,
    );
  });

  it('are of the same kind; a name with underscores is no flavor by that alone', () => {
    expect(answer(local, types(union('s', 8, ['a', U32, 0])), offset, 4)).toBeUndefined();
    const plain = types(struct('a__b', 8, ['a', U32, 32]));
    expect(answer(plain, types(struct('a', 8, ['a', U32, 0])), offset, 4)).toBeUndefined();
    const four = types(struct('a____b', 8, ['a', U32, 32]));
    expect(answer(four, types(struct('a', 8, ['a', U32, 0])), offset, 4)).toBeUndefined();
    // Only the last part is a flavor, on both sides.
    const two = types(struct('a___b___c', 8, ['a', U32, 32]));
    expect(answer(two, types(struct('a___b', 8, ['a', U32, 0])), offset, 4)).toBeUndefined();
    expect(answer(two, types(struct('a___b___d', 8, ['a', U32, 0])), offset, 4)).toBe(0n);
  });
});

describe('a type', () => {
  const ask = (
    mine: readonly BtfSpec[],
    theirs: readonly BtfSpec[],
    kind: CoreKind,
    compiled = 1,
  ): bigint | undefined => answer(types(...mine), types(...theirs), { kind, type: 6 }, compiled);

  it('has an id on each side, and a size', () => {
    const mine = [struct('s', 8)];
    expect(ask(mine, [struct('t', 4), struct('s', 24)], 'type_id_target', 99)).toBe(7n);
    expect(ask(mine, [struct('t', 4)], 'type_id_target', 6)).toBe(0n);
    expect(ask(mine, [struct('t', 4), struct('s', 24)], 'type_id_local', 6)).toBe(6n);
    expect(ask(mine, [struct('s', 24)], 'type_size', 8)).toBe(24n);
    expect(ask(mine, [struct('t', 24)], 'type_size', 8)).toBe(0n);
    // The local id needs no target and no name.
    expect(answer(types(struct('', 8)), [], { kind: 'type_id_local' }, 6)).toBe(6n);
  });

  const callback = (ret: number, ...params: number[]): BtfSpec[] => [
    to(KIND.TYPEDEF, 7, 'cb'),
    to(KIND.PTR, 8),
    proto(ret, ...params.map((type): [string, number] => ['', type])),
  ];
  it.each<[string, BtfSpec[], BtfSpec[], number, number]>([
    ['structs of one name', [struct('s', 4, ['a', U32, 0])], [struct('s', 8, ['b', U64, 0])], 1, 0],
    [
      'a struct with less',
      [struct('s', 4, ['a', U32, 0])],
      [struct('s', 8, ['b', U32, 0], ['a', U32, 32])],
      1,
      1,
    ],
    [
      'a struct with more',
      [struct('s', 8, ['a', U32, 0], ['b', U32, 32])],
      [struct('s', 4, ['a', U32, 0])],
      1,
      0,
    ],
    ['a member of another size', [struct('s', 4, ['a', U32, 0])], [struct('s', 8, ['a', U64, 0])], 1, 0],
    ['a member of another sign', [struct('s', 4, ['a', U32, 0])], [struct('s', 8, ['a', S32, 0])], 1, 0],
    ['enums with other values', [enumOf('e', ['A', 1])], [enumOf('e', ['B', 5], ['A', 7])], 1, 1],
    ['enums with a name missing', [enumOf('e', ['A', 1])], [enumOf('e', ['B', 1])], 1, 0],
    ['a flavored enumerator', [enumOf('e', ['A___x', 1])], [enumOf('e', ['A', 1])], 1, 1],
    ['an enum for an enum64', [enumOf('e', ['A', 1])], [enum64('e', ['A', 1n])], 1, 0],
    ['functions with the same parameters', callback(U32, U64, U8), callback(U32, U64, U8), 1, 1],
    ['functions with fewer', callback(U32, U64, U8), callback(U32, U64), 0, 0],
    ['functions with other integers', callback(U32, U64), callback(U32, U8), 1, 0],
    ['functions with a pointer for an integer', callback(U32, 7), callback(U32, U64), 0, 0],
    [
      'a typedef of something else',
      [to(KIND.TYPEDEF, U32, 't')],
      [to(KIND.TYPEDEF, 7, 't'), to(KIND.PTR, 0)],
      0,
      0,
    ],
    ['arrays', [to(KIND.TYPEDEF, 7, 't'), array(U32, 2)], [to(KIND.TYPEDEF, 7, 't'), array(U32, 2)], 1, 1],
    [
      'arrays of other lengths',
      [to(KIND.TYPEDEF, 7, 't'), array(U32, 2)],
      [to(KIND.TYPEDEF, 7, 't'), array(U32, 3)],
      1,
      0,
    ],
    ['forward declarations', [fwd('s')], [fwd('s')], 1, 1],
    ['forward declarations of unlike things', [fwd('s')], [fwd('s', true)], 1, 0],
    ['a forward declaration for a struct', [fwd('s')], [struct('s', 4)], 0, 0],
    [
      'members behind pointers, as forward declarations',
      [struct('s', 8, ['p', 7, 0]), to(KIND.PTR, 8), struct('t', 4, ['q', U32, 0])],
      [struct('s', 8, ['p', 7, 0]), to(KIND.PTR, 8), fwd('t')],
      1,
      1,
    ],
    [
      'members behind pointers, declared on this side',
      [struct('s', 8, ['p', 7, 0]), to(KIND.PTR, 8), fwd('t', true)],
      [struct('s', 8, ['p', 7, 0]), to(KIND.PTR, 8), union('t', 4)],
      1,
      1,
    ],
    [
      'members behind pointers, of unlike kinds',
      [struct('s', 8, ['p', 7, 0]), to(KIND.PTR, 8), struct('t', 4)],
      [struct('s', 8, ['p', 7, 0]), to(KIND.PTR, 8), union('t', 4)],
      1,
      0,
    ],
    [
      'void behind pointers',
      [to(KIND.TYPEDEF, 7, 't'), to(KIND.PTR, 0)],
      [to(KIND.TYPEDEF, 7, 't'), to(KIND.PTR, 0)],
      1,
      1,
    ],
    [
      'void for an integer behind pointers',
      [to(KIND.TYPEDEF, 7, 't'), to(KIND.PTR, 0)],
      [to(KIND.TYPEDEF, 7, 't'), to(KIND.PTR, U32)],
      0,
      0,
    ],
  ])('is there, and matches: %s', (_, mine, theirs, exists, matches) => {
    expect(ask(mine, theirs, 'type_exists')).toBe(BigInt(exists));
    expect(ask(mine, theirs, 'type_matches')).toBe(BigInt(matches));
  });

  it('may not take for ever to compare', () => {
    // Each struct holds the next twice, so the ways double with each; the last differs.
    const doubled = (last: number): BtfSpec[] => [
      ...Array.from({ length: 28 }, (_, i) =>
        struct(i === 0 ? 's' : 'n', 0, ['a', 7 + i, 0], ['a', 7 + i, 0]),
      ),
      int('n', last),
    ];
    expect(refusal(() => ask(doubled(4), doubled(8), 'type_matches'))).toMatch(
      /too long to compare with the target for CO-RE/,
    );
    const deep = Array.from({ length: 40 }, (_, i) =>
      i === 0 ? to(KIND.TYPEDEF, 7, 't') : to(KIND.PTR, i === 39 ? U32 : 7 + i),
    );
    expect(refusal(() => ask(deep, deep, 'type_exists'))).toMatch(/nested deeper than 32/);
  });
});

describe('an enumerator', () => {
  const local = types(enumOf('e', ['A', 1], ['B___mine', -2]), enum64('w', ['BIG', 1n << 40n]));
  const target = types(enumOf('e', ['B', -7], ['A', 3]), enum64('w', ['BIG', 1n << 41n]));
  const ask = (kind: CoreKind, access: string, type: number, compiled: bigint | number, from = target) =>
    answer(local, from, { kind, access, type }, compiled);

  it('has a value, of 4 bytes or 8, and a sign', () => {
    expect(ask('enumval_value', '0', 6, 1)).toBe(3n);
    expect(ask('enumval_value', '1', 6, -2)).toBe(BigInt.asUintN(64, -7n));
    expect(ask('enumval_value', '0', 7, 1n << 40n)).toBe(1n << 41n);
    expect(ask('enumval_exists', '1', 6, 1)).toBe(1n);
    const large = types(enumOf('e', ['A', 0x8000_0000]));
    expect(
      answer(
        large,
        types({ ...enumOf('e'), items: [['A', 0x9000_0000 | 0]] }),
        { kind: 'enumval_value' },
        0xffff_ffff_8000_0000n,
      ),
    ).toBe(0xffff_ffff_9000_0000n);
  });

  it('may be absent', () => {
    const other = types(enumOf('e', ['C', 1]));
    expect(ask('enumval_exists', '0', 6, 1, other)).toBe(0n);
    expect(ask('enumval_value', '0', 6, 1, other)).toBeUndefined();
    expect(ask('enumval_value', '0', 6, 1, types())).toBeUndefined();
  });
});

describe('instructions', () => {
  const local = types(struct('s', 16, ['a', U32, 32], ['u', U32, 64], ['p', 7, 64]), to(KIND.PTR, 0));
  const target = types(
    struct('s', 1 << 20, ['a', S32, 96], ['u', U64, 128], ['far', U32, 8 * 40_000], ['p', 7, 64]),
    to(KIND.PTR, 0),
  );
  const offset = (access: string): Question => ({ kind: 'field_byte_offset', access });
  const one = (question: Question, slot: BpfInsn, from = target): BpfInsn | undefined =>
    relocate(local, [from], question, [slot, EXIT]).insns[0];

  it('keep all but the number', () => {
    const add = insn(0x07, { dst: 3, imm: 4 });
    expect(one(offset('0:0'), add)).toEqual({ ...add, imm: 12 });
    const narrow = insn(0x04, { dst: 3, imm: 4 });
    expect(one(offset('0:0'), narrow)).toEqual({ ...narrow, imm: 12 });
    const same = types(struct('s', 16, ['a', U32, 96]));
    for (const opcode of [0x61, 0x62, 0x63]) {
      const access = insn(opcode, { dst: 3, src: 4, off: 4, imm: 77 });
      expect(one(offset('0:0'), access, same)).toEqual({ ...access, off: 12 });
    }
  });

  it('load and store unsigned integers and pointers with the size that the target has', () => {
    const load = insn(0x61, { dst: 1, src: 2, off: 8 });
    const resized = one(offset('0:1'), load);
    expect(resized).toMatchObject({ off: 16, dst: 1, src: 2 });
    expect(bpfSize(resized?.code ?? 0)).toBe(0x18);
    const sizes: [number, number][] = [
      [U8, 0x71],
      [U16, 0x69],
      [U32, 0x61],
      [U64, 0x79],
    ];
    for (const [type, opcode] of sizes) {
      expect(one(offset('0:1'), load, types(struct('s', 16, ['u', type, 0])))?.code).toBe(opcode);
    }
    const pointer = insn(0x79, { off: 8 });
    expect(one(offset('0:2'), pointer)).toEqual(pointer);
  });

  it('are poisoned when another size would give another number', () => {
    // u32 becomes s64.
    const signed = types(int('s64', 8, true), struct('s', 16, ['u', 6, 0]));
    const load = insn(0x61, { dst: 1, src: 2, off: 8 });
    const { insns, relocs } = relocate(local, [signed], offset('0:1'), [load, EXIT]);
    expect(insns).toEqual([insn(0x85, { imm: POISON_IMM }), EXIT]);
    expect(relocs).toMatchObject([
      {
        ...{ subject: 'struct s.u', found: 'struct s.u', local: 8n, value: undefined },
        poisoned: 'a field of 4 bytes has 8 in the target, and is not unsigned in both',
      },
    ]);
    // The same size may change its sign, and an addition does not look at the size.
    expect(one(offset('0:0'), insn(0x61, { off: 4 }))?.off).toBe(12);
    expect(one(offset('0:1'), insn(0x07, { imm: 8 }), signed)?.imm).toBe(0);
  });

  it('must be those that the compiler relocates', () => {
    const question = offset('0:0');
    expect(refusal(() => one(question, insn(0x0f, { imm: 4 })))).toMatch(
      /prog, instruction 0: CO-RE relocation field_byte_offset of struct s\.a is for an instruction which has no immediate/,
    );
    expect(refusal(() => one(question, insn(0x07, { imm: 5 })))).toMatch(
      /which holds 5 where the object's own types give 4/,
    );
    expect(refusal(() => one(question, insn(0x61, { off: 5 })))).toMatch(/which holds 5 where/);
    expect(refusal(() => one(question, insn(0x95)))).toMatch(/\(opcode 0x95\) which takes no such number/);
    expect(refusal(() => one(question, insn(0x18, { imm: 4, src: 1 })))).toMatch(/no plain 64-bit immediate/);
    expect(refusal(() => relocate(local, [target], { ...question, insn: 9 }))).toMatch(
      /which lies past the end/,
    );
    const far = types(struct('s', 1 << 20, ['a', U32, 8 * 40_000]));
    expect(refusal(() => one(question, insn(0x61, { off: 4 }), far))).toMatch(
      /whose offset would become 40000, more than 32767/,
    );
    // A store of 8 bytes into a field of 4 that has 2 in the target.
    const half = types(struct('s', 16, ['u', U16, 0]));
    expect(refusal(() => one(offset('0:1'), insn(0x7b, { off: 8 }), half))).toMatch(
      /which does not access the 4 bytes of the field \(2 in the target\)/,
    );
  });

  it('say what line they came from', () => {
    const object = bpfFixture('core.bpf.o');
    const program = object.programs[0] as BpfProgram;
    const broken = {
      ...program,
      coreRelocs: program.coreRelocs.map((reloc) => ({ ...reloc, insn: reloc.insn + 1 })),
    };
    expect(refusal(() => relocateCore(object, broken, [targetBtf()]))).toMatch(
      /^core\.bpf\.o: on_value, instruction 2 \(\.\/core\.bpf\.c:\d+\): CO-RE relocation field_byte_offset of struct order\.id is for/,
    );
  });
});

describe('the way to a field', () => {
  const local = types(struct('s', 8, ['a', 7, 0]), array(U32, 2), enumOf('e', ['A', 1]), to(KIND.PTR, 0));
  const read = (kind: CoreKind, access: string, type = 6): string =>
    refusal(() => relocate(local, [local], { kind, access, type }));

  it.each<[CoreKind, string, number, RegExp]>([
    [
      'field_exists',
      '',
      6,
      /the CO-RE access string "" of type 6 is no list of numbers with colons between them/,
    ],
    ['field_exists', '0:x', 6, /"0:x" of type 6 is no list/],
    ['field_exists', '0:1', 6, /has no member 1 in struct s/],
    ['field_exists', '0:0:2', 6, /reaches element 2 of 2/],
    ['field_exists', '0:0:1:0', 6, /goes into a type of kind int, which has no parts/],
    ['field_exists', Array.from({ length: 65 }, () => 0).join(':'), 6, /has more than 64 numbers/],
    ['field_exists', '0', 77, /belongs to type 77, which is not there/],
    ['field_exists', '0', 0, /reaches a type without a size/],
    ['type_exists', '1', 6, /goes into a type that is meant as a whole/],
    ['enumval_exists', '1', 8, /is no enumerator/],
    ['enumval_exists', '0', 6, /is no enumerator/],
    ['type_exists', '0', 9, /is about a type without a name/],
    ['field_signed', '0', 6, /only offset and size of an array element can be asked for/],
  ])('%s %s of type %i', (kind, access, type, expected) => {
    expect(read(kind, access, type)).toMatch(expected);
  });
});

it('the fixture asks everything, and each answer is the one that its C says', () => {
  const object = bpfFixture('core.bpf.o');
  const program = object.programs[0] as BpfProgram;
  const { insns, relocs } = relocateCore(object, program, [targetBtf()]);
  expect(new Set(relocs.map(({ reloc }) => reloc.kind)).size).toBe(12);
  expect(insns.filter(isPoison).length).toBe(1);
  const numbers = Object.fromEntries(
    relocs.map(({ reloc, subject, value }) => [
      `${reloc.kind} ${subject}`,
      value === undefined ? undefined : Number(value),
    ]),
  );
  expect(numbers).toMatchObject({
    'field_byte_offset struct order.id': 0,
    'field_byte_offset struct order.price.cents': 20,
    'field_byte_offset struct order.weights[1]': 42,
    'field_byte_offset struct order.next': 56,
    'field_byte_offset struct order.clerk': 48,
    'field_byte_offset struct order.invented': undefined,
    'field_byte_offset struct money___wide.whole': 0,
    'field_exists struct order___old.number': 0,
    'type_exists struct no_such_thing': 0,
    'type_matches struct size': 1,
    'type_matches struct size___mine': 0,
    'type_size struct order': 64,
    'enumval_value enum state.ORDER_PAID': 5,
    'enumval_exists enum state.ORDER_BURNT': 0,
  });
  // The 8-byte load of the wide member became one of 4.
  const wide = relocs.find(({ subject }) => subject === 'struct money___wide.whole');
  expect([program.insns, insns].map((all) => all[wide?.reloc.insn ?? 0]?.code)).toEqual([0x79, 0x61]);
});
