/*
 * What a function begins and ends with: the order is the same in every revision.
 *
 *   rbp + 8                return address
 *   rbp                    caller's rbp
 *   rbp - 1                the program's stack
 *   rbp - stackBytes       ... down to here
 *                          tail call count, where one is kept
 *                          saved registers             <- rsp
 */

import { NOP5 } from '../kernel-encoding.ts';
import { rsp } from '../x86/operand.ts';
import { piece } from '../x86/step.ts';
import type { InsnEmitter, JitPass, JitPiece } from './context.ts';
import { jumpTo } from './jump.ts';

export const prologue: JitPiece = piece('emit_prologue', (jit: JitPass) => {
  const { asm, rev, frame } = jit;
  rev.entry(jit);
  asm.raw(NOP5, 'where trampolines hook in');
  rev.zeroTailCallCount(jit);
  rev.enterFrame(jit);
  rev.tailCallEntry(jit);
  if (frame.stackBytes !== 0) asm.aluImm32('sub', rsp, frame.stackBytes, 'the stack');
  if (frame.tailCallReachable) rev.pushTailCallCount(jit);
  for (const reg of frame.saved) asm.push(reg);
  rev.loadBases(jit);
});

/** The saved registers come back; rsp must be where the prologue left it. */
export function popSaved({ asm, frame }: JitPass): void {
  for (const reg of frame.saved.toReversed()) asm.pop(reg);
}

const epilogue = piece('epilogue', (jit: JitPass) => {
  const { asm, rev } = jit;
  rev.bhbBarrier(jit);
  popSaved(jit);
  asm.leave64('the rest of the frame with it');
  rev.ret(jit);
});

/** The first exit is the epilogue, the others jump there. */
export const exit: InsnEmitter = (jit) => {
  if (jit.cleanupAddr !== undefined) {
    jumpTo(jit, jit.cleanupAddr);
    return;
  }
  jit.cleanupAddr = jit.asm.offset;
  epilogue(jit);
};
