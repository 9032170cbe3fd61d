/*
 * Linux v5.13: the emitter as it stood after each image got its own page and its percpu_ref.
 * Kernel: arch_prepare_bpf_trampoline and its callees, arch/x86/net/bpf_jit_comp.c.
 *
 * The frame:
 *
 *   rbp + 16   return address of the traced function's caller
 *   rbp + 8    return address into the traced function (its site + 5)
 *   rbp        caller's rbp
 *   rbp - 8    return value            only with CALL_ORIG
 *              last argument
 *              ...
 *   rbp - ctx  argument 0              <- rdi of every program
 *   then       rbx of the caller
 */

import { addrAdd, InputError, type Kaddr } from '../../lib/index.ts';
import { fillNops, frameSlot, movPtr, NOP5, NOPS } from '../kernel-encoding.ts';
import { type ProgRef, TrampFlag, type TrampolineRequest } from '../request.ts';
import { type Mem, qword, type Reg, r8, r9, rax, rbp, rbx, rcx, rdi, rdx, rsi, rsp } from '../x86/operand.ts';
import { piece, step } from '../x86/step.ts';
import type { Emission, Frame, Invocation, Refusal, Revision } from './revision.ts';

/** System V argument registers. */
const ARG_REGS: readonly Reg[] = [rdi, rsi, rdx, rcx, r8, r9];
const MAX_ARGS = ARG_REGS.length;

/** A stack word: a slot of the frame, or the return address that SKIP_FRAME steps over. */
const WORD = 8;

/** The call at a traced function's entry, and the nop it replaces: 5 bytes. */
const SITE_BYTES = 5;

export const v5_13: Revision = {
  name: 'v5.13',
  knownFlags: TrampFlag.RESTORE_REGS | TrampFlag.CALL_ORIG | TrampFlag.SKIP_FRAME,
  refuse,
  frame,

  prologue: piece('prologue', ({ asm, frame }) => {
    asm.push(rbp);
    asm.mov(rbp, rsp);
    asm.aluImm8('sub', rsp, frame.size, 'the frame');
    asm.push(rbx, "start time lives in rbx; keep the caller's");
  }),

  funcIp: () => undefined,

  saveArgs: piece('save_regs', ({ asm, request, frame }) => {
    request.argSizes.forEach((size, i) => {
      asm.mov(frame.arg(i), argReg(i, size), ARG_NOTES[i]);
    });
  }),

  trampEnter: piece('__bpf_tramp_enter', (emission) => {
    imHelper(emission, '__bpf_tramp_enter');
  }),

  fentry: piece('fentry', (emission) => {
    for (const prog of emission.request.fentry)
      emission.rev.invokeProg(emission, { prog, keepReturn: false });
  }),

  fmodRet: piece('fmod_ret', (emission) => {
    const { asm, rev, request, frame, doFexit } = emission;
    asm.alu('xor', rax.as(4), rax.as(4), 'no program has spoken yet');
    asm.mov(frame.returnValue, rax);
    for (const prog of request.fmodRet) {
      rev.invokeProg(emission, { prog, keepReturn: true });
      asm.aluImm8('cmp', frame.returnValue, 0);
      asm.jccNear('ne', doFexit, 'non-zero: skip the original');
    }
  }),

  callOriginal: piece('call_orig', (emission) => {
    const { asm, flags, request, frame } = emission;
    emission.rev.restoreArgs(emission);
    const name = request.name ?? 'orig_call';
    if ((flags & TrampFlag.SKIP_FRAME) === 0) asm.call(request.origCall, name);
    else asm.call(addrAdd(request.origCall, SITE_BYTES), `${name}+${SITE_BYTES}`);
    asm.mov(frame.returnValue, rax, 'what the original returned');
    emission.ipAfterCall = asm.offset;
    asm.site('ip_after_call', SITE_BYTES);
    asm.raw(NOP5, 'ip_after_call: a jump once the image is retired');
  }),

  bindFexit: piece('emit_align', ({ asm, doFexit }) => {
    fillNops(asm, asm.bytesTo(16), NOPS, 'branch target on 16 bytes');
    asm.bind(doFexit);
  }),

  fexit: piece('fexit', (emission) => {
    for (const prog of emission.request.fexit) emission.rev.invokeProg(emission, { prog, keepReturn: false });
  }),

  restoreArgs: piece('restore_regs', ({ asm, request, frame }) => {
    request.argSizes.forEach((size, i) => {
      const reg = argReg(i, size);
      if (size <= 2) asm.movzx(reg.as(8), frame.arg(i), size as 1 | 2, ARG_NOTES[i]);
      else asm.mov(reg, frame.arg(i), ARG_NOTES[i]);
    });
  }),

  trampExit: piece('__bpf_tramp_exit', (emission) => {
    emission.ipEpilogue = emission.asm.offset;
    imHelper(emission, '__bpf_tramp_exit');
  }),

  epilogue: piece('epilogue', ({ asm, flags, frame }) => {
    if (frame.hasReturnValue) asm.mov(rax, frame.returnValue, 'the traced function returns this');
    asm.pop(rbx);
    asm.leave64();
    if ((flags & TrampFlag.SKIP_FRAME) !== 0)
      asm.aluImm8('add', rsp, WORD, 'skip the traced function itself');
    asm.ret();
  }),

  invokeProg: step(
    'invoke_bpf_prog',
    (emission: Emission, { prog, keepReturn }: Invocation) => {
      const { asm } = emission;
      const skip = asm.label('skip_exec_of_prog');
      enterProg(emission, prog);
      asm.test(rax, rax);
      asm.jccShort('e', skip, '0: already running on this CPU');
      runProg(emission, { prog, keepReturn });
      asm.bind(skip);
      exitProg(emission, prog);
    },
    ({ prog }) => progName(prog),
  ),
};

