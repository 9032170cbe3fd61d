import type { EngineCpu, EngineStop } from './engine.ts';
import type { Fault, Locator } from './fault.ts';
import type { Memory } from './memory.ts';
/** The place of a run that ended. */
export interface StopPlace {
    readonly cpu: EngineCpu;
    readonly cpuId: number;
    /** Instructions completed since the call began; NaN when they were not counted. */
    readonly instructions: number;
}
/** The fault for a run that ended with anything but the end of the call. */
export declare function explainStop(stop: EngineStop, place: StopPlace, memory: Memory, locate: Locator): Fault;
/** A locator that knows the names of regions, for a machine that was given none. */
export declare function regionLocator(memory: Memory): Locator;
