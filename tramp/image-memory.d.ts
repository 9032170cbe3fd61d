import type { Machine } from '../emu/index.ts';
import { type Kaddr } from '../lib/index.ts';
/** Room of an image, bytes, where each has a page; the most that one may need where not. Kernel: PAGE_SIZE */
export declare const IMAGE_BYTES = 4096;
export interface ImageMemory {
    /** Takes room for an image, all int3. @throws KernelError ENOMEM */
    alloc(sizeBytes: number, name: string): Kaddr;
    free(image: Kaddr): void;
    /** What was freed last at an address in memory that others still use; undefined where nothing was. */
    freedAt(address: Kaddr): {
        readonly symbol: string;
        readonly offset: number;
    } | undefined;
}
/** Kernel: bpf_jit_alloc_exec_page (v5), bpf_jit_alloc_exec (v6.1) */
export declare class PageMemory implements ImageMemory {
    #private;
    constructor(machine: Machine);
    alloc(sizeBytes: number, name: string): Kaddr;
    free(image: Kaddr): void;
    /** A page that is freed tells it by itself. */
    freedAt(): undefined;
}
/** Kernel: BPF_PROG_CHUNK_SIZE */
export declare const CHUNK_BYTES = 64;
/** Kernel: bpf_prog_pack_alloc, bpf_prog_pack_free, kernel/bpf/core.c */
export declare class PackMemory implements ImageMemory {
    #private;
    constructor(machine: Machine);
    /** Packs there are. */
    get packs(): number;
    alloc(sizeBytes: number, name: string): Kaddr;
    free(image: Kaddr): void;
    freedAt(address: Kaddr): {
        readonly symbol: string;
        readonly offset: number;
    } | undefined;
}
