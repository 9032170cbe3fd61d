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

interface AluRows {
  readonly rmReg: Form;
  readonly regRm: Form;
  /** On al, ax, eax, rax without ModRM: the opcode of the wide ones. */
  readonly accImm: number;
  readonly imm8: Digit;
  readonly imm32: Digit;
  readonly byteImm8: Digit;
}

const aluRows = (op: AluOp): AluRows => ({
  rmReg: form(ALU[op] * 8 + 1, { narrow: true }),
  regRm: form(ALU[op] * 8 + 3, { narrow: true }),
  accImm: ALU[op] * 8 + 5,
  imm8: digit(0x83, ALU[op]),
  imm32: digit(0x81, ALU[op]),
  byteImm8: digit(0x80, ALU[op]),
});

export const ALU_FORMS: Readonly<Record<AluOp, AluRows>> = {
  add: aluRows('add'),
  or: aluRows('or'),
  adc: aluRows('adc'),
  sbb: aluRows('sbb'),
  and: aluRows('and'),
  sub: aluRows('sub'),
  xor: aluRows('xor'),
  cmp: aluRows('cmp'),
};

/** Shift group 2: the /digit of c1 (by a constant), d1 (by one) and d3 (by cl). */
const SHIFT = { rol: 0, ror: 1, shl: 4, shr: 5, sar: 7 } as const;
export type ShiftOp = keyof typeof SHIFT;

const shiftRows = (op: number): Readonly<Record<ShiftOp, Digit>> => ({
  rol: digit(op, SHIFT.rol, { narrow: true }),
  ror: digit(op, SHIFT.ror, { narrow: true }),
  shl: digit(op, SHIFT.shl, { narrow: true }),
  shr: digit(op, SHIFT.shr, { narrow: true }),
  sar: digit(op, SHIFT.sar, { narrow: true }),
});

export const SHIFT_IMM8: Readonly<Record<ShiftOp, Digit>> = shiftRows(0xc1);
export const SHIFT_1: Readonly<Record<ShiftOp, Digit>> = shiftRows(0xd1);
export const SHIFT_CL: Readonly<Record<ShiftOp, Digit>> = shiftRows(0xd3);

/** Shifts by any register (BMI2), map 0f 38, opcode f7: told apart by the pp field of their VEX prefix. */
export const SHIFTX_PP = { shlx: 1, sarx: 2, shrx: 3 } as const;
export type ShiftxOp = keyof typeof SHIFTX_PP;

/** Unary group 3: the /digit of f7. */
const UNARY = { neg: 3, mul: 4, div: 6, idiv: 7 } as const;
export type UnaryOp = keyof typeof UNARY;

export const UNARY_RM: Readonly<Record<UnaryOp, Digit>> = {
  neg: digit(0xf7, UNARY.neg, { narrow: true }),
  mul: digit(0xf7, UNARY.mul, { narrow: true }),
  div: digit(0xf7, UNARY.div, { narrow: true }),
  idiv: digit(0xf7, UNARY.idiv, { narrow: true }),
};

export const IMUL_REG_RM: Form = form(0xaf, { map: 0x0f });
export const IMUL_REG_RM_IMM8: Form = form(0x6b);
export const IMUL_REG_RM_IMM32: Form = form(0x69);

export const MOV_RM_REG: Form = form(0x89, { narrow: true });
export const MOV_REG_RM: Form = form(0x8b, { narrow: true });
export const MOV_RM_IMM32: Digit = digit(0xc7, 0);
export const MOV_RM_IMM8: Digit = digit(0xc6, 0);
export const MOVZX_RM8: Form = form(0xb6, { map: 0x0f });
export const MOVZX_RM16: Form = form(0xb7, { map: 0x0f });
export const MOVSX_RM8: Form = form(0xbe, { map: 0x0f });
export const MOVSX_RM16: Form = form(0xbf, { map: 0x0f });
export const MOVSXD_RM32: Form = form(0x63);
export const CMOVE: Form = form(0x44, { map: 0x0f });
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
