/*
 * Tail calls: into another program, in the frame that this one leaves.
 *
 * An indirect one looks the program up in a map while running. A direct one, whose map and slot the verifier
 * knows, is two patched places:
 *
 *   bypass    jmp out              while the slot is empty; else a nop
 *             leave the frame
 *   target    nop                  while the slot is empty; else a jump into the program
 *   out:
 *
 * Both first look at how many tail calls there were.
 */

import { NOP5 } from '../kernel-encoding.ts';
import type { Label } from '../x86/assembler.ts';
import { edx, ptr, ptrIndexed, rcx, rdx, rsi, rsp } from '../x86/operand.ts';
import { step } from '../x86/step.ts';
import type { InsnEmitter, JitPass } from './context.ts';
import { popSaved } from './function.ts';
import { Unverified } from './registers.ts';

/** As many may follow each other. Kernel: MAX_TAIL_CALL_CNT; v5.15 says 32 and means the same. */
export const TAIL_CALL_LIMIT = 33;

/** Offset of max_entries in struct bpf_array. */
const MAX_ENTRIES = 0x24;
/** Offset of bpf_func in struct bpf_prog. */
const BPF_FUNC = 0x30;

/** What a revision's tail calls are made of. */
export interface TailCallParts {
  /** Offset of ptrs in struct bpf_array. */
  readonly ptrs: number;
  /** Goes to `out` when there were too many; may count this one already. */
  readonly checkCount: (jit: JitPass, out: Label) => void;
  /** Counts this one, if that is done only now that it will happen. */
  readonly count: (jit: JitPass) => void;
  /** Takes off the stack what the prologue has pushed for counting. */
  readonly popCount: (jit: JitPass) => void;
}

/** `imm` 0 is indirect; else it is the number of an entry of the poke table. */
export function tailCall(parts: TailCallParts): InsnEmitter {
  return (jit, { imm }) => {
    if (imm < 0) throw new Unverified(`a tail call by poke entry ${imm}; they count from 1`);
    if (imm === 0) indirect(jit, parts);
    else direct(jit, { parts, entry: imm });
  };
}

/** rdi = ctx, rsi = struct bpf_array *map, edx = index. */
const indirect = step('emit_bpf_tail_call_indirect', (jit: JitPass, parts: TailCallParts) => {
  const { asm, rev, config } = jit;
  const out = asm.label('out');
  asm.mov(edx, edx);
  asm.alu('cmp', ptr(rsi, MAX_ENTRIES), edx, 'index < map->max_entries');
  asm.jccShort('be', out);
  parts.checkCount(jit, out);
  asm.mov(rcx, ptrIndexed(rsi, rdx, 8, parts.ptrs, 'disp32'), 'prog = map->ptrs[index]');
  asm.test(rcx, rcx);
  asm.jccShort('e', out, 'an empty slot');
  parts.count(jit);
  leaveFrame(jit, parts);
  asm.mov(rcx, ptr(rcx, BPF_FUNC), 'prog->bpf_func');
  asm.aluImm8('add', rcx, rev.tailCallOffset(config), 'past its prologue');
  rev.jumpRcx(jit);
  asm.bind(out);
});

const direct = step(
  'emit_bpf_tail_call_direct',
  (jit: JitPass, { parts, entry }: { readonly parts: TailCallParts; readonly entry: number }) => {
    const { asm, rev, config } = jit;
    const out = asm.label('out');
    parts.checkCount(jit, out);
    const bypass = asm.offset;
    asm.jmpNear(out, 'bypass');
    parts.count(jit);
    leaveFrame(jit, parts);
    const target = asm.offset;
    asm.raw(NOP5, 'target');
    asm.bind(out);
    jit.pokes.set(entry, { entry, bypass, target, adjOff: rev.tailCallOffset(config) });
  },
);

/** Undoes the prologue down to rbp, which the program that comes keeps using. */
function leaveFrame(jit: JitPass, parts: TailCallParts): void {
  const { asm, frame } = jit;
  popSaved(jit);
  parts.popCount(jit);
  if (frame.stackBytes !== 0) asm.aluImm32('add', rsp, frame.stackBytes);
}
