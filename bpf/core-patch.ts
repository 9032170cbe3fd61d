import {
  BPF_ALU,
  BPF_ALU64,
  BPF_B,
  BPF_CALL,
  BPF_DW,
  BPF_H,
  BPF_JMP,
  BPF_K,
  BPF_LD,
  BPF_LDX,
  BPF_ST,
  BPF_STX,
  BPF_W,
  type BpfInsn,
  bpfClass,
  bpfSize,
  bpfSrc,
  isLdImm64,
} from '../jit/index.ts';
import type { BtfType } from '../obj/index.ts';
import type { CoreValue } from './core-value.ts';

/*
 * Putting a relocated number into an instruction. libbpf: bpf_core_patch_insn, relo_core.c.
 *
 *   ALU with an immediate    imm
 *   LDX, ST, STX             off, and the size of the access when the field has another one
 *   ld_imm64                 both imm
 */

/** A call of a helper that no kernel has: the verifier refuses it wherever it can be reached. */
export const POISON_IMM = 0x0bad_2310;

const POISON: BpfInsn = { code: BPF_JMP | BPF_CALL, dst: 0, src: 0, off: 0, imm: POISON_IMM };

export const isPoison = ({ code, imm }: BpfInsn): boolean => code === POISON.code && imm === POISON_IMM;

/** Makes an instruction one that must not be reached, both slots of a 64-bit immediate. */
export function poison(insns: BpfInsn[], at: number): void {
  const first = insns[at];
  if (first !== undefined && isLdImm64(first) && at + 1 < insns.length) insns[at + 1] = POISON;
  insns[at] = POISON;
}

const SIZES: ReadonlyMap<number, number> = new Map([
  [1, BPF_B],
  [2, BPF_H],
  [4, BPF_W],
  [8, BPF_DW],
]);

/**
 * Replaces the compiler's number by the target's.
 *
 * @returns undefined when it is done; `poison` when a load or store of the field would give nonsense; a
 *   text when the instruction is not what the relocation is for
 */
export function patchInsn(
  insns: BpfInsn[],
  at: number,
  local: CoreValue,
  target: CoreValue,
): undefined | { readonly poison: string } | string {
  const first = insns[at];
  if (first === undefined) return 'which lies past the end';
  switch (bpfClass(first.code)) {
    case BPF_ALU:
    case BPF_ALU64:
      if (bpfSrc(first.code) !== BPF_K) return 'which has no immediate';
      if (local.checked && first.imm !== Number(BigInt.asIntN(32, local.value)))
        return holds(first.imm, local);
      insns[at] = { ...first, imm: Number(BigInt.asIntN(32, target.value)) };
      return undefined;
    case BPF_LDX:
    case BPF_ST:
    case BPF_STX:
      return patchAccess(insns, at, first, local, target);
    case BPF_LD:
      return patchLdImm64(insns, at, first, local, target);
    default:
      return `(opcode 0x${first.code.toString(16)}) which takes no such number`;
  }
}

const holds = (found: number | bigint, { value }: CoreValue): string =>
  `which holds ${found} where the object's own types give ${value}`;

/** Kernel: offsets of loads and stores are signed 16-bit numbers. */
const MAX_OFF = 0x7fff;

function patchAccess(
  insns: BpfInsn[],
  at: number,
  first: BpfInsn,
  local: CoreValue,
  target: CoreValue,
): undefined | { readonly poison: string } | string {
  if (local.checked && BigInt(first.off) !== local.value) return holds(first.off, local);
  if (target.value > BigInt(MAX_OFF))
    return `whose offset would become ${target.value}, more than ${MAX_OFF}`;
  let { code } = first;
  const [from, to] = [local.field, target.field];
  if (from !== undefined && to !== undefined && from.sizeBytes !== to.sizeBytes) {
    if (!mayResize(from.type, to.type)) {
      return {
        poison: `a field of ${from.sizeBytes} bytes has ${to.sizeBytes} in the target, and is not unsigned in both`,
      };
    }
    const size = SIZES.get(to.sizeBytes);
    if (SIZES.get(from.sizeBytes) !== bpfSize(code) || size === undefined) {
      return `which does not access the ${from.sizeBytes} bytes of the field (${to.sizeBytes} in the target)`;
    }
    code = (code & ~BPF_DW) | size;
  }
  insns[at] = { ...first, code, off: Number(target.value) };
  return undefined;
}

/** Zero extension keeps the value of pointers and of unsigned integers, and of nothing else. */
function mayResize(from: BtfType, to: BtfType): boolean {
  if (from.kind === 'ptr' && to.kind === 'ptr') return true;
  return from.kind === 'int' && to.kind === 'int' && !from.signed && !to.signed;
}

function patchLdImm64(
  insns: BpfInsn[],
  at: number,
  first: BpfInsn,
  local: CoreValue,
  target: CoreValue,
): undefined | string {
  const second = insns[at + 1];
  if (!isLdImm64(first) || first.src !== 0 || first.off !== 0 || second === undefined || second.code !== 0) {
    return 'which is no plain 64-bit immediate';
  }
  const found = BigInt.asUintN(64, (BigInt(second.imm) << 32n) | BigInt(first.imm >>> 0));
  if (local.checked && found !== local.value) return holds(found, local);
  insns[at] = { ...first, imm: Number(BigInt.asIntN(32, target.value)) };
  insns[at + 1] = { ...second, imm: Number(BigInt.asIntN(32, target.value >> 32n)) };
  return undefined;
}
