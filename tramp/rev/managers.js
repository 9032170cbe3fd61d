import { v5_13 } from './v5-13.js';
import { v5_15 } from './v5-15.js';
import { v6_1 } from './v6-1.js';
import { v6_12 } from './v6-12.js';
/** The manager of each revision. */
export const managers = {
    'v5.13': v5_13,
    'v5.15': v5_15,
    'v6.1': v6_1,
    'v6.12': v6_12,
};
//# sourceMappingURL=managers.js.map