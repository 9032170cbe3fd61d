import { type Kaddr } from '../lib/index.ts';
import type { FtraceSite, LinkedSymbol } from '../obj/index.ts';
import type { Kernel } from './kernel.ts';
/** What a module consists of, once it is in memory. */
export interface ModuleContents {
    readonly name: string;
    /** Ranges of executable memory. */
    readonly text: readonly {
        readonly address: Kaddr;
        readonly sizeBytes: number;
    }[];
    /** All defined symbols. */
    readonly symbols: readonly LinkedSymbol[];
    /** Those that are functions. */
    readonly functions: readonly LinkedSymbol[];
    /** Places where its functions can be traced. */
    readonly sites: readonly FtraceSite[];
    /** Where its text counts: a module's, or the kernel's own, which cannot be unloaded. */
    readonly origin: 'module' | 'kernel';
    /** Runs when the module is unloaded, while its text is still there. Kernel: module_exit */
    readonly exit?: () => void;
    /** Gives all its memory back. */
    readonly free: () => void;
}
/** Which module an address of text belongs to, at the same cost for any number of modules. Kernel: mod_tree */
export declare class ModuleText {
    #private;
    add(module: KModule): void;
    remove(module: KModule): void;
    /** Kernel: __module_text_address */
    at(address: Kaddr): KModule | undefined;
}
/**
 * Code that was loaded: a relocatable object becomes a module in the modules area, a static executable
 * is mapped where it was linked and counts as text of the kernel itself.
 *
 * Kernel: struct module; load_module, kernel/module.c
 */
export declare class KModule {
    #private;
    readonly contents: ModuleContents;
    /** Makes symbols and sites known. */
    constructor(kernel: Kernel, contents: ModuleContents);
    get name(): string;
    /** References by trampolines. */
    get references(): number;
    /** A defined symbol of any kind. */
    symbol(name: string): LinkedSymbol | undefined;
    /** Whether an address is in its text. Kernel: within_module */
    holds(address: Kaddr): boolean;
    /** Takes a reference unless the module is going. Kernel: try_module_get */
    tryGet(): boolean;
    /** Kernel: module_put */
    put(): void;
    /** Unloads it. @throws KernelError EBUSY while it is in use, or for kernel text; ENOENT when it is gone. Kernel: delete_module */
    unload(): void;
}
