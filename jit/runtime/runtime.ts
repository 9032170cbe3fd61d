/*
 * The kernel functions that an image calls, as machine code, so that a traced call never leaves the
 * machine. Kernel: kernel/bpf/trampoline.c and what it inlines.
 *
 *   u64  __bpf_prog_enter(prog)                  rdi
 *   void __bpf_prog_exit(prog, start)            rdi, rsi
 *   u64  __bpf_prog_enter_sleepable(prog)
 *   void __bpf_prog_exit_sleepable(prog, start)
 *   void __bpf_tramp_enter(im)                   rdi
 *   void __bpf_tramp_exit(im)
 *   u64  sched_clock()
 *   void schedule()
 *   u64  bpf_get_func_ip(ctx)                    for programs, v5.15 on
 *
 * They use rax, rcx and rdx only and no stack but return addresses.
 */

import { kaddr } from '../../lib/index.ts';
import { NOP5 } from '../kernel-encoding.ts';
import type { RevisionName } from '../rev/revision.ts';
import { Assembler, type Label } from '../x86/assembler.ts';
import type { Code } from '../x86/code.ts';
import {
  dword,
  eax,
  ecx,
  gsAt,
  gsPtr,
  type Mem,
  ptr,
  qword,
  type Reg,
  rax,
  rcx,
  rdi,
  rdx,
  ripTo,
  rsi,
  Sym,
} from '../x86/operand.ts';
import { piece } from '../x86/step.ts';
import type { RuntimeBug } from './bugs.ts';
import { BpfProg, BpfProgStats, BpfTrampImage, PercpuRef, TaskStruct } from './structs.ts';

/** Offsets of per-CPU variables, as used behind gs. */
export interface RuntimeLayout {
  /** Pointer to the running task. */
  readonly currentTask: number;
  /** u32: preemption is off while not 0. */
  readonly preemptCount: number;
  /** u32: how often might_fault() found that faulting was not allowed. */
  readonly mightFaultSplats: number;
}

/** Symbols that the runtime leaves to the linker: the clock, two u64 in data. */
export const RuntimeData = {
  /** Nanoseconds now. */
  clock: 'sched_clock_data',
  /** What each reading adds to it. */
  tick: 'sched_clock_tick',
} as const;

/** The patched places that are a jump while run-time statistics are on and a nop while they are off. */
export const STATS_KEY = 'bpf_stats_enabled_key';

/** The helper that makes a program's image keep the traced function's address. */
export const GET_FUNC_IP = 'bpf_get_func_ip';

/** Where a task goes to sleep. The scheduler stops it at the first instruction; alone it just returns. */
export const SCHEDULE = 'schedule';

export interface RuntimeOptions {
  /** Mistakes to make. Default none. */
  readonly bugs?: ReadonlySet<RuntimeBug>;
}

/** start times: 0 do not run, 1 run without time, anything else the time. */
const NO_START_TIME = 1;

interface Ctx {
  readonly asm: Assembler;
  readonly layout: RuntimeLayout;
  readonly bugs: ReadonlySet<RuntimeBug>;
}

/**
 * Emits the runtime as relocatable code with one symbol per function and one site per static branch.
 * Link it with `linkCode`, giving the addresses of `RuntimeData`.
 */
export function emitRuntime(
  revision: RevisionName,
  layout: RuntimeLayout,
  options: RuntimeOptions = {},
): Code {
  const asm = new Assembler(kaddr(0));
  const ctx: Ctx = { asm, layout, bugs: options.bugs ?? new Set() };
  schedClock(ctx);
  schedule(ctx);
  progEnter(ctx);
  progExit(ctx);
  progEnterSleepable(ctx);
  progExitSleepable(ctx);
  trampEnter(ctx);
  trampExit(ctx);
  if (revision !== 'v5.13') getFuncIp(ctx);
  return asm.finish();
}

const schedClock = func('sched_clock', ({ asm }) => {
  asm.mov(rax, ripTo(RuntimeData.tick));
  asm.lockXadd(ripTo(RuntimeData.clock), rax, 'time passes by being read');
  asm.ret();
});

const schedule = func(SCHEDULE, ({ asm }) => {
  asm.ret();
});

const progEnter = func('__bpf_prog_enter', (ctx) => {
  const { bugs } = ctx;
  current(ctx);
  if (!bugs.has('no-rcu-read-lock')) rcuReadLock(ctx);
  if (!bugs.has('migrate-enabled')) migrateDisable(ctx);
  countActiveOrMiss(ctx);
});

