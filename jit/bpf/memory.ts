/*
 * Loads and stores that do not fault.
 *
 * The kernel never leaves a displacement out: [rdi] is [rdi + 0], with eight bits of it. Loads of one and
 * two bytes extend to 64 bits, although 32 would do.
 */

import { Mem, type OpSize, type Reg } from '../x86/operand.ts';
import { fits8 } from '../x86/rm.ts';
import type { InsnEmitter, JitPass } from './context.ts';
import type { AccessSize } from './opcodes.ts';
import { home } from './registers.ts';

/** `[base + off]`, or with an index `[base + index + off]`. */
export function at(base: Reg, off: number, index?: Reg, size: OpSize | 0 = 0): Mem {
  return new Mem({ base, index, disp: off, form: fits8(off) ? 'disp8' : 'disp32', size });
}

/** Kernel: emit_ldx */
export function load({ asm }: JitPass, size: AccessSize, dst: number, src: Reg, off: number): void {
  if (size <= 2) asm.movzx(home(dst), at(src, off), size as 1 | 2);
  else asm.mov(home(dst, size), at(src, off));
}

export const ldx =
  (size: AccessSize): InsnEmitter =>
  (jit, { dst, src, off }) => {
    load(jit, size, dst, home(src), off);
  };

export const stx =
  (size: AccessSize): InsnEmitter =>
  ({ asm }, { dst, src, off }) => {
    asm.mov(at(home(dst), off), home(src, size));
  };

export const st =
  (size: AccessSize): InsnEmitter =>
  ({ asm }, { dst, off, imm }) => {
    asm.movImm(at(home(dst), off, undefined, size), cut(imm, size));
  };

/** An immediate as the store's field holds it: sign-extended to eight bytes, cut to one and two. */
export function cut(imm: number, size: AccessSize): number {
  if (size === 1) return imm & 0xff;
  return size === 2 ? imm & 0xffff : imm;
}

/** A barrier against stores that a CPU has only guessed. */
export const nospec: InsnEmitter = ({ asm }) => asm.lfence();

/** The same, none on a CPU without SSE2, which has no such instruction (v5.15, v6.1). */
export const nospecSse2: InsnEmitter = ({ asm, config }) => {
  if (config.sse2) asm.lfence();
};
