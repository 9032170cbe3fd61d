/*
 * The exception table: what becomes of an access that faults. It stands behind the code, an entry of 12 bytes
 * per access, in order:
 *
 *   insn:32     from this field to the instruction
 *   fixup:32    bits 0..7 bytes to skip, from bit 8 on the offset in struct pt_regs of the register to clear
 *   handler:32  v5.15: from this field to the handler; from v6.1 on: the type of entry
 *
 * Kernel: ex_handler_bpf, arch/x86/net/bpf_jit_comp.c; struct exception_table_entry, arch/x86/include/asm/extable.h
 */

import { addrAdd, type Kaddr } from '../../lib/index.ts';
import type { Reg } from '../x86/operand.ts';
import type { BpfImage, ExEntry } from './program.ts';
import { home } from './registers.ts';

export const EX_ENTRY_BYTES = 12;

/** The entry's type of BPF programs. Kernel: EX_TYPE_BPF */
export const EX_TYPE_BPF = 7;

/** What is between the code and the table. */
const FILL = 0xcc;

/** Where struct pt_regs keeps the homes of r0 to r9. */
const PT_REGS: readonly number[] = [80, 112, 104, 96, 88, 72, 40, 16, 8, 0];

/** In the place of a pt_regs offset: no register changes. Kernel: DONT_CLEAR */
export const DONT_CLEAR = 1;

/** What a fixup says of an eBPF register that it is to clear; undefined for one that has no place in pt_regs. */
export function clearedRegister(bpfReg: number): number | undefined {
  return PT_REGS[bpfReg];
}

export const exFixup = (skip: number, becomes: number): number => skip | (becomes << 8);

/** Offset of the table: the next multiple of 4 behind the code. */
export const exTableOffset = (codeBytes: number): number => (codeBytes + 3) & ~3;

/** Where field number `field` of an entry stands. */
export function exFieldAddress(image: Kaddr, codeBytes: number, entry: number, field: 0 | 1 | 2): Kaddr {
  return addrAdd(image, exTableOffset(codeBytes) + entry * EX_ENTRY_BYTES + field * 4);
}

/** An image as it stands in memory: the code, filled up with int3, and the table. */
export function withExTable({ bytes, exTable }: BpfImage): Uint8Array {
  if (exTable.length === 0) return bytes.slice();
  const table = exTableOffset(bytes.length);
  const whole = new Uint8Array(table + exTable.length * EX_ENTRY_BYTES).fill(FILL);
  whole.set(bytes);
  const view = new DataView(whole.buffer);
  for (const [i, { insn, fixup, handler }] of exTable.entries()) {
    const at = table + i * EX_ENTRY_BYTES;
    view.setInt32(at, insn - at, true);
    view.setInt32(at + 4, fixup, true);
    view.setInt32(at + 8, handler, true);
  }
  return whole;
}

/** What the fault handler does for one instruction. */
export interface ExFixup {
  /** Offset where the program goes on. */
  readonly resume: number;
  /** The x86 register that becomes 0; undefined when none does. */
  readonly clears: Reg | undefined;
}

/** The table as the fault handler reads it: by offset of the instruction that faulted. */
export function exFixups(exTable: readonly ExEntry[]): ReadonlyMap<number, ExFixup> {
  return new Map(exTable.map(({ insn, fixup }) => [insn, readFixup(insn, fixup)]));
}

function readFixup(insn: number, fixup: number): ExFixup {
  const becomes = fixup >>> 8;
  const bpfReg = PT_REGS.indexOf(becomes);
  return {
    resume: insn + (fixup & 0xff),
    clears: bpfReg < 0 ? undefined : home(bpfReg),
  };
}
