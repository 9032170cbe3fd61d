/*
 * A compare-and-exchange of 4 bytes leaves the upper half of r0 as it was when it succeeds; where that half is read
 * later on, a 32-bit move behind it makes it zero. Everything else x86 extends by itself.
 *
 * Kernel: opt_subreg_zext_lo32_rnd_hi32, is_reg64; kernel/bpf/verifier.c. simplified: who calls a function is taken to
 * read all of its result.
 */

import * as op from '../../jit/index.ts';
import { type BpfInsn, bpfClass, bpfMode, bpfOp, bpfSize, bpfSrc } from '../../jit/index.ts';
import { isExit, isJa, successors } from '../verify/program-map.ts';

const CMPXCHG_32 = op.BPF_STX | op.BPF_ATOMIC | op.BPF_W;

const isCmpxchg32 = ({ code, imm }: BpfInsn): boolean => code === CMPXCHG_32 && imm === op.BPF_CMPXCHG;

/** As the kernel's macro writes it: imm 1 marks what the verifier put in. Kernel: BPF_ZEXT_REG */
const ZERO_EXTEND_R0: BpfInsn = {
  code: op.BPF_ALU | op.BPF_MOV | op.BPF_X,
  dst: op.BPF_REG_0,
  src: op.BPF_REG_0,
  off: 0,
  imm: 1,
};

/** What stands in the place of an instruction of a function; undefined when it can stay. */
export function zeroExtended(
  insns: readonly BpfInsn[],
  at: number,
  seen: Uint8Array,
): readonly BpfInsn[] | undefined {
  const insn = insns[at] as BpfInsn;
  return isCmpxchg32(insn) && upperHalfIsRead(insns, at + 1, seen) ? [insn, ZERO_EXTEND_R0] : undefined;
}

/** Whether some path from a slot reads all of r0 before it is written. */
function upperHalfIsRead(insns: readonly BpfInsn[], from: number, seen: Uint8Array): boolean {
  const visited = new Set<number>();
  const open = [from];
  for (let at = open.pop(); at !== undefined; at = open.pop()) {
    if (visited.has(at) || seen[at] !== 1) continue;
    visited.add(at);
    const insn = insns[at] as BpfInsn;
    if (readsAllOfR0(insn)) return true;
    if (!writesR0(insn)) open.push(...successors(insns, at));
  }
  return false;
}

function readsAllOfR0(insn: BpfInsn): boolean {
  const { code, dst, src, imm } = insn;
  const byRegister = bpfSrc(code) === op.BPF_X;
  switch (bpfClass(code)) {
    case op.BPF_ALU64:
      if (bpfOp(code) === op.BPF_MOV) return byRegister && src === 0;
      return dst === 0 || (byRegister && src === 0);
    case op.BPF_ALU:
      return bpfOp(code) === op.BPF_END && imm === 64 && dst === 0;
    case op.BPF_LDX:
      return src === 0;
    case op.BPF_ST:
      return dst === 0;
    case op.BPF_STX:
      return dst === 0 || (src === 0 && bpfSize(code) === op.BPF_DW) || exchangesAllOfR0(insn);
    case op.BPF_JMP:
      if (isExit(insn)) return true;
      if (isJa(insn) || bpfOp(code) === op.BPF_CALL) return false;
      return dst === 0 || (byRegister && src === 0);
    default:
      return false;
  }
}

const exchangesAllOfR0 = ({ code, imm }: BpfInsn): boolean =>
  bpfMode(code) === op.BPF_ATOMIC && bpfSize(code) === op.BPF_DW && imm === op.BPF_CMPXCHG;

function writesR0(insn: BpfInsn): boolean {
  const { code, dst, src, imm } = insn;
  switch (bpfClass(code)) {
    case op.BPF_ALU:
    case op.BPF_ALU64:
    case op.BPF_LD:
    case op.BPF_LDX:
      return dst === 0;
    case op.BPF_STX:
      if (bpfMode(code) !== op.BPF_ATOMIC || (imm & op.BPF_FETCH) === 0) return false;
      return imm === op.BPF_CMPXCHG || src === 0;
    case op.BPF_JMP:
      return bpfOp(code) === op.BPF_CALL;
    default:
      return false;
  }
}
