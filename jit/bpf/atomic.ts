/*
 * Atomic operations: one locked instruction where x86 has it. It has none that fetches and does and, or
 * or xor; those become a loop around cmpxchg, which needs rax, so that r0 waits in r10.
 */

import type { AluOp } from '../x86/encoding.ts';
import { type Mem, type Reg, r10, rax } from '../x86/operand.ts';
import { movReg } from './alu.ts';
import { type InsnEmitter, type JitPass, JitRefusal } from './context.ts';
import {
  BPF_ADD,
  BPF_AND,
  BPF_CMPXCHG,
  BPF_FETCH,
  BPF_OR,
  BPF_REG_0,
  BPF_XCHG,
  BPF_XOR,
  type BpfInsn,
} from './insn.ts';
import { at, load } from './memory.ts';
import type { Width } from './opcodes.ts';
import { AUX, home } from './registers.ts';

/** Operations that leave memory changed and registers alone, by their imm. */
export type SimpleAtomics = Readonly<Record<number, Exclude<AluOp, 'cmp'>>>;

export const SIMPLE_ATOMICS: SimpleAtomics = {
  [BPF_ADD]: 'add',
  [BPF_AND]: 'and',
  [BPF_OR]: 'or',
  [BPF_XOR]: 'xor',
};

/** Those that need the loop. */
const FETCHING: Readonly<Record<number, AluOp>> = {
  [BPF_AND | BPF_FETCH]: 'and',
  [BPF_OR | BPF_FETCH]: 'or',
  [BPF_XOR | BPF_FETCH]: 'xor',
};

/**
 * One locked instruction. The operation is a byte: the rest of imm is not looked at.
 * Kernel: emit_atomic, and emit_atomic_index for the arena
 *
 * @throws JitRefusal for an operation that is none.
 */
export function lockedInsn({ asm }: JitPass, simple: SimpleAtomics, imm: number, mem: Mem, reg: Reg): void {
  const operation = imm & 0xff;
  const op = simple[operation];
  if (op !== undefined) asm.lockAlu(op, mem, reg);
  else if (operation === (BPF_ADD | BPF_FETCH)) asm.lockXadd(mem, reg);
  else if (operation === BPF_XCHG) asm.lockXchg(mem, reg);
  else if (operation === BPF_CMPXCHG) asm.lockCmpxchg(mem, reg);
  else throw new JitRefusal(`unknown atomic opcode ${operation.toString(16).padStart(2, '0')}`);
}

export const atomic =
  (simple: SimpleAtomics) =>
  (width: Width): InsnEmitter =>
  (jit, insn) => {
    const op = FETCHING[insn.imm];
    if (op !== undefined) fetchLoop(jit, insn, op, width);
    else lockedInsn(jit, simple, insn.imm, at(home(insn.dst), insn.off), home(insn.src, width));
  };

function fetchLoop(jit: JitPass, { dst, src, off }: BpfInsn, op: AluOp, width: Width): void {
  const { asm } = jit;
  // rax is cmpxchg's; r0, whichever side it is on, is in r10 for as long
  const aside = (reg: Reg): Reg => (reg.num === rax.num ? r10.as(reg.size) : reg);
  const base = aside(home(dst));
  const operand = aside(home(src, width));
  const again = asm.label('again');
  asm.mov(r10, rax, 'r0 waits here');
  asm.bind(again);
  load(jit, width, BPF_REG_0, base, off);
  asm.mov(AUX.as(width), rax.as(width));
  asm.alu(op, AUX.as(width), operand);
  asm.lockCmpxchg(at(base, off), AUX.as(width));
  asm.jccShort('ne', again, 'somebody was faster');
  movReg(asm, operand, rax.as(width), 'what was there');
  asm.mov(rax, r10);
}
