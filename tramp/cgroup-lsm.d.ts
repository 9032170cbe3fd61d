import type { FuncModel } from '../obj/index.ts';
import type { Kernel } from './kernel.ts';
import { BpfProg } from './prog.ts';
import { type AttachTarget, type Trampoline } from './trampoline.ts';
/** The runners: where the cgroup is found that decides. */
declare const RUNNERS: readonly ['__cgroup_bpf_run_lsm_current', '__cgroup_bpf_run_lsm_socket', '__cgroup_bpf_run_lsm_sock'];
export type CgroupRunner = (typeof RUNNERS)[number];
/** By the hook's first argument. Kernel: bpf_lsm_find_cgroup_shim, kernel/bpf/bpf_lsm.c */
export declare function cgroupRunner({ args: [first] }: FuncModel): CgroupRunner;
export declare class CgroupLsm {
    #private;
    constructor(kernel: Kernel);
    /** Shims that are linked. */
    get shims(): number;
    /** The references to the shim of a hook; 0 without one. */
    references(tr: Trampoline): number;
    /**
     * Attaches a program of type `lsm_cgroup` to a hook. On error everything is as before.
     * @throws InputError for another type, or in a revision without them; KernelError what `linkProg` meets
     * Kernel: __cgroup_bpf_attach, bpf_trampoline_link_cgroup_shim
     */
    attach(prog: BpfProg, key: bigint, target: AttachTarget): Trampoline;
    /** Detaches it. @throws KernelError what `unlinkProg` meets when it was the last. Kernel: bpf_trampoline_unlink_cgroup_shim */
    detach(prog: BpfProg, key: bigint): void;
}
export {};
