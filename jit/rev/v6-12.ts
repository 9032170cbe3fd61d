/*
 * Linux v6.12: v6.1, and
 *   + up to 12 argument words: an argument that does not fit whole into the registers left comes on the stack
 *   + rbx in the frame, which may now need 32-bit displacements
 *   + the image reached by pointer (INDIRECT): ENDBR and the CFI preamble there, and nowhere else
 *   + call depth accounting before calls, on CPUs that need it
 *   + pointers into the topmost 2 GiB sign-extended; longer nops; targets aligned by offset, not by address
 *   + emitted into scratch memory, 64 bytes counted on top, the size to be asked for beforehand
 *
 * The frame:
 *
 *   rbp + 24    stack argument words    left there by the caller of the traced function
 *   ...
 *   rbp - 8     return value            only with CALL_ORIG or RET_FENTRY_RET
 *               last argument word
 *               ...
 *   rbp - ctx   argument word 0         <- rdi of every program
 *               number of words
 *               function address        only with IP_ARG
 *               rbx of the caller
 *               run_ctx: what was current before
 *               run_ctx: cookie         <- rsi of enter, rdx of exit
 *               a free word             where rsp would not be on 16 bytes at the call of the original
 *               last stack argument word   only with CALL_ORIG
 *               ...
 *   rbp - size  first stack argument word
 *   then        tail call count         only with TAIL_CALL_CTX
 */

import { emitCfi } from '../cfi.ts';
import { fillNops, frameSlot, LONG_NOPS, movPtrSignExtended } from '../kernel-encoding.ts';
import { TrampFlag } from '../request.ts';
import { dword, gsRip, type Mem, qword, type Reg, rax, rbp, rbx, rsp } from '../x86/operand.ts';
import { piece } from '../x86/step.ts';
import type { ArgWord, Emission, Revision, StackWord } from './revision.ts';
import { ARG_REGS, WORD } from './v5-13.ts';
import { reloadTailCall, v6_1 } from './v6-1.ts';
import {
  layoutArgs,
  layoutFrame,
  RUN_CTX_BYTES,
  refuseMoreWords,
  slot,
  wordNotes,
  wordsOf,
} from './word-frame.ts';

const { CALL_ORIG, INDIRECT, RET_FENTRY_RET, SKIP_FRAME } = TrampFlag;

/** Kernel: MAX_BPF_FUNC_ARGS */
const MAX_WORDS = 12;

/**
 * First stack argument above rbp: past rbp itself and two return addresses, the image's and the traced function's.
 * The kernel counts two under INDIRECT as well, where there is but one.
 */
const CALLER_STACK = 3 * WORD;

export const v6_12: Revision = {
  ...v6_1,
  name: 'v6.12',
  knownFlags: v6_1.knownFlags | INDIRECT,
  refuse: ({ argSizes }) => refuseMoreWords(argSizes, MAX_WORDS),
  warn: (flags) =>
    (flags & INDIRECT) !== 0 && (flags & ~(INDIRECT | RET_FENTRY_RET)) !== 0
      ? 'INDIRECT together with flags other than RET_FENTRY_RET'
      : undefined,

  frame: ({ argSizes }, flags) => {
    const notes = wordNotes(argSizes);
    const args = layoutArgs(notes.length, flags);
    const words = placeWords(argSizes, args.arg, notes);
    const savedRbx = args.endBytes + WORD;
    const runCtx = savedRbx + RUN_CTX_BYTES;
    const nrStackWords = words.filter((word) => word.reg === undefined).length;
    const size = runCtx + outgoingBytes(runCtx, nrStackWords, flags);
    return layoutFrame(args, words, { runCtx, savedRbx, size }, flags);
  },

  prologue: piece('prologue', (emission) => {
    const { asm, flags, config, frame } = emission;
    if ((flags & INDIRECT) !== 0) emitCfi(asm, config);
    else accountCallDepth(emission);
    asm.push(rbp);
    asm.mov(rbp, rsp);
    if (frame.size > 127) asm.aluImm32('sub', rsp, frame.size, 'the frame');
    else asm.aluImm8('sub', rsp, frame.size, 'the frame');
    if (frame.tailCall !== undefined) asm.push(rax, 'tail call count');
    asm.mov(slot(frame.savedRbx), rbx, "start time lives in rbx; keep the caller's");
  }),

  saveArgs: piece('save_args', (emission) => {
    const { asm, frame } = emission;
    for (const word of frame.words) {
      if (word.reg === undefined) copyWord(emission, word.slot, word);
      else asm.mov(word.slot, word.reg, word.note);
    }
    cleanGarbage(emission, (word) => word.slot);
  }),

  passArgs: (emission) => {
    emission.rev.restoreArgs(emission);
    passStackArgs(emission);
    reloadTailCall(emission);
  },

  bindFexit: piece('emit_align', ({ asm, doFexit }) => {
    fillNops(asm, -asm.offset & 15, LONG_NOPS, 'branch target on 16 bytes of the scratch memory');
    asm.bind(doFexit);
  }),

  epilogue: piece('epilogue', (emission) => {
    const { asm, rev, flags, frame } = emission;
    if (frame.hasReturnValue) asm.mov(rax, frame.returnValue, 'the traced function returns this');
    asm.mov(rbx, slot(frame.savedRbx));
    asm.leave64();
    if ((flags & SKIP_FRAME) !== 0) asm.aluImm8('add', rsp, WORD, 'skip the traced function itself');
    rev.ret(emission);
  }),

  call: (emission, target, name) => {
    accountCallDepth(emission, target);
    emission.asm.call(target, name);
  },

  movPtr: movPtrSignExtended,
  delivery: { inPlace: false, spareBytes: 64, sizeQuery: true },
};

