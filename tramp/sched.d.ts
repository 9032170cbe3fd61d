import type { Fault } from '../emu/index.ts';
import type { Kernel } from './kernel.ts';
import { Task, type TaskCall } from './task.ts';
/** What came of letting a CPU run. */
export type RunOutcome = {
    readonly what: 'idle';
} | {
    readonly what: 'ran' | 'returned' | 'slept';
    readonly task: Task;
    readonly instructions: number;
} | {
    readonly what: 'gone';
    readonly task: Task;
} | {
    readonly what: 'fault';
    readonly task: Task;
    readonly instructions: number;
    readonly fault: Fault;
};
export declare class Scheduler {
    #private;
    constructor(kernel: Kernel);
    /** Every task that is not gone, exiting ones included. */
    get tasks(): readonly Task[];
    /** Tasks that wait to be woken. */
    get asleep(): readonly Task[];
    /** Makes a runnable task on a CPU's queue, in user mode. */
    spawn(name: string, cpu: number, next: () => TaskCall | undefined): Task;
    running(cpu: number): Task | undefined;
    /** Tasks that could be put on a CPU now. */
    runnable(cpu: number): readonly Task[];
    /** Puts a runnable task on its idle CPU. */
    dispatch(task: Task): void;
    /** Lets a CPU execute up to `steps` instructions of its task's call; starts the next call when there is none. */
    run(cpuId: number, steps: number): RunOutcome;
    /** Whether a CPU's task may be taken off it against its will. */
    preemptible(cpuId: number): boolean;
    /** Takes the task off the CPU; it stays runnable. */
    preempt(cpuId: number): Task;
    wake(task: Task): void;
    /** Moves a task that is off the CPU to another one's queue; false when it has migration disabled. */
    migrate(task: Task, cpuId: number): boolean;
}
