/*
 * The pairs of functions around a program. What a pair does is a row of a table; the order of steps is the
 * same in all of them:
 *
 *   enter   reader, migration, [might_fault], [run_ctx], [count], [time]
 *   exit    [run_ctx], [statistics], [count], migration, reader
 *
 * rdi = prog; v6.1 on: rsi = run_ctx for enter, rdx = run_ctx for exit. rsi = start time for exit.
 * enter answers the start time, or 0: do not run the program.
 */

import type { Assembler } from '../x86/assembler.ts';
import { rsi } from '../x86/operand.ts';
import { type Ctx, current, type Func, func } from './context.ts';
import { countActiveOrMiss, countInactive, noStartTime, startTime, updateProgStats } from './prog-stats.ts';
import {
  mightFault,
  migrateDisable,
  migrateEnable,
  rcuReadLock,
  rcuReadLockTrace,
  rcuReadUnlock,
  rcuReadUnlockTrace,
  resetRunCtx,
  setRunCtx,
} from './task.ts';

/** One pair: what it does, of what there is to do. */
export interface Pair {
  /** What stands behind __bpf_prog_enter and __bpf_prog_exit. */
  readonly suffix: string;
  /** RCU-tasks-trace and might_fault in place of RCU. */
  readonly sleepable: boolean;
  /** Counts runs on this CPU, and refuses all but the first. */
  readonly recur: boolean;
  /** Measures time while statistics are on. */
  readonly timed: boolean;
  /** Makes the image's run_ctx current. */
  readonly runCtx: boolean;
  /** Misses are counted only for programs that have statistics. */
  readonly prudentMisses: boolean;
}

const V5_PAIR: Omit<Pair, 'suffix' | 'sleepable'> = {
  recur: true,
  timed: true,
  runCtx: false,
  prudentMisses: false,
};

/** Kernel: kernel/bpf/trampoline.c (v5.13, v5.15) */
export const V5_PAIRS: readonly Pair[] = [
  { ...V5_PAIR, suffix: '', sleepable: false },
  { ...V5_PAIR, suffix: '_sleepable', sleepable: true },
];

const V6_PAIR: Omit<Pair, 'suffix' | 'sleepable' | 'recur'> = {
  timed: true,
  runCtx: true,
  prudentMisses: true,
};

/** Kernel: kernel/bpf/trampoline.c (v6.1, v6.12); which pair a program gets: bpf_trampoline_enter */
export const V6_PAIRS: readonly Pair[] = [
  { ...V6_PAIR, suffix: '_recur', sleepable: false, recur: true },
  { ...V6_PAIR, suffix: '_sleepable_recur', sleepable: true, recur: true },
  { ...V6_PAIR, suffix: '', sleepable: false, recur: false },
  { ...V6_PAIR, suffix: '_sleepable', sleepable: true, recur: false },
  { ...V6_PAIR, suffix: '_lsm_cgroup', sleepable: false, recur: false, timed: false },
];

export function progEnter(pair: Pair): Func {
  return func(`__bpf_prog_enter${pair.suffix}`, (ctx) => {
    current(ctx);
    readLock(ctx, pair);
    if (!ctx.bugs.has(pair.sleepable ? 'L12' : 'migrate-enabled')) migrateDisable(ctx);
    if (pair.sleepable && !ctx.bugs.has('L17')) mightFault(ctx);
    const late = pair.recur && ctx.bugs.has('L15');
    if (pair.runCtx && !late) setRunCtx(ctx);
    if (counts(ctx, pair)) countActiveOrMiss(ctx, pair);
    else if (pair.timed) startTime(ctx);
    else noStartTime(ctx.asm);
  });
}

export function progExit(pair: Pair): Func {
  return func(`__bpf_prog_exit${pair.suffix}`, (ctx) => {
    const { asm, bugs } = ctx;
    if (bugs.has('L16') && pair.recur) returnUnlessEntered(asm);
    if (pair.runCtx) resetRunCtx(ctx);
    if (pair.timed) updateProgStats(ctx);
    current(ctx);
    if (counts(ctx, pair)) countInactive(ctx);
    if (
      !bugs.has(pair.sleepable ? 'L12' : 'migrate-enabled') &&
      !(pair.sleepable && bugs.has('migrate-left-disabled'))
    )
      migrateEnable(ctx);
    readUnlock(ctx, pair);
    asm.ret();
  });
}

/** Whether a pair counts the runs of its program. */
function counts({ bugs }: Ctx, { recur, timed }: Pair): boolean {
  return recur || (timed && bugs.has('L14'));
}

function readLock(ctx: Ctx, { sleepable }: Pair): void {
  const { bugs } = ctx;
  if (!sleepable) {
    if (!bugs.has('no-rcu-read-lock')) rcuReadLock(ctx);
  } else if (bugs.has('sleepable-in-rcu')) rcuReadLock(ctx);
  else if (!bugs.has('no-trace-read-lock')) rcuReadLockTrace(ctx);
}

function readUnlock(ctx: Ctx, { sleepable }: Pair): void {
  const { bugs } = ctx;
  if (!sleepable) {
    if (!bugs.has('no-rcu-read-lock') && !bugs.has('rcu-left-locked')) rcuReadUnlock(ctx);
  } else if (bugs.has('sleepable-in-rcu')) rcuReadUnlock(ctx);
  else if (!bugs.has('no-trace-read-lock')) rcuReadUnlockTrace(ctx);
}

/** The bug L16: a start time of 0 taken for a run that never began. */
function returnUnlessEntered(asm: Assembler): void {
  const entered = asm.label('entered');
  asm.test(rsi, rsi);
  asm.jccShort('ne', entered);
  asm.ret();
  asm.bind(entered);
}
