import { KernelError } from '../lib/index.js';
/**
 * The errno of each, in the order in which an attach meets them. Those that not every revision passes:
 * `alloc-ops` and `filter` (v6.1 on, where ftrace has the site), `size` and `protect` (v6.12).
 */
export const FAIL_POINTS = {
    'alloc-trampoline': 'ENOMEM',
    'alloc-ops': 'ENOMEM',
    'alloc-progs': 'ENOMEM',
    size: 'EFAULT',
    'alloc-im': 'ENOMEM',
    charge: 'EPERM',
    'alloc-image': 'ENOMEM',
    'percpu-ref': 'ENOMEM',
    emit: 'EFAULT',
    protect: 'EINVAL',
    filter: 'ENOMEM',
    register: 'EBUSY',
    modify: 'ENODEV',
    'ftrace-hash': 'ENOMEM',
    unregister: 'ENODEV',
    poke: 'EBUSY',
};
/** Makes chosen places fail once. Kernel: fault injection, lib/fault-inject.c */
export class FailPoints {
    #armed = new Map();
    /** The `nth` time from now (1 is the next) that this place is passed, it fails. */
    arm(point, nth = 1) {
        this.#armed.set(point, nth);
    }
    disarm() {
        this.#armed.clear();
    }
    /** @throws KernelError when this is the time */
    pass(point) {
        const left = this.#armed.get(point);
        if (left === undefined)
            return;
        if (left > 1) {
            this.#armed.set(point, left - 1);
            return;
        }
        this.#armed.delete(point);
        throw new KernelError(FAIL_POINTS[point], point, 'injected failure');
    }
}
//# sourceMappingURL=failpoints.js.map