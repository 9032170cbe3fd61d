import type { Kaddr } from '../lib/index.ts';
/**
 * What guest code can do wrong. A fault is a value, not an exception: the run ends, the vCPU can be
 * used again, memory stays as the guest left it.
 *
 * | kind | what the guest did |
 * |---|---|
 * | `read-unmapped` `write-unmapped` | touched an address where nothing is mapped |
 * | `fetch-unmapped` | ran into an address where nothing is (or ever was) mapped |
 * | `write-text` `write-rodata` | stored to executable, or to read-only, memory |
 * | `fetch-data` | ran memory that is not executable |
 * | `freed-image` | ran text that was freed; the fault names it |
 * | `stack-overflow` | touched a guard page of a stack or of a vmalloc area |
 * | `invalid-opcode` | #UD: `ud2`, an encoding that does not exist |
 * | `divide-error` | #DE |
 * | `int3` | #BP: a breakpoint instruction outside freed text |
 * | `general-protection` | #GP: a non-canonical address, a privileged misuse |
 * | `interrupt` | any other exception or `int n`; `vector` says which |
 * | `syscall` | `syscall` or `sysenter` |
 * | `port-io` | `in` or `out` |
 * | `halt` | `hlt` anywhere but at the end of the call |
 * | `step-limit` | the call did not end within its limit of instructions |
 * | `time-limit` | the call did not end within its limit of time (engine `native`) |
 * | `host-crash` | the process that the guest ran in ended, and was replaced (engine `native`) |
 */
export type FaultKind = 'read-unmapped' | 'write-unmapped' | 'fetch-unmapped' | 'write-text' | 'write-rodata' | 'fetch-data' | 'freed-image' | 'stack-overflow' | 'invalid-opcode' | 'divide-error' | 'int3' | 'general-protection' | 'interrupt' | 'syscall' | 'port-io' | 'halt' | 'step-limit' | 'time-limit' | 'host-crash';
/** Where a text address belongs: the symbol that covers it, the distance, and the emitter's step inside an image. */
export interface Location {
    readonly symbol: string;
    /** Bytes from the start of the symbol. */
    readonly offset: number;
    /** The emitter step that made the instruction, when the address is in an image. */
    readonly step?: string;
}
/** Finds what a text address belongs to; undefined when nothing known covers it. */
export type Locator = (address: Kaddr) => Location | undefined;
/** What guest code did, where. */
export interface Fault {
    readonly kind: FaultKind;
    /** The vCPU it happened on. */
    readonly cpu: number;
    /** The instruction at fault (for a fetch fault: the address that could not be fetched). */
    readonly rip: Kaddr;
    /** The data or code address that was touched, for the memory faults. */
    readonly address?: Kaddr;
    /** Bytes of the data access, when known. */
    readonly size?: number;
    /** The exception's vector, where there was one. */
    readonly vector?: number;
    /** What covers `rip`, when the machine's locator (or, for freed text, its memory) knows. */
    readonly symbol?: {
        readonly name: string;
        readonly offset: number;
    };
    /** The emitter step that made the instruction at `rip`, when it is in an image. */
    readonly step?: string;
    /** Instructions completed before this one since the call began; NaN when they were not counted. */
    readonly instructions: number;
    /** One line for people. */
    readonly detail: string;
}
