/** 64-bit values come back as signed bigints; errors are thrown as texts, `... failed with code N`. */
export interface UnicornJs {
    mem_map(address: bigint, size: number, perms: number): void;
    mem_unmap(address: bigint, size: number): void;
    mem_read(address: bigint, size: number): Uint8Array;
    mem_write(address: bigint, bytes: Uint8Array): void;
    reg_read_i64(id: number): bigint;
    reg_write_i64(id: number, value: bigint): void;
    emu_start(begin: bigint, until: bigint, timeout: number, count: number): void;
    emu_stop(): void;
    hook_add(type: number, callback: HookCallback, data?: unknown, begin?: number, end?: number, insn?: number): unknown;
    context_alloc(): number;
    context_free(context: number): void;
    context_save(context: number): void;
    context_restore(context: number): void;
    ctl_remove_cache(start: bigint, end: bigint): void;
    ctl_tlb_mode(mode: number): void;
    close(): void;
}
/**
 * By the hook's type: CODE (uc, address, size); INTR (uc, vector); INSN (uc);
 * memory events (uc, type, address, size, value), which return whether the access may go on.
 */
export type HookCallback = (uc: unknown, a: never, b: never, c: never, d: never) => unknown;
/** The module that the factory makes. */
export interface UnicornJsModule {
    Unicorn: new (arch: number, mode: number) => UnicornJs;
}
export type UnicornJsFactory = () => Promise<UnicornJsModule>;
/**
 * The factory of the file in `TRAMPLAB_UNICORN_JS`, or of the package.
 * @throws InputError when there is neither
 */
export declare function loadUnicornJs(): Promise<UnicornJsFactory>;
