/* Small programs, written as in the kernel's selftests. */

import {
  BPF_ALU64,
  BPF_DW,
  BPF_EXIT,
  BPF_IMM,
  BPF_JA,
  BPF_JMP,
  BPF_K,
  BPF_LD,
  BPF_MOV,
  type BpfImage,
  type BpfInsn,
  type BpfJitConfig,
  type BpfJitRevision,
  type BpfJitRevisionName,
  type BpfProgram,
  compileBpf,
  PLAIN_BPF_JIT_CONFIG,
  type RefusedProgram,
} from '../../../jit/index.ts';
import { Bug, kaddr, toHex } from '../../../lib/index.ts';

export const IMAGE = kaddr(0xffff_ffff_c001_2340n);

export function insn(code: number, fields: Partial<BpfInsn> = {}): BpfInsn {
  return { code, dst: 0, src: 0, off: 0, imm: 0, ...fields };
}

export const movImm = (dst: number, imm: number): BpfInsn => insn(BPF_ALU64 | BPF_MOV | BPF_K, { dst, imm });
export const ja = (off: number): BpfInsn => insn(BPF_JMP | BPF_JA, { off });
export const exit: BpfInsn = insn(BPF_JMP | BPF_EXIT);

export function ldImm64(dst: number, value: bigint): readonly BpfInsn[] {
  const low = Number(BigInt.asIntN(32, value));
  const high = Number(BigInt.asIntN(32, value >> 32n));
  return [insn(BPF_LD | BPF_IMM | BPF_DW, { dst, imm: low }), insn(0, { imm: high })];
}

export function program(insns: readonly BpfInsn[], more: Partial<BpfProgram> = {}): BpfProgram {
  return {
    insns,
    image: IMAGE,
    stackDepth: 0,
    isSubprog: false,
    tailCallReachable: false,
    wasClassic: false,
    numExentries: 0,
    ...more,
  };
}

type Options = Partial<BpfProgram> & { readonly config?: Partial<BpfJitConfig> };

/** Compiles a program that may be refused. */
export function compile(
  revision: BpfJitRevisionName | BpfJitRevision,
  insns: readonly BpfInsn[],
  { config = {}, ...more }: Options = {},
): BpfImage | RefusedProgram {
  return compileBpf(revision, program(insns, more), { ...PLAIN_BPF_JIT_CONFIG, ...config });
}

/** Compiles a program that must not be refused. */
export function image(
  revision: BpfJitRevisionName | BpfJitRevision,
  insns: readonly BpfInsn[],
  options: Options = {},
): BpfImage {
  const made = compile(revision, insns, options);
  if (made.bytes === undefined) throw new Bug(`refused: ${made.fail}`);
  return made;
}

/** The bytes of one instruction, as hex. */
export function bytesOf({ addrs, bytes }: BpfImage, slot: number): string {
  return toHex(bytes.subarray(addrs[slot], addrs[slot + 1]));
}
