/* Registers that are lost, mixed up, or left as they must not be. */

import { TrampFlag } from '../request.ts';
import {
  type Mem,
  Reg,
  r12,
  r13,
  r14,
  r15,
  rax,
  rbp,
  rbx,
  rcx,
  registers,
  rsi,
  rsp,
} from '../x86/operand.ts';
import { all, before, type Change, inPiece, replacing, withInvocation, within, without } from './edit.ts';
import type { EmitterMutant } from './mutant.ts';

const STD = [0xfd];
const CLD = [0xfc];
const RDI = 7;
const RSI = 6;
const R8 = 8;
const R9 = 9;

/** Another register of the same width in place of one. */
function insteadOf(from: number, to: number): (operand: Reg | Mem) => Reg | Mem {
  return (operand) =>
    operand instanceof Reg && operand.num === from ? (registers(operand.size)[to] as Reg) : operand;
}

/** Two argument registers, one taken for the other, in a piece that saves or restores. */
function swapped(name: 'saveArgs' | 'restoreArgs', one: number, other: number): Change {
  const there = insteadOf(one, other);
  const back = insteadOf(other, one);
  const swap = (operand: Reg | Mem): Reg | Mem => {
    const moved = there(operand);
    return moved === operand ? back(operand) : moved;
  };
  return inPiece(name, (asm) => ({
    mov: (dst, src, note) => asm.mov(swap(dst), swap(src), note),
    movzx: (dst, src, from, note) => asm.movzx(swap(dst) as Reg, src, from, note),
  }));
}

/** r8 without its REX bit is rax. */
function withoutRex(name: 'saveArgs' | 'restoreArgs'): Change {
  const cut = insteadOf(R8, rax.num);
  return inPiece(name, (asm) => ({
    mov: (dst, src, note) => asm.mov(cut(dst), cut(src), note),
    movzx: (dst, src, from, note) => asm.movzx(cut(dst) as Reg, src, from, note),
  }));
}

function forgotten(name: 'saveArgs' | 'restoreArgs', register: number): Change {
  const isIt = (operand: Reg | Mem): boolean => operand instanceof Reg && operand.num === register;
  return inPiece(name, (asm) => ({
    mov: (dst, src, note) => (isIt(dst) || isIt(src) ? undefined : asm.mov(dst, src, note)),
    movzx: (dst, src, from, note) => (isIt(dst) ? undefined : asm.movzx(dst, src, from, note)),
  }));
}

/** The start time kept in a register that the image never saves. */
function startTimeIn(register: Reg): Change {
  return inPiece('invokeProg', (asm) => ({
    mov: (dst, src, note) => {
      if (dst === rbx && src === rax) asm.mov(register, rax, note);
      else if (dst === rsi && src === rbx) asm.mov(rsi, register, note);
      else asm.mov(dst, src, note);
    },
  }));
}

/** The epilogue's reload of rax left out, where the flags are of a kind. */
function resultNotReloaded(when: (flags: number) => boolean): Change {
  return inPiece('epilogue', (asm, { flags }) => ({
    mov: (dst, src, note) => (dst === rax && when(flags) ? undefined : asm.mov(dst, src, note)),
  }));
}

/** v5.13 does not know RET_FENTRY_RET. */
const RETURNS_FENTRY: EmitterMutant['revisions'] = ['v5.15', 'v6.1', 'v6.12'];

const has = (flags: number, flag: number): boolean => (flags & flag) !== 0;

