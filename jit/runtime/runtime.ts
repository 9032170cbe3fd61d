/*
 * The kernel functions that an image calls, as machine code, so that a traced call never leaves the
 * machine. Kernel: kernel/bpf/trampoline.c and what it inlines.
 *
 *   sched_clock(), schedule()                    here
 *   __bpf_prog_enter*, __bpf_prog_exit*          prog-enter-exit.ts: the pairs around a program
 *     what they do to the task                   task.ts
 *     what they count                            prog-stats.ts
 *   __bpf_tramp_enter, __bpf_tramp_exit          tramp-enter-exit.ts: around the original
 *   bpf_get_func_ip, bpf_get_attach_cookie, ...  prog-helpers.ts: for programs
 *   __cgroup_bpf_run_lsm_*                       cgroup-run.ts: what runs the programs of a cgroup
 *
 * All but the last use rax, rcx and rdx only and no stack but return addresses.
 */

import { kaddr } from '../../lib/index.ts';
import type { RevisionName } from '../rev/revision.ts';
import { Assembler } from '../x86/assembler.ts';
import type { Code } from '../x86/code.ts';
import { rax, ripTo } from '../x86/operand.ts';
import type { RuntimeBug } from './bugs.ts';
import { cgroupRunners } from './cgroup-run.ts';
import { type Ctx, type Func, func, type RuntimeLayout } from './context.ts';
import { type Pair, progEnter, progExit, V5_PAIRS, V6_PAIRS } from './prog-enter-exit.ts';
import { V5_15_HELPERS, V6_HELPERS } from './prog-helpers.ts';
import { trampEnter, trampExit } from './tramp-enter-exit.ts';

/** Symbols that the runtime leaves to the linker: the clock, two u64 in data. */
export const RuntimeData = {
  /** Nanoseconds now. */
  clock: 'sched_clock_data',
  /** What each reading adds to it. */
  tick: 'sched_clock_tick',
} as const;

/** Where a task goes to sleep. The scheduler stops it at the first instruction; alone it just returns. */
export const SCHEDULE = 'schedule';

export interface RuntimeOptions {
  /** Mistakes to make. Default none. */
  readonly bugs?: ReadonlySet<RuntimeBug>;
}

/** What differs between revisions. */
interface Runtime {
  readonly pairs: readonly Pair[];
  readonly helpers: readonly Func[];
}

const v5_13: Runtime = { pairs: V5_PAIRS, helpers: [] };
const v5_15: Runtime = { ...v5_13, helpers: V5_15_HELPERS };
const v6_1: Runtime = { pairs: V6_PAIRS, helpers: [...V6_HELPERS, ...cgroupRunners] };
const v6_12: Runtime = v6_1;

const RUNTIMES: Readonly<Record<RevisionName, Runtime>> = {
  'v5.13': v5_13,
  'v5.15': v5_15,
  'v6.1': v6_1,
  'v6.12': v6_12,
};

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
  const { pairs, helpers } = RUNTIMES[revision];
  schedClock(ctx);
  schedule(ctx);
  for (const pair of pairs) {
    progEnter(pair)(ctx);
    progExit(pair)(ctx);
  }
  trampEnter(ctx);
  trampExit(ctx);
  for (const helper of helpers) helper(ctx);
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
