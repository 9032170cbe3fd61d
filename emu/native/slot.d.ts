import type { RegisterName } from '../api.ts';
import type { SharedMemory } from './shared-memory.ts';
/** Registers of a guest, vector registers included; for any slot. */
export interface SavedRegisters {
    readonly general: Uint8Array;
    readonly vector: Uint8Array;
}
export declare class RunnerSlot {
    #private;
    readonly id: number;
    /** Where it lies in the child. */
    readonly address: bigint;
    constructor(memory: SharedMemory, id: number);
    /** Fills the control block for a thread that is about to begin; it is the runner's turn then. */
    prepare(): void;
    /** Lets the runner obey a command. */
    give(command: number): void;
    get isHostsTurn(): boolean;
    /**
     * Waits for the turn.
     * @param goOn asked now and then; false ends the waiting
     * @returns whether it is the host's turn
     */
    wait(goOn: () => boolean): boolean;
    /** To be called when the turn has come back from a run: the signal frame may lie elsewhere. */
    findFrame(): void;
    u32(offset: number): number;
    setU32(offset: number, value: number): void;
    u64(offset: number): bigint;
    setU64(offset: number, value: bigint): void;
    /** Instructions that may still be executed: below 2^53, as two 32-bit words rather than a bigint. */
    get budget(): number;
    set budget(instructions: number);
    /** Memory for what a system call is to read, inside the child and here. */
    get scratch(): {
        readonly address: bigint;
        readonly bytes: Uint8Array;
    };
    get(name: RegisterName): bigint;
    set(name: RegisterName, value: bigint): void;
    get eflags(): bigint;
    set eflags(value: bigint);
    /** A guest may have loaded segment registers; it goes on in 64-bit user mode. */
    resetSegments(): void;
    /** Error code, vector and address of the exception behind the signal. */
    get exception(): {
        readonly error: number;
        readonly vector: number;
        readonly address: bigint;
    };
    /** Copies of all registers. */
    save(): SavedRegisters;
    restore({ general, vector }: SavedRegisters): void;
}
