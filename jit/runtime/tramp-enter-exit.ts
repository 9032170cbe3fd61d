/* __bpf_tramp_enter and __bpf_tramp_exit: a reference to the image in rdi while the original runs. */

import type { Assembler, Label } from '../x86/assembler.ts';
import { ecx, gsPtr, type Mem, ptr, qword, rcx, rdi } from '../x86/operand.ts';
import { piece } from '../x86/step.ts';
import { type Ctx, current, type Func, func } from './context.ts';
import { BpfTrampImage, PercpuRef } from './structs.ts';
import { rcuReadLock, rcuReadUnlock } from './task.ts';

export const trampEnter: Func = func('__bpf_tramp_enter', (ctx) => {
  current(ctx);
  rcuReadLock(ctx);
  if (!ctx.bugs.has('ref-not-taken')) percpuRefGet(ctx);
  rcuReadUnlock(ctx);
  ctx.asm.ret();
});

export const trampExit: Func = func('__bpf_tramp_exit', (ctx) => {
  current(ctx);
  rcuReadLock(ctx);
  if (!ctx.bugs.has('ref-not-put')) percpuRefPut(ctx);
  if (ctx.bugs.has('ref-put-twice')) percpuRefPut(ctx);
  rcuReadUnlock(ctx);
  ctx.asm.ret();
});

const pcref = (field: number): Mem => ptr(rdi, BpfTrampImage.pcref + field);

const percpuRefGet = piece('percpu_ref_get', ({ asm }: Ctx) => {
  const atomic = asm.label('atomic');
  const done = asm.label('got');
  refMode(asm, atomic);
  asm.inc(qword(gsPtr(rcx)));
  asm.jmpShort(done);
  asm.bind(atomic);
  asm.lockInc(qword(pcref(PercpuRef.count)));
  asm.bind(done);
});

const percpuRefPut = piece('percpu_ref_put', ({ asm, bugs }: Ctx) => {
  const atomic = asm.label('atomic');
  const done = asm.label('put');
  refMode(asm, atomic, bugs.has('ref-put-percpu'));
  asm.dec(qword(gsPtr(rcx)));
  asm.jmpShort(done);
  asm.bind(atomic);
  asm.lockDec(qword(pcref(PercpuRef.count)));
  asm.jccShort('ne', done);
  if (!bugs.has('ref-release-lost'))
    asm.movImm(qword(pcref(PercpuRef.released)), 1, 'last reference: release');
  asm.bind(done);
});

/**
 * rcx = per-CPU counter; branches away in atomic mode.
 * @param blind the bug that goes on per CPU: the flags are cleared from the offset and not looked at
 */
function refMode(asm: Assembler, atomic: Label, blind: boolean = false): void {
  asm.mov(rcx, pcref(PercpuRef.percpuCountPtr));
  if (blind) {
    asm.aluImm8('and', rcx, ~(PercpuRef.ATOMIC | PercpuRef.DEAD));
    return;
  }
  asm.testImm(ecx, PercpuRef.ATOMIC | PercpuRef.DEAD);
  asm.jccShort('ne', atomic);
}
