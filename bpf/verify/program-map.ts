/*
 * The shape of a program before anything is followed: instructions that exist, registers that exist, jumps that
 * land on instructions of the same function, functions that end, nothing that no path leads to.
 *
 * Kernel: check_subprogs, check_cfg, resolve_pseudo_ldimm64, and what do_check says of reserved fields;
 * kernel/bpf/verifier.c
 */

import * as op from '../../jit/index.ts';
import { type BpfInsn, bpfClass, bpfMode, bpfOp, bpfSize, bpfSrc, isLdImm64 } from '../../jit/index.ts';
import type { BpfCode, BpfEnvironment } from './environment.ts';
import { refuse } from './refusal.ts';

/** Kernel: BPF_MAX_SUBPROGS */
const MAX_FUNCTIONS = 256;

/** Most instructions of a program; of what a path goes through, too. Kernel: BPF_COMPLEXITY_LIMIT_INSNS */
export const MAX_INSNS = 1_000_000;

export const isCallOfFunction = ({ code, src }: BpfInsn): boolean =>
  code === (op.BPF_JMP | op.BPF_CALL) && src === op.BPF_PSEUDO_CALL;

export const isAddressOfFunction = (insn: BpfInsn): boolean =>
  isLdImm64(insn) && insn.src === op.BPF_PSEUDO_FUNC;

export const isExit = ({ code }: BpfInsn): boolean => code === (op.BPF_JMP | op.BPF_EXIT);

/** An unconditional jump, of either width of distance. */
export const isJa = ({ code }: BpfInsn): boolean =>
  code === (op.BPF_JMP | op.BPF_JA) || code === (op.BPF_JMP32 | op.BPF_JA);

/** Not the unconditional one. Kernel: insn_is_cond_jump */
export function isConditional({ code }: BpfInsn): boolean {
  const jumps = bpfClass(code) === op.BPF_JMP || bpfClass(code) === op.BPF_JMP32;
  return jumps && CONDITIONS.has(bpfOp(code));
}

/** Slots from the one behind a jump to where it leads. */
export const jumpDistance = (insn: BpfInsn): number =>
  insn.code === (op.BPF_JMP32 | op.BPF_JA) ? insn.imm : insn.off;

/** Where it may go on, in the same function: what is behind it, and where it jumps. */
export function successors(insns: readonly BpfInsn[], at: number): number[] {
  const insn = insns[at] as BpfInsn;
  if (isExit(insn)) return [];
  if (isJa(insn)) return [at + 1 + jumpDistance(insn)];
  if (isLdImm64(insn)) return [at + 2];
  return isConditional(insn) ? [at + 1, at + 1 + insn.off] : [at + 1];
}

/** The function that holds a slot: index in the subprograms. */
export function subprogAt({ subprogs }: BpfCode, slot: number): number {
  return subprogs.findLastIndex(({ start }) => start <= slot);
}

/** The function that begins at a slot; -1 for none. */
export const subprogFrom = ({ subprogs }: BpfCode, slot: number): number =>
  subprogs.findIndex(({ start }) => start === slot);

/** @throws InputError with the first instruction that no JIT must see */
export function checkShape(code: BpfCode, { revision }: Pick<BpfEnvironment, 'revision'>): void {
  const { insns } = code;
  if (insns.length === 0) refuse(code, 0, 'the program is empty');
  if (insns.length > MAX_INSNS)
    refuse(code, MAX_INSNS, `the program has more than ${MAX_INSNS} instructions`);
  if (code.subprogs.length > MAX_FUNCTIONS) {
    refuse(code, 0, `it has ${code.subprogs.length} functions; ${MAX_FUNCTIONS} are allowed`);
  }
  const second = new Uint8Array(insns.length);
  for (let at = 0; at < insns.length; at++) {
    const insn = insns[at] as BpfInsn;
    const reason = flaw(insn, revision === 'v6.12');
    if (reason !== undefined) refuse(code, at, reason);
    if (!isLdImm64(insn)) continue;
    const high = insns[at + 1];
    if (high === undefined || high.code !== 0 || high.dst !== 0 || high.src !== 0 || high.off !== 0) {
      refuse(code, at, 'the second half of its 64-bit immediate is not there');
    }
    second[++at] = 1;
  }
  code.subprogs.forEach(({ start, length }) => {
    checkFunction(code, start, start + length, second);
  });
}

