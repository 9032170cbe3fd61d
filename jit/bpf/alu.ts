/*
 * Arithmetic that every revision compiles alike: add, sub, and, or, xor, mov, neg, shifts by a constant,
 * byte order; and constants in registers, which many others need.
 */

import type { Assembler } from '../x86/assembler.ts';
import type { AluOp } from '../x86/encoding.ts';
import { type Reg, rax } from '../x86/operand.ts';
import { fits8 } from '../x86/rm.ts';
import type { InsnEmitter } from './context.ts';
import type { Width } from './opcodes.ts';
import { home, Unverified } from './registers.ts';

// -- constants ----------------------------------------------------------------------------------

/** A constant below 2^32, zero-extended: xor for 0, else the five-byte move. */
export function movZeroExtended(asm: Assembler, dst: Reg, value: number, note?: string): void {
  const dst32 = dst.as(4);
  if (value === 0) asm.alu('xor', dst32, dst32, note);
  else asm.movImm32(dst32, value >>> 0, note);
}

/** A sign-extended 32-bit constant. Kernel: emit_mov_imm32 with sign_propagate */
export function movSignExtended(asm: Assembler, dst: Reg, value: number, note?: string): void {
  if (value < 0) asm.movImm(dst, value, note);
  else movZeroExtended(asm, dst, value, note);
}

/** A 64-bit immediate in two slots. */
export const ldImm64: InsnEmitter = ({ asm, rev, insns, at }, { dst, imm }) => {
  const second = insns[at];
  if (second === undefined) throw new Unverified('half a 64-bit immediate; add its second slot');
  rev.movImm64(asm, home(dst), (BigInt(second.imm) << 32n) | BigInt(imm >>> 0), undefined);
};

// -- two operands -------------------------------------------------------------------------------

export const aluReg =
  (op: AluOp) =>
  (width: Width): InsnEmitter =>
  ({ asm }, { dst, src }) => {
    asm.alu(op, home(dst, width), home(src, width));
  };

/** Eight bits of immediate if they do; else the form for rax, where dst is rax; else 32 bits. */
export const aluImm =
  (op: AluOp) =>
  (width: Width): InsnEmitter =>
  ({ asm }, { dst, imm }) => {
    const reg = home(dst, width);
    if (fits8(imm)) asm.aluImm8(op, reg, imm);
    else if (reg.num === rax.num) asm.aluAccImm32(op, reg, imm);
    else asm.aluImm32(op, reg, imm);
  };

/** A move to itself is nothing on 64 bits; on 32 bits it clears the upper half. Kernel: emit_mov_reg */
export function movReg(asm: Assembler, dst: Reg, src: Reg, note?: string): void {
  if (dst.size === 4 || dst !== src) asm.mov(dst, src, note);
}

export const mov =
  (width: Width): InsnEmitter =>
  ({ asm }, { dst, src }) => {
    movReg(asm, home(dst, width), home(src, width));
  };

export const movImm =
  (width: Width): InsnEmitter =>
  ({ asm }, { dst, imm }) => {
    if (width === 8) movSignExtended(asm, home(dst), imm);
    else movZeroExtended(asm, home(dst), imm);
  };

// -- one operand --------------------------------------------------------------------------------

export const neg =
  (width: Width): InsnEmitter =>
  ({ asm }, { dst }) => {
    asm.unary('neg', home(dst, width));
  };

/** What x86 calls lsh, rsh and arsh. */
export type Shift = 'shl' | 'shr' | 'sar';

/** x86 has a shorter form for 1, and none for 0, which is written like any other count. */
export const shiftImm =
  (op: Shift) =>
  (width: Width): InsnEmitter =>
  ({ asm }, { dst, imm }) => {
    const reg = home(dst, width);
    if (imm === 1) asm.shift1(op, reg);
    else asm.shiftImm8(op, reg, imm & 0xff);
  };

/** To the other byte order, and zero-extended. A width that does not exist is nothing. */
export const swapBytes: InsnEmitter = ({ asm }, { dst, imm }) => {
  if (imm === 16) {
    asm.shiftImm8('ror', home(dst, 2), 8);
    asm.movzx(home(dst, 4), home(dst, 2), 2);
  } else if (imm === 32 || imm === 64) {
    asm.bswap(home(dst, imm === 32 ? 4 : 8));
  }
};

/** To the order that x86 has already: only what is above is cleared. */
export const keepBytes: InsnEmitter = ({ asm }, { dst, imm }) => {
  if (imm === 16) asm.movzx(home(dst, 4), home(dst, 2), 2);
  else if (imm === 32) asm.mov(home(dst, 4), home(dst, 4));
};
