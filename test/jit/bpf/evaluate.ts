/*
 * A small evaluator of eBPF, written from the instruction set's description, for programs that use nothing but
 * registers and their own stack. It knows nothing of x86.
 */

import {
  BPF_ADD,
  BPF_ALU,
  BPF_ALU64,
  BPF_AND,
  BPF_ARSH,
  BPF_ATOMIC,
  BPF_B,
  BPF_CMPXCHG,
  BPF_DIV,
  BPF_DW,
  BPF_END,
  BPF_EXIT,
  BPF_FETCH,
  BPF_H,
  BPF_JA,
  BPF_JEQ,
  BPF_JGE,
  BPF_JGT,
  BPF_JLE,
  BPF_JLT,
  BPF_JMP,
  BPF_JMP32,
  BPF_JNE,
  BPF_JSET,
  BPF_JSGE,
  BPF_JSGT,
  BPF_JSLE,
  BPF_JSLT,
  BPF_LD,
  BPF_LDX,
  BPF_LSH,
  BPF_MEMSX,
  BPF_MOD,
  BPF_MOV,
  BPF_MUL,
  BPF_NEG,
  BPF_OR,
  BPF_REG_FP,
  BPF_RSH,
  BPF_ST,
  BPF_STX,
  BPF_SUB,
  BPF_W,
  BPF_X,
  BPF_XCHG,
  BPF_XOR,
  type BpfInsn,
  bpfClass,
  bpfMode,
  bpfOp,
  bpfSize,
  bpfSrc,
} from '../../../jit/index.ts';
import { Bug } from '../../../lib/index.ts';

const STACK_BYTES = 512;
const SIZES: Readonly<Record<number, number>> = { [BPF_B]: 1, [BPF_H]: 2, [BPF_W]: 4, [BPF_DW]: 8 };

type Operation = (a: bigint, b: bigint, bits: number) => bigint;

const u = BigInt.asUintN;
const s = BigInt.asIntN;

const OPERATIONS: Readonly<Record<number, Operation>> = {
  [BPF_ADD]: (a, b) => a + b,
  [BPF_SUB]: (a, b) => a - b,
  [BPF_MUL]: (a, b) => a * b,
  [BPF_DIV]: (a, b) => a / b,
  [BPF_MOD]: (a, b) => a % b,
  [BPF_OR]: (a, b) => a | b,
  [BPF_AND]: (a, b) => a & b,
  [BPF_XOR]: (a, b) => a ^ b,
  [BPF_LSH]: (a, b, bits) => a << (b & BigInt(bits - 1)),
  [BPF_RSH]: (a, b, bits) => a >> (b & BigInt(bits - 1)),
  [BPF_ARSH]: (a, b, bits) => s(bits, a) >> (b & BigInt(bits - 1)),
  [BPF_NEG]: (a) => -a,
  [BPF_MOV]: (_, b) => b,
};

const CONDITIONS: Readonly<Record<number, Operation>> = {
  [BPF_JEQ]: (a, b) => BigInt(a === b),
  [BPF_JNE]: (a, b) => BigInt(a !== b),
  [BPF_JGT]: (a, b) => BigInt(a > b),
  [BPF_JGE]: (a, b) => BigInt(a >= b),
  [BPF_JLT]: (a, b) => BigInt(a < b),
  [BPF_JLE]: (a, b) => BigInt(a <= b),
  [BPF_JSET]: (a, b) => a & b,
  [BPF_JSGT]: (a, b, bits) => BigInt(s(bits, a) > s(bits, b)),
  [BPF_JSGE]: (a, b, bits) => BigInt(s(bits, a) >= s(bits, b)),
  [BPF_JSLT]: (a, b, bits) => BigInt(s(bits, a) < s(bits, b)),
  [BPF_JSLE]: (a, b, bits) => BigInt(s(bits, a) <= s(bits, b)),
};

class Evaluation {
  readonly regs: bigint[] = Array<bigint>(12).fill(0n);
  readonly stack: Uint8Array = new Uint8Array(STACK_BYTES);

  get(reg: number): bigint {
    return this.regs[reg] as bigint;
  }

  set(reg: number, value: bigint): void {
    this.regs[reg] = u(64, value);
  }

  load(base: number, off: number, size: number): bigint {
    const start = this.#place(base, off);
    return this.stack
      .subarray(start, start + size)
      .reduceRight((sum, byte) => (sum << 8n) | BigInt(byte), 0n);
  }

