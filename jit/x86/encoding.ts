/*
 * The encoding table: one row per form, in the order of the Intel manual's opcode column.
 *   op    opcode byte; `map` 0x0f for the two-byte map
 *   ext   /digit in ModRM.reg, where the form has one
 * Widths follow one rule for all: size 1 uses op - 1 where `narrow` is true (add 01 -> 00),
 * size 2 takes prefix 66, size 8 takes REX.W.
 */

export interface Form {
  readonly op: number;
  readonly map: 0x0f | undefined;
  readonly ext: number | undefined;
  readonly narrow: boolean;
}

/** A form whose ModRM.reg field is part of the opcode. */
export interface Digit extends Form {
  readonly ext: number;
}

// Every row has every column, so that reading one is the same few loads whichever row it is.
const form = (op: number, { map, narrow = false }: { map?: 0x0f; narrow?: boolean } = {}): Form => ({
  op,
  map,
  ext: undefined,
  narrow,
});
const digit = (op: number, ext: number, { narrow = false }: { narrow?: boolean } = {}): Digit => ({
  op,
  map: undefined,
  ext,
  narrow,
});

/** Arithmetic group 1: the /digit of 80, 81, 83, and 8 times it is the opcode of the `r/m, r` form less 1. */
const ALU = { add: 0, or: 1, adc: 2, sbb: 3, and: 4, sub: 5, xor: 6, cmp: 7 } as const;
export type AluOp = keyof typeof ALU;

/** Condition codes, added to 70 (rel8) and 0f 80 (rel32). */
export const CC = {
  o: 0,
  no: 1,
  b: 2,
  ae: 3,
  e: 4,
  ne: 5,
  be: 6,
  a: 7,
  s: 8,
  ns: 9,
  p: 10,
  np: 11,
  l: 12,
  ge: 13,
  le: 14,
  g: 15,
} as const;
export type Cond = keyof typeof CC;

const aluRows = (op: AluOp): { rmReg: Form; regRm: Form; imm8: Digit; imm32: Digit; byteImm8: Digit } => ({
  rmReg: form(ALU[op] * 8 + 1, { narrow: true }),
  regRm: form(ALU[op] * 8 + 3, { narrow: true }),
  imm8: digit(0x83, ALU[op]),
  imm32: digit(0x81, ALU[op]),
  byteImm8: digit(0x80, ALU[op]),
});

export const ALU_FORMS: Readonly<Record<AluOp, ReturnType<typeof aluRows>>> = {
  add: aluRows('add'),
  or: aluRows('or'),
  adc: aluRows('adc'),
  sbb: aluRows('sbb'),
  and: aluRows('and'),
  sub: aluRows('sub'),
  xor: aluRows('xor'),
  cmp: aluRows('cmp'),
};

/** Shift group 2: the /digit of c1. */
const SHIFT = { shl: 4, shr: 5, sar: 7 } as const;
export type ShiftOp = keyof typeof SHIFT;

export const SHIFT_IMM8: Readonly<Record<ShiftOp, Digit>> = {
  shl: digit(0xc1, SHIFT.shl, { narrow: true }),
  shr: digit(0xc1, SHIFT.shr, { narrow: true }),
  sar: digit(0xc1, SHIFT.sar, { narrow: true }),
};

export const MOV_RM_REG: Form = form(0x89, { narrow: true });
export const MOV_REG_RM: Form = form(0x8b, { narrow: true });
export const MOV_RM_IMM32: Digit = digit(0xc7, 0);
export const MOV_RM_IMM8: Digit = digit(0xc6, 0);
export const MOVZX_RM8: Form = form(0xb6, { map: 0x0f });
export const MOVZX_RM16: Form = form(0xb7, { map: 0x0f });
export const LEA: Form = form(0x8d);
export const TEST_RM_REG: Form = form(0x85, { narrow: true });
export const TEST_RM_IMM32: Digit = digit(0xf7, 0);
export const TEST_RM_IMM8: Digit = digit(0xf6, 0);
export const INC_RM: Digit = digit(0xff, 0, { narrow: true });
export const DEC_RM: Digit = digit(0xff, 1, { narrow: true });
export const XADD_RM_REG: Form = form(0xc1, { map: 0x0f, narrow: true });
export const CMPXCHG_RM_REG: Form = form(0xb1, { map: 0x0f, narrow: true });
export const XCHG_RM_REG: Form = form(0x87, { narrow: true });
export const CALL_RM: Digit = digit(0xff, 2);
export const JMP_RM: Digit = digit(0xff, 4);
