/* Linux v5.13. */

import { TrampFlag } from '../../jit/index.ts';
import type { ManagerRules } from './rules.ts';

const { CALL_ORIG, RESTORE_REGS, SKIP_FRAME } = TrampFlag;

export const v5_13: ManagerRules = {
  name: 'v5.13',

  counted: ['fentry', 'fexit'],
  blocksReplacement: ['fentry', 'fexit'],
  // a program's node is in one list at a time
  alreadyLinked: ({ prog }) => prog.linked,
  guardsReplaced: false,
  cookies: false,
  refuseModel: ({ args }) => {
    const struct = args.find((arg) => arg.struct === true);
    return struct === undefined ? undefined : `${struct.type} by value: traced from v6.1 on`;
  },
  warnsOnPut: ['fentry', 'fexit'],

  // no program is asked for IP_ARG
  flags: ({ callsOriginal }) => (callsOriginal ? CALL_ORIG | SKIP_FRAME : RESTORE_REGS),
  keepsFlags: false,
  numbersImages: true,
  imageMemory: 'page',
  chargeUnitBytes: 4096,

  cgroupShims: false,
  structOps: undefined,

  ftrace: 'direct',
  siteAnywhere: false,
  looksAtFilter: false,
  moduleHeldBy: 'entry',

  waitsBeforeKill: ({ preemption }) => preemption,
};
