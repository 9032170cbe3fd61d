/*
 * Which registers still count, at each instruction: those that some path reads before it writes them. Two states
 * that differ in others only are one.
 */

import * as op from '../../jit/index.ts';
import { type BpfInsn, bpfClass, bpfMode, bpfOp, bpfSrc, isLdImm64 } from '../../jit/index.ts';
import type { BpfCode } from './environment.ts';
import { isExit, isJa, successors } from './program-map.ts';

const bit = (register: number): number => 1 << register;
const ARGUMENTS = 0b11_1110;

/** Registers that an instruction reads, and those that it writes, as masks. */
function uses(insn: BpfInsn): { readonly reads: number; readonly writes: number } {
  const { code, dst, src, imm } = insn;
  const operand = bpfSrc(code) === op.BPF_X ? bit(src) : 0;
  switch (bpfClass(code)) {
    case op.BPF_LD:
      return { reads: 0, writes: isLdImm64(insn) ? bit(dst) : 0 };
    case op.BPF_LDX:
      return { reads: bit(src), writes: bit(dst) };
    case op.BPF_ST:
      return { reads: bit(dst), writes: 0 };
    case op.BPF_STX:
      if (bpfMode(code) !== op.BPF_ATOMIC) return { reads: bit(dst) | bit(src), writes: 0 };
      return { reads: bit(dst) | bit(src) | (imm === op.BPF_CMPXCHG ? bit(0) : 0), writes: 0 };
    case op.BPF_ALU:
    case op.BPF_ALU64:
      if (bpfOp(code) === op.BPF_MOV) return { reads: operand, writes: bit(dst) };
      if (bpfOp(code) === op.BPF_END) return { reads: bit(dst), writes: 0 };
      return { reads: operand | bit(dst), writes: 0 };
    default:
      if (isExit(insn)) return { reads: bit(0), writes: 0 };
      if (isJa(insn)) return { reads: 0, writes: 0 };
      if (bpfOp(code) === op.BPF_CALL) return { reads: ARGUMENTS, writes: bit(0) };
      return { reads: operand | bit(dst), writes: 0 };
  }
}

/** By slot: a mask of the registers that are live before it. */
export function liveRegisters({ insns, subprogs }: BpfCode): Uint16Array {
  const live = new Uint16Array(insns.length);
  for (const { start, length } of subprogs) {
    for (let changed = true; changed; ) {
      changed = false;
      for (let at = start + length - 1; at >= start; at--) {
        const insn = insns[at] as BpfInsn;
        // The second half of an immediate is nobody's successor.
        if (at > start && isLdImm64(insns[at - 1] as BpfInsn)) continue;
        const { reads, writes } = uses(insn);
        let after = 0;
        for (const next of successors(insns, at)) after |= live[next] ?? 0;
        const before = reads | (after & ~writes);
        if (before === live[at]) continue;
        live[at] = before;
        changed = true;
      }
    }
  }
  return live;
}
