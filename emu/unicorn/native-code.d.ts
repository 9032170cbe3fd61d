import type { Pointer } from './library.ts';
/** Host memory for native code of ours, and for the data it works on. */
export interface NativePages {
    readonly pointer: Pointer;
    readonly bytes: Uint8Array<ArrayBuffer>;
}
/**
 * Executable memory in this process, for its life; undefined where native code of ours cannot run:
 * other than x86-64 Linux, or a hardened host that refuses memory which is writable and executable.
 */
export declare function nativePages(sizeBytes: number): NativePages | undefined;
