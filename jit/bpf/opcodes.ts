/** Rows of a revision's table: opcodes that differ in nothing but width, size or operand. */

import type { InsnEmitter, Opcodes } from './context.ts';
import { BPF_ALU, BPF_ALU64, BPF_B, BPF_DW, BPF_H, BPF_JMP, BPF_JMP32, BPF_W } from './insn.ts';

/** Width of arithmetic in bytes. */
export type Width = 4 | 8;

/** Bytes that a load or store moves. */
export type AccessSize = 1 | 2 | 4 | 8;

/** An operation on 32 bits and on 64. */
export function bothWidths(op: number, emitter: (width: Width) => InsnEmitter): Opcodes {
  return { [BPF_ALU | op]: emitter(4), [BPF_ALU64 | op]: emitter(8) };
}

/** A conditional jump that compares 32 bits, and one that compares 64. */
export function bothJumps(op: number, emitter: (width: Width) => InsnEmitter): Opcodes {
  return { [BPF_JMP32 | op]: emitter(4), [BPF_JMP | op]: emitter(8) };
}

/** 1, 2 and 4 bytes: what can be sign-extended. */
export function narrowSizes(op: number, emitter: (size: 1 | 2 | 4) => InsnEmitter): Opcodes {
  return { [op | BPF_B]: emitter(1), [op | BPF_H]: emitter(2), [op | BPF_W]: emitter(4) };
}

/** A load or store of every size. */
export function everySize(op: number, emitter: (size: AccessSize) => InsnEmitter): Opcodes {
  return { ...narrowSizes(op, emitter), [op | BPF_DW]: emitter(8) };
}

/** An atomic operation on 4 bytes and on 8. */
export function wordSizes(op: number, emitter: (size: Width) => InsnEmitter): Opcodes {
  return { [op | BPF_W]: emitter(4), [op | BPF_DW]: emitter(8) };
}
