import { type Kaddr } from '../lib/index.ts';
import type { FuncModel } from '../obj/index.ts';
import { type EntryCall } from './entry.ts';
import { type TrampImage } from './image.ts';
import type { Kernel } from './kernel.ts';
import { type TrampLink } from './link.ts';
import type { KModule } from './module.ts';
import { Mutex } from './mutex.ts';
import { type BpfProg, type ProgKind } from './prog.ts';
/** Programs of one kind that an image has room for. Kernel: BPF_MAX_TRAMP_PROGS */
export declare const MAX_TRAMP_PROGS = 38;
/** What a trampoline traces. Kernel: struct bpf_attach_target_info */
export interface AttachTarget {
    readonly addr: Kaddr;
    readonly model: FuncModel;
    /** The BPF program that the function is, if it is one. Kernel: prog->aux->dst_prog */
    readonly prog?: BpfProg;
}
/** All that is attached to one function. Kernel: struct bpf_trampoline */
export declare class Trampoline {
    readonly key: bigint;
    references: number;
    /** Set once, by the first get that knows it. */
    func: AttachTarget | undefined;
    /** The call at the function's entry. */
    readonly entry: EntryCall;
    /** Attached programs, newest first. */
    readonly links: Readonly<Record<ProgKind, TrampLink[]>>;
    /** The program that stands in for the function. */
    extension: BpfProg | undefined;
    curImage: TrampImage | undefined;
    /** Number of the next image, where images have one; 0 when there is none. */
    selector: number;
    /** Flags of the last update that was tried, where they are kept. */
    flags: number;
    readonly mutex: Mutex;
    constructor(kernel: Kernel, key: bigint);
    get target(): AttachTarget;
    get ftraceManaged(): boolean;
    get module(): KModule | undefined;
    /** The programs of its links. */
    get progs(): Readonly<Record<ProgKind, readonly BpfProg[]>>;
}
/** The bucket of a key among 2^`bits`. Kernel: hash_64, include/linux/hash.h */
export declare function hash64(key: bigint, bits: number): number;
/** The hash table of all trampolines: 1,024 buckets by key. */
export declare class TrampolineTable {
    #private;
    /**
     * Finds the trampoline of a key or makes one; either way the caller gets a reference.
     * @throws KernelError ENOMEM. Kernel: bpf_trampoline_lookup
     */
    lookup(kernel: Kernel, anyKey: bigint): Trampoline;
    /**
     * As lookup, and names the traced function if this is the first to do so. From v6.1 on, a function that can
     * end in a tail call has its count passed through from then on. Kernel: bpf_trampoline_get; bpf_check_attach_target
     */
    get(kernel: Kernel, key: bigint, target: AttachTarget): Trampoline;
    /**
     * Drops a reference; with the last one the trampoline goes, unless programs are attached. Its last
     * image may outlive it. Kernel: bpf_trampoline_put
     */
    put(kernel: Kernel, tr: Trampoline): void;
    /** The trampoline of a key, if there is one; takes no reference. */
    find(key: bigint): Trampoline | undefined;
    /** All trampolines, in no particular order. */
    list(): Trampoline[];
}
/**
 * Attaches a program and puts the new image in place. On error everything is as before.
 *
 * @param what a program, which stands for its own link, or a link of it
 * @throws KernelError EBUSY a freplace program is there, or this one is attached already; E2BIG too
 *   many programs; or what `update` met
 *
 * Kernel: bpf_trampoline_link_prog
 */
export declare function linkProg(kernel: Kernel, what: BpfProg | TrampLink, tr: Trampoline): void;
/** As `linkProg`, with the trampoline's mutex held. Kernel: __bpf_trampoline_link_prog */
export declare function linkLocked(kernel: Kernel, what: BpfProg | TrampLink, tr: Trampoline): void;
/**
 * Detaches a program. As in the kernel it is off the list even when putting the new image in place fails.
 *
 * @param what a program, which stands for its own link, or a link of it
 * @throws KernelError what `update` met
 *
 * Kernel: bpf_trampoline_unlink_prog
 */
export declare function unlinkProg(kernel: Kernel, what: BpfProg | TrampLink, tr: Trampoline): void;
/**
 * Makes the image and the call at the function's entry agree with the lists. The trampoline's mutex is held.
 * @param locksFtrace false when ftrace asks for it, and holds its mutex already
 * Kernel: bpf_trampoline_update
 */
export declare function update(kernel: Kernel, tr: Trampoline, locksFtrace?: boolean): void;
