import { type Kaddr } from '../lib/index.ts';
import type { AccessEvent, Perms, RegisterName } from './api.ts';
export declare const PAGE_SIZE: number;
/** What a run that got to address 0 met: there is never any text. */
export declare const NULL_FETCH: MemoryStop;
/** Host memory that guests see when it is mapped. The engine owns the memory, the machine what is in it. */
export interface HostBlock {
    /** The memory itself: live, whole pages, zeroed at first. */
    readonly bytes: Uint8Array<ArrayBuffer>;
    /**
     * How much of the block is in use: `lanes` equal parts, the first `usedBytes` of each. Engines that
     * copy and snapshots look no further; the rest holds what the owner filled the block with.
     */
    readonly lanes: number;
    usedBytes: number;
}
/**
 * Why a run ended. `untranslatable`: the straight-line code from here on holds an encoding that the
 * engine cannot cope with (hardware: #UD); nothing of it was executed. `time-limit`: it took too long, by
 * the clock. `crashed`: what the guest ran in is gone, and was replaced; only memory is as it was left.
 */
export type EngineStop = 'halted' | 'budget' | 'stop-at' | 'memory' | 'exception' | 'invalid-opcode' | 'untranslatable' | 'syscall' | 'port-io' | 'time-limit' | 'crashed';
/** The access that ended a run with `memory`. */
export interface MemoryStop {
    readonly access: 'read' | 'write' | 'fetch';
    readonly cause: 'unmapped' | 'protected';
    readonly address: Kaddr;
    readonly sizeBytes: number;
}
/** Registers and hidden state of a vCPU at one time; opaque, for any vCPU of the same engine. */
export type EngineContext = {
    readonly engineContext: unknown;
};
export interface EngineCpu {
    /** Loads the registers for a call: rip, rsp, cleared flags, and up to 6 System V arguments. */
    load(rip: Kaddr, rsp: Kaddr, args: readonly bigint[]): void;
    /**
     * Runs from rip for at most `budget` instructions (0 .. 2^53-1), exactly; stops before the
     * instruction at `stopAt`, be it the first one. An infinite budget without `stopAt` allows an engine
     * for which counting is dear to run uncounted.
     */
    run(budget: number, stopAt?: Kaddr): EngineStop;
    /**
     * Instructions completed by the last run; the one that ended it (hlt, a faulting one) not counted.
     * NaN when they were not counted.
     */
    readonly executed: number;
    /** rax and rip as the last run left them: cheaper than get(). After `halted`, rip is behind the hlt. */
    readonly rax: bigint;
    readonly rip: Kaddr;
    /** The instruction that the last run ended at: the one to come, or the one at fault. */
    readonly stopRip: Kaddr;
    /** After `memory`. */
    readonly memoryStop: MemoryStop;
    /** After `exception`: its vector. */
    readonly vector: number;
    /** After `crashed`: how, in a few words. */
    readonly crash?: string;
    /** What was executed and accessed since the last time; on an engine made to record. */
    recorded?(): readonly AccessEvent[];
    get(name: RegisterName): bigint;
    set(name: RegisterName, value: bigint): void;
    setGsBase(base: Kaddr): void;
    saveContext(): EngineContext;
    /** GS_BASE included. */
    restoreContext(context: EngineContext): void;
}
/** A run to be made at the same time as others. */
export interface Run<Cpu extends EngineCpu = EngineCpu> {
    readonly cpu: Cpu;
    readonly budget: number;
}
export interface Engine {
    /** Name and version, e.g. `unicorn 2.0.1`. */
    readonly name: string;
    readonly cpus: readonly EngineCpu[];
    /** Zeroed memory, not mapped yet. It lives until nothing refers to it and it is not mapped. */
    allocBlock(sizeBytes: number, use?: {
        readonly lanes?: number;
        readonly usedBytes?: number;
    }): HostBlock;
    /** Shows a block to every vCPU. The machine has checked that the addresses are free and page-aligned. */
    map(address: Kaddr, block: HostBlock, perms: Perms): void;
    unmap(address: Kaddr, block: HostBlock): void;
    /** Runs several vCPUs truly at once; left out by engines that cannot. Results in the order of the runs. */
    runTogether?(runs: readonly Run[]): EngineStop[];
    /** The host wrote mapped text: every vCPU must run the new bytes from its next instruction on. */
    textChanged(address: Kaddr, lengthBytes: number): void;
    close(): void;
}
