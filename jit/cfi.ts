/*
 * The preamble of an image that is called through a pointer (struct_ops, v6.12): a hash of the function's
 * type, that the caller or the preamble itself compares. Built from reading; no vector covers it.
 *
 *   fineibt   endbr64; sub r10d, hash; je over; ud2; nop; sealed endbr; over:   pointer: + 16
 *   kcfi      mov eax, hash; [11 nops]; endbr64                                 pointer: + 5 or + 16
 *   neither   endbr64                                                           pointer: + 0
 *
 * With neither IBT nor CFI there is nothing. Kernel: emit_cfi, arch/x86/net/bpf_jit_comp.c
 */

import { InputError } from '../lib/index.ts';
import { ENDBR, ENDBR_POISON } from './endbr.ts';
import type { CfiConfig, TrampolineConfig } from './request.ts';
import type { Assembler } from './x86/assembler.ts';
import { r10, rax } from './x86/operand.ts';

/** Nops of CONFIG_CALL_PADDING that stand between kcfi's hash and the code. */
const CALL_PADDING = 11;

/** @throws InputError for FineIBT without IBT */
export function emitCfi(asm: Assembler, { ibt = false, cfi }: TrampolineConfig): void {
  if (cfi?.scheme === 'fineibt') {
    if (!ibt) throw new InputError('config.cfi', undefined, 'fineibt needs ibt');
    fineIbt(asm, cfi);
    return;
  }
  if (cfi !== undefined) kcfi(asm, cfi);
  if (ibt) asm.raw(ENDBR);
}

/** How far behind its first byte the address lies that an image is called at. Kernel: cfi_get_offset */
export function cfiOffset(cfi: CfiConfig | undefined): 0 | 5 | 16 {
  if (cfi === undefined) return 0;
  return cfi.scheme === 'fineibt' || cfi.callPadding === true ? 16 : 5;
}

function fineIbt(asm: Assembler, { hash }: CfiConfig): void {
  const over = asm.label('checked');
  asm.raw(ENDBR);
  asm.aluImm32('sub', r10.as(4), hash, 'the caller put the hash that it wants into r10d');
  asm.jccShort('e', over);
  asm.ud2();
  asm.raw([0x90]);
  asm.raw(ENDBR_POISON);
  asm.bind(over);
}

function kcfi(asm: Assembler, { hash, callPadding = false }: CfiConfig): void {
  asm.movImm32(rax.as(4), hash, 'what callers compare');
  for (let i = 0; callPadding && i < CALL_PADDING; i++) asm.raw([0x90]);
}
