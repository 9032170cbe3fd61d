/*
 * Linux v6.12 (as of 6.12.117): v6.1, and
 *   + signed division, sign-extending moves and loads, bswap, per-CPU addresses
 *   + shifts by BMI2; the 7-byte form of constants in the topmost 2 GiB
 *   + the arena: accesses relative to r12, pointers cast to the user's
 *   + exceptions: a function that throws lands in saves all registers
 *   + barriers against speculative stores on every CPU
 *   + a hash in front of the function, for kCFI and FineIBT
 *   + the tail call count lies in the first program's frame, and where it lies is handed down in rax:
 *
 *   rbp - stackBytes        the program's stack, down to here
 *   rbp - stackBytes - 8    first program: tail call count; others: where it lies
 *   rbp - stackBytes - 16   where it lies             both only when tail calls can be reached
 *   then                    r12                       exception boundary, arena
 *   then                    rbx, r13, r14, r15        those that are used; all at an exception boundary
 */

import { emitCfi } from '../../cfi.ts';
import { ENDBR_BYTES } from '../../endbr.ts';
import { movPtrSignExtended, NOPS } from '../../kernel-encoding.ts';
import type { Label } from '../../x86/assembler.ts';
import { gsAt, ptr, qword, r12, rax, rbp, rdx, rsi, rsp } from '../../x86/operand.ts';
import { piece } from '../../x86/step.ts';
import { mov, movReg, swapBytes } from '../alu.ts';
import * as arena from '../arena.ts';
import type { BpfJitRevision, InsnEmitter, JitPass } from '../context.ts';
import type { BpfInsn } from '../insn.ts';
import * as op from '../insn.ts';
import { at, nospec } from '../memory.ts';
import { everySize, narrowSizes, type Width, wordSizes } from '../opcodes.ts';
import { guardVsyscall, probe } from '../probe.ts';
import { CALLEE_REGS, calleeRegsUsed, home } from '../registers.ts';
import { shiftRegBmi2 } from '../shift.ts';
import { TAIL_CALL_LIMIT, type TailCallParts, tailCall } from '../tail-call.ts';
import { probeRows, roundedStack, shiftRegRows } from './v5-15.ts';
import { divRows, v6_1 } from './v6-1.ts';

// -- moves --------------------------------------------------------------------------------------

const movWithOff =
  (width: Width): InsnEmitter =>
  (jit, insn) => {
    if (insn.off === 0) plainMov[width](jit, insn);
    else if (width === 8 && isCastUser(insn)) arena.castUser(jit, insn);
    else if (width === 8 && insn.off === op.BPF_ADDR_PERCPU) movPerCpu(jit, insn);
    else movSignExtend(jit, insn, width);
  };

const plainMov: Readonly<Record<Width, InsnEmitter>> = { 4: mov(4), 8: mov(8) };

/** Between address space 1, the arena's, and 0. The cast the other way is an ordinary mov by now. */
const isCastUser = ({ off, imm }: BpfInsn): boolean => off === op.BPF_ADDR_SPACE_CAST && imm === 1 << 16;

function movPerCpu({ asm, config }: JitPass, { dst, src }: BpfInsn): void {
  movReg(asm, home(dst), home(src));
  asm.alu('add', home(dst), gsAt(config.thisCpuOff), 'this_cpu_off');
}

/** From as many bits as off says. Other widths than these are nothing. Kernel: emit_movsx_reg */
function movSignExtend({ asm }: JitPass, { dst, src, off }: BpfInsn, width: Width): void {
  if (off === 8) asm.movsxByteRex(home(dst, width), home(src, 1));
  else if (off === 16) asm.movsx(home(dst, width), home(src, 2), 2);
  else if (off === 32 && width === 8) asm.movsx(home(dst), home(src, 4), 4);
}

// -- loads --------------------------------------------------------------------------------------

const ldsx =
  (size: 1 | 2 | 4): InsnEmitter =>
  ({ asm }, { dst, src, off }) => {
    asm.movsx(home(dst), at(home(src), off), size);
  };

// -- tail calls ---------------------------------------------------------------------------------

/** Where the count lies is the last thing on the stack before the saved registers. */
const countPointer = (frameBytes: number): number => -16 - frameBytes;

const parts: TailCallParts = {
  ptrs: 0x108,
  checkCount: ({ asm, frame }: JitPass, out: Label) => {
    asm.mov(rax, ptr(rbp, countPointer(frame.stackBytes), 'disp32'), 'where the count lies');
    asm.aluImm8('cmp', qword(ptr(rax)), TAIL_CALL_LIMIT);
    asm.jccShort('ae', out, 'too many tail calls');
  },
  count: ({ asm }) => asm.aluImm8('add', qword(ptr(rax)), 1),
  popCount: ({ asm }) => {
    asm.pop(rax);
    asm.pop(rax);
  },
};

