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
import type { Assembler } from '../x86/assembler.ts';
import { type Mem, qword, type Reg, r8, r9, rax, rbp, rbx, rcx, rdi, rdx, rsi, rsp } from '../x86/operand.ts';
import { piece, step } from '../x86/step.ts';
import type { Emission, Frame, Invocation, Refusal, Revision } from './revision.ts';

/** System V argument registers. */
export const ARG_REGS: readonly Reg[] = [rdi, rsi, rdx, rcx, r8, r9];

/** A stack word: a slot of the frame, or the return address that SKIP_FRAME steps over. */
export const WORD = 8;

/** The call at a traced function's entry, and the nop it replaces: 5 bytes. */
export const SITE_BYTES = 5;

export const v5_13: Revision = {
  name: 'v5.13',
  knownFlags: TrampFlag.RESTORE_REGS | TrampFlag.CALL_ORIG | TrampFlag.SKIP_FRAME,
  refuse,
  warn: () => undefined,
  frame,

  prologue: piece('prologue', ({ asm, frame }) => {
    asm.push(rbp);
    asm.mov(rbp, rsp);
    asm.aluImm8('sub', rsp, frame.size, 'the frame');
    asm.push(rbx, "start time lives in rbx; keep the caller's");
  }),

  argCount: () => undefined,
  funcIp: () => undefined,

  saveArgs: piece('save_regs', ({ asm, request, frame }) => {
    request.argSizes.forEach((size, i) => {
      if (!hasOpcode(size)) strayOperand(asm, i, frame.arg(i));
      else asm.mov(frame.arg(i), argReg(i, size), ARG_NOTES[i]);
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
    const { asm, rev, frame } = emission;
    rev.passArgs(emission);
    rev.callTraced(emission);
    asm.mov(frame.returnValue, rax, 'what the original returned');
    emission.ipAfterCall = asm.offset;
    asm.site('ip_after_call', SITE_BYTES);
    asm.raw(NOP5, 'ip_after_call: a jump once the image is retired');
  }),

  passArgs: (emission) => emission.rev.restoreArgs(emission),

  callTraced: (emission) => {
    callTracedAt(emission, (emission.flags & TrampFlag.SKIP_FRAME) === 0 ? 0 : SITE_BYTES);
  },

  bindFexit: piece('emit_align', ({ asm, doFexit }) => {
    fillNops(asm, asm.bytesTo(16), NOPS, 'branch target on 16 bytes');
    asm.bind(doFexit);
  }),

  fexit: piece('fexit', (emission) => {
    for (const prog of emission.request.fexit) emission.rev.invokeProg(emission, { prog, keepReturn: false });
  }),

  restoreArgs: piece('restore_regs', ({ asm, request, frame }) => {
    request.argSizes.forEach((size, i) => {
      if (!hasOpcode(size)) {
        strayOperand(asm, i, frame.arg(i));
        return;
      }
      const reg = argReg(i, size);
      if (size <= 2) asm.movzx(reg.as(8), frame.arg(i), size as 1 | 2, ARG_NOTES[i]);
      else asm.mov(reg, frame.arg(i), ARG_NOTES[i]);
    });
  }),

  trampExit: piece('__bpf_tramp_exit', (emission) => {
    emission.ipEpilogue = emission.asm.offset;
    imHelper(emission, '__bpf_tramp_exit');
  }),

  tailCallOnly: () => undefined,

  epilogue: piece('epilogue', (emission) => {
    const { asm, rev, flags, frame } = emission;
    if (frame.hasReturnValue) asm.mov(rax, frame.returnValue, 'the traced function returns this');
    asm.pop(rbx);
    asm.leave64();
    if ((flags & TrampFlag.SKIP_FRAME) !== 0)
      asm.aluImm8('add', rsp, WORD, 'skip the traced function itself');
    rev.ret(emission);
  }),

  ret: ({ asm }) => asm.ret(),

  invokeProg: step(
    'invoke_bpf_prog',
    (emission: Emission, invocation: Invocation) => {
      const { asm, rev } = emission;
      const skip = asm.label('skip_exec_of_prog');
      rev.enterProg(emission, invocation.prog);
      asm.test(rax, rax);
      asm.jccShort('e', skip, '0: already running on this CPU');
      rev.runProg(emission, invocation);
      asm.bind(skip);
      rev.exitProg(emission, invocation.prog);
    },
    ({ prog }) => progName(prog),
  ),

  enterProg: step('enter', (emission: Emission, prog: ProgRef) => {
    const { asm, rev } = emission;
    rev.movPtr(asm, rdi, prog.prog, progName(prog), 'arg1: prog');
    callHelper(emission, prog.sleepable ? '__bpf_prog_enter_sleepable' : '__bpf_prog_enter');
    asm.mov(rbx, rax, 'start time, for exit');
  }),

  runProg: step('run', (emission: Emission, { prog, keepReturn }: Invocation) => {
    const { asm, rev, frame } = emission;
    asm.lea(rdi, frame.ctx, 'arg1: ctx');
    if (!prog.jited)
      rev.movPtr(asm, rsi, prog.insnsi, `${progName(prog)}.insnsi`, 'arg2: insnsi, for the interpreter');
    rev.call(emission, prog.bpfFunc, progName(prog));
    if (keepReturn) asm.mov(frame.returnValue, rax, 'what the program returned');
  }),

  exitProg: step('exit', (emission: Emission, prog: ProgRef) => {
    const { asm, rev } = emission;
    rev.movPtr(asm, rdi, prog.prog, progName(prog), 'arg1: prog');
    asm.mov(rsi, rbx, 'arg2: start time');
    callHelper(emission, prog.sleepable ? '__bpf_prog_exit_sleepable' : '__bpf_prog_exit');
  }),

  call: ({ asm }, target, name) => asm.call(target, name),
  movPtr,

  delivery: { inPlace: true, spareBytes: 0, sizeQuery: false },
  pokeSkipsEndbr: false,
};

/** `helper(im)`. */
function imHelper(emission: Emission, helper: string): void {
  const { asm, rev, request } = emission;
  rev.movPtr(asm, rdi, request.im, 'im', 'arg1: im');
  callHelper(emission, helper);
}

export function callHelper(emission: Emission, name: string): void {
  emission.rev.call(emission, helperAddress(emission.request, name), name);
}

/** Calls the original, so many bytes behind its address. */
export function callTracedAt(emission: Emission, skipBytes: number): void {
  const { rev, request } = emission;
  const name = request.name ?? 'orig_call';
  if (skipBytes === 0) rev.call(emission, request.origCall, name);
  else rev.call(emission, addrAdd(request.origCall, skipBytes), `${name}+${skipBytes}`);
}

export function helperAddress(request: TrampolineRequest, name: string): Kaddr {
  const address = request.helpers[name];
  if (address === undefined) throw new InputError('helpers', undefined, `no address for ${name}; give one`);
  return address;
}

function refuse(request: TrampolineRequest, flags: number): Refusal | undefined {
  const nrArgs = request.argSizes.length;
  const most = ARG_REGS.length;
  if (nrArgs > most) return { code: 'ENOTSUPP', why: `${nrArgs} arguments; registers hold ${most}` };
  const both = TrampFlag.RESTORE_REGS | TrampFlag.SKIP_FRAME;
  if ((flags & both) === both)
    return { code: 'EINVAL', why: 'RESTORE_REGS and SKIP_FRAME exclude each other' };
  return undefined;
}

function frame(request: TrampolineRequest, flags: number): Frame {
  return layoutFrame(request.argSizes.length, (flags & TrampFlag.CALL_ORIG) !== 0, false);
}

export const RETURN_VALUE: Mem = qword(frameSlot(-WORD));

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
    words: NO_WORDS,
    regWords: NO_WORDS,
    argCount: undefined,
    runCtx: undefined,
    tailCall: undefined,
    stackWords: NO_WORDS,
    savedRbx: undefined,
  };
}

const NO_WORDS: readonly never[] = [];

/** Names of arguments in listings; v6.12 takes up to 12. */
export const ARG_NOTES: readonly string[] = Array.from({ length: 12 }, (_, i) => `arg${i}`);

function argReg(index: number, size: number): Reg {
  return (ARG_REGS[index] as Reg).as(size as 1 | 2 | 4 | 8);
}

/** Moves exist for these sizes of arguments. */
function hasOpcode(size: number): boolean {
  return size === 1 || size === 2 || size === 4 || size === 8;
}

/**
 * What comes out for an argument of any other size, stored or loaded: the operands of a move without its opcode.
 * BTF gives v5 kernels no such size. Kernel: emit_stx and emit_ldx, whose switch over the size has no default
 */
function strayOperand(asm: Assembler, index: number, slot: Mem): void {
  const { reg } = ARG_REGS[index] as Reg;
  asm.raw([slot.rm.modrm | reg, slot.disp & 0xff], `${ARG_NOTES[index]}: no move of its size exists`);
}

export function progName(prog: ProgRef): string {
  return prog.name ?? 'prog';
}
