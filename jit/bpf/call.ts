/** Calls of helpers, kernel functions and other functions of the program: all are one `call`. */

import { addrAdd, hex64 } from '../../lib/index.ts';
import { ptr, rax, rbp } from '../x86/operand.ts';
import { type InsnEmitter, JitRefusal } from './context.ts';

/** @throws JitRefusal for a call that the verifier has left open. */
export const call: InsnEmitter = (jit, { imm }) => {
  const { asm, config, frame, rev } = jit;
  if (frame.tailCallReachable)
    asm.mov(rax, ptr(rbp, rev.tailCallSlot(jit), 'disp32'), 'for tail calls below');
  if (imm === 0) throw new JitRefusal('call of nothing');
  const target = addrAdd(config.callBase, imm);
  asm.call(target, asm.record ? hex64(target) : 'callee');
};
