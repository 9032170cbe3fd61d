/*
 * What stands in an LSM hook's image for all programs of a cgroup (v6.1): every one is run, oldest first, and
 * one that answers 0 refuses. Runs are counted and timed here, as their programs have no enter and exit.
 *
 *   rsi = insnsi of the shim, at the end of its struct bpf_prog
 *   shim->aux ──▶ struct bpf_prog *[], 0 behind the last
 *
 * Simplified: as there is one cgroup, which all tasks and sockets are in, the three functions are the same code.
 * Kernel: bpf_prog_run_array_cg, kernel/bpf/cgroup.c; __bpf_prog_run, include/linux/filter.h
 */

import { Errno } from '../../lib/index.ts';
import { eax, ptr, r12, r13, r14, r15, rax, rbx, rcx, rdi, rsi, rsp, Sym } from '../x86/operand.ts';
import { piece } from '../x86/step.ts';
import { type Ctx, type Func, func } from './context.ts';
import { countRun, staticBranch } from './prog-stats.ts';
import { BpfProg } from './structs.ts';

/** By where the cgroup is found that decides. */
export const CGROUP_RUNNERS = [
  '__cgroup_bpf_run_lsm_current',
  '__cgroup_bpf_run_lsm_socket',
  '__cgroup_bpf_run_lsm_sock',
] as const;
export type CgroupRunner = (typeof CGROUP_RUNNERS)[number];

/** u32 runner(ctx, insnsi): 0, or -EPERM. */
const runAll = piece('bpf_prog_run_array_cg', (ctx: Ctx) => {
  const { asm } = ctx;
  const next = asm.label('next');
  const timed = asm.label('stats_on');
  const ran = asm.label('ran');
  const allowed = asm.label('allowed');
  const done = asm.label('done');
  const kept = [rbx, r12, r13, r14, r15];
  for (const reg of kept) asm.push(reg);
  asm.mov(rbx, ptr(rsi, BpfProg.aux - BpfProg.insnsi), 'the programs of the shim, from its instructions');
  asm.mov(r12, rdi, 'ctx');
  asm.alu('xor', r13, r13);
  asm.bind(next);
  asm.mov(r15, ptr(rbx));
  asm.test(r15, r15);
  asm.jccNear('e', done);
  staticBranch(asm, timed);
  runOne(ctx);
  asm.bind(ran);
  asm.test(eax, eax);
  asm.jccShort('ne', allowed);
  asm.movImm(r13, -Errno.EPERM);
  asm.bind(allowed);
  asm.lea(rbx, ptr(rbx, 8));
  asm.jmpNear(next);
  asm.bind(timed);
  asm.callSym(new Sym('sched_clock'));
  asm.mov(r14, rax);
  runOne(ctx);
  asm.push(rax);
  asm.lea(rsp, ptr(rsp, -8));
  asm.callSym(new Sym('sched_clock'));
  asm.alu('sub', rax, r14);
  asm.mov(rcx, ptr(r15, BpfProg.stats));
  countRun(ctx);
  asm.lea(rsp, ptr(rsp, 8));
  asm.pop(rax);
  asm.jmpNear(ran);
  asm.bind(done);
  asm.mov(rax, r13);
  for (const reg of kept.toReversed()) asm.pop(reg);
  asm.ret();
});

/** The program in r15; its answer in eax. */
const runOne = piece('bpf_dispatcher_nop_func', ({ asm }: Ctx) => {
  asm.mov(rdi, r12);
  asm.lea(rsi, ptr(r15, BpfProg.insnsi));
  asm.callIndirect(ptr(r15, BpfProg.bpfFunc));
});

export const cgroupRunners: readonly Func[] = CGROUP_RUNNERS.map((name) => func(name, runAll));