/**
 * The first program finds 0 in rax and makes room for the count; whoever is tail-called finds where it lies.
 * A value up to the limit is no address.
 */
const pushCount = piece('emit_prologue_tail_call', ({ asm, program }: JitPass) => {
  if (program.isSubprog) {
    asm.push(rax, 'where the count lies');
    asm.push(rax);
    return;
  }
  const pointer = asm.label('pointer');
  const out = asm.label('out');
  asm.aluImm8('cmp', rax, TAIL_CALL_LIMIT);
  asm.jccShort('a', pointer, 'tail-called');
  asm.push(rax, 'the count');
  asm.mov(rax, rsp);
  asm.jmpShort(out);
  asm.bind(pointer);
  asm.push(rax);
  asm.bind(out);
  asm.push(rax, 'where it lies');
});

// -- the revision -------------------------------------------------------------------------------

const ALL_REGS = [r12, ...CALLEE_REGS];

export const v6_12: BpfJitRevision = {
  ...v6_1,
  opcodes: {
    ...v6_1.opcodes,
    [op.BPF_ALU | op.BPF_MOV | op.BPF_X]: movWithOff(4),
    [op.BPF_ALU64 | op.BPF_MOV | op.BPF_X]: movWithOff(8),
    ...divRows({ signs: true }),
    ...shiftRegRows(shiftRegBmi2),
    [op.BPF_ALU64 | op.BPF_END | op.BPF_TO_LE]: swapBytes,

    ...narrowSizes(op.BPF_LDX | op.BPF_MEMSX, ldsx),
    ...probeRows(guardVsyscall),
    ...narrowSizes(op.BPF_LDX | op.BPF_PROBE_MEMSX, (size) => probe(guardVsyscall, ldsx(size))),
    ...everySize(op.BPF_LDX | op.BPF_PROBE_MEM32, arena.ldx),
    ...everySize(op.BPF_ST | op.BPF_PROBE_MEM32, arena.st),
    ...everySize(op.BPF_STX | op.BPF_PROBE_MEM32, arena.stx),
    ...wordSizes(op.BPF_STX | op.BPF_PROBE_ATOMIC, arena.atomic),
    [op.BPF_ST | op.BPF_NOSPEC]: nospec,

    [op.BPF_JMP | op.BPF_TAIL_CALL]: tailCall(parts),
  },

  frame: (program, insns) => ({
    stackBytes: roundedStack(program.stackDepth),
    tailCallReachable: program.tailCallReachable,
    saved:
      program.exceptionBoundary === true
        ? ALL_REGS
        : [...(hasArena(program) ? [r12] : []), ...calleeRegsUsed(insns)],
  }),
  movImm64: movPtrSignExtended,

  entry: ({ asm, config, program }) => {
    const { ibt, cfi, cfiHash, cfiSubprogHash } = config;
    const hash = program.isSubprog ? cfiSubprogHash : cfiHash;
    emitCfi(asm, { ibt, ...(cfi === 'off' ? {} : { cfi: { scheme: cfi, hash, callPadding: true } }) });
  },
  zeroTailCallCount: ({ asm, program, frame }) => {
    if (program.wasClassic) return;
    if (frame.tailCallReachable && !program.isSubprog) asm.alu('xor', rax, rax, 'no tail call yet');
    else asm.raw(NOPS[3] as readonly number[], 'as long as the xor of others');
  },
  enterFrame: (jit) => {
    if (jit.program.exceptionCb === true) enterBoundarysFrame(jit);
    else v6_1.enterFrame(jit);
  },
  pushTailCallCount: pushCount,
  loadBases: ({ asm, program }) => {
    const start = program.arenaKernVmStart ?? 0n;
    if (start !== 0n) movPtrSignExtended(asm, r12, start, 'arena', 'the arena');
  },

  tailCallOffset: ({ ibt }) => 12 + (ibt ? ENDBR_BYTES : 0),
  tailCallSlot: ({ frame }) => countPointer(frame.stackBytes),
};

const hasArena = ({ arenaKernVmStart = 0n }: { readonly arenaKernVmStart?: bigint | undefined }): boolean =>
  arenaKernVmStart !== 0n;

/** An exception is handled in the frame of the boundary, whose rsp and rbp come as arguments; its registers are back. */
const enterBoundarysFrame = piece('exception_cb', ({ asm }: JitPass) => {
  asm.mov(rsp, rsi);
  asm.mov(rbp, rdx);
  for (const reg of ALL_REGS.toReversed()) asm.pop(reg);
  asm.mov(rsp, rbp);
});
