import type { Code } from '../jit/index.ts';
import { type Kaddr } from '../lib/index.ts';
import { type KernelBugs } from './bugs.ts';
/** What kind of thing a symbol names: it decides which text may be poked how. */
export type KsymKind = 'kernel' | 'module' | 'bpf';
/** A named range of text. */
export interface Ksym {
    readonly name: string;
    readonly start: Kaddr;
    readonly sizeBytes: number;
    readonly kind: KsymKind;
    /** Name of the module that it belongs to. */
    readonly module?: string;
    /** What the emitter knows of the code, fetched when somebody asks. */
    readonly code?: () => Code | undefined;
}
/** A symbol that covers an address. */
export interface KsymHit {
    readonly ksym: Ksym;
    readonly offset: number;
}
/**
 * The table of text symbols: by address and by name, for faults, listings and text pokes.
 * Adding, removing and looking up cost the same however many symbols there are.
 *
 * Kernel: kernel/kallsyms.c for kernel and module symbols, the bpf_ksym tree of kernel/bpf/core.c for images.
 */
export declare class Kallsyms {
    #private;
    constructor(bugs?: KernelBugs);
    add(ksym: Ksym): void;
    remove(ksym: Ksym): void;
    /** The symbol whose range holds the address. Kernel: kallsyms_lookup, bpf_ksym_find. */
    lookup(address: Kaddr): KsymHit | undefined;
    /** The oldest symbol of that name. */
    named(name: string): Ksym | undefined;
    /** Symbol, offset and, inside an image, the emitter's step: what a fault prints. */
    locate(address: Kaddr): {
        symbol: string;
        offset: number;
        step?: string;
    } | undefined;
    /** `symbol+0x12`, or the bare symbol at its start; undefined when nothing covers the address. */
    nameOf(address: Kaddr): string | undefined;
    /** All symbols by address. */
    list(): Ksym[];
    /** Lines as /proc/kallsyms prints them: address, type, name, and the module in brackets. */
    lines(): string[];
}
