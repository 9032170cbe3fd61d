/*
 * A live patch of one function: an ftrace user that decides which function runs behind a site, and so the
 * IPMODIFY user that trampolines of v6.1 and later share their sites with.
 */
import { InputError, KernelError } from '../lib/index.js';
import { FtraceCaller } from './ftrace-caller.js';
/**
 * Has another function run in place of one, from its next call on. Traced functions stay traced: programs see
 * the calls of the other function.
 *
 * @param addr the function, which has an ftrace site
 * @param newFunc runs in its place, with the same arguments
 * @throws KernelError EINVAL no site; EBUSY patched already, or traced in a revision that cannot share
 * @returns the patch
 *
 * Kernel: klp_patch_func, kernel/livepatch/patch.c
 */
export function livepatch(kernel, addr, newFunc) {
    const hit = kernel.kallsyms.lookup(addr);
    const name = hit?.ksym.name ?? 'function';
    const { ftrace, kallsyms, machine } = kernel;
    const site = ftrace.location(addr) ??
        (hit === undefined ? undefined : ftrace.locationWithin(addr, hit.ksym.sizeBytes));
    if (site === undefined)
        throw new KernelError('EINVAL', 'klp_patch_func', `${name} has no trace site`);
    const caller = new FtraceCaller(machine, kallsyms, name, newFunc);
    try {
        ftrace.registerIpmodify(site, caller);
    }
    catch (error) {
        caller.free();
        throw error;
    }
    return new Livepatch(kernel, site, caller);
}
export class Livepatch {
    #kernel;
    #site;
    #caller;
    /** @param caller registered at the site */
    constructor(kernel, site, caller) {
        this.#kernel = kernel;
        this.#site = site;
        this.#caller = caller;
    }
    /** Has the function itself run again. @throws KernelError when its site cannot be patched. Kernel: klp_unpatch_func */
    remove() {
        const { ftrace, grace } = this.#kernel;
        const caller = this.#caller;
        if (caller === undefined)
            throw new InputError('livepatch', undefined, 'it is removed already');
        ftrace.unregisterIpmodify(this.#site, caller);
        this.#caller = undefined;
        // tasks may be in it, preempted
        grace.callRcuTasks(() => caller.free());
    }
}
//# sourceMappingURL=livepatch.js.map