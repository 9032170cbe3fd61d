import { type ErrnoName } from '../lib/index.ts';
/** A place where the kernel can fail. */
export type FailPoint = 'alloc-trampoline' | 'alloc-ops' | 'alloc-progs' | 'size' | 'alloc-im' | 'charge' | 'alloc-image' | 'percpu-ref' | 'emit' | 'protect' | 'filter' | 'register' | 'modify' | 'ftrace-hash' | 'unregister' | 'poke';
/**
 * The errno of each, in the order in which an attach meets them. Those that not every revision passes:
 * `alloc-ops` and `filter` (v6.1 on, where ftrace has the site), `size` and `protect` (v6.12).
 */
export declare const FAIL_POINTS: Readonly<Record<FailPoint, ErrnoName>>;
/** Makes chosen places fail once. Kernel: fault injection, lib/fault-inject.c */
export declare class FailPoints {
    #private;
    /** The `nth` time from now (1 is the next) that this place is passed, it fails. */
    arm(point: FailPoint, nth?: number): void;
    disarm(): void;
    /** @throws KernelError when this is the time */
    pass(point: FailPoint): void;
}
