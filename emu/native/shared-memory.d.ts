import type { HostBlock } from '../engine.ts';
import { type Pointer } from './host.ts';
export declare class NativeBlock implements HostBlock {
    readonly bytes: Uint8Array<ArrayBuffer>;
    /** Where in the file. */
    readonly offset: number;
    readonly lanes: number;
    usedBytes: number;
    constructor(bytes: Uint8Array<ArrayBuffer>, offset: number, lanes: number, usedBytes: number);
}
export declare class SharedMemory {
    #private;
    readonly fd: number;
    /** The host's address of the slots. */
    readonly slots: Pointer;
    readonly slotsBuffer: ArrayBuffer;
    /** @throws InputError when the host refuses */
    constructor();
    /** Zeroed memory, whole pages. @throws InputError when the host refuses */
    alloc(sizeBytes: number, lanes: number, usedBytes: number): NativeBlock;
    close(): void;
}
