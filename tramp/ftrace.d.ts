import type { Machine } from '../emu/index.ts';
import { type Kaddr } from '../lib/index.ts';
import { type KernelBugs } from './bugs.ts';
import { FailPoints } from './failpoints.ts';
import type { FtraceCaller } from './ftrace-caller.ts';
import type { TextPoker } from './text-poke.ts';
/** What ftrace tells a user whose site somebody else wants too. Kernel: enum ftrace_ops_cmd */
export type FtraceCommand = 'ENABLE_SHARE_IPMODIFY_SELF' | 'ENABLE_SHARE_IPMODIFY_PEER' | 'DISABLE_SHARE_IPMODIFY_PEER';
/** A user of direct calls (v6.1). Kernel: struct ftrace_ops */
export interface FtraceOps {
    readonly name: string;
    /** The sites that it traces. */
    readonly filter: Set<Kaddr>;
    /** @throws KernelError EAGAIN when the answer takes something first, EBUSY. Kernel: ops->ops_func */
    readonly command: (command: FtraceCommand) => void;
}
/**
 * ftrace's site table and its direct calls: a registered site calls one trampoline, an unregistered
 * one is a 5-byte nop. An IPMODIFY user, a live patch, may have the site too: then it calls code of ftrace's
 * (ftrace-caller.ts) that does both.
 *
 * Simplified: no other users; a site has one IPMODIFY user at most, which has one site.
 *
 * Kernel: kernel/trace/ftrace.c
 */
export declare class Ftrace {
    #private;
    constructor(machine: Machine, text: TextPoker, fail?: FailPoints, bugs?: KernelBugs);
    /** Takes over a site at load time: whatever call or nop the compiler left becomes the nop. Kernel: ftrace_process_locs */
    addSite(ip: Kaddr): void;
    /** Forgets a site whose text goes away. Kernel: ftrace_release_mod */
    removeSite(ip: Kaddr): void;
    /** The site whose five bytes hold `ip`, or undefined. Kernel: ftrace_location_range */
    location(ip: Kaddr): Kaddr | undefined;
    /** The first site in a function. Kernel: ftrace_location (v6.1) */
    locationWithin(start: Kaddr, sizeBytes: number): Kaddr | undefined;
    /** Where a site's direct call goes now. */
    direct(ip: Kaddr): Kaddr | undefined;
    /**
     * @param ops whose call it is (v6.1)
     * @throws KernelError EBUSY when the site has a direct call, ENODEV when `ip` is no site, EINVAL when the ops
     *   trace none, EAGAIN when they want to think again because of an IPMODIFY user
     *
     * Kernel: register_ftrace_direct; register_ftrace_direct_multi (v6.1)
     */
    registerDirect(ip: Kaddr, target: Kaddr, ops?: FtraceOps): void;
    /**
     * @param locks false for a user that was asked by ftrace, which holds the mutex
     * @throws KernelError ENODEV when `ip` is no site or does not call `old`
     * Kernel: modify_ftrace_direct; modify_ftrace_direct_multi, modify_ftrace_direct_multi_nolock (v6.1)
     */
    modifyDirect(ip: Kaddr, old: Kaddr, target: Kaddr, locks?: boolean): void;
    /** @throws KernelError ENODEV when `ip` is no site or does not call `old`. Kernel: unregister_ftrace_direct */
    unregisterDirect(ip: Kaddr, old: Kaddr): void;
    /**
     * Has another function run behind a site. A direct call that is there is asked first.
     * @param caller what the site shall call
     * @throws KernelError EBUSY when there is an IPMODIFY user, or a direct call of somebody who cannot be asked;
     *   ENODEV when `ip` is no site; what making room for it met
     *
     * Kernel: register_ftrace_function with FTRACE_OPS_FL_IPMODIFY; prepare_direct_functions_for_ipmodify
     */
    registerIpmodify(ip: Kaddr, caller: FtraceCaller): void;
    /**
     * The opposite. The direct call's user is told, and may answer as it likes.
     * @throws KernelError ENODEV when the site is none of that caller's
     * Kernel: unregister_ftrace_function; cleanup_direct_functions_after_ipmodify
     */
    unregisterIpmodify(ip: Kaddr, caller: FtraceCaller): void;
}
