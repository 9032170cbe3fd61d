import { type Kaddr } from '../lib/index.ts';
import type { FtraceOps } from './ftrace.ts';
import type { Kernel } from './kernel.ts';
import type { KModule } from './module.ts';
import { type Trampoline } from './trampoline.ts';
/** Part of a trampoline. Kernel: struct bpf_trampoline */
export interface EntryCall {
    /** Whether the call goes through ftrace. */
    ftraceManaged: boolean;
    /** The traced function's module, where the call keeps it loaded. */
    module: KModule | undefined;
    /** As what it appears to ftrace; undefined where direct calls go by address, or where ftrace has none. */
    readonly ops: FtraceOps | undefined;
}
/** @throws KernelError ENOMEM. Kernel: bpf_trampoline_lookup */
export declare function trampOps(kernel: Kernel, tr: Trampoline): FtraceOps | undefined;
/** Puts the first call in place. @throws KernelError EFAULT, ENOTSUPP, ENOENT, or what patching met. Kernel: register_fentry */
export declare function registerFentry(kernel: Kernel, tr: Trampoline, image: Kaddr): void;
/** @param locksFtrace false when ftrace itself has asked. Kernel: modify_fentry */
export declare function modifyFentry(kernel: Kernel, tr: Trampoline, old: Kaddr, image: Kaddr, locksFtrace: boolean): void;
/** Kernel: unregister_fentry */
export declare function unregisterFentry(kernel: Kernel, tr: Trampoline, old: Kaddr): void;
/** Keeps the traced function's module loaded. @throws KernelError ENOENT when it is going. Kernel: bpf_trampoline_module_get */
export declare function moduleGet(kernel: Kernel, ip: Kaddr): KModule | undefined;
