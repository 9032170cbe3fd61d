/*
 * Linux v6.1: v5.15, and
 *   + links with cookies in the lists: a program may be attached in several places
 *   + all kinds count against the limit, keep freplace out, and are warned of by the last put
 *   + structs of up to 16 bytes as arguments
 *   + freplace leaves programs alone that are in a prog array
 *   + flags stay with the trampoline; the original is called by its return address beside an IPMODIFY user
 *   + an ftrace user of its own for each trampoline; sites behind an ENDBR
 *   + images charged by bytes
 *   + LSM programs of cgroups
 *   - images have no number
 */

import { TrampFlag } from '../../jit/index.ts';
import { PROG_KINDS } from '../prog.ts';
import type { ManagerRules } from './rules.ts';
import { v5_15 } from './v5-15.ts';

const { CALL_ORIG, ORIG_STACK, RET_FENTRY_RET, SHARE_IPMODIFY, TAIL_CALL_CTX } = TrampFlag;

export const v6_1: ManagerRules = {
  ...v5_15,
  name: 'v6.1',

  counted: PROG_KINDS,
  blocksReplacement: PROG_KINDS,
  alreadyLinked: (link, list) => link.linked || list.some(({ prog }) => prog === link.prog),
  guardsReplaced: true,
  cookies: true,
  refuseModel: () => undefined,
  warnsOnPut: PROG_KINDS,

  flags: (question) => {
    const kept = question.kept & (SHARE_IPMODIFY | TAIL_CALL_CTX);
    const flags = kept | v5_15.flags(question);
    const shared = (flags & SHARE_IPMODIFY) !== 0 && (flags & CALL_ORIG) !== 0;
    return shared ? flags | ORIG_STACK : flags;
  },
  keepsFlags: true,
  numbersImages: false,
  chargeUnitBytes: 1,

  cgroupShims: true,
  structOps: {
    flags: (hasResult) => (hasResult ? RET_FENTRY_RET : 0),
    namesStub: false,
    asksSize: false,
    mostPages: 1,
    charged: false,
    ownSymbols: false,
  },

  ftrace: 'ops',
  siteAnywhere: true,
};
