/* Linux v5.15: v5.13, and each program is asked whether it wants the traced function's address. */
import { TrampFlag } from '../../jit/index.js';
import { v5_13 } from './v5-13.js';
export const v5_15 = {
    ...v5_13,
    name: 'v5.15',
    flags: (question) => v5_13.flags(question) | (question.wantsIp ? TrampFlag.IP_ARG : 0),
};
//# sourceMappingURL=v5-15.js.map