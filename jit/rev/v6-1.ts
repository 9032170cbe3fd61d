/*
 * Linux v6.1: v5.15, and
 *   + arguments as words of 8 bytes, moved whole: a struct of up to 16 bytes takes one or two
 *   + the number of words below them; the traced function's address is a constant
 *   + run_ctx: every program's cookie, and what was current before it
 *   + enter and exit functions in pairs: recursion-checked, cgroup LSM, plain
 *   + ENDBR at the entry and behind it in the original, when built for IBT; return thunks; int3 behind ret
 *   + the original by its return address (ORIG_STACK); a tail call count kept for it (TAIL_CALL_CTX)
 *   - no combination of flags is refused
 *
 * The frame:
 *
 *   rbp - 8     return value            only with CALL_ORIG or RET_FENTRY_RET
 *               last argument word
 *               ...
 *   rbp - ctx   argument word 0         <- rdi of every program
 *               number of words
 *               function address        only with IP_ARG
 *               run_ctx: what was current before
 *   rbp - size  run_ctx: cookie         <- rsi of enter, rdx of exit
 *   then        tail call count         only with TAIL_CALL_CTX
 *   then        rbx of the caller
 */

import { ENDBR, ENDBR_BYTES } from '../endbr.ts';
import { frameSlot } from '../kernel-encoding.ts';
import { HelperPair, type ProgRef, TrampFlag } from '../request.ts';
import { type Reg, rax, rbp, rbx, rdi, rdx, rsi, rsp } from '../x86/operand.ts';
import { piece, step } from '../x86/step.ts';
import type { Emission, RegWord, Revision } from './revision.ts';
import { ARG_REGS, callHelper, callTracedAt, helperAddress, progName, SITE_BYTES, WORD } from './v5-13.ts';
import { v5_15 } from './v5-15.ts';
import { layoutArgs, layoutFrame, RUN_CTX_BYTES, refuseMoreWords, slot, wordNotes } from './word-frame.ts';

const { ORIG_STACK, SHARE_IPMODIFY, SKIP_FRAME, TAIL_CALL_CTX } = TrampFlag;

