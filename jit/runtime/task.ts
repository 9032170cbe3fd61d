/* What enter and exit do to the running task, whose address is in rdx: readers, migration, run_ctx. */

import { dword, eax, gsAt, type Mem, ptr, rax, rdx, rsi } from '../x86/operand.ts';
import { piece } from '../x86/step.ts';
import { type Ctx, current, type Func } from './context.ts';
import { BpfTrampRunCtx, TaskStruct } from './structs.ts';

const task = (field: number): Mem => dword(ptr(rdx, field));

export const rcuReadLock: Func = piece('rcu_read_lock', ({ asm }: Ctx) =>
  asm.inc(task(TaskStruct.rcuReadLockNesting)),
);
export const rcuReadUnlock: Func = piece('rcu_read_unlock', ({ asm }: Ctx) =>
  asm.dec(task(TaskStruct.rcuReadLockNesting)),
);
export const rcuReadLockTrace: Func = piece('rcu_read_lock_trace', ({ asm }: Ctx) =>
  asm.inc(task(TaskStruct.trcReaderNesting)),
);
export const rcuReadUnlockTrace: Func = piece('rcu_read_unlock_trace', ({ asm }: Ctx) =>
  asm.dec(task(TaskStruct.trcReaderNesting)),
);
export const migrateDisable: Func = piece('migrate_disable', ({ asm }: Ctx) =>
  asm.inc(task(TaskStruct.migrationDisabled)),
);
export const migrateEnable: Func = piece('migrate_enable', ({ asm }: Ctx) =>
  asm.dec(task(TaskStruct.migrationDisabled)),
);

/** Counts a splat when the caller may not sleep: inside rcu_read_lock, or with preemption off. */
export const mightFault: Func = piece('might_fault', ({ asm, layout }: Ctx) => {
  const fine = asm.label('may_fault');
  asm.mov(eax, gsAt(layout.preemptCount));
  asm.alu('or', eax, ptr(rdx, TaskStruct.rcuReadLockNesting));
  asm.jccShort('e', fine);
  asm.inc(dword(gsAt(layout.mightFaultSplats)), 'sleeping where it is forbidden');
  asm.bind(fine);
});

/** Makes the run_ctx in rsi the current one, and keeps in it what was current before. */
export const setRunCtx: Func = piece('bpf_set_run_ctx', ({ asm, bugs }: Ctx) => {
  asm.mov(rax, ptr(rdx, TaskStruct.bpfCtx));
  if (!bugs.has('run-ctx-not-current')) asm.mov(ptr(rdx, TaskStruct.bpfCtx), rsi);
  asm.mov(ptr(rsi, BpfTrampRunCtx.savedRunCtx), rax);
});

/** Puts back what was current before the run_ctx in rdx; then rdx is the task. */
export const resetRunCtx: Func = piece('bpf_reset_run_ctx', (ctx: Ctx) => {
  const { asm, bugs } = ctx;
  asm.mov(rax, ptr(rdx, BpfTrampRunCtx.savedRunCtx));
  current(ctx);
  if (!bugs.has('run-ctx-kept')) asm.mov(ptr(rdx, TaskStruct.bpfCtx), rax);
});