export const REGISTER_MUTANTS: readonly EmitterMutant[] = [
  {
    id: 'reg-rbx-not-saved',
    what: 'rbx holds the start time and was never saved',
    apply: inPiece('prologue', (asm) => ({
      push: (reg, note) => (reg === rbx ? asm.push(rax, note) : asm.push(reg, note)),
      mov: (dst, src, note) => asm.mov(dst, src === rbx ? rax : src, note),
    })),
  },
  {
    id: 'reg-rbx-not-restored',
    what: "the caller's rbx is popped into rcx",
    apply: inPiece('epilogue', (asm) => ({
      pop: (reg, note) => asm.pop(reg === rbx ? rcx : reg, note),
      mov: (dst, src, note) => asm.mov(dst === rbx ? rcx : dst, src, note),
    })),
  },
  ...[r12, r13, r14, r15].map((register) => ({
    id: `reg-${register.name}-not-preserved`,
    what: `the start time is kept in ${register.name}, which is not saved`,
    apply: startTimeIn(register),
  })),
  {
    id: 'reg-rbp-not-restored',
    what: "leave's pop goes into rcx",
    apply: inPiece('epilogue', (asm) => ({
      leave64: () => {
        asm.mov(rsp, rbp);
        asm.pop(rcx);
      },
    })),
  },
  {
    id: 'reg-args-swapped-saving',
    what: 'rdi is saved as argument 1 and rsi as argument 0',
    apply: swapped('saveArgs', RDI, RSI),
  },
  {
    id: 'reg-args-swapped-restoring',
    what: 'argument 0 is reloaded into rsi and argument 1 into rdi',
    apply: swapped('restoreArgs', RDI, RSI),
  },
  {
    id: 'reg-r8-as-rax-saving',
    what: 'r8 is saved without its REX bit, so rax is',
    apply: withoutRex('saveArgs'),
  },
  {
    id: 'reg-r8-as-rax-restoring',
    what: 'r8 is reloaded without its REX bit, so rax is',
    apply: withoutRex('restoreArgs'),
  },
  {
    id: 'reg-r9-forgotten-saving',
    what: 'the sixth argument is not saved',
    apply: forgotten('saveArgs', R9),
  },
  {
    id: 'reg-r9-forgotten-restoring',
    what: 'the sixth argument is not reloaded',
    apply: forgotten('restoreArgs', R9),
  },
  {
    id: 'reg-rax-not-reloaded',
    what: 'the result of the traced function is not loaded before the return',
    apply: resultNotReloaded((flags) => has(flags, TrampFlag.CALL_ORIG)),
  },
  {
    id: 'C4',
    what: 'a struct_ops member does not return what its program returned: rax is not reloaded',
    revisions: RETURNS_FENTRY,
    apply: resultNotReloaded((flags) => has(flags, TrampFlag.RET_FENTRY_RET)),
  },
  {
    id: 'C4-not-kept',
    what: 'a struct_ops member does not return what its program returned: the value is not kept',
    revisions: RETURNS_FENTRY,
    apply: withInvocation((invocation, { flags }) =>
      has(flags, TrampFlag.RET_FENTRY_RET) ? { ...invocation, keepReturn: false } : invocation,
    ),
  },
  {
    id: 'reg-direction-flag-at-return',
    what: 'the direction flag is left set at the return',
    apply: inPiece('epilogue', (asm) => ({
      leave64: (note) => {
        asm.raw(STD);
        asm.leave64(note);
      },
    })),
  },
  {
    id: 'reg-direction-flag-inside',
    what: 'programs and the original run with the direction flag set',
    apply: all(
      inPiece('prologue', (asm) => ({
        push: (reg, note) => {
          asm.raw(STD);
          asm.push(reg, note);
        },
      })),
      inPiece('epilogue', (asm) => ({
        leave64: (note) => {
          asm.raw(CLD);
          asm.leave64(note);
        },
      })),
    ),
  },
  {
    id: 'reg-restored-before-programs',
    what: 'argument registers are reloaded before the programs run, not after',
    apply: all(
      before('fentry', (emission, { restoreArgs }) => {
        if (has(emission.flags, TrampFlag.RESTORE_REGS)) restoreArgs(emission);
      }),
      replacing('restoreArgs', (emission, _, own) => {
        if (has(emission.flags, TrampFlag.CALL_ORIG)) own(emission);
      }),
    ),
  },
  {
    id: 'reg-restored-before-tramp-enter',
    what: 'the original gets its registers from before __bpf_tramp_enter and the programs',
    apply: all(
      before('trampEnter', (emission, { restoreArgs }) => restoreArgs(emission)),
      replacing('callOriginal', (emission, _, own) =>
        within(emission, { rev: without('restoreArgs')(emission.rev) }, own),
      ),
    ),
  },
];
