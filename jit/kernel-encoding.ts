/*
 * The kernel's own choices among the encodings that x86 offers. Everything here could be written
 * otherwise and run the same; the bytes would differ from the kernel's.
 */

import type { Kaddr } from '../lib/index.ts';
import type { Assembler } from './x86/assembler.ts';
import { Mem, type Reg, rbp } from './x86/operand.ts';

const wide = new BigUint64Array(1);
const halves = new Uint32Array(wide.buffer);

/**
 * A pointer into a register by the shortest of three forms: xor for 0, mov r32 below 4 GiB, mov r64.
 * Kernel: emit_mov_imm64, arch/x86/net/bpf_jit_comp.c (v5.13, v5.15; never the sign-extended 7-byte form).
 */
export function movPtr(asm: Assembler, dst: Reg, value: Kaddr, name: string, note?: string): void {
  wide[0] = value;
  const low = halves[0] as number;
  if (halves[1] !== 0) {
    asm.movImm64(dst, value, note);
    asm.pointer('abs64', value, name);
  } else if (low !== 0) {
    asm.movImm32(dst.as(4), low, note);
    asm.pointer('abs32', value, name);
  } else {
    asm.alu('xor', dst.as(4), dst.as(4), note);
  }
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
