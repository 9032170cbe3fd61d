/*
 * The eBPF instruction: eight bytes, the opcode first.
 *
 *     code:8  dst:4  src:4  off:16  imm:32        little-endian; dst is the low nibble
 *
 * An opcode is class | source | operation, or class | size | mode for loads and stores. The 64-bit
 * immediate of `BPF_LD | BPF_IMM | BPF_DW` continues in the imm field of the following slot.
 *
 * Kernel: struct bpf_insn, include/uapi/linux/bpf.h and bpf_common.h
 */

import { Bug } from '../../lib/index.ts';

/** One slot of a program. */
export interface BpfInsn {
  readonly code: number;
  readonly dst: number;
  readonly src: number;
  /** Signed, 16 bits. */
  readonly off: number;
  /** Signed, 32 bits. */
  readonly imm: number;
}

/** Length of a slot. */
export const BPF_INSN_BYTES = 8;

// Classes: code & 7.
export const BPF_LD = 0x00;
export const BPF_LDX = 0x01;
export const BPF_ST = 0x02;
export const BPF_STX = 0x03;
export const BPF_ALU = 0x04;
export const BPF_JMP = 0x05;
export const BPF_JMP32 = 0x06;
export const BPF_ALU64 = 0x07;

// Sizes of loads and stores: code & 0x18.
export const BPF_W = 0x00;
export const BPF_H = 0x08;
export const BPF_B = 0x10;
export const BPF_DW = 0x18;

// Modes of loads and stores: code & 0xe0. From PROBE_MEM on down, what the verifier makes of them.
export const BPF_IMM = 0x00;
export const BPF_ABS = 0x20;
export const BPF_IND = 0x40;
export const BPF_MEM = 0x60;
export const BPF_MEMSX = 0x80;
export const BPF_ATOMIC = 0xc0;
export const BPF_PROBE_MEM = 0x20;
export const BPF_PROBE_MEMSX = 0x40;
export const BPF_PROBE_MEM32 = 0xa0;
export const BPF_PROBE_ATOMIC = 0xe0;

/** `BPF_ST | BPF_NOSPEC`: a barrier against speculative stores. */
export const BPF_NOSPEC = 0xc0;

// Second operand of ALU and JMP: code & 8.
export const BPF_K = 0x00;
export const BPF_X = 0x08;

// Arithmetic: code & 0xf0.
export const BPF_ADD = 0x00;
export const BPF_SUB = 0x10;
export const BPF_MUL = 0x20;
export const BPF_DIV = 0x30;
export const BPF_OR = 0x40;
export const BPF_AND = 0x50;
export const BPF_LSH = 0x60;
export const BPF_RSH = 0x70;
export const BPF_NEG = 0x80;
export const BPF_MOD = 0x90;
export const BPF_XOR = 0xa0;
export const BPF_MOV = 0xb0;
export const BPF_ARSH = 0xc0;
export const BPF_END = 0xd0;

// Byte order, in the place of BPF_K and BPF_X.
export const BPF_TO_LE = 0x00;
export const BPF_TO_BE = 0x08;

// Jumps: code & 0xf0.
export const BPF_JA = 0x00;
export const BPF_JEQ = 0x10;
export const BPF_JGT = 0x20;
export const BPF_JGE = 0x30;
export const BPF_JSET = 0x40;
export const BPF_JNE = 0x50;
export const BPF_JSGT = 0x60;
export const BPF_JSGE = 0x70;
export const BPF_CALL = 0x80;
export const BPF_EXIT = 0x90;
export const BPF_JLT = 0xa0;
export const BPF_JLE = 0xb0;
export const BPF_JSLT = 0xc0;
export const BPF_JSLE = 0xd0;
/** `BPF_JMP | BPF_TAIL_CALL`: what the verifier makes of a call of bpf_tail_call. */
export const BPF_TAIL_CALL = 0xf0;

// Atomic operations: the imm field.
export const BPF_FETCH = 0x01;
export const BPF_XCHG = 0xe1;
export const BPF_CMPXCHG = 0xf1;

// What src means in `BPF_LD | BPF_IMM | BPF_DW`.
export const BPF_PSEUDO_MAP_FD = 1;
export const BPF_PSEUDO_MAP_VALUE = 2;
export const BPF_PSEUDO_BTF_ID = 3;
export const BPF_PSEUDO_FUNC = 4;
export const BPF_PSEUDO_MAP_IDX = 5;
export const BPF_PSEUDO_MAP_IDX_VALUE = 6;

// What src means in `BPF_JMP | BPF_CALL`.
export const BPF_PSEUDO_CALL = 1;
export const BPF_PSEUDO_KFUNC_CALL = 2;

// What off means in `BPF_ALU64 | BPF_MOV | BPF_X`, where it is no width to extend from.
export const BPF_ADDR_SPACE_CAST = 1;
export const BPF_ADDR_PERCPU = -1;

// Registers.
export const BPF_REG_0 = 0;
export const BPF_REG_1 = 1;
export const BPF_REG_2 = 2;
export const BPF_REG_3 = 3;
export const BPF_REG_4 = 4;
export const BPF_REG_5 = 5;
export const BPF_REG_6 = 6;
export const BPF_REG_7 = 7;
export const BPF_REG_8 = 8;
export const BPF_REG_9 = 9;
/** The frame pointer, read-only. */
export const BPF_REG_FP = 10;
/** The register that only the kernel's own rewriting uses. */
export const BPF_REG_AX = 11;

export const bpfClass = (code: number): number => code & 0x07;
export const bpfSize = (code: number): number => code & 0x18;
export const bpfMode = (code: number): number => code & 0xe0;
/** The operation of an ALU or JMP opcode. */
export const bpfOp = (code: number): number => code & 0xf0;
/** BPF_K or BPF_X. */
export const bpfSrc = (code: number): number => code & 0x08;

/** Whether a slot is the first of the two that load a 64-bit immediate. */
export const isLdImm64 = ({ code }: BpfInsn): boolean => code === (BPF_LD | BPF_IMM | BPF_DW);

/**
 * The instructions in a program's bytes.
 *
 * @throws Bug unless the length is a multiple of eight; who reads bytes from outside checks it first.
 */
export function decodeInsns(bytes: Uint8Array): BpfInsn[] {
  if (bytes.length % BPF_INSN_BYTES !== 0) throw new Bug(`${bytes.length} bytes are no whole instructions`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  return Array.from({ length: bytes.length / BPF_INSN_BYTES }, (_, i) => {
    const at = i * BPF_INSN_BYTES;
    const regs = view.getUint8(at + 1);
    return {
      code: view.getUint8(at),
      dst: regs & 0x0f,
      src: regs >>> 4,
      off: view.getInt16(at + 2, true),
      imm: view.getInt32(at + 4, true),
    };
  });
}

/** A program's bytes; fields are cut to their widths. */
export function encodeInsns(insns: readonly BpfInsn[]): Uint8Array {
  const bytes = new Uint8Array(insns.length * BPF_INSN_BYTES);
  const view = new DataView(bytes.buffer);
  for (const [i, { code, dst, src, off, imm }] of insns.entries()) {
    const at = i * BPF_INSN_BYTES;
    view.setUint8(at, code);
    view.setUint8(at + 1, (dst & 0x0f) | (src << 4));
    view.setInt16(at + 2, off, true);
    view.setInt32(at + 4, imm, true);
  }
  return bytes;
}