const progExit = func('__bpf_prog_exit', (ctx) => {
  const { asm, bugs } = ctx;
  if (bugs.has('L16')) returnUnlessEntered(ctx);
  updateProgStats(ctx);
  current(ctx);
  countInactive(ctx);
  if (!bugs.has('migrate-enabled')) migrateEnable(ctx);
  if (!bugs.has('no-rcu-read-lock') && !bugs.has('rcu-left-locked')) rcuReadUnlock(ctx);
  asm.ret();
});

const progEnterSleepable = func('__bpf_prog_enter_sleepable', (ctx) => {
  const { bugs } = ctx;
  current(ctx);
  if (bugs.has('sleepable-in-rcu')) rcuReadLock(ctx);
  else if (!bugs.has('no-trace-read-lock')) rcuReadLockTrace(ctx);
  if (!bugs.has('L12')) migrateDisable(ctx);
  if (!bugs.has('L17')) mightFault(ctx);
  countActiveOrMiss(ctx);
});

const progExitSleepable = func('__bpf_prog_exit_sleepable', (ctx) => {
  const { asm, bugs } = ctx;
  if (bugs.has('L16')) returnUnlessEntered(ctx);
  updateProgStats(ctx);
  current(ctx);
  countInactive(ctx);
  if (!bugs.has('L12') && !bugs.has('migrate-left-disabled')) migrateEnable(ctx);
  if (bugs.has('sleepable-in-rcu')) rcuReadUnlock(ctx);
  else if (!bugs.has('no-trace-read-lock')) rcuReadUnlockTrace(ctx);
  asm.ret();
});

/** The bug L16: a start time of 0 taken for a run that never began. */
function returnUnlessEntered({ asm }: Ctx): void {
  const entered = asm.label('entered');
  asm.test(rsi, rsi);
  asm.jccShort('ne', entered);
  asm.ret();
  asm.bind(entered);
}

const trampEnter = func('__bpf_tramp_enter', (ctx) => {
  current(ctx);
  rcuReadLock(ctx);
  if (!ctx.bugs.has('ref-not-taken')) percpuRefGet(ctx);
  rcuReadUnlock(ctx);
  ctx.asm.ret();
});

const trampExit = func('__bpf_tramp_exit', (ctx) => {
  current(ctx);
  rcuReadLock(ctx);
  if (!ctx.bugs.has('ref-not-put')) percpuRefPut(ctx);
  if (ctx.bugs.has('ref-put-twice')) percpuRefPut(ctx);
  rcuReadUnlock(ctx);
  ctx.asm.ret();
});

/** Kernel: bpf_get_func_ip_tracing, kernel/trace/bpf_trace.c */
const getFuncIp = func(GET_FUNC_IP, ({ asm }) => {
  asm.mov(rax, ptr(rdi, -8), 'the word below argument 0');
  asm.ret();
});

// -- the task in rdx: readers and migration -----------------------------------------------------

const task = (field: number): Mem => dword(ptr(rdx, field));

function current({ asm, layout }: Ctx): void {
  asm.mov(rdx, gsAt(layout.currentTask), 'current');
}

const rcuReadLock = piece('rcu_read_lock', ({ asm }: Ctx) => asm.inc(task(TaskStruct.rcuReadLockNesting)));
const rcuReadUnlock = piece('rcu_read_unlock', ({ asm }: Ctx) =>
  asm.dec(task(TaskStruct.rcuReadLockNesting)),
);
const rcuReadLockTrace = piece('rcu_read_lock_trace', ({ asm }: Ctx) =>
  asm.inc(task(TaskStruct.trcReaderNesting)),
);
const rcuReadUnlockTrace = piece('rcu_read_unlock_trace', ({ asm }: Ctx) =>
  asm.dec(task(TaskStruct.trcReaderNesting)),
);
const migrateDisable = piece('migrate_disable', ({ asm }: Ctx) =>
  asm.inc(task(TaskStruct.migrationDisabled)),
);
const migrateEnable = piece('migrate_enable', ({ asm }: Ctx) => asm.dec(task(TaskStruct.migrationDisabled)));

/** Counts a splat when the caller may not sleep: inside rcu_read_lock, or with preemption off. */
const mightFault = piece('might_fault', ({ asm, layout }: Ctx) => {
  const fine = asm.label('may_fault');
  asm.mov(eax, gsAt(layout.preemptCount));
  asm.alu('or', eax, ptr(rdx, TaskStruct.rcuReadLockNesting));
  asm.jccShort('e', fine);
  asm.inc(dword(gsAt(layout.mightFaultSplats)), 'sleeping where it is forbidden');
  asm.bind(fine);
});

// -- recursion counter, start time, statistics --------------------------------------------------

