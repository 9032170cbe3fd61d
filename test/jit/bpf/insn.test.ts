import fc from 'fast-check';
import { expect, test } from 'vitest';
import { type BpfInsn, decodeInsns, encodeInsns } from '../../../jit/index.ts';
import { Bug, fromHex, toHex } from '../../../lib/index.ts';

const anyInsn: fc.Arbitrary<BpfInsn> = fc.record({
  code: fc.integer({ min: 0, max: 0xff }),
  dst: fc.integer({ min: 0, max: 15 }),
  src: fc.integer({ min: 0, max: 15 }),
  off: fc.integer({ min: -0x8000, max: 0x7fff }),
  imm: fc.integer({ min: -0x8000_0000, max: 0x7fff_ffff }),
});

test('an instruction is opcode, dst and src nibbles, signed offset, signed immediate', () => {
  const bytes = fromHex('79a1f8ff00000000' + 'b7050000feffffff') as Uint8Array;
  expect(decodeInsns(bytes)).toEqual([
    { code: 0x79, dst: 1, src: 10, off: -8, imm: 0 },
    { code: 0xb7, dst: 5, src: 0, off: 0, imm: -2 },
  ]);
});

test('decoding takes back encoding', () => {
  fc.assert(
    fc.property(fc.array(anyInsn), (insns) => {
      expect(decodeInsns(encodeInsns(insns))).toEqual(insns);
    }),
  );
});

test('bytes in the middle of a buffer are read where they stand', () => {
  const buffer = fromHex('ffffff' + '0000000000000000' + '9500000000000000') as Uint8Array;
  const insns = decodeInsns(buffer.subarray(11));
  expect(insns).toEqual([{ code: 0x95, dst: 0, src: 0, off: 0, imm: 0 }]);
  expect(toHex(encodeInsns(insns))).toBe('9500000000000000');
});

test('part of an instruction is none', () => {
  expect(() => decodeInsns(new Uint8Array(9))).toThrow(Bug);
});
