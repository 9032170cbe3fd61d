import {
  BPF_ALU64,
  BPF_CALL,
  BPF_DW,
  BPF_EXIT,
  BPF_IMM,
  BPF_JMP,
  BPF_K,
  BPF_LD,
  BPF_MOV,
  BPF_PSEUDO_CALL,
  BPF_PSEUDO_MAP_FD,
  type BpfInsn,
  encodeInsns,
  BPF_REG_2 as R2,
  BPF_REG_3 as R3,
} from '../jit/index.ts';
import { SUB_START } from './program-btf.ts';
import { returning } from './recorder.ts';

/*
 * Programs that are traced themselves: `main` calls `sub` and returns what it gives.
 */

const TAIL_CALL = 12;

const insn = (code: number, fields: Partial<BpfInsn> = {}): BpfInsn => ({
  code,
  dst: 0,
  src: 0,
  off: 0,
  imm: 0,
  ...fields,
});

/** `main`: both of its instructions, so that `sub` starts at SUB_START. */
const MAIN: readonly BpfInsn[] = [
  insn(BPF_JMP | BPF_CALL, { src: BPF_PSEUDO_CALL, imm: SUB_START - 1 }),
  insn(BPF_JMP | BPF_EXIT),
];

export function programText(ret: number): Uint8Array {
  return encodeInsns([...MAIN, ...returning(ret)]);
}

/** `sub` first tries a tail call, through the first map of the script's list, which is empty. */
export function tailCallText(ret: number): Uint8Array {
  return encodeInsns([
    ...MAIN,
    insn(BPF_LD | BPF_IMM | BPF_DW, { dst: R2, src: BPF_PSEUDO_MAP_FD, imm: 0 }),
    insn(0),
    insn(BPF_ALU64 | BPF_MOV | BPF_K, { dst: R3 }),
    insn(BPF_JMP | BPF_CALL, { imm: TAIL_CALL }),
    ...returning(ret),
  ]);
}