/** The rest of both enter functions: count this run, and return its start time or 0. */
function countActiveOrMiss(ctx: Ctx): void {
  const { asm } = ctx;
  const miss = asm.label('recursion');
  asm.mov(rcx, ptr(rdi, BpfProg.active));
  asm.movImm32(eax, 1);
  asm.xadd(gsPtr(rcx), eax, '++*this_cpu_ptr(prog->active)');
  asm.test(eax, eax);
  if (!ctx.bugs.has('L13')) asm.jccShort('ne', miss, 'it was running on this CPU already');
  startTime(ctx);
  asm.bind(miss);
  incMissesCounter(ctx);
}

function countInactive({ asm, bugs }: Ctx): void {
  if (bugs.has('active-left-up')) return;
  asm.mov(rcx, ptr(rdi, BpfProg.active));
  asm.dec(dword(gsPtr(rcx)), '--*this_cpu_ptr(prog->active)');
  if (bugs.has('active-down-twice')) asm.dec(dword(gsPtr(rcx)));
}

const startTime = piece('bpf_prog_start_time', ({ asm, bugs }: Ctx) => {
  const timed = asm.label('stats_on');
  const done = asm.label('done');
  staticBranch(asm, timed);
  asm.movImm32(eax, NO_START_TIME);
  asm.ret();
  asm.bind(timed);
  asm.callSym(new Sym('sched_clock'));
  asm.test(rax, rax);
  asm.jccShort('ne', done);
  if (!bugs.has('time-zero')) asm.movImm32(eax, NO_START_TIME, 'a time of 0 would mean: do not run');
  asm.bind(done);
  asm.ret();
});

const incMissesCounter = piece('inc_misses_counter', (ctx: Ctx) => {
  const { asm, bugs } = ctx;
  const times = bugs.has('miss-uncounted') ? 0 : bugs.has('miss-counted-twice') ? 2 : 1;
  asm.mov(rcx, ptr(rdi, BpfProg.stats));
  statsUpdate(ctx, rcx, () => {
    for (let i = 0; i < times; i++) asm.inc(qword(gsPtr(rcx, BpfProgStats.misses)));
  });
  asm.alu('xor', eax, eax, 'do not run');
  asm.ret();
});

const updateProgStats = piece('update_prog_stats', (ctx: Ctx) => {
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
  statsUpdate(ctx, rcx, () => {
    asm.inc(qword(gsPtr(rcx, BpfProgStats.cnt)));
    asm.alu('add', gsPtr(rcx, BpfProgStats.nsecs), rax);
  });
  asm.bind(skip);
});

/** u64_stats_update_begin .. end around an update of the statistics whose per-CPU offset is in `stats`. */
function statsUpdate({ asm, bugs }: Ctx, stats: Reg, update: () => void): void {
  asm.inc(dword(gsPtr(stats, BpfProgStats.syncp)), 'odd: a reader tries again');
  update();
  if (!bugs.has('stats-sequence-odd')) asm.inc(dword(gsPtr(stats, BpfProgStats.syncp)));
}

/** A place that falls through while statistics are off and jumps to `on` once it is patched. */
function staticBranch(asm: Assembler, on: Label): void {
  asm.site(STATS_KEY, NOP5.length, on);
  asm.raw(NOP5, 'static branch: statistics');
}

// -- percpu_ref of the image in rdi -------------------------------------------------------------

const pcref = (field: number): Mem => ptr(rdi, BpfTrampImage.pcref + field);

const percpuRefGet = piece('percpu_ref_get', ({ asm, bugs }: Ctx) => {
  const atomic = asm.label('atomic');
  const done = asm.label('got');
  refMode(asm, atomic, bugs.has('ref-taken-percpu'));
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
 * @param blind the bugs that go on per CPU: the flags are cleared from the offset and not looked at
 */
function refMode(asm: Assembler, atomic: Label, blind: boolean): void {
  asm.mov(rcx, pcref(PercpuRef.percpuCountPtr));
  if (blind) {
    asm.aluImm8('and', rcx, ~(PercpuRef.ATOMIC | PercpuRef.DEAD));
    return;
  }
  asm.testImm(ecx, PercpuRef.ATOMIC | PercpuRef.DEAD);
  asm.jccShort('ne', atomic);
}

/** A function on a 16-byte boundary, int3 between functions, named in the symbol table. */
function func(name: string, body: (ctx: Ctx) => void): (ctx: Ctx) => void {
  const pad = piece('align', ({ asm }: Ctx) => {
    while (asm.offset % 16 !== 0) asm.int3();
  });
  const emit = piece(name, body);
  return (ctx) => {
    pad(ctx);
    const start = ctx.asm.offset;
    emit(ctx);
    ctx.asm.symbol(name, start);
  };
}
