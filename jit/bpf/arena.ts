/*
 * The arena (v6.12): memory that a program shares with user space. Its pointers are 32 bits, kept in registers
 * zero-extended; r12 holds where the arena begins in the kernel. Pages may be missing there, so that any access
 * may fault: loads then give 0, stores are lost.
 */

import { lockedInsn, SIMPLE_ATOMICS } from './atomic.ts';
import type { InsnEmitter, JitPass } from './context.ts';
import { clearedRegister, DONT_CLEAR } from './extable.ts';
import type { BpfInsn } from './insn.ts';
import { at, cut } from './memory.ts';
import type { AccessSize, Width } from './opcodes.ts';
import { expectFault } from './probe.ts';
import { ARENA_BASE, AUX, home } from './registers.ts';

/** An access that may fault, and what of a register then. */
const faulting =
  (access: InsnEmitter, becomes: (insn: BpfInsn) => number | undefined): InsnEmitter =>
  (jit, insn) => {
    const start = jit.asm.offset;
    access(jit, insn);
    expectFault(jit, start, jit.asm.offset - start, becomes(insn));
  };

const keepsRegisters = (): number => DONT_CLEAR;

/** Unlike loads elsewhere, those of one and two bytes go through the 32-bit form. */
export const ldx = (size: AccessSize): InsnEmitter =>
  faulting(
    ({ asm }, { dst, src, off }) => {
      const mem = at(home(src), off, ARENA_BASE);
      if (size <= 2) asm.movzx(home(dst, 4), mem, size as 1 | 2);
      else asm.mov(home(dst, size), mem);
    },
    ({ dst }) => clearedRegister(dst),
  );

export const stx = (size: AccessSize): InsnEmitter =>
  faulting(({ asm }, { dst, src, off }) => {
    asm.mov(at(home(dst), off, ARENA_BASE), home(src, size));
  }, keepsRegisters);

export const st = (size: AccessSize): InsnEmitter =>
  faulting(({ asm }, { dst, off, imm }) => {
    asm.movImm(at(home(dst), off, ARENA_BASE, size), cut(imm, size));
  }, keepsRegisters);

/** There is no loop for what x86 cannot do in one instruction: fetching and, or and xor are refused. */
export const atomic = (width: Width): InsnEmitter =>
  faulting((jit, { dst, src, off, imm }) => {
    lockedInsn(jit, SIMPLE_ATOMICS, imm, at(home(dst), off, ARENA_BASE), home(src, width));
  }, keepsRegisters);

/** From 32 bits to a user's pointer: the upper half of where the arena begins for the user, except for NULL. */
export function castUser({ asm, program }: JitPass, insn: BpfInsn): void {
  const dst = home(insn.dst);
  const dst32 = dst.as(4);
  const upper = Number(BigInt.asIntN(32, (program.arenaUserVmStart ?? 0n) >> 32n));
  if (insn.dst !== insn.src) asm.mov(dst32, home(insn.src, 4));
  asm.shiftImm8('shl', dst, 32);
  if (insn.dst === 0) asm.aluAccImm32('or', dst, upper);
  else asm.aluImm32('or', dst, upper);
  asm.shiftImm8('rol', dst, 32);
  asm.alu('xor', AUX, AUX);
  asm.test(dst32, dst32);
  asm.cmove(dst, AUX, 'NULL stays NULL');
}
