import type { SharedMemory } from './shared-memory.ts';
import { RunnerSlot } from './slot.ts';
export declare class Child {
    #private;
    readonly pid: number;
    readonly slots: readonly RunnerSlot[];
    /** @throws InputError when the host refuses something, saying what */
    constructor(memory: SharedMemory, cpus: number);
    /**
     * Has a thread make a system call; it must be the host's turn there.
     * @returns its result, negative for an errno; undefined when the child has ended, or does not answer
     */
    call(id: number, nr: number, ...args: readonly bigint[]): number | undefined;
    /** Stops the guest of a slot, unless it stops by itself. */
    interrupt(id: number): void;
    /** Milliseconds that a thread has been on a CPU; undefined where the kernel does not keep account. */
    cpuMilliseconds(id: number): number | undefined;
    /** How it ended; undefined while it lives. */
    get end(): string | undefined;
    kill(): void;
}
