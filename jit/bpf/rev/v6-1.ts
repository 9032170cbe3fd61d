/*
 * Linux v6.1 (as of 6.1.192): v5.15, and
 *   + multiplication by imul; division saves no more than it must
 *   + 33 tail calls; the count is found where it lies
 *   + ENDBR where the function is called and where tail calls enter
 *   + jumps and returns by thunks, int3 behind them, a barrier for the branch history: as the CPU wants it
 *   + gotol; a short jump reaches no further than 123 forward
 *   - atomic sub
 */

import { ENDBR, ENDBR_BYTES } from '../../endbr.ts';
import { rax, rcx } from '../../x86/operand.ts';
import { piece } from '../../x86/step.ts';
import { atomic, SIMPLE_ATOMICS } from '../atomic.ts';
import type { BpfJitRevision, JitPass, JitPiece, Opcodes } from '../context.ts';
import { EX_TYPE_BPF } from '../extable.ts';
import * as op from '../insn.ts';
import { jaLong } from '../jump.ts';
import { div, imulImm, imulReg } from '../mul-div.ts';
import { bothWidths, wordSizes } from '../opcodes.ts';
import { TAIL_CALL_LIMIT, type TailCallParts, tailCall } from '../tail-call.ts';
import { countInFrame, tailCallParts, v5_15 } from './v5-15.ts';

export const divRows = (options: { readonly signs: boolean }): Opcodes => ({
  ...bothWidths(op.BPF_DIV | op.BPF_X, div('quotient', 'reg', options)),
  ...bothWidths(op.BPF_DIV | op.BPF_K, div('quotient', 'imm', options)),
  ...bothWidths(op.BPF_MOD | op.BPF_X, div('remainder', 'reg', options)),
  ...bothWidths(op.BPF_MOD | op.BPF_K, div('remainder', 'imm', options)),
});

const parts: TailCallParts = { ...tailCallParts, checkCount: countInFrame(TAIL_CALL_LIMIT, 'ae') };

const endbr: JitPiece = ({ asm, config }) => {
  if (config.ibt) asm.raw(ENDBR);
};

export const v6_1: BpfJitRevision = {
  ...v5_15,
  opcodes: {
    ...v5_15.opcodes,
    ...bothWidths(op.BPF_MUL | op.BPF_X, imulReg),
    ...bothWidths(op.BPF_MUL | op.BPF_K, imulImm),
    ...divRows({ signs: false }),
    ...wordSizes(op.BPF_STX | op.BPF_ATOMIC, atomic(SIMPLE_ATOMICS)),
    [op.BPF_JMP32 | op.BPF_JA]: jaLong,
    [op.BPF_JMP | op.BPF_TAIL_CALL]: tailCall(parts),
  },
  shortJumpMax: 123,

  entry: endbr,
  tailCallEntry: endbr,

  bhbBarrier: piece('emit_spectre_bhb_barrier', ({ asm, config, program }: JitPass) => {
    if (!program.wasClassic || config.capSysAdmin) return;
    if (config.bhbLoop) {
      asm.push(rax);
      asm.push(rcx);
      asm.call(config.thunks.clearBhbLoop, 'clear_bhb_loop');
      asm.pop(rcx);
      asm.pop(rax);
    }
    if ((config.bhbLoop && config.hypervisor) || config.bhbHw) asm.raw(IBHF, 'branch history fence');
  }),

  ret: piece('emit_return', ({ asm, config }: JitPass) => {
    if (config.rethunk) {
      asm.jmp(config.thunks.return, '__x86_return_thunk');
      return;
    }
    asm.ret();
    if (config.sls) asm.int3();
  }),

  tailCallOffset: ({ ibt }) => 11 + (ibt ? ENDBR_BYTES : 0),
  tailCallSlot: ({ frame }) => -8 - frame.stackBytes,

  jumpRcx: piece('emit_indirect_jump', ({ asm, config }: JitPass) => {
    const { thunks } = config;
    if (config.its) asm.jmp(thunks.itsRcx, '__x86_indirect_its_thunk_rcx');
    else if (config.retpolineLfence) {
      asm.lfence();
      asm.jmpIndirect(rcx);
    } else if (config.retpoline) asm.jmp(thunks.indirectRcx, '__x86_indirect_thunk_rcx');
    else {
      asm.jmpIndirect(rcx);
      if (config.sls) asm.int3();
    }
  }),

  exHandler: () => EX_TYPE_BPF,
};

/** A fence for indirect branch history; a nop on CPUs that do not know it. */
const IBHF: readonly number[] = [0xf3, 0x48, 0x0f, 0x1e, 0xf8];
