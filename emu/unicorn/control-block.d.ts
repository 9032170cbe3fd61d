import type { Pointer } from './library.ts';
/** Byte offsets, as above. */
export declare const Offset: {
    readonly budget: 0;
    readonly stopAt: 8;
    readonly emuStop: 16;
    readonly stopped: 24;
    readonly vector: 28;
    readonly memType: 32;
    readonly memSize: 36;
    readonly memAddress: 40;
    readonly lastRip: 48;
    readonly eventRip: 56;
    readonly eventBudget: 64;
    readonly values: 72;
    readonly pointers: 256;
    readonly ids: 448;
};
/** Values of the `stopped` word. */
export declare const StopCode: {
    readonly none: 0;
    readonly budget: 1;
    readonly stopAt: 2;
    readonly exception: 3;
    readonly syscall: 4;
    readonly portIo: 5;
};
/** Where each register stands in REGISTERS. */
export declare const registerIndex: ReadonlyMap<string, number>;
export declare const NR_REGISTERS: number;
export declare const RAX_INDEX = 0;
export declare const RIP_INDEX = 1;
export declare const RSP_INDEX = 2;
export declare const RFLAGS_INDEX = 3;
export declare const ARG0_INDEX = 4;
export declare const GS_BASE_INDEX = 18;
export declare class ControlBlock {
    #private;
    readonly pointer: Pointer;
    /** The block as 32-bit words: index = byte offset / 4. */
    readonly words: Uint32Array;
    /** The values of the registers, in REGISTERS' order. */
    readonly values: BigUint64Array;
    constructor(emuStop: Pointer);
    get stopAt(): bigint;
    set stopAt(address: bigint);
    /** Two 32-bit stores rather than a bigint: budgets are set and read in every call. */
    set budget(instructions: number);
    /** -1 when it ran out. */
    get budget(): number;
    get memAddress(): bigint;
    get lastRip(): bigint;
    get eventRip(): bigint;
    get eventBudget(): number;
}