/**
 * Hands out registers and stack words in the order of the arguments. One that does not fit whole into the
 * registers left comes on the stack; a smaller one behind it may still have a register.
 */
function placeWords(
  argSizes: readonly number[],
  slotOf: (index: number) => Mem,
  notes: readonly string[],
): ArgWord[] {
  const words: ArgWord[] = [];
  let regs = 0;
  let stack = 0;
  for (const size of argSizes) {
    const fits = regs + wordsOf(size) <= ARG_REGS.length;
    for (let offset = 0; offset < size; offset += WORD) {
      const slot = slotOf(words.length);
      const note = notes[words.length] as string;
      words.push(fits ? { slot, note, reg: ARG_REGS[regs++] as Reg } : { slot, note, index: stack++ });
    }
  }
  return words;
}

/** Room for what the original finds on its stack, and the word that puts rsp on 16 bytes. */
function outgoingBytes(above: number, nrStackWords: number, flags: number): number {
  if ((flags & CALL_ORIG) === 0 || nrStackWords === 0) return 0;
  const bytes = WORD * nrStackWords;
  return (above + bytes) % 16 === 0 ? bytes + WORD : bytes;
}

/** The original's stack arguments, once more from its caller's frame: what programs did to ctx does not count. */
const passStackArgs = piece('prepare_origin_stack', (emission: Emission) => {
  const { stackWords, size } = emission.frame;
  const outgoing = ({ index }: StackWord): Mem => frameSlot(WORD * index - size);
  for (const word of stackWords) copyWord(emission, outgoing(word), word);
  cleanGarbage(emission, outgoing);
});

function copyWord({ asm }: Emission, to: Mem, { index, note }: StackWord): void {
  asm.mov(rax, frameSlot(CALLER_STACK + WORD * index));
  asm.mov(to, rax, note);
}

/**
 * A lone word from the stack may have garbage in its upper half, which is cleared when the last argument has 4
 * bytes or less: literally the last, whichever it was that came from the stack. Kernel: clean_stack_garbage
 */
function cleanGarbage({ asm, request, frame }: Emission, copyOf: (word: StackWord) => Mem): void {
  const [only, ...more] = frame.stackWords;
  if (only === undefined || more.length > 0 || (request.argSizes.at(-1) ?? 0) > 4) return;
  asm.movImm(dword(frameSlot(copyOf(only).disp + 4)), 0, 'no garbage above 4 bytes');
}

/**
 * Counts a call before it is made, unless its target does so itself; without a target, the call that led here.
 * Kernel: x86_call_depth_emit_accounting. Built from reading; no vector covers it.
 */
function accountCallDepth({ asm, config }: Emission, target?: bigint): void {
  const { callDepth } = config;
  if (callDepth === undefined || callDepth.thunks?.some((thunk) => thunk === target) === true) return;
  asm.shiftImm8('sar', qword(gsRip(callDepth.counter, 'pcpu_hot+X86_call_depth')), 5, 'call depth');
}