export const v6_1: Revision = {
  ...v5_15,
  name: 'v6.1',
  knownFlags: v5_15.knownFlags | ORIG_STACK | SHARE_IPMODIFY | TAIL_CALL_CTX,
  refuse: ({ argSizes }) => refuseMoreWords(argSizes, ARG_REGS.length),

  frame: ({ argSizes }, flags) => {
    const notes = wordNotes(argSizes);
    const args = layoutArgs(notes.length, flags);
    const words = notes.map((note, i): RegWord => ({ slot: args.arg(i), reg: ARG_REGS[i] as Reg, note }));
    const runCtx = args.endBytes + RUN_CTX_BYTES;
    return layoutFrame(args, words, { runCtx, savedRbx: undefined, size: runCtx }, flags);
  },

  prologue: piece('prologue', ({ asm, config, frame }) => {
    if (config.ibt === true) asm.raw(ENDBR);
    asm.push(rbp);
    asm.mov(rbp, rsp);
    asm.aluImm8('sub', rsp, frame.size, 'the frame');
    if (frame.tailCall !== undefined) asm.push(rax, 'tail call count');
    asm.push(rbx, "start time lives in rbx; keep the caller's");
  }),

  argCount: piece('nr_regs', ({ asm, rev, frame }) => {
    rev.movPtr(asm, rax, BigInt(frame.words.length), undefined, 'argument words');
    asm.mov(slot(frame.argCount), rax, 'for bpf_get_func_arg_cnt');
  }),

  funcIp: piece('func_ip', ({ asm, rev, request, frame }) => {
    if (frame.funcIp === undefined) return;
    rev.movPtr(asm, rax, request.origCall, request.name ?? 'orig_call');
    asm.mov(frame.funcIp, rax, 'for bpf_get_func_ip');
  }),

  saveArgs: piece('save_regs', ({ asm, frame }) => {
    for (const { slot, reg, note } of frame.regWords) asm.mov(slot, reg, note);
  }),

  restoreArgs: piece('restore_regs', ({ asm, frame }) => {
    for (const { slot, reg, note } of frame.regWords) asm.mov(reg, slot, note);
  }),

  passArgs: (emission) => {
    emission.rev.restoreArgs(emission);
    reloadTailCall(emission);
  },

  callTraced: (emission) => {
    const { asm, flags, config } = emission;
    if ((flags & ORIG_STACK) !== 0) {
      asm.mov(rbx, frameSlot(WORD), 'return address: whatever comes next at the site');
      asm.callIndirect(rbx);
      return;
    }
    const landing = config.ibt === true && config.origCallStartsWithEndbr === true ? ENDBR_BYTES : 0;
    callTracedAt(emission, (flags & SKIP_FRAME) === 0 ? 0 : landing + SITE_BYTES);
  },

  tailCallOnly: piece('tail_call_ctx', reloadTailCall),

  ret: ({ asm, config, request }) => {
    if (config.rethunk !== true) {
      asm.ret();
      if (config.sls === true) asm.int3('no speculation past the return');
      return;
    }
    const thunk = helperAddress(request, 'x86_return_thunk');
    // Nobody looks at what the kernel's emit_jump answers: out of reach, the image just ends here.
    if (asm.reaches(thunk)) asm.jmp(thunk, 'x86_return_thunk');
  },

  enterProg: step('enter', (emission: Emission, prog: ProgRef) => {
    const { asm, rev, frame } = emission;
    const runCtx = slot(frame.runCtx);
    rev.movPtr(asm, rdi, prog.cookie ?? 0n, undefined, 'cookie');
    asm.mov(runCtx, rdi, 'run_ctx.bpf_cookie');
    rev.movPtr(asm, rdi, prog.prog, progName(prog), 'arg1: prog');
    asm.lea(rsi, runCtx, 'arg2: run_ctx');
    callHelper(emission, enterHelper(prog));
    asm.mov(rbx, rax, 'start time, for exit');
  }),

  exitProg: step('exit', (emission: Emission, prog: ProgRef) => {
    const { asm, rev, frame } = emission;
    rev.movPtr(asm, rdi, prog.prog, progName(prog), 'arg1: prog');
    asm.mov(rsi, rbx, 'arg2: start time');
    asm.lea(rdx, slot(frame.runCtx), 'arg3: run_ctx');
    callHelper(emission, exitHelper(prog));
  }),

  pokeSkipsEndbr: true,
};

/** Kernel: bpf_trampoline_enter, kernel/bpf/trampoline.c */
function enterHelper({ kind = HelperPair.RECUR, sleepable }: ProgRef): string {
  if (kind === HelperPair.LSM_CGROUP) return '__bpf_prog_enter_lsm_cgroup';
  if (kind === HelperPair.PLAIN) return sleepable ? '__bpf_prog_enter_sleepable' : '__bpf_prog_enter';
  return sleepable ? '__bpf_prog_enter_sleepable_recur' : '__bpf_prog_enter_recur';
}

/** Kernel: bpf_trampoline_exit, kernel/bpf/trampoline.c */
function exitHelper({ kind = HelperPair.RECUR, sleepable }: ProgRef): string {
  if (kind === HelperPair.LSM_CGROUP) return '__bpf_prog_exit_lsm_cgroup';
  if (kind === HelperPair.PLAIN) return sleepable ? '__bpf_prog_exit_sleepable' : '__bpf_prog_exit';
  return sleepable ? '__bpf_prog_exit_sleepable_recur' : '__bpf_prog_exit_recur';
}

export function reloadTailCall({ asm, frame }: Emission): void {
  if (frame.tailCall !== undefined) asm.mov(rax, frame.tailCall, 'tail call count');
}
