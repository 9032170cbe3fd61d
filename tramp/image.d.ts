import { type Code, type TrampolineRequest } from '../jit/index.ts';
import { type Kaddr } from '../lib/index.ts';
import type { Ksym } from './kallsyms.ts';
import type { Kernel } from './kernel.ts';
import type { TrampLink } from './link.ts';
import { PercpuRef } from './percpu-ref.ts';
/** A wait on the way to being freed. */
type Wait = 'rcu-tasks-trace' | 'rcu-tasks' | 'percpu-ref' | 'rcu-tasks-epilogue';
/** What a retired image waits for now. */
export type ImageState = 'live' | Wait | 'work' | 'freed';
/** One image. Kernel: struct bpf_tramp_image */
export declare class TrampImage {
    #private;
    /** The struct bpf_tramp_image, which the image's code names. */
    readonly address: Kaddr;
    /** The code. */
    readonly image: Kaddr;
    /** Room for it, bytes. */
    readonly sizeBytes: number;
    readonly ksym: Ksym;
    readonly pcref: PercpuRef;
    ipAfterCall: Kaddr | undefined;
    ipEpilogue: Kaddr | undefined;
    /** How many of its programs may sleep. */
    nrSleepable: number;
    /** Bytes of code; 0 until it is written. */
    length: number;
    /** @param image room for the code, not written yet */
    constructor(kernel: Kernel, name: string, address: Kaddr, image: Kaddr, sizeBytes: number);
    /** What it waits for, once it is retired. */
    get state(): ImageState;
    set state(state: ImageState);
    /** Its symbol, and the function it traces once that is known. */
    get title(): string;
    /**
     * Emits for the image, which is not executable with it before `protect`. Once more is allowed until then.
     * @param links the programs it calls
     * @throws KernelError what arch_prepare_bpf_trampoline refuses
     */
    write(request: TrampolineRequest, links: readonly TrampLink[]): void;
    /**
     * Puts what was written where CPUs can execute it, and nobody can write it any more.
     * @throws KernelError where that can fail: v6.12
     * Kernel: set_memory_ro, set_memory_x (v6.1); arch_protect_bpf_trampoline (v6.12). Before, an image is
     * writable and executable all its life.
     */
    protect(): void;
    /** The bytes as they stand in memory now. */
    bytes(): Uint8Array;
    /**
     * Steps, notes and relocations. Made when first asked for, by emitting again: an emitter is a pure
     * function, and a listing is rare. The bytes are those in memory, a retired image's jump included.
     */
    code(): Code | undefined;
    /** Lets go of the programs it kept loaded. */
    dropProgs(): void;
    /** Kills the percpu_ref. @param released called when the last call has left. Kernel: percpu_ref_kill, __bpf_tramp_image_release */
    kill(released: () => void): void;
}
/**
 * Allocates an image: struct, charge, memory, percpu_ref, symbol. Each failure undoes what went before.
 * @param index the image's number, where images have one
 * @throws KernelError ENOMEM; EPERM over the charge limit. Kernel: bpf_tramp_image_alloc
 */
export declare function imageAlloc(kernel: Kernel, key: bigint, index: number, sizeBytes: number): TrampImage;
/** Gives an image's memory back. Kernel: __bpf_tramp_image_put_deferred */
export declare function imageFree(kernel: Kernel, im: TrampImage): void;
/**
 * Retires an image that nothing calls any more; it is freed once nobody is left in it.
 * Kernel: bpf_tramp_image_put
 */
export declare function imagePut(kernel: Kernel, im: TrampImage): void;
export {};
