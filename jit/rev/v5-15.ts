/*
 * Linux v5.15: v5.13, and
 *   + the traced function's address, one word below argument 0, when a program asks for it (IP_ARG)
 *   + struct_ops members return what their program returned (RET_FENTRY_RET)
 */

import { TrampFlag } from '../request.ts';
import { ptr, rax, rbp } from '../x86/operand.ts';
import { piece } from '../x86/step.ts';
import type { Revision } from './revision.ts';
import { layoutFrame, v5_13 } from './v5-13.ts';

const { IP_ARG, RET_FENTRY_RET, CALL_ORIG } = TrampFlag;

export const v5_15: Revision = {
  ...v5_13,
  name: 'v5.15',
  knownFlags: v5_13.knownFlags | IP_ARG | RET_FENTRY_RET,

  refuse: (request, flags) => {
    const alone = (flags & RET_FENTRY_RET) === 0 || request.flags === RET_FENTRY_RET;
    const older = v5_13.refuse(request, flags);
    return older ?? (alone ? undefined : { code: 'EINVAL', why: 'RET_FENTRY_RET excludes every other flag' });
  },

  frame: (request, flags) =>
    layoutFrame(
      request.argSizes.length,
      (flags & (CALL_ORIG | RET_FENTRY_RET)) !== 0,
      (flags & IP_ARG) !== 0,
    ),

  funcIp: piece('func_ip', ({ asm, frame }) => {
    if (frame.funcIp === undefined) return;
    asm.mov(rax, ptr(rbp, 8), 'return address into the traced function');
    asm.aluImm8('sub', rax, 5, 'less the call: its entry');
    asm.mov(frame.funcIp, rax, 'for bpf_get_func_ip');
  }),

  fentry: piece('fentry', (emission) => {
    const keepReturn = (emission.flags & RET_FENTRY_RET) !== 0;
    for (const prog of emission.request.fentry) emission.rev.invokeProg(emission, { prog, keepReturn });
  }),
};
