/* What programs are shown: the context a word off, the function address wrong, arguments in another width. */

import type { TrampolineRequest } from '../request.ts';
import type { Frame } from '../rev/revision.ts';
import type { OpSize } from '../x86/operand.ts';
import { Mem, Reg, rax, rbp, rdi } from '../x86/operand.ts';
import { type Change, inPiece, withFrame, withSlots } from './edit.ts';
import type { EmitterMutant } from './mutant.ts';

const WORD = 8;

/** The context handed to programs of one kind, `words` further up. */
function contextMoved(name: 'fentry' | 'fmodRet' | 'fexit', words: number): Change {
  return inPiece(name, (asm) => ({
    lea: (dst, src, note) =>
      asm.lea(
        dst,
        dst === rdi && src.base === rbp ? new Mem({ ...src, disp: src.disp + WORD * words }) : src,
        note,
      ),
  }));
}

/** Arguments of one width, saved as if they had a smaller one. A larger one is no mistake: v6.1 saves whole words. */
function savedAs(width: OpSize, taken: OpSize): Change {
  return inPiece('saveArgs', (asm) => ({
    mov: (dst, src, note) =>
      asm.mov(dst, src instanceof Reg && src.size === width ? src.as(taken) : src, note),
  }));
}

/** Arguments of one width, reloaded as if they had another. */
function reloadedAs(width: OpSize, taken: 2 | 4 | 8): Change {
  return inPiece('restoreArgs', (asm) => ({
    mov: (dst, src, note) =>
      asm.mov(dst instanceof Reg && dst.size === width ? dst.as(taken) : dst, src, note),
    movzx: (dst, src, from, note) => {
      if (from !== width) asm.movzx(dst, src, from, note);
      else if (taken === 2) asm.movzx(dst, src, 2, note);
      else asm.mov(dst.as(taken), src, note);
    },
  }));
}

/** REX.W movsx reg, reg from 1 or 2 bytes. */
function signExtend(reg: Reg, from: 1 | 2): number[] {
  const rex = 0x48 | (reg.num >= 8 ? 0x05 : 0);
  return [rex, 0x0f, from === 1 ? 0xbe : 0xbf, 0xc0 | ((reg.num & 7) << 3) | (reg.num & 7)];
}

const lastFirst =
  (slot: (index: number) => Mem, { words }: Frame, { argSizes }: TrampolineRequest) =>
  (index: number): Mem =>
    slot(Math.max(words.length, argSizes.length) - 1 - index);

/** v6.1 and later save and reload whole words. */
const BY_WIDTH: EmitterMutant['revisions'] = ['v5.13', 'v5.15'];
/** Later ones write the address down as a constant; v5.13 has none. */
const READS_IP: EmitterMutant['revisions'] = ['v5.15'];
const HAS_IP: EmitterMutant['revisions'] = ['v5.15', 'v6.1', 'v6.12'];

export const CONTEXT_MUTANTS: readonly EmitterMutant[] = [
  ...(['fentry', 'fmodRet', 'fexit'] as const).flatMap((name) => [
    {
      id: `context-word-up-${name}`,
      what: `${name} programs get a context that starts at argument 1`,
      apply: contextMoved(name, 1),
    },
    {
      id: `context-word-down-${name}`,
      what: `${name} programs get a context that starts one word below argument 0`,
      apply: contextMoved(name, -1),
    },
  ]),
  {
    id: 'context-last-first',
    what: 'arguments lie in the context last first',
    apply: withSlots(lastFirst),
  },
  {
    id: 'context-ip-over-argument',
    what: 'the function address and argument 0 share a slot',
    revisions: READS_IP,
    apply: withFrame((frame) => ({ ...frame, funcIp: frame.funcIp && frame.ctx })),
  },
  {
    id: 'context-ip-not-less-5',
    what: 'programs get the return address into the function for its address',
    revisions: READS_IP,
    apply: inPiece('funcIp', () => ({ aluImm8: () => undefined })),
  },
  {
    id: 'context-ip-less-4',
    what: 'the function address is one byte off',
    revisions: READS_IP,
    apply: inPiece('funcIp', (asm) => ({ aluImm8: (op, dst, _, note) => asm.aluImm8(op, dst, 4, note) })),
  },
  {
    id: 'context-ip-of-caller',
    what: "programs get an address in the traced function's caller",
    revisions: READS_IP,
    apply: inPiece('funcIp', (asm) => ({
      mov: (dst, src, note) =>
        asm.mov(
          dst,
          dst === rax && src instanceof Mem ? new Mem({ ...src, disp: src.disp + WORD }) : src,
          note,
        ),
    })),
  },
  {
    id: 'context-ip-missing',
    what: 'the function address is asked for and never stored',
    revisions: HAS_IP,
    apply: inPiece('funcIp', () => ({ mov: () => undefined })),
  },
  ...(
    [
      [8, 4],
      [4, 2],
      [2, 1],
    ] as const
  ).map(([width, taken]) => ({
    id: `width-saved-${width}-as-${taken}`,
    what: `arguments of ${width} bytes are saved with ${taken}`,
    revisions: BY_WIDTH,
    apply: savedAs(width, taken),
  })),
  {
    id: 'width-reloaded-8-as-4',
    what: 'the upper half of 8-byte arguments is lost on the way to the original',
    revisions: BY_WIDTH,
    apply: reloadedAs(8, 4),
  },
  {
    id: 'width-reloaded-4-as-8',
    what: 'stale bytes of the slot come along with 4-byte arguments',
    revisions: BY_WIDTH,
    apply: reloadedAs(4, 8),
  },
  {
    id: 'width-reloaded-2-as-8',
    what: 'stale bytes of the slot come along with 2-byte arguments',
    revisions: BY_WIDTH,
    apply: reloadedAs(2, 8),
  },
  {
    id: 'width-reloaded-1-as-2',
    what: 'a stale byte of the slot comes along with 1-byte arguments',
    revisions: BY_WIDTH,
    apply: reloadedAs(1, 2),
  },
  ...([2, 1] as const).map((width) => ({
    id: width === 2 ? 'C14' : 'C14-byte',
    what: `arguments of ${width === 2 ? '2 bytes' : '1 byte'} are reloaded sign-extended`,
    revisions: BY_WIDTH,
    apply: inPiece('restoreArgs', (asm) => ({
      movzx: (dst, src, from, note) => {
        asm.movzx(dst, src, from, note);
        if (from === width) asm.raw(signExtend(dst, width));
      },
    })),
  })),
];
