/*
 * Multiplication, division and remainder. x86 divides edx:eax or rdx:rax, and so did v5.15 multiply; r0 and r3,
 * which live there, are saved around it unless they are the destination.
 *
 * A division by zero does not happen: the verifier has put a test in front of it.
 */

import { type Reg, rax, rdx } from '../x86/operand.ts';
import { fits8 } from '../x86/rm.ts';
import { movReg, movSignExtended, movZeroExtended } from './alu.ts';
import type { InsnEmitter } from './context.ts';
import type { Width } from './opcodes.ts';
import { AUX, home } from './registers.ts';

// -- v5.15: by the one-operand forms ------------------------------------------------------------

type Load = (width: Width, dst: Reg) => InsnEmitter;

const loadReg: Load =
  (width, dst) =>
  ({ asm }, { src }) =>
    movReg(asm, dst.as(width), home(src, width));

const loadImm: Load =
  (width, dst) =>
  ({ asm }, { imm }) =>
    width === 8 ? movSignExtended(asm, dst, imm) : movZeroExtended(asm, dst, imm);

const mulBy =
  (load: Load) =>
  (width: Width): InsnEmitter => {
    const loadRax = load(width, rax);
    return (jit, insn) => {
      const { asm } = jit;
      const dst = home(insn.dst);
      if (dst !== rax) asm.push(rax);
      if (dst !== rdx) asm.push(rdx);
      asm.mov(AUX, dst);
      loadRax(jit, insn);
      asm.unary('mul', AUX.as(width));
      if (dst !== rdx) asm.pop(rdx);
      if (dst !== rax) {
        asm.mov(dst, rax);
        asm.pop(rax);
      }
    };
  };

/** Multiplication into rdx:rax, of which rax is taken. */
export const mulRaxReg: (width: Width) => InsnEmitter = mulBy(loadReg);
export const mulRaxImm: (width: Width) => InsnEmitter = mulBy(loadImm);

/** What a division takes from x86: the quotient in rax, the remainder in rdx. */
export type Result = 'quotient' | 'remainder';

const RESULT: Readonly<Record<Result, Reg>> = { quotient: rax, remainder: rdx };

/** Saves r0 and r3 always, and copies 64 bits also of a 32-bit result. */
export const divSavingBoth =
  (result: Result, by: 'reg' | 'imm') =>
  (width: Width): InsnEmitter =>
  ({ asm }, { dst, src, imm }) => {
    asm.push(rax);
    asm.push(rdx);
    if (by === 'reg') asm.mov(AUX, home(src));
    else asm.movImm(AUX, imm);
    movReg(asm, rax, home(dst));
    asm.alu('xor', rdx.as(4), rdx.as(4));
    asm.unary('div', AUX.as(width));
    asm.mov(AUX, RESULT[result]);
    asm.pop(rdx);
    asm.pop(rax);
    asm.mov(home(dst), AUX);
  };

// -- from v6.1 on -------------------------------------------------------------------------------

export const imulReg =
  (width: Width): InsnEmitter =>
  ({ asm }, { dst, src }) => {
    asm.imul(home(dst, width), home(src, width));
  };

export const imulImm =
  (width: Width): InsnEmitter =>
  ({ asm }, { dst, imm }) => {
    const reg = home(dst, width);
    if (fits8(imm)) asm.imulImm8(reg, reg, imm);
    else asm.imulImm32(reg, reg, imm);
  };

/**
 * Saves of r0 and r3 only what the result does not replace.
 *
 * @param signs whether a non-zero off asks for signed division (v6.12); else off is not looked at.
 */
export const div =
  (result: Result, by: 'reg' | 'imm', { signs }: { readonly signs: boolean }) =>
  (width: Width): InsnEmitter =>
  ({ asm }, insn) => {
    const dst = home(insn.dst);
    if (dst !== rax) asm.push(rax);
    if (dst !== rdx) asm.push(rdx);
    let divisor = AUX;
    if (by === 'imm') asm.movImm(AUX, insn.imm);
    else if (home(insn.src) === rax || home(insn.src) === rdx) asm.mov(AUX, home(insn.src));
    else divisor = home(insn.src);
    if (dst !== rax) asm.mov(rax.as(width), dst.as(width));
    const signed = signs && insn.off !== 0;
    if (!signed) asm.alu('xor', rdx.as(4), rdx.as(4));
    else if (width === 8) asm.cqo();
    else asm.cdq();
    asm.unary(signed ? 'idiv' : 'div', divisor.as(width));
    if (dst !== RESULT[result]) asm.mov(dst.as(width), RESULT[result].as(width));
    if (dst !== rdx) asm.pop(rdx);
    if (dst !== rax) asm.pop(rax);
  };
