/*
 * Jumps. How long one is depends on how far it goes, and how far on how long those in between are: the
 * table of ends says so, in the state that this pass and the one before have left it in (see passes.ts).
 */

import { fillNops, NOPS } from '../kernel-encoding.ts';
import type { Cond } from '../x86/encoding.ts';
import { fits8 } from '../x86/rm.ts';
import { type InsnEmitter, type JitPass, JitRefusal } from './context.ts';
import type { BpfInsn } from './insn.ts';
import type { Width } from './opcodes.ts';
import { home, Unverified } from './registers.ts';

/** Lengths of jumps in bytes. */
const SHORT_JUMP = 2;
const NEAR_JUMP = 5;
const NEAR_JCC = 6;

// -- conditional --------------------------------------------------------------------------------

/** Compares with a register. */
export const jumpReg =
  (cond: Cond) =>
  (width: Width): InsnEmitter =>
  (jit, insn) => {
    jit.asm.alu('cmp', home(insn.dst, width), home(insn.src, width));
    conditional(jit, cond, insn);
  };

/** Compares with an immediate: a test for 0, eight bits of immediate where they do. */
export const jumpImm =
  (cond: Cond) =>
  (width: Width): InsnEmitter =>
  (jit, insn) => {
    const { asm } = jit;
    const reg = home(insn.dst, width);
    if (insn.imm === 0) asm.test(reg, reg);
    else if (fits8(insn.imm)) asm.aluImm8('cmp', reg, insn.imm);
    else asm.aluImm32('cmp', reg, insn.imm);
    conditional(jit, cond, insn);
  };

/** JSET: any bit that both have. */
export const jumpSetReg =
  (width: Width): InsnEmitter =>
  (jit, insn) => {
    jit.asm.test(home(insn.dst, width), home(insn.src, width));
    conditional(jit, 'ne', insn);
  };

export const jumpSetImm =
  (width: Width): InsnEmitter =>
  (jit, insn) => {
    jit.asm.testImm(home(insn.dst, width), insn.imm);
    conditional(jit, 'ne', insn);
  };

function conditional(jit: JitPass, cond: Cond, { off }: BpfInsn): void {
  const { asm } = jit;
  const distance = distanceTo(jit, off);
  if (isShort(jit, distance)) {
    pad(jit, SHORT_JUMP, [NEAR_JCC - SHORT_JUMP]);
    asm.jccShortBy(cond, distance);
  } else {
    asm.jccNearBy(cond, distance);
  }
}

// -- unconditional ------------------------------------------------------------------------------

/** `goto`, its distance in off. */
export const ja: InsnEmitter = (jit, { off }) => goto(jit, off);

/** `gotol`, its distance in imm. */
export const jaLong: InsnEmitter = (jit, { imm }) => goto(jit, imm);

function goto(jit: JitPass, insns: number): void {
  // a jump to itself is 2 bytes long, whatever its length was in the pass before
  const distance = insns === -1 ? -SHORT_JUMP : distanceTo(jit, insns);
  if (distance === 0) pad(jit, 0, [SHORT_JUMP, NEAR_JUMP]);
  else jumpBy(jit, distance);
}

/** A jump to an offset of this image; also over no distance. */
export function jumpTo(jit: JitPass, offset: number): void {
  jumpBy(jit, offset - (jit.addrs[jit.at] as number));
}

function jumpBy(jit: JitPass, distance: number): void {
  const { asm } = jit;
  if (isShort(jit, distance)) {
    pad(jit, SHORT_JUMP, [NEAR_JUMP - SHORT_JUMP]);
    asm.jmpShortBy(distance);
  } else {
    asm.jmpNearBy(distance);
  }
}

// -- distances ----------------------------------------------------------------------------------

/** Bytes from the end of the instruction under way to the end of the one `insns` after it. */
function distanceTo({ addrs, at }: JitPass, insns: number): number {
  const target = addrs[at + insns];
  if (target === undefined) {
    throw new Unverified(`a jump by ${insns} leaves the program of ${addrs.length - 1} slots`);
  }
  return target - (addrs[at] as number);
}

function isShort({ rev }: JitPass, distance: number): boolean {
  return fits8(distance) && distance <= rev.shortJumpMax;
}

/**
 * With padding on, an instruction that could now be shorter keeps its length by nops in front of the jump.
 *
 * @param jumpBytes length of the jump that follows.
 * @param saved what the shorter form saves; no other number of nops is possible, except none.
 * @throws JitRefusal when the instruction was of another length altogether.
 */
function pad({ asm, addrs, at, padding }: JitPass, jumpBytes: number, saved: readonly number[]): void {
  if (!padding) return;
  const nops = (addrs[at] as number) - asm.offset - jumpBytes;
  if (nops !== 0 && !saved.includes(nops)) throw new JitRefusal(`unexpected jump padding: ${nops} bytes`);
  fillNops(asm, nops, NOPS, 'keeps the length');
}