  store(base: number, off: number, size: number, value: bigint): void {
    const start = this.#place(base, off);
    for (let i = 0; i < size; i++) this.stack[start + i] = Number((value >> BigInt(8 * i)) & 0xffn);
  }

  #place(base: number, off: number): number {
    if (base !== BPF_REG_FP) throw new Bug('only the stack is memory here');
    return STACK_BYTES + off;
  }
}

/** Runs a program to its exit; gives r0. */
export function evaluate(insns: readonly BpfInsn[]): bigint {
  const state = new Evaluation();
  for (let pc = 0; ; pc++) {
    const insn = insns[pc];
    if (insn === undefined) throw new Bug(`nothing at ${pc}`);
    const kind = bpfClass(insn.code);
    if (insn.code === (BPF_JMP | BPF_EXIT)) return state.get(0);
    if (kind === BPF_JMP || kind === BPF_JMP32) pc += jumpDistance(state, insn);
    else if (kind === BPF_LD) {
      state.set(insn.dst, (BigInt(insns[++pc]?.imm ?? 0) << 32n) | u(32, BigInt(insn.imm)));
    } else execute(state, insn);
  }
}

function execute(state: Evaluation, insn: BpfInsn): void {
  const { code, dst, src, off, imm } = insn;
  const size = SIZES[bpfSize(code)] as number;
  switch (bpfClass(code)) {
    case BPF_ALU:
    case BPF_ALU64:
      arithmetic(state, insn);
      break;
    case BPF_LDX: {
      const value = state.load(src, off, size);
      state.set(dst, bpfMode(code) === BPF_MEMSX ? s(8 * size, value) : value);
      break;
    }
    case BPF_ST:
      state.store(dst, off, size, BigInt(imm));
      break;
    case BPF_STX:
      if (bpfMode(code) === BPF_ATOMIC) atomic(state, insn, size);
      else state.store(dst, off, size, state.get(src));
      break;
  }
}

function operand(state: Evaluation, { code, src, imm }: BpfInsn, bits: number): bigint {
  return u(bits, bpfSrc(code) === BPF_X ? state.get(src) : BigInt(imm));
}

function arithmetic(state: Evaluation, insn: BpfInsn): void {
  const { code, dst, off } = insn;
  const bits = bpfClass(code) === BPF_ALU64 ? 64 : 32;
  const kind = bpfOp(code);
  if (kind === BPF_END) {
    state.set(dst, byteOrder(state, insn));
    return;
  }
  const a = u(bits, state.get(dst));
  let b = operand(state, insn, bits);
  if (kind === BPF_MOV && off !== 0) b = s(off, b);
  const signed = off !== 0 && (kind === BPF_DIV || kind === BPF_MOD);
  const result = (OPERATIONS[kind] as Operation)(signed ? s(bits, a) : a, signed ? s(bits, b) : b, bits);
  state.set(dst, u(bits, result));
}

function byteOrder(state: Evaluation, { code, dst, imm }: BpfInsn): bigint {
  const value = u(imm, state.get(dst));
  const swaps = bpfClass(code) === BPF_ALU64 || bpfSrc(code) === BPF_X;
  if (!swaps) return value;
  let swapped = 0n;
  for (let i = 0; i < imm; i += 8) swapped = (swapped << 8n) | ((value >> BigInt(i)) & 0xffn);
  return swapped;
}

function atomic(state: Evaluation, { dst, src, off, imm }: BpfInsn, size: number): void {
  const bits = 8 * size;
  const old = state.load(dst, off, size);
  const value = u(bits, state.get(src));
  if (imm === BPF_CMPXCHG) {
    if (old === u(bits, state.get(0))) state.store(dst, off, size, value);
    state.set(0, old);
    return;
  }
  const result = imm === BPF_XCHG ? value : (OPERATIONS[imm & ~BPF_FETCH] as Operation)(old, value, bits);
  state.store(dst, off, size, u(bits, result));
  if ((imm & BPF_FETCH) !== 0) state.set(src, old);
}

function jumpDistance(state: Evaluation, insn: BpfInsn): number {
  const { code, dst, off, imm } = insn;
  if (code === (BPF_JMP | BPF_JA)) return off;
  if (code === (BPF_JMP32 | BPF_JA)) return imm;
  const bits = bpfClass(code) === BPF_JMP ? 64 : 32;
  const taken = (CONDITIONS[bpfOp(code)] as Operation)(
    u(bits, state.get(dst)),
    operand(state, insn, bits),
    bits,
  );
  return taken === 0n ? 0 : off;
}
