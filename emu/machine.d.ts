import { type Kaddr } from '../lib/index.ts';
import type { BreakpointHandler, CallResult, GuestMemory, LoadFaultHandler, Machine, MachineOptions, ParallelCall, PerCpu, Snapshot, Vcpu } from './api.ts';
import type { Engine } from './engine.ts';
import type { Locator } from './fault.ts';
import { type Layout } from './layout.ts';
/**
 * Makes a machine.
 *
 * Without a locator, faults are placed by the names of the memory regions.
 *
 * @throws InputError for options out of range, or when the engine's library is not there (the message
 *   says how to get it).
 */
export declare function createMachine(options?: MachineOptions): Promise<Machine>;
/** What a machine is made of, besides its engine. */
export interface EngineMachineOptions {
    readonly stepLimit: number;
    /** Default true. */
    readonly counting?: boolean;
    readonly layout: Layout;
    readonly locate?: Locator;
}
/** A machine over an engine, which it owns. */
export declare class EngineMachine implements Machine {
    #private;
    readonly engine: string;
    readonly layout: Layout;
    readonly memory: GuestMemory;
    readonly percpu: PerCpu;
    readonly cpus: readonly Vcpu[];
    constructor(engine: Engine, { stepLimit, counting, layout, locate }: EngineMachineOptions);
    get breakpoint(): BreakpointHandler | undefined;
    set breakpoint(handler: BreakpointHandler | undefined);
    get loadFault(): LoadFaultHandler | undefined;
    set loadFault(handler: LoadFaultHandler | undefined);
    get locate(): Locator;
    set locate(locate: Locator);
    patchText(address: Kaddr, bytes: Uint8Array): void;
    callAll(calls: readonly ParallelCall[]): CallResult[];
    current(cpu: number): Kaddr;
    setCurrent(cpu: number, task: Kaddr): void;
    snapshot(): Snapshot;
    restore(snapshot: Snapshot): void;
    close(): void;
}
