import { type Kaddr } from '../lib/index.ts';
import type { AccessEvent, BeginOptions, BreakpointHandler, CallOptions, CallResult, LoadFaultHandler, Registers, RunOptions, RunResult, Stack, Vcpu, VcpuContext } from './api.ts';
import type { EngineCpu, EngineStop, Run } from './engine.ts';
import type { Locator } from './fault.ts';
import type { Memory } from './memory.ts';
/** What the vCPUs of a machine share. */
export interface VcpuHome {
    readonly memory: Memory;
    /** The page that holds `hlt`: every call returns to it. */
    readonly exit: Kaddr;
    readonly stepLimit: number;
    /** False: what need not be counted is run without. */
    readonly counting: boolean;
    locate: Locator;
    breakpoint: BreakpointHandler | undefined;
    loadFault: LoadFaultHandler | undefined;
}
export declare class MachineVcpu implements Vcpu {
    #private;
    readonly id: number;
    readonly regs: Registers;
    readonly stack: Stack;
    constructor(id: number, engine: EngineCpu, home: VcpuHome, gsBase: Kaddr);
    get inCall(): boolean;
    call(fn: Kaddr, args?: readonly bigint[], options?: CallOptions): CallResult;
    /** The limit of instructions for a call; infinite when it is not to be counted. @throws InputError as call() */
    checkCall(args?: readonly bigint[], options?: CallOptions): number;
    /** Sets a call up that somebody else has the engine run. It is over with conclude(). */
    prepare(fn: Kaddr, args?: readonly bigint[], options?: CallOptions): Run;
    /** The result of a call whose engine's run has stopped. */
    conclude(stop: EngineStop, limit: number): CallResult;
    begin(fn: Kaddr, args?: readonly bigint[], options?: BeginOptions): void;
    run(options?: RunOptions): RunResult;
    step(): RunResult;
    recorded(): readonly AccessEvent[];
    abort(): void;
    saveContext(): VcpuContext;
    restoreContext(context: VcpuContext): void;
    /** The vCPU is of no use from here on; nothing it is asked for reaches the engine. */
    close(): void;
}