function checkFunction(code: BpfCode, start: number, end: number, second: Uint8Array): void {
  const { insns } = code;
  for (let at = start; at < end; at++) {
    if (second[at] === 1) continue;
    const insn = insns[at] as BpfInsn;
    for (const next of successors(insns, at)) {
      const jumps = isJa(insn) || (isConditional(insn) && next !== at + 1);
      if (next < start || next >= end) {
        refuse(
          code,
          at,
          jumps ? `it jumps to slot ${next}, out of its function` : 'the program goes on past its end',
        );
      }
      if (second[next] === 1) refuse(code, at, `it jumps to slot ${next}, into the middle of an immediate`);
    }
    if (isCallOfFunction(insn)) checkCallee(code, at, at + 1 + insn.imm);
    if (isAddressOfFunction(insn)) checkCallee(code, at, at + 1 + insn.imm);
  }
  checkReached(code, start, end, second);
}

function checkCallee(code: BpfCode, at: number, slot: number): void {
  if (subprogFrom(code, slot) < 0) refuse(code, at, `no function begins at slot ${slot}`);
}

/** Whether branches are taken does not count here, only whether they are there. */
function checkReached(code: BpfCode, start: number, end: number, second: Uint8Array): void {
  const reached = new Uint8Array(end - start);
  const open = [start];
  for (let at = open.pop(); at !== undefined; at = open.pop()) {
    if (reached[at - start] === 1) continue;
    reached[at - start] = 1;
    open.push(...successors(code.insns, at));
  }
  const lost = reached.findIndex((yes, i) => yes === 0 && second[start + i] === 0);
  if (lost >= 0) refuse(code, start + lost, 'no path leads to it');
}

// -- single instructions ------------------------------------------------------------------------

const BINARY: ReadonlySet<number> = new Set([
  op.BPF_ADD,
  op.BPF_SUB,
  op.BPF_MUL,
  op.BPF_DIV,
  op.BPF_OR,
  op.BPF_AND,
  op.BPF_LSH,
  op.BPF_RSH,
  op.BPF_MOD,
  op.BPF_XOR,
  op.BPF_MOV,
  op.BPF_ARSH,
]);

const CONDITIONS: ReadonlySet<number> = new Set([
  op.BPF_JEQ,
  op.BPF_JGT,
  op.BPF_JGE,
  op.BPF_JSET,
  op.BPF_JNE,
  op.BPF_JSGT,
  op.BPF_JSGE,
  op.BPF_JLT,
  op.BPF_JLE,
  op.BPF_JSLT,
  op.BPF_JSLE,
]);

const ATOMICS: ReadonlySet<number> = new Set([
  op.BPF_ADD,
  op.BPF_AND,
  op.BPF_OR,
  op.BPF_XOR,
  op.BPF_ADD | op.BPF_FETCH,
  op.BPF_AND | op.BPF_FETCH,
  op.BPF_OR | op.BPF_FETCH,
  op.BPF_XOR | op.BPF_FETCH,
  op.BPF_XCHG,
  op.BPF_CMPXCHG,
]);

const RESERVED = 'fields that it does not use are not zero';

const unknownOpcode = ({ code }: BpfInsn): string =>
  `opcode 0x${code.toString(16).padStart(2, '0')} is unknown`;

/** What is wrong with an instruction taken by itself. @param v4 the kernel knows the fourth version of the set */
function flaw(insn: BpfInsn, v4: boolean): string | undefined {
  const { dst, src } = insn;
  if (dst > op.BPF_REG_FP) return `r${dst} does not exist`;
  if (src > op.BPF_REG_FP) return `r${src} does not exist`;
  const reason = BY_CLASS[bpfClass(insn.code)]?.(insn, v4);
  if (reason !== undefined) return reason;
  return writesFp(insn) ? 'r10, the frame pointer, cannot be written' : undefined;
}

function writesFp(insn: BpfInsn): boolean {
  const { code, dst, src, imm } = insn;
  switch (bpfClass(code)) {
    case op.BPF_ALU:
    case op.BPF_ALU64:
    case op.BPF_LDX:
    case op.BPF_LD:
      return dst === op.BPF_REG_FP;
    case op.BPF_STX:
      return (
        bpfMode(code) === op.BPF_ATOMIC &&
        (imm & op.BPF_FETCH) !== 0 &&
        src === op.BPF_REG_FP &&
        imm !== op.BPF_CMPXCHG
      );
    default:
      return false;
  }
}

const BY_CLASS: Readonly<Record<number, (insn: BpfInsn, v4: boolean) => string | undefined>> = {
  [op.BPF_LD]: ldFlaw,
  [op.BPF_LDX]: ldxFlaw,
  [op.BPF_ST]: (insn) => {
    if (bpfMode(insn.code) !== op.BPF_MEM) return unknownOpcode(insn);
    return insn.src === 0 ? undefined : RESERVED;
  },
  [op.BPF_STX]: stxFlaw,
  [op.BPF_ALU]: aluFlaw,
  [op.BPF_ALU64]: aluFlaw,
  [op.BPF_JMP]: jumpFlaw,
  [op.BPF_JMP32]: jumpFlaw,
};

