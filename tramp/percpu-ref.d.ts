import type { Machine } from '../emu/index.ts';
import { type Kaddr } from '../lib/index.ts';
import { type KernelBugs } from './bugs.ts';
import type { GracePeriods } from './rcu.ts';
/**
 * A reference count that is cheap to take on every CPU until it is killed.
 * Kernel: lib/percpu-refcount.c
 */
export declare class PercpuRef {
    #private;
    /**
     * @param address the struct percpu_ref in guest memory
     * @param release called once, when the last reference is gone after kill(). Kernel: percpu_ref_init
     */
    constructor(machine: Machine, grace: GracePeriods, address: Kaddr, release: () => void, bugs?: KernelBugs);
    get state(): 'percpu' | 'dead' | 'atomic' | 'released';
    /**
     * Drops the owner's reference and has gets and puts count atomically; release follows once all others
     * are dropped too. Kernel: percpu_ref_kill
     */
    kill(): void;
    /** A guest has dropped the last reference, and nobody has looked yet. */
    get wantsRelease(): boolean;
    /** Fires release when a guest dropped the last reference. */
    poll(): void;
    /** References held now, the owner's included. */
    references(): bigint;
    /** Frees the counters. Kernel: percpu_ref_exit */
    exit(): void;
}
