/*
 * Helpers that are written into the program in the place of the call. Below ctx the image keeps the function's
 * address and, from v6.1 on, the number of argument words:
 *
 *            v5.15    v6.1, v6.12
 *   ctx - 8  func_ip  nr_args
 *   ctx - 16          func_ip
 *
 * Kernel: do_misc_fixups, kernel/bpf/verifier.c
 */

import {
  BPF_ADD,
  BPF_ADDR_PERCPU,
  BPF_ALU,
  BPF_ALU64,
  BPF_DW,
  BPF_JA,
  BPF_JGE,
  BPF_JMP,
  BPF_JMP32,
  BPF_K,
  BPF_LDX,
  BPF_LSH,
  BPF_MEM,
  BPF_MOV,
  BPF_STX,
  BPF_W,
  BPF_X,
  type BpfInsn,
} from '../../jit/index.ts';
import { Errno } from '../../lib/index.ts';
import type { BpfEnvironment } from '../verify/environment.ts';
import { Helper } from '../verify/helpers.ts';

const insn = (code: number, dst: number, src: number, off: number, imm: number): BpfInsn => ({
  code,
  dst,
  src,
  off,
  imm,
});

const load = (dst: number, src: number, off: number): BpfInsn =>
  insn(BPF_LDX | BPF_MEM | BPF_DW, dst, src, off, 0);
const store = (dst: number, src: number): BpfInsn => insn(BPF_STX | BPF_MEM | BPF_DW, dst, src, 0, 0);
const mov = (dst: number, imm: number): BpfInsn => insn(BPF_ALU64 | BPF_MOV | BPF_K, dst, 0, 0, imm);
const add = (dst: number, src: number): BpfInsn => insn(BPF_ALU64 | BPF_ADD | BPF_X, dst, src, 0, 0);
const times8 = (dst: number): BpfInsn => insn(BPF_ALU64 | BPF_LSH | BPF_K, dst, 0, 0, 3);

/** What stands in the place of a helper's call; undefined when it stays a call. */
export function inlinedHelper(id: number, env: BpfEnvironment): readonly BpfInsn[] | undefined {
  const v6 = env.revision === 'v6.1' || env.revision === 'v6.12';
  if (id === Helper.GET_SMP_PROCESSOR_ID) return env.revision === 'v6.12' ? cpuNumber(env) : undefined;
  // The program's type is BPF_PROG_TYPE_TRACING.
  if (env.entry.kind !== 'trampoline' || env.entry.attach === 'lsm') return undefined;
  switch (id) {
    case Helper.GET_FUNC_IP:
      return env.revision === 'v5.13' ? undefined : [load(0, 1, v6 ? -16 : -8)];
    case Helper.GET_FUNC_ARG_CNT:
      return v6 ? [load(0, 1, -8)] : undefined;
    case Helper.GET_FUNC_ARG:
      return v6 ? FUNC_ARG : undefined;
    case Helper.GET_FUNC_RET:
      return v6 ? (env.entry.attach === 'fentry' ? [mov(0, -Errno.EOPNOTSUPP)] : FUNC_RET) : undefined;
    default:
      return undefined;
  }
}

const FUNC_ARG: readonly BpfInsn[] = [
  load(0, 1, -8),
  insn(BPF_JMP32 | BPF_JGE | BPF_X, 2, 0, 6, 0),
  times8(2),
  add(2, 1),
  load(0, 2, 0),
  store(3, 0),
  mov(0, 0),
  insn(BPF_JMP | BPF_JA, 0, 0, 1, 0),
  mov(0, -Errno.EINVAL),
];

/** The result stands behind the last argument. */
const FUNC_RET: readonly BpfInsn[] = [
  load(0, 1, -8),
  times8(0),
  add(0, 1),
  load(3, 0, 0),
  store(2, 3),
  mov(0, 0),
];

const cpuNumber = ({ cpuNumberOffset }: BpfEnvironment): readonly BpfInsn[] => [
  insn(BPF_ALU | BPF_MOV | BPF_K, 0, 0, 0, cpuNumberOffset),
  insn(BPF_ALU64 | BPF_MOV | BPF_X, 0, 0, BPF_ADDR_PERCPU, 0),
  insn(BPF_LDX | BPF_MEM | BPF_W, 0, 0, 0, 0),
];
