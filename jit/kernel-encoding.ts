/*
 * The kernel's own choices among the encodings that x86 offers. Everything here could be written
 * otherwise and run the same; the bytes would differ from the kernel's.
 */

import { kaddr } from '../lib/index.ts';
import type { Assembler } from './x86/assembler.ts';
import type { RelocKind } from './x86/code.ts';
import { Mem, type Reg, rbp } from './x86/operand.ts';

const wide = new BigUint64Array(1);
const halves = new Uint32Array(wide.buffer);

/** Puts a 64-bit constant into a register; `name` is what it points at, undefined for a number. */
export type MovPtr = (
  asm: Assembler,
  dst: Reg,
  value: bigint,
  name: string | undefined,
  note?: string,
) => void;

/**
 * By the shortest of three forms: xor for 0, mov r32 below 4 GiB, mov r64.
 * Kernel: emit_mov_imm64, arch/x86/net/bpf_jit_comp.c (to v6.1; never the sign-extended 7-byte form).
 */
export const movPtr: MovPtr = (asm, dst, value, name, note) => {
  wide[0] = value;
  const low = halves[0] as number;
  if (halves[1] !== 0) {
    asm.movImm64(dst, value, note);
    pointer(asm, 'abs64', value, name);
  } else if (low !== 0) {
    asm.movImm32(dst.as(4), low, note);
    pointer(asm, 'abs32', value, name);
  } else {
    asm.alu('xor', dst.as(4), dst.as(4), note);
  }
};

/** As `movPtr`, but for the topmost 2 GiB: mov r64 with a sign-extended imm32. Kernel: emit_mov_imm64 (v6.12). */
export const movPtrSignExtended: MovPtr = (asm, dst, value, name, note) => {
  wide[0] = value;
  const low = halves[0] as number;
  if (halves[1] !== 0xffff_ffff || low < 0x8000_0000) {
    movPtr(asm, dst, value, name, note);
  } else {
    asm.movImm(dst, low | 0, note);
    pointer(asm, 'abs32s', value, name);
  }
};

function pointer(asm: Assembler, kind: RelocKind, value: bigint, name: string | undefined): void {
  if (asm.record && name !== undefined) asm.pointer(kind, kaddr(value), name);
}

/** Stack slots near rbp, made once: an emitter names the same few again and again. */
const SLOTS: readonly Mem[] = Array.from({ length: 256 }, (_, i) => new Mem({ base: rbp, disp: i - 128 }));

/** `[rbp + offset]`: 8-bit displacement where it fits (0 included), else 32-bit. */
export function frameSlot(offset: number): Mem {
  return SLOTS[offset + 128] ?? new Mem({ base: rbp, disp: offset });
}

/** The nops by length, 1 to 8 bytes. Kernel: P6 nops, arch/x86/include/asm/nops.h. */
export const NOPS: readonly (readonly number[])[] = [
  [],
  [0x90],
  [0x66, 0x90],
  [0x0f, 0x1f, 0x00],
  [0x0f, 0x1f, 0x40, 0x00],
  [0x0f, 0x1f, 0x44, 0x00, 0x00],
  [0x66, 0x0f, 0x1f, 0x44, 0x00, 0x00],
  [0x0f, 0x1f, 0x80, 0x00, 0x00, 0x00, 0x00],
  [0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00],
];

/** The nop of every patchable place: ftrace sites, ip_after_call, program entries, static branches. */
export const NOP5: readonly number[] = NOPS[5] as readonly number[];

/** With prefixes, up to 11 bytes. Kernel: ASM_NOP_MAX, arch/x86/include/asm/nops.h (v6.12). */
export const LONG_NOPS: readonly (readonly number[])[] = [
  ...NOPS,
  [0x2e, ...(NOPS[8] as readonly number[])],
  [0x66, 0x2e, ...(NOPS[8] as readonly number[])],
  [0x66, 0x66, 0x2e, ...(NOPS[8] as readonly number[])],
];

/** Fills with nops, the longest first (11 bytes are 8 + 3). Kernel: emit_nops. */
export function fillNops(
  asm: Assembler,
  bytes: number,
  nops: readonly (readonly number[])[],
  note?: string,
): void {
  for (let left = bytes; left > 0; ) {
    const size = Math.min(left, nops.length - 1);
    asm.raw(nops[size] as readonly number[], note);
    left -= size;
  }
}