function ldFlaw(insn: BpfInsn): string | undefined {
  const mode = bpfMode(insn.code);
  if (mode === op.BPF_ABS || mode === op.BPF_IND) return 'loads of packet data are for socket filters';
  if (!isLdImm64(insn)) return unknownOpcode(insn);
  if (insn.off !== 0) return RESERVED;
  return insn.src > op.BPF_PSEUDO_MAP_IDX_VALUE ? `its source ${insn.src} is unknown` : undefined;
}

function ldxFlaw(insn: BpfInsn, v4: boolean): string | undefined {
  const { code, imm } = insn;
  const mode = bpfMode(code);
  const extends_ = mode === op.BPF_MEMSX && v4 && bpfSize(code) !== op.BPF_DW;
  if (mode !== op.BPF_MEM && !extends_) return unknownOpcode(insn);
  return imm === 0 ? undefined : RESERVED;
}

function stxFlaw(insn: BpfInsn): string | undefined {
  const { code, imm } = insn;
  if (bpfMode(code) === op.BPF_MEM) return imm === 0 ? undefined : RESERVED;
  if (bpfMode(code) !== op.BPF_ATOMIC) return unknownOpcode(insn);
  if (bpfSize(code) !== op.BPF_W && bpfSize(code) !== op.BPF_DW)
    return 'atomic operations are of 4 bytes or 8';
  return ATOMICS.has(imm) ? undefined : `atomic operation 0x${(imm >>> 0).toString(16)} is unknown`;
}

function aluFlaw(insn: BpfInsn, v4: boolean): string | undefined {
  const { code, src, off, imm } = insn;
  const operation = bpfOp(code);
  const wide = bpfClass(code) === op.BPF_ALU64;
  const byRegister = bpfSrc(code) === op.BPF_X;
  if (operation === op.BPF_END) return endFlaw(insn, wide, v4);
  if (operation === op.BPF_NEG) {
    if (byRegister) return unknownOpcode(insn);
    return src === 0 && off === 0 && imm === 0 ? undefined : RESERVED;
  }
  if (!BINARY.has(operation)) return unknownOpcode(insn);
  if (byRegister ? imm !== 0 : src !== 0) return RESERVED;
  if (off !== 0 && !(v4 && offHasMeaning(insn, wide))) return RESERVED;
  if (byRegister) return undefined;
  if ((operation === op.BPF_DIV || operation === op.BPF_MOD) && imm === 0) return 'it divides by zero';
  const shifts = operation === op.BPF_LSH || operation === op.BPF_RSH || operation === op.BPF_ARSH;
  return shifts && (imm < 0 || imm >= (wide ? 64 : 32)) ? `it shifts by ${imm} bits` : undefined;
}

/** v4: signed division, and moves that extend. */
function offHasMeaning({ code, off }: BpfInsn, wide: boolean): boolean {
  switch (bpfOp(code)) {
    case op.BPF_DIV:
    case op.BPF_MOD:
      return off === 1;
    case op.BPF_MOV:
      return bpfSrc(code) === op.BPF_X && (off === 8 || off === 16 || (off === 32 && wide));
    default:
      return false;
  }
}

function endFlaw(insn: BpfInsn, wide: boolean, v4: boolean): string | undefined {
  const { code, src, off, imm } = insn;
  if (wide && !(v4 && bpfSrc(code) === op.BPF_TO_LE)) return unknownOpcode(insn);
  if (src !== 0 || off !== 0) return RESERVED;
  return imm === 16 || imm === 32 || imm === 64 ? undefined : `it swaps ${imm} bits`;
}

function jumpFlaw(insn: BpfInsn, v4: boolean): string | undefined {
  const { code, dst, src, off, imm } = insn;
  const narrow = bpfClass(code) === op.BPF_JMP32;
  switch (bpfOp(code)) {
    case op.BPF_JA:
      if (bpfSrc(code) === op.BPF_X || (narrow && !v4)) return unknownOpcode(insn);
      return dst === 0 && src === 0 && (narrow ? off : imm) === 0 ? undefined : RESERVED;
    case op.BPF_CALL:
      if (narrow || bpfSrc(code) === op.BPF_X) return unknownOpcode(insn);
      return dst === 0 && off === 0 && src <= op.BPF_PSEUDO_KFUNC_CALL ? undefined : RESERVED;
    case op.BPF_EXIT:
      if (narrow || bpfSrc(code) === op.BPF_X) return unknownOpcode(insn);
      return dst === 0 && src === 0 && off === 0 && imm === 0 ? undefined : RESERVED;
    default:
      if (!CONDITIONS.has(bpfOp(code))) return unknownOpcode(insn);
      return (bpfSrc(code) === op.BPF_X ? imm : src) === 0 ? undefined : RESERVED;
  }
}
