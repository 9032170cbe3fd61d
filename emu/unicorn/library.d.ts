import { type LibraryHandle } from 'koffi';
/** A guest address for libunicorn: the number when it is exact, else the bigint. Signed either way. */
export type Int64 = number | bigint;
/** A host pointer. User-space pointers fit a number exactly. */
export type Pointer = number;
/** The calls, under their names in unicorn.h; the results are its error codes, 0 for none. */
export interface UnicornLibrary {
    /** Major, minor, patch as a text: `2.0.1`. */
    readonly version: string;
    uc_open(arch: number, mode: number, out: Pointer): number;
    uc_close(uc: Pointer): number;
    uc_mem_map_ptr(uc: Pointer, address: Int64, size: number, perms: number, host: Pointer): number;
    uc_mem_unmap(uc: Pointer, address: Int64, size: number): number;
    uc_emu_start(uc: Pointer, begin: Int64, until: Int64, timeout: number, count: number): number;
    uc_emu_stop(uc: Pointer): number;
    /** Where the two lie, for native code. */
    readonly emuStartPointer: Pointer;
    readonly emuStopPointer: Pointer;
    uc_reg_write_batch(uc: Pointer, ids: Pointer, values: Pointer, count: number): number;
    uc_reg_read_batch(uc: Pointer, ids: Pointer, values: Pointer, count: number): number;
    /** Variadic in C: `insn` matters for instruction hooks only. */
    uc_hook_add(uc: Pointer, out: Pointer, type: number, callback: Pointer, userData: Pointer, begin: number, end: number, insn: number): number;
    /** Variadic in C; every control used here takes one or two 64-bit arguments. */
    uc_ctl(uc: Pointer, control: number, a: Int64, b: Int64): number;
    uc_context_alloc(uc: Pointer, out: Pointer): number;
    uc_context_size(uc: Pointer): number;
    uc_context_save(uc: Pointer, context: Pointer): number;
    uc_context_restore(uc: Pointer, context: Pointer): number;
    uc_context_free(context: Pointer): number;
}
/** The library, found as openUnicorn says, bound once per process. @throws InputError as openUnicorn */
export declare function loadUnicorn(): UnicornLibrary;
/**
 * Opens the first of: `TRAMPLAB_UNICORN`, `.cache/unicorn/` of this project, the system's loader path.
 * @throws InputError when there is none; the message says how to get one
 */
export declare function openUnicorn(): LibraryHandle;
