import { type Kaddr } from '../lib/index.ts';
import { FtraceCaller } from './ftrace-caller.ts';
import type { Kernel } from './kernel.ts';
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
export declare function livepatch(kernel: Kernel, addr: Kaddr, newFunc: Kaddr): Livepatch;
export declare class Livepatch {
    #private;
    /** @param caller registered at the site */
    constructor(kernel: Kernel, site: Kaddr, caller: FtraceCaller);
    /** Has the function itself run again. @throws KernelError when its site cannot be patched. Kernel: klp_unpatch_func */
    remove(): void;
}
