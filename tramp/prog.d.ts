import { HelperPair, type ProgRef } from '../jit/index.ts';
import { type Kaddr } from '../lib/index.ts';
import type { FuncModel } from '../obj/index.ts';
import type { Kernel } from './kernel.ts';
import { TrampLink } from './link.ts';
import type { KModule } from './module.ts';
/** Where in a trampoline a program runs. Kernel: enum bpf_tramp_prog_type, its first three. */
export declare const PROG_KINDS: readonly ProgKind[];
export type ProgKind = 'fentry' | 'fmod_ret' | 'fexit';
/** What a program is loaded to be attached as. Kernel: prog->expected_attach_type and its program type */
export declare const ATTACH_KINDS: readonly AttachKind[];
export type AttachKind = ProgKind | 'lsm' | 'freplace';
/**
 * What a program was loaded as, as far as rules look at it. `iter`: a tracing program that is an iterator.
 * `lsm_cgroup`: an LSM program for cgroups. `ext`: a freplace program. `other`: any other type.
 * Kernel: prog->type and prog->expected_attach_type
 */
export type ProgType = 'tracing' | 'iter' | 'lsm' | 'lsm_cgroup' | 'struct_ops' | 'ext' | 'other';
export declare const PROG_TYPES: readonly ProgType[];
/**
 * Which enter and exit functions stand around a program from v6.1 on. One that may not run twice on a CPU is
 * every one but iterators, LSM and struct_ops programs.
 * Kernel: bpf_trampoline_enter, kernel/bpf/trampoline.c; bpf_prog_check_recur, include/linux/bpf_verifier.h
 */
export declare function helperPair(type: ProgType): HelperPair;
export interface ProgOptions {
    readonly name: string;
    readonly kind: AttachKind;
    /** Default what the kind takes. */
    readonly type?: ProgType;
    /** Address of its code. */
    readonly bpfFunc: Kaddr;
    readonly sleepable?: boolean;
    /** It asks for the traced function's address, so its image keeps that. Kernel: prog->call_get_func_ip */
    readonly callsGetFuncIp?: boolean;
    /** False: bpfFunc is an interpreter, and gets the program's instructions as its second argument. Default true. */
    readonly jited?: boolean;
    /** It can end in a tail call, itself or in what it calls. Kernel: prog->aux->tail_call_reachable */
    readonly tailCallReachable?: boolean;
    /** Gives the code back when the program is freed. */
    readonly release?: () => void;
}
/**
 * Which list of a trampoline a program goes to. An LSM program on a hook without result runs behind it,
 * on any other it may replace the result. Kernel: bpf_attach_type_to_tramp
 */
export declare function trampKind(kind: AttachKind, model: FuncModel): ProgKind | 'replace';
/** What a CPU has counted for a program. Runs and time only while statistics are on. */
export interface ProgCounters {
    readonly runs: bigint;
    readonly nsecs: bigint;
    readonly misses: bigint;
    /** How deep the program runs on this CPU now. */
    readonly active: number;
}
/**
 * A loaded program: its struct bpf_prog and per-CPU counters in guest memory, and its code.
 * Starts with one reference, the loader's. Kernel: struct bpf_prog
 */
export declare class BpfProg {
    #private;
    readonly name: string;
    readonly kind: AttachKind;
    readonly type: ProgType;
    readonly sleepable: boolean;
    readonly callsGetFuncIp: boolean;
    readonly jited: boolean;
    readonly tailCallReachable: boolean;
    readonly bpfFunc: Kaddr;
    /** The struct bpf_prog. */
    readonly address: Kaddr;
    /** Its own link, without a cookie; from v6.1 on there may be others. */
    readonly link: TrampLink;
    /** Those of its links that are on a trampoline's list. */
    readonly linkedBy: Set<TrampLink>;
    /** Its memory has been given back. */
    freed: boolean;
    constructor(kernel: Kernel, options: ProgOptions);
    /** Who keeps it loaded; 0 once it only waits to be freed. */
    get references(): number;
    /** Whether it is on a trampoline's list. */
    get linked(): boolean;
    /** As the emitter wants it, but for its cookie. */
    ref(): ProgRef;
    get extended(): boolean;
    /** Marks it as replaced. @throws KernelError EBUSY while it is in a prog array. Kernel: __bpf_trampoline_link_prog */
    extend(): void;
    unextend(): void;
    /** Notes that it is in one more prog array. @throws KernelError EBUSY while it is replaced. Kernel: prog_fd_array_get_ptr */
    enterArray(): void;
    leaveArray(): void;
    counters(cpu: number): ProgCounters;
    /** Kernel: bpf_prog_inc */
    get(): void;
    /** Drops a reference; with the last one the program is freed after a grace period. Kernel: bpf_prog_put */
    put(): void;
    /** Keeps a module loaded until the program is freed. @returns undoes it; undefined when it did so already */
    holdModule(module: KModule): (() => void) | undefined;
}
