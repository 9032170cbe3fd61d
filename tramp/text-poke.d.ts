import type { Machine } from '../emu/index.ts';
import { type PokeType } from '../jit/index.ts';
import { type Kaddr } from '../lib/index.ts';
import { type KernelBugs } from './bugs.ts';
import type { Kernel } from './kernel.ts';
/** Writes live text, and answers for the int3 that it leaves there meanwhile. */
export declare class TextPoker {
    #private;
    /**
     * @param sync lets every CPU pass a point where it cannot hold old bytes; other CPUs may run meanwhile
     * @param bugs those that concern text
     */
    constructor(machine: Machine, sync: () => void, bugs?: KernelBugs);
    /** Replaces the instruction at `address` by five bytes: a call, a jump or the nop. */
    poke(address: Kaddr, bytes: Uint8Array): void;
}
/**
 * Replaces the nop, call or jump at `ip` by another, on every CPU.
 *
 * @param oldAddr where the present one goes; null when a nop is expected
 * @param newAddr where the new one shall go; null for a nop
 * @returns false when there was nothing to do
 * @throws KernelError EINVAL outside kernel and BPF text, ERANGE out of reach, EBUSY when something else stands there
 *
 * Kernel: bpf_arch_text_poke, arch/x86/net/bpf_jit_comp.c
 */
export declare function textPoke(kernel: Kernel, ip: Kaddr, type: PokeType, oldAddr: Kaddr | null, newAddr: Kaddr | null): boolean;
