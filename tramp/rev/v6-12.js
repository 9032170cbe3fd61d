/*
 * Linux v6.12: v6.1, and
 *   + images of the size that they need, in memory that they share; written elsewhere and copied in
 *   + structs of operations in up to eight pages, a symbol for each member
 *   + a site that cannot be filtered for is an error of its own
 *   + a program keeps the module of the function that it traces
 *   + what is waited for follows CONFIG_TASKS_RCU
 */
import { TrampFlag } from '../../jit/index.js';
import { v6_1 } from './v6-1.js';
const { INDIRECT, RET_FENTRY_RET } = TrampFlag;
export const v6_12 = {
    ...v6_1,
    name: 'v6.12',
    imageMemory: 'pack',
    structOps: {
        flags: (hasResult) => INDIRECT | (hasResult ? RET_FENTRY_RET : 0),
        namesStub: true,
        asksSize: true,
        mostPages: 8,
        charged: true,
        ownSymbols: true,
    },
    looksAtFilter: true,
    moduleHeldBy: 'program',
    waitsBeforeKill: ({ tasksRcu }) => tasksRcu,
};
//# sourceMappingURL=v6-12.js.map