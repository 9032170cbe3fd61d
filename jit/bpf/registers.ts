/*
 * Where eBPF's registers live:
 *
 *   r0  rax   what a function returns               r6  rbx  \
 *   r1  rdi   \                                      r7  r13   | kept by whoever is called
 *   r2  rsi    |                                     r8  r14   |
 *   r3  rdx    | arguments, as System V has them     r9  r15  /
 *   r4  rcx    |                                     fp  rbp   the frame; slots lie below it
 *   r5  r8    /                                      ax  r10   the verifier's own
 *
 * r11 is the JIT's scratch register, r12 the base of the arena where there is one, r9 is unused.
 *
 * Kernel: reg2hex, arch/x86/net/bpf_jit_comp.c
 */

import { EmitError } from '../../lib/index.ts';
import {
  type OpSize,
  type Reg,
  r8,
  r10,
  r11,
  r12,
  r13,
  r14,
  r15,
  rax,
  rbp,
  rbx,
  rcx,
  rdi,
  rdx,
  rsi,
} from '../x86/operand.ts';
import { BPF_REG_6, BPF_REG_9, type BpfInsn } from './insn.ts';

const HOMES: readonly Reg[] = [rax, rdi, rsi, rdx, rcx, r8, rbx, r13, r14, r15, rbp, r10];

const BY_SIZE: Readonly<Record<OpSize, readonly Reg[]>> = {
  1: HOMES.map((reg) => reg.as(1)),
  2: HOMES.map((reg) => reg.as(2)),
  4: HOMES.map((reg) => reg.as(4)),
  8: HOMES,
};

/** A program that no verifier lets through: there is nothing that a JIT could make of it. */
export class Unverified extends EmitError {
  override readonly name: string = 'Unverified';
}

/** The scratch register that no eBPF register lives in. Kernel: AUX_REG. */
export const AUX: Reg = r11;

/** Holds where the arena begins in the kernel. */
export const ARENA_BASE: Reg = r12;

/**
 * The x86 register of an eBPF register, at a width.
 *
 * @throws Unverified for a number that no program may use.
 */
export function home(bpfReg: number, size: OpSize = 8): Reg {
  const reg = BY_SIZE[size][bpfReg];
  if (reg === undefined) throw new Unverified(`register r${bpfReg}; there are r0 to r11`);
  return reg;
}

/** What the callee keeps, in the order in which it is pushed. */
export const CALLEE_REGS: readonly Reg[] = HOMES.slice(BPF_REG_6, BPF_REG_9 + 1);

/**
 * Those of them that a program names, in a field of any slot: whether the opcode uses that field is not
 * asked, nor whether the slot is the second half of an immediate.
 *
 * Kernel: detect_reg_usage
 */
export function calleeRegsUsed(insns: readonly BpfInsn[]): readonly Reg[] {
  let named = 0;
  for (const { dst, src } of insns) named |= (1 << dst) | (1 << src);
  return CALLEE_REGS.filter((_, i) => (named & (1 << (BPF_REG_6 + i))) !== 0);
}
