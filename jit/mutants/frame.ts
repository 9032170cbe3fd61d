/* Frames that are torn down wrongly, too small, or used a word off. */

import { frameSlot } from '../kernel-encoding.ts';
import { TrampFlag } from '../request.ts';
import { Mem, type Reg, rax, rbp, rbx, rcx, rsp } from '../x86/operand.ts';
import { type Change, type Editing, inPiece, without, withSlots } from './edit.ts';
import type { EmitterMutant } from './mutant.ts';

const WORD = 8;
/** [rbp - 8], in whatever width. */
const RESULT_SLOT = frameSlot(-WORD);

const skips = (flags: number): boolean => (flags & TrampFlag.SKIP_FRAME) !== 0;

/** The operand, one word further up, where it is one of the frame's. */
function wordUp<Operand extends Reg | Mem>(operand: Operand): Operand | Mem {
  return operand instanceof Mem && operand.base === rbp
    ? new Mem({ ...operand, disp: operand.disp + WORD })
    : operand;
}

/** Moves between registers and the frame that are a word off where `when` says so; `count` numbers the moves. */
function movesWordUp(when: (dst: Reg | Mem, src: Reg | Mem, count: number) => boolean): Editing {
  return (asm) => {
    let count = 0;
    return {
      mov: (dst, src, note) => {
        if (when(dst, src, count++)) asm.mov(wordUp(dst), wordUp(src), note);
        else asm.mov(dst, src, note);
      },
      movzx: (dst, src, from, note) => {
        if (when(dst, src, count++)) asm.movzx(dst, wordUp(src), from, note);
        else asm.movzx(dst, src, from, note);
      },
    };
  };
}

const always = (): boolean => true;
const stores = (dst: Reg | Mem, src: Reg | Mem): boolean => dst instanceof Mem && src === rax;

/** Another amount taken off rsp for the frame. */
function frameTaken(bytes: (size: number) => number): Change {
  return inPiece('prologue', (asm) => ({
    aluImm8: (op, dst, value, note) =>
      asm.aluImm8(op, dst, op === 'sub' && dst === rsp ? bytes(value) : value, note),
    aluImm32: (op, dst, value, note) =>
      asm.aluImm32(op, dst, op === 'sub' && dst === rsp ? bytes(value) : value, note),
  }));
}

export const FRAME_MUTANTS: readonly EmitterMutant[] = [
  {
    id: 'frame-pop-missing',
    what: 'the saved rbx is dropped with the frame instead of being restored',
    apply: inPiece('epilogue', (asm) => ({
      pop: () => undefined,
      mov: (dst, src, note) => (dst === rbx ? undefined : asm.mov(dst, src, note)),
    })),
  },
  {
    id: 'frame-leave-missing',
    what: 'no leave: the return takes a word of the frame for its address',
    apply: inPiece('epilogue', () => ({ leave64: () => undefined })),
  },
  {
    id: 'frame-leave-without-pop',
    what: "rsp is put back to rbp, and the caller's rbp stays on the stack",
    apply: inPiece('epilogue', (asm) => ({ leave64: (note) => asm.mov(rsp, rbp, note) })),
  },
  {
    id: 'frame-skip-missing',
    what: 'the traced function is returned into although the image has called it',
    apply: inPiece('epilogue', (asm) => ({
      aluImm8: (op, dst, value, note) => (op === 'add' ? undefined : asm.aluImm8(op, dst, value, note)),
    })),
  },
  {
    id: 'frame-skip-extra',
    what: 'the traced function is skipped although the image has not called it',
    apply: inPiece('epilogue', (asm, { flags }) => ({
      leave64: (note) => {
        asm.leave64(note);
        if (!skips(flags)) asm.aluImm8('add', rsp, WORD);
      },
    })),
  },
  {
    id: 'frame-skip-twice',
    what: 'two return addresses are skipped',
    apply: inPiece('epilogue', (asm) => ({
      aluImm8: (op, dst, value, note) => asm.aluImm8(op, dst, op === 'add' ? 2 * value : value, note),
    })),
  },
  {
    id: 'frame-word-short',
    what: 'the frame is one word short: what is pushed next lands in its last slot',
    apply: frameTaken((size) => size - WORD),
  },
  {
    id: 'frame-word-long',
    what: 'the frame is one word long: everything is called at another stack alignment',
    apply: frameTaken((size) => size + WORD),
  },
  {
    id: 'frame-not-taken',
    what: 'rsp is never lowered: the frame lies below it',
    apply: frameTaken(() => 0),
  },
  {
    id: 'frame-written-before-taken',
    what: 'arguments are stored before rsp is lowered: for a moment the frame lies below it',
    apply: (revision) => {
      const storeThenTake = inPiece('prologue', (asm, emission) => {
        const taking =
          (method: 'aluImm8' | 'aluImm32'): (typeof asm)['aluImm8'] =>
          (op, dst, value, note) => {
            if (op === 'sub' && dst === rsp) revision.saveArgs({ ...emission, asm });
            asm[method](op, dst, value, note);
          };
        return { aluImm8: taking('aluImm8'), aluImm32: taking('aluImm32') };
      });
      return without('saveArgs')(storeThenTake(revision));
    },
  },
  {
    id: 'frame-first-argument-saved-high',
    what: 'argument 0 is stored one word further up',
    apply: inPiece(
      'saveArgs',
      movesWordUp((_dst, _src, count) => count === 0),
    ),
  },
  {
    id: 'frame-arguments-saved-high',
    what: 'all arguments are stored one word further up',
    apply: inPiece('saveArgs', movesWordUp(always)),
  },
  {
    id: 'frame-first-argument-restored-high',
    what: 'argument 0 is reloaded from one word further up',
    apply: inPiece(
      'restoreArgs',
      movesWordUp((_dst, _src, count) => count === 0),
    ),
  },
  {
    id: 'frame-arguments-restored-high',
    what: 'all arguments are reloaded from one word further up',
    apply: inPiece('restoreArgs', movesWordUp(always)),
  },
  {
    id: 'frame-original-result-kept-high',
    what: 'the result of the original is stored over the saved rbp',
    apply: inPiece('callOriginal', movesWordUp(stores)),
  },
  {
    id: 'frame-program-result-kept-high',
    what: 'the value of a program is stored over the saved rbp',
    apply: inPiece('invokeProg', movesWordUp(stores)),
  },
  {
    id: 'frame-result-reloaded-high',
    what: 'the saved rbp is returned as the result',
    apply: inPiece(
      'epilogue',
      movesWordUp((dst) => dst === rax),
    ),
  },
  {
    id: 'frame-one-slot-shared',
    what: 'argument 0 and the result share a slot',
    apply: withSlots(
      (slot, frame) => (index) => (index === 0 && frame.hasReturnValue ? RESULT_SLOT : slot(index)),
    ),
  },
  {
    id: 'frame-word-pushed-extra',
    what: 'one more word is pushed than popped: rbx comes back as rcx',
    // v6.12 keeps rbx in the frame.
    revisions: ['v5.13', 'v5.15', 'v6.1'],
    apply: inPiece('prologue', (asm) => ({
      push: (reg, note) => {
        asm.push(reg, note);
        if (reg === rbx) asm.push(rcx);
      },
    })),
  },
];
