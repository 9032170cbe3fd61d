import { type Kaddr } from '../../lib/index.ts';
import type { Perms } from '../api.ts';
import type { EngineStop, MemoryStop } from '../engine.ts';
import { type RegisterValues } from './decode.ts';
/** A guest that was stopped by a signal. */
export interface Stopped {
    readonly signal: number;
    readonly error: number;
    readonly vector: number;
    /** Of the last page fault. */
    readonly address: bigint;
    readonly rip: bigint;
    readonly registers: RegisterValues;
}
/** What is mapped where the guest ran. */
export interface GuestView {
    permsAt(address: bigint): Perms | undefined;
    /** Up to `length` bytes from an address on: as many as are mapped. */
    bytesAt(address: bigint, length: number): Uint8Array;
}
/** Why a guest stopped, and where. */
export interface StopReason {
    readonly stop: EngineStop;
    readonly stopRip: Kaddr;
    readonly vector?: number;
    readonly memory?: MemoryStop;
    /** Whether it ended in a branch to where no instruction can be: the branch itself is complete. */
    readonly branched?: boolean;
    /** After `crashed`: how. */
    readonly crash?: string;
    /** Where rip belongs, when it is not there. */
    readonly rip?: Kaddr;
}
export declare function explainSignal(stopped: Stopped, guest: GuestView): StopReason;