const enterProg = step('enter', (emission: Emission, prog: ProgRef) => {
  const { asm } = emission;
  const helper = prog.sleepable ? '__bpf_prog_enter_sleepable' : '__bpf_prog_enter';
  movPtr(asm, rdi, prog.prog, progName(prog), 'arg1: prog');
  asm.call(helperAddress(emission.request, helper), helper);
  asm.mov(rbx, rax, 'start time, for exit');
});

const runProg = step('run', ({ asm, frame }: Emission, { prog, keepReturn }: Invocation) => {
  asm.lea(rdi, frame.ctx, 'arg1: ctx');
  if (!prog.jited)
    movPtr(asm, rsi, prog.insnsi, `${progName(prog)}.insnsi`, 'arg2: insnsi, for the interpreter');
  asm.call(prog.bpfFunc, progName(prog));
  if (keepReturn) asm.mov(frame.returnValue, rax, 'what the program returned');
});

const exitProg = step('exit', (emission: Emission, prog: ProgRef) => {
  const { asm } = emission;
  const helper = prog.sleepable ? '__bpf_prog_exit_sleepable' : '__bpf_prog_exit';
  movPtr(asm, rdi, prog.prog, progName(prog), 'arg1: prog');
  asm.mov(rsi, rbx, 'arg2: start time');
  asm.call(helperAddress(emission.request, helper), helper);
});

/** `helper(im)`. */
function imHelper({ asm, request }: Emission, helper: string): void {
  movPtr(asm, rdi, request.im, 'im', 'arg1: im');
  asm.call(helperAddress(request, helper), helper);
}

function helperAddress(request: TrampolineRequest, name: string): Kaddr {
  const address = request.helpers[name];
  if (address === undefined) throw new InputError('helpers', undefined, `no address for ${name}; give one`);
  return address;
}

function refuse(request: TrampolineRequest, flags: number): Refusal | undefined {
  const nrArgs = request.argSizes.length;
  if (nrArgs > MAX_ARGS) return { code: 'ENOTSUPP', why: `${nrArgs} arguments; registers hold ${MAX_ARGS}` };
  const both = TrampFlag.RESTORE_REGS | TrampFlag.SKIP_FRAME;
  if ((flags & both) === both)
    return { code: 'EINVAL', why: 'RESTORE_REGS and SKIP_FRAME exclude each other' };
  return undefined;
}

function frame(request: TrampolineRequest, flags: number): Frame {
  return layoutFrame(request.argSizes.length, (flags & TrampFlag.CALL_ORIG) !== 0, false);
}

const RETURN_VALUE = qword(frameSlot(-WORD));

/** Lays the words out downwards from rbp: return value, arguments, function address. */
export function layoutFrame(nrArgs: number, hasReturnValue: boolean, hasFuncIp: boolean): Frame {
  const ctx = WORD * nrArgs + (hasReturnValue ? WORD : 0);
  const size = ctx + (hasFuncIp ? WORD : 0);
  return {
    size,
    hasReturnValue,
    returnValue: RETURN_VALUE,
    ctx: frameSlot(-ctx),
    arg: (index: number): Mem => frameSlot(WORD * index - ctx),
    funcIp: hasFuncIp ? frameSlot(-size) : undefined,
  };
}

const ARG_NOTES = ARG_REGS.map((_, i) => `arg${i}`);

function argReg(index: number, size: number): Reg {
  return (ARG_REGS[index] as Reg).as(size as 1 | 2 | 4 | 8);
}

function progName(prog: ProgRef): string {
  return prog.name ?? 'prog';
}
