/*
 * What enter and exit count: whether the program in rdi runs on this CPU already, how long it ran, and how
 * often it was refused.
 */

import { NOP5 } from '../kernel-encoding.ts';
import type { Assembler, Label } from '../x86/assembler.ts';
import { dword, eax, gsPtr, ptr, qword, type Reg, rax, rcx, rdi, rsi, Sym } from '../x86/operand.ts';
import { piece, step } from '../x86/step.ts';
import type { Ctx, Func } from './context.ts';
import { BpfProg, BpfProgStats } from './structs.ts';
import { setRunCtx } from './task.ts';

/** The patched places that are a jump while run-time statistics are on and a nop while they are off. */
export const STATS_KEY = 'bpf_stats_enabled_key';

/** start times: 0 do not run, 1 run without time, anything else the time. */
const NO_START_TIME = 1;

/** The rest of an enter function that measures nothing: the program shall run. */
export function noStartTime(asm: Assembler): void {
  asm.movImm32(eax, NO_START_TIME);
  asm.ret();
}

/** What counting is told of a pair. */
interface Counting {
  readonly runCtx: boolean;
  readonly prudentMisses: boolean;
}

/** The rest of an enter function: count this run, and return its start time or 0. */
export function countActiveOrMiss(ctx: Ctx, { runCtx, prudentMisses }: Counting): void {
  const { asm } = ctx;
  const miss = asm.label('recursion');
  asm.mov(rcx, ptr(rdi, BpfProg.active));
  asm.movImm32(eax, 1);
  asm.xadd(gsPtr(rcx), eax, '++*this_cpu_ptr(prog->active)');
  asm.test(eax, eax);
  if (!ctx.bugs.has('L13')) asm.jccShort('ne', miss, 'it was running on this CPU already');
  if (ctx.bugs.has('L15') && runCtx) setRunCtx(ctx);
  startTime(ctx);
  asm.bind(miss);
  incMissesCounter(ctx, prudentMisses);
}

export function countInactive({ asm, bugs }: Ctx): void {
  if (bugs.has('active-left-up')) return;
  asm.mov(rcx, ptr(rdi, BpfProg.active));
  asm.dec(dword(gsPtr(rcx)), '--*this_cpu_ptr(prog->active)');
  if (bugs.has('active-down-twice')) asm.dec(dword(gsPtr(rcx)));
}

/** The rest of an enter function: return the time, or 1 while nobody asks for it. */
export const startTime: Func = piece('bpf_prog_start_time', ({ asm, bugs }: Ctx) => {
  const timed = asm.label('stats_on');
  const done = asm.label('done');
  staticBranch(asm, timed);
  noStartTime(asm);
  asm.bind(timed);
  asm.callSym(new Sym('sched_clock'));
  asm.test(rax, rax);
  asm.jccShort('ne', done);
  if (!bugs.has('time-zero')) asm.movImm32(eax, NO_START_TIME, 'a time of 0 would mean: do not run');
  asm.bind(done);
  asm.ret();
});

/** @param prudent looks whether the program has statistics, which one of the kernel's own making may lack */
const incMissesCounter = step('inc_misses_counter', (ctx: Ctx, prudent: boolean) => {
  const { asm, bugs } = ctx;
  const refused = asm.label('no_stats');
  const times = bugs.has('miss-uncounted') ? 0 : bugs.has('miss-counted-twice') ? 2 : 1;
  asm.mov(rcx, ptr(rdi, BpfProg.stats));
  if (prudent) {
    asm.test(rcx, rcx);
    asm.jccShort('e', refused);
  }
  statsUpdate(ctx, rcx, () => {
    for (let i = 0; i < times; i++) asm.inc(qword(gsPtr(rcx, BpfProgStats.misses)));
  });
  asm.bind(refused);
  asm.alu('xor', eax, eax, 'do not run');
  asm.ret();
});

export const updateProgStats: Func = piece('update_prog_stats', (ctx: Ctx) => {
  const { asm, bugs } = ctx;
  const count = asm.label('stats_on');
  const skip = asm.label('stats_off');
  staticBranch(asm, count);
  asm.jmpShort(skip);
  asm.bind(count);
  if (bugs.has('stats-lost')) asm.jmpShort(skip);
  if (!bugs.has('stats-untimed')) {
    asm.aluImm8('cmp', rsi, NO_START_TIME, 'statistics may have been switched since enter');
    asm.jccShort('be', skip);
  }
  asm.callSym(new Sym('sched_clock'));
  asm.alu('sub', rax, rsi);
  asm.mov(rcx, ptr(rdi, BpfProg.stats));
  countRun(ctx);
  asm.bind(skip);
});

/** Counts one run, which took rax nanoseconds, in the statistics at the per-CPU offset in rcx. */
export function countRun(ctx: Ctx): void {
  const { asm } = ctx;
  statsUpdate(ctx, rcx, () => {
    asm.inc(qword(gsPtr(rcx, BpfProgStats.cnt)));
    asm.alu('add', gsPtr(rcx, BpfProgStats.nsecs), rax);
  });
}

/** u64_stats_update_begin .. end around an update of the statistics whose per-CPU offset is in `stats`. */
function statsUpdate({ asm, bugs }: Ctx, stats: Reg, update: () => void): void {
  asm.inc(dword(gsPtr(stats, BpfProgStats.syncp)), 'odd: a reader tries again');
  update();
  if (!bugs.has('stats-sequence-odd')) asm.inc(dword(gsPtr(stats, BpfProgStats.syncp)));
}

/** A place that falls through while statistics are off and jumps to `on` once it is patched. */
export function staticBranch(asm: Assembler, on: Label): void {
  asm.site(STATS_KEY, NOP5.length, on);
  asm.raw(NOP5, 'static branch: statistics');
}
