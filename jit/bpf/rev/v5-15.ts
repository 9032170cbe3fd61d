/*
 * Linux v5.15 (as of 5.15.16): what is compiled how.
 *
 * The tail call count comes in eax and lies below the program's stack:
 *
 *   rbp - stackBytes       the program's stack, down to here
 *   rbp - stackBytes - 8   tail call count          only when tail calls can be reached
 *   then                   rbx, r13, r14, r15       those that are used
 */

import { addrDistance, kaddr } from '../../../lib/index.ts';
import { movPtr, NOPS } from '../../kernel-encoding.ts';
import type { Label } from '../../x86/assembler.ts';
import type { Cond } from '../../x86/encoding.ts';
import { eax, ptr, rax, rbp, rcx, rsp } from '../../x86/operand.ts';
import { piece } from '../../x86/step.ts';
import {
  aluImm,
  aluReg,
  keepBytes,
  ldImm64,
  mov,
  movImm,
  neg,
  type Shift,
  shiftImm,
  swapBytes,
} from '../alu.ts';
import { atomic, SIMPLE_ATOMICS } from '../atomic.ts';
import { call } from '../call.ts';
import type { BpfJitRevision, InsnEmitter, JitPass, Opcodes } from '../context.ts';
import { exit } from '../function.ts';
import * as op from '../insn.ts';
import { ja, jumpImm, jumpReg, jumpSetImm, jumpSetReg } from '../jump.ts';
import { ldx, nospecSse2, st, stx } from '../memory.ts';
import { divSavingBoth, mulRaxImm, mulRaxReg } from '../mul-div.ts';
import { type AccessSize, bothJumps, bothWidths, everySize, type Width, wordSizes } from '../opcodes.ts';
import { type Guard, guardUser, probe } from '../probe.ts';
import { calleeRegsUsed } from '../registers.ts';
import { shiftReg } from '../shift.ts';
import { TAIL_CALL_LIMIT, type TailCallParts, tailCall } from '../tail-call.ts';

// -- rows ---------------------------------------------------------------------------------------

const aluRows = (code: number, name: 'add' | 'sub' | 'and' | 'or' | 'xor'): Opcodes => ({
  ...bothWidths(code | op.BPF_X, aluReg(name)),
  ...bothWidths(code | op.BPF_K, aluImm(name)),
});

const jumpRows = (code: number, cond: Cond): Opcodes => ({
  ...bothJumps(code | op.BPF_X, jumpReg(cond)),
  ...bothJumps(code | op.BPF_K, jumpImm(cond)),
});

/** Shifts by a register differ from revision to revision. */
export const shiftRegRows = (by: (name: Shift) => (width: Width) => InsnEmitter): Opcodes => ({
  ...bothWidths(op.BPF_LSH | op.BPF_X, by('shl')),
  ...bothWidths(op.BPF_RSH | op.BPF_X, by('shr')),
  ...bothWidths(op.BPF_ARSH | op.BPF_X, by('sar')),
});

export const probeRows = (guard: Guard, options: { readonly skipsGuard?: boolean } = {}): Opcodes =>
  everySize(op.BPF_LDX | op.BPF_PROBE_MEM, (size: AccessSize) => probe(guard, ldx(size), options));

// -- tail calls ---------------------------------------------------------------------------------

/** The count in the frame: one more, unless there were as many as may be. */
export const countInFrame =
  (limit: number, tooMany: Cond) =>
  ({ asm, frame }: JitPass, out: Label): void => {
    const count = ptr(rbp, -4 - frame.stackBytes, 'disp32');
    asm.mov(eax, count);
    asm.aluImm8('cmp', eax, limit);
    asm.jccShort(tooMany, out, 'too many tail calls');
    asm.aluImm8('add', eax, 1);
    asm.mov(count, eax);
  };

export const tailCallParts: TailCallParts = {
  ptrs: 0x110,
  checkCount: countInFrame(TAIL_CALL_LIMIT - 1, 'a'),
  count: () => undefined,
  popCount: ({ asm }) => asm.pop(rax),
};

/** An indirect jump that a CPU cannot guess: the guess is that a call returns, and that leads into a loop. */
const retpoline = piece('RETPOLINE_RCX_BPF_JIT', ({ asm }: JitPass) => {
  const setUp = asm.label('set up target');
  const capture = asm.label('capture speculation');
  asm.callLabel(setUp);
  asm.bind(capture);
  asm.pause();
  asm.lfence();
  asm.jmpShort(capture);
  asm.bind(setUp);
  asm.mov(ptr(rsp), rcx);
  asm.ret();
});

// -- the revision -------------------------------------------------------------------------------

