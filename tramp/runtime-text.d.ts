import type { Machine } from '../emu/index.ts';
import { type HelperAddresses, type RevisionName, type RuntimeOptions } from '../jit/index.ts';
import { type Kaddr } from '../lib/index.ts';
import type { Kallsyms } from './kallsyms.ts';
import type { TextPoker } from './text-poke.ts';
export declare class RuntimeText {
    #private;
    /** The functions that images and programs call, by symbol. */
    readonly helpers: HelperAddresses;
    /** Where the clock is: a u64, nanoseconds. */
    readonly clockAddress: Kaddr;
    /** Per-CPU offset of a u32: how often might_fault() found that faulting was not allowed. */
    readonly splatsOffset: number;
    /** Emits, links and writes the runtime, and makes its symbols known. */
    constructor(machine: Machine, kallsyms: Kallsyms, text: TextPoker, revision: RevisionName, options: RuntimeOptions);
    get statsEnabled(): boolean;
    set statsEnabled(on: boolean);
    get clock(): bigint;
    set clock(nanoseconds: bigint);
    mightFaultSplats(cpu: number): number;
}
