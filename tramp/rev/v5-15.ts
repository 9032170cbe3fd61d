/* Linux v5.15: v5.13, and each program is asked whether it wants the traced function's address. */

import { TrampFlag } from '../../jit/index.ts';
import type { ManagerRules } from './rules.ts';
import { v5_13 } from './v5-13.ts';

export const v5_15: ManagerRules = {
  ...v5_13,
  name: 'v5.15',
  flags: (question) => v5_13.flags(question) | (question.wantsIp ? TrampFlag.IP_ARG : 0),
};
