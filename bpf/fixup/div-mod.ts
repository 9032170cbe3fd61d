/*
 * Division. What the CPU would fault on has a value in eBPF:
 *
 *   x / 0 = 0          x % 0 = x          32 bits: the upper half becomes 0
 *   x s/ -1 = -x       x s% -1 = 0        also for the smallest number, which overflows to itself
 *
 * Kernel: do_misc_fixups, kernel/bpf/verifier.c
 */

import {
  BPF_ADD,
  BPF_ALU,
  BPF_ALU64,
  BPF_DIV,
  BPF_JA,
  BPF_JEQ,
  BPF_JGT,
  BPF_JMP,
  BPF_JMP32,
  BPF_JNE,
  BPF_K,
  BPF_MOD,
  BPF_MOV,
  BPF_NEG,
  BPF_REG_AX,
  BPF_X,
  BPF_XOR,
  type BpfInsn,
  bpfClass,
  bpfOp,
  bpfSrc,
} from '../../jit/index.ts';

const insn = (code: number, dst: number, src: number, off: number, imm: number): BpfInsn => ({
  code,
  dst,
  src,
  off,
  imm,
});

const ja = (off: number): BpfInsn => insn(BPF_JMP | BPF_JA, 0, 0, off, 0);

/** What stands in the place of a division; undefined when it can stay. */
export function guardedDivision(division: BpfInsn): readonly BpfInsn[] | undefined {
  const { code, off, imm } = division;
  const wide = bpfClass(code) === BPF_ALU64;
  const divides = bpfOp(code) === BPF_DIV;
  if ((!wide && bpfClass(code) !== BPF_ALU) || !(divides || bpfOp(code) === BPF_MOD)) return undefined;
  const isSigned = off === 1;
  if (bpfSrc(code) === BPF_K) return isSigned && imm === -1 ? byMinusOne(division, wide, divides) : undefined;
  if (isSigned) return divides ? signedDiv(division, wide) : signedMod(division, wide);
  return divides ? unsignedDiv(division, wide) : unsignedMod(division, wide);
}

function byMinusOne({ dst }: BpfInsn, wide: boolean, divides: boolean): BpfInsn[] {
  if (!divides) return [insn(BPF_ALU | BPF_MOV | BPF_K, dst, 0, 0, 0)];
  return [insn((wide ? BPF_ALU64 : BPF_ALU) | BPF_NEG | BPF_K, dst, 0, 0, 0)];
}

function unsignedDiv(division: BpfInsn, wide: boolean): BpfInsn[] {
  const { dst, src } = division;
  return [
    insn(jumps(wide) | BPF_JNE | BPF_K, src, 0, 2, 0),
    insn(BPF_ALU | BPF_XOR | BPF_X, dst, dst, 0, 0),
    ja(1),
    division,
  ];
}

function unsignedMod(division: BpfInsn, wide: boolean): BpfInsn[] {
  const { dst, src } = division;
  const skip = insn(jumps(wide) | BPF_JEQ | BPF_K, src, 0, wide ? 1 : 2, 0);
  return wide ? [skip, division] : [skip, division, ...otherwiseCut(dst)];
}

/** What is left when there is no division: the lower half alone. */
const otherwiseCut = (dst: number): BpfInsn[] => [ja(1), insn(BPF_ALU | BPF_MOV | BPF_X, dst, dst, 0, 0)];

/** One more than the divisor tells both apart: 0 has become 1, and -1 has become 0; all others are above. */
function oneMore({ src }: BpfInsn, wide: boolean): BpfInsn[] {
  return [
    insn(BPF_ALU64 | BPF_MOV | BPF_X, BPF_REG_AX, src, 0, 0),
    insn((wide ? BPF_ALU64 : BPF_ALU) | BPF_ADD | BPF_K, BPF_REG_AX, 0, 0, 1),
  ];
}

function signedDiv(division: BpfInsn, wide: boolean): BpfInsn[] {
  const { dst } = division;
  const alu = wide ? BPF_ALU64 : BPF_ALU;
  return [
    ...oneMore(division, wide),
    insn(jumps(wide) | BPF_JGT | BPF_K, BPF_REG_AX, 0, 4, 1),
    insn(jumps(wide) | BPF_JEQ | BPF_K, BPF_REG_AX, 0, 1, 0),
    insn(alu | BPF_MOV | BPF_K, dst, 0, 0, 0),
    insn(alu | BPF_NEG | BPF_K, dst, 0, 0, 0),
    ja(1),
    division,
  ];
}

function signedMod(division: BpfInsn, wide: boolean): BpfInsn[] {
  const { dst } = division;
  return [
    ...oneMore(division, wide),
    insn(jumps(wide) | BPF_JGT | BPF_K, BPF_REG_AX, 0, 3, 1),
    insn(jumps(wide) | BPF_JEQ | BPF_K, BPF_REG_AX, 0, wide ? 3 : 4, 1),
    insn(BPF_ALU | BPF_MOV | BPF_K, dst, 0, 0, 0),
    ja(1),
    division,
    ...(wide ? [] : otherwiseCut(dst)),
  ];
}

const jumps = (wide: boolean): number => (wide ? BPF_JMP : BPF_JMP32);
