/*
 * What no path leads to goes away: branches that are certain become jumps, or nothing.
 *
 * Kernel: opt_hard_wire_dead_code_branches, opt_remove_dead_code, opt_remove_nops; kernel/bpf/verifier.c
 */

import { BPF_JA, BPF_JMP, type BpfInsn } from '../../jit/index.ts';
import { isConditional } from '../verify/program-map.ts';
import { jumpsNowhere, type Line } from './lines.ts';

const JA: BpfInsn = { code: BPF_JMP | BPF_JA, dst: 0, src: 0, off: 0, imm: 0 };

/** @param seen by slot: whether a path leads there */
export function withoutDeadCode(lines: readonly Line[], seen: Uint8Array): Line[] {
  const live = lines.map((line) => hardWired(line, seen)).filter(({ origin }) => seen[origin] === 1);
  // A jump that leads nowhere only once a later one is gone stays, as in the kernel, which goes through once.
  return live.filter(({ insns: [first] }, i) => first?.code !== JA.code || !jumpsNowhere(live, i));
}

function hardWired(line: Line, seen: Uint8Array): Line {
  const [insn] = line.insns;
  if (insn === undefined || line.target === undefined || !isConditional(insn)) return line;
  if (seen[line.origin + 1] === 0) return { ...line, insns: [JA] };
  if (seen[line.target] === 0) return { ...line, insns: [JA], target: line.origin + 1 };
  return line;
}