export const v5_15: BpfJitRevision = {
  opcodes: {
    ...aluRows(op.BPF_ADD, 'add'),
    ...aluRows(op.BPF_SUB, 'sub'),
    ...aluRows(op.BPF_AND, 'and'),
    ...aluRows(op.BPF_OR, 'or'),
    ...aluRows(op.BPF_XOR, 'xor'),
    ...bothWidths(op.BPF_MOV | op.BPF_X, mov),
    ...bothWidths(op.BPF_MOV | op.BPF_K, movImm),
    ...bothWidths(op.BPF_NEG, neg),
    ...bothWidths(op.BPF_MUL | op.BPF_X, mulRaxReg),
    ...bothWidths(op.BPF_MUL | op.BPF_K, mulRaxImm),
    ...bothWidths(op.BPF_DIV | op.BPF_X, divSavingBoth('quotient', 'reg')),
    ...bothWidths(op.BPF_DIV | op.BPF_K, divSavingBoth('quotient', 'imm')),
    ...bothWidths(op.BPF_MOD | op.BPF_X, divSavingBoth('remainder', 'reg')),
    ...bothWidths(op.BPF_MOD | op.BPF_K, divSavingBoth('remainder', 'imm')),
    ...bothWidths(op.BPF_LSH | op.BPF_K, shiftImm('shl')),
    ...bothWidths(op.BPF_RSH | op.BPF_K, shiftImm('shr')),
    ...bothWidths(op.BPF_ARSH | op.BPF_K, shiftImm('sar')),
    ...shiftRegRows(shiftReg),
    [op.BPF_ALU | op.BPF_END | op.BPF_TO_BE]: swapBytes,
    [op.BPF_ALU | op.BPF_END | op.BPF_TO_LE]: keepBytes,

    [op.BPF_LD | op.BPF_IMM | op.BPF_DW]: ldImm64,
    ...everySize(op.BPF_LDX | op.BPF_MEM, ldx),
    ...everySize(op.BPF_ST | op.BPF_MEM, st),
    ...everySize(op.BPF_STX | op.BPF_MEM, stx),
    ...probeRows(guardUser),
    ...wordSizes(op.BPF_STX | op.BPF_ATOMIC, atomic({ ...SIMPLE_ATOMICS, [op.BPF_SUB]: 'sub' })),
    [op.BPF_ST | op.BPF_NOSPEC]: nospecSse2,

    [op.BPF_JMP | op.BPF_JA]: ja,
    ...jumpRows(op.BPF_JEQ, 'e'),
    ...jumpRows(op.BPF_JNE, 'ne'),
    ...jumpRows(op.BPF_JGT, 'a'),
    ...jumpRows(op.BPF_JLT, 'b'),
    ...jumpRows(op.BPF_JGE, 'ae'),
    ...jumpRows(op.BPF_JLE, 'be'),
    ...jumpRows(op.BPF_JSGT, 'g'),
    ...jumpRows(op.BPF_JSLT, 'l'),
    ...jumpRows(op.BPF_JSGE, 'ge'),
    ...jumpRows(op.BPF_JSLE, 'le'),
    ...bothJumps(op.BPF_JSET | op.BPF_X, jumpSetReg),
    ...bothJumps(op.BPF_JSET | op.BPF_K, jumpSetImm),

    [op.BPF_JMP | op.BPF_CALL]: call,
    [op.BPF_JMP | op.BPF_TAIL_CALL]: tailCall(tailCallParts),
    [op.BPF_JMP | op.BPF_EXIT]: exit,
  },

  // a tail call here is one that can be reached, whatever the verifier says
  frame: (program, insns) => ({
    stackBytes: roundedStack(program.stackDepth),
    tailCallReachable:
      program.tailCallReachable || insns.some(({ code }) => code === (op.BPF_JMP | op.BPF_TAIL_CALL)),
    saved: calleeRegsUsed(insns),
  }),
  movImm64: movPtr,
  shortJumpMax: 127,

  entry: () => undefined,
  zeroTailCallCount: ({ asm, program, frame }) => {
    if (program.wasClassic) return;
    if (frame.tailCallReachable && !program.isSubprog) asm.alu('xor', eax, eax, 'no tail call yet');
    else asm.raw(NOPS[2] as readonly number[], 'as long as the xor of others');
  },
  enterFrame: ({ asm }) => {
    asm.push(rbp);
    asm.mov(rbp, rsp);
  },
  tailCallEntry: () => undefined,
  pushTailCallCount: ({ asm }) => asm.push(rax, 'tail call count'),
  loadBases: () => undefined,

  bhbBarrier: () => undefined,
  ret: ({ asm }) => asm.ret(),

  tailCallOffset: () => 11,
  // from the depth as it was counted: with one that is no multiple of 8, not where the count lies
  tailCallSlot: ({ program }) => -8 - program.stackDepth,
  jumpRcx: (jit) => {
    if (jit.config.retpoline) retpoline(jit);
    else jit.asm.jmpIndirect(rcx);
  },

  exHandler: ({ exHandler }, field) => Number(addrDistance(kaddr(field), exHandler)),
};

/** Bytes of stack as they are allocated. */
export function roundedStack(stackDepth: number): number {
  return Math.ceil(stackDepth / 8) * 8;
}
