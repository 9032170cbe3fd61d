/*
 * Shifts by a register. x86 counts in cl, which is in r4's home: rcx is saved, unless it is the destination,
 * which then is shifted in r11. A CPU with BMI2 counts in any register (v6.12).
 */

import type { Assembler } from '../x86/assembler.ts';
import type { ShiftxOp } from '../x86/encoding.ts';
import { type Reg, rcx } from '../x86/operand.ts';
import type { Shift } from './alu.ts';
import type { InsnEmitter } from './context.ts';
import type { Width } from './opcodes.ts';
import { AUX, home } from './registers.ts';

/** v5.15 and v6.1. */
export const shiftReg =
  (op: Shift) =>
  (width: Width): InsnEmitter =>
  ({ asm }, insn) => {
    const src = home(insn.src);
    const dst = home(insn.dst) === rcx ? AUX : home(insn.dst);
    if (dst === AUX) asm.mov(AUX, rcx);
    if (src !== rcx) {
      asm.push(rcx);
      asm.mov(rcx, src);
    }
    asm.shiftCl(op, dst.as(width));
    if (src !== rcx) asm.pop(rcx);
    if (dst === AUX) asm.mov(rcx, AUX);
  };

const WITHOUT_CL: Readonly<Record<Shift, ShiftxOp>> = { shl: 'shlx', shr: 'shrx', sar: 'sarx' };

/** v6.12. */
export const shiftRegBmi2 =
  (op: Shift) =>
  (width: Width): InsnEmitter =>
  ({ asm, config }, insn) => {
    const src = home(insn.src);
    const dst = home(insn.dst);
    const reg = dst.as(width);
    if (src === rcx) asm.shiftCl(op, reg);
    else if (config.bmi2) asm.shiftx(WITHOUT_CL[op], reg, reg, src.as(width));
    else if (dst === rcx) shiftRcx(asm, op, width, src);
    else {
      asm.push(rcx);
      asm.mov(rcx, src);
      asm.shiftCl(op, reg);
      asm.pop(rcx);
    }
  };

/** rcx is lost anyhow: nothing to save. */
function shiftRcx(asm: Assembler, op: Shift, width: Width, src: Reg): void {
  asm.mov(AUX, rcx);
  asm.mov(rcx, src);
  asm.shiftCl(op, AUX.as(width));
  asm.mov(rcx, AUX);
}
