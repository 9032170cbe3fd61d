import type { VcpuContext } from '../emu/index.ts';
import { type Kaddr } from '../lib/index.ts';
import type { Kernel } from './kernel.ts';
import type { RcuTask } from './rcu.ts';
/** A call that a task makes into the kernel. */
export interface TaskCall {
    readonly fn: Kaddr;
    readonly args: readonly bigint[];
    /** Made on the way out: the task has left the list of tasks and will make no other kind of call. Kernel: do_exit, after exit_notify */
    readonly exiting?: boolean;
}
/**
 * A task: a stack and a struct in guest memory, and calls to make. Between calls it is in user mode.
 *
 *              next call                       run out of calls
 *      user ----------------> on a CPU  ------------------------------> gone
 *                             |      ^
 *               preempted, or |      | dispatched
 *               asleep        v      |
 *                             off the CPU
 */
export declare class Task implements RcuTask {
    #private;
    readonly id: number;
    readonly name: string;
    /** The struct task_struct. */
    readonly struct: Kaddr;
    readonly stackTop: Kaddr;
    /** The CPU whose run queue it is on. */
    cpu: number;
    onCpu: boolean;
    asleep: boolean;
    gone: boolean;
    /** On its way out: no longer in the list of tasks, but still running kernel code. */
    exiting: boolean;
    inKernel: boolean;
    voluntarySwitches: number;
    /** Registers of the call in flight while it is off the CPU. */
    context: VcpuContext | undefined;
    /** Results of its calls, oldest first. */
    readonly results: bigint[];
    /** @param next the next call to make; undefined ends the task */
    constructor(kernel: Kernel, id: number, name: string, cpu: number, next: () => TaskCall | undefined);
    get onRq(): boolean;
    get rcuReadLockNesting(): number;
    get trcReaderNesting(): number;
    get migrationDisabled(): number;
    nextCall(): TaskCall | undefined;
    /** Gives struct and stack back. */
    free(): void;
}
