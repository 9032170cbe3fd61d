import type { Fault } from '../emu/index.ts';
import type { Kernel } from './kernel.ts';
import { Scheduler } from './sched.ts';
import type { Task, TaskCall } from './task.ts';
export interface SimulationOptions {
    readonly seed: number;
    /** Longest run of instructions on one CPU without anything else happening; default 24. */
    readonly slice?: number;
    /** How likely an operation of the host is, where it is 20 that a given CPU runs on; default 1. */
    readonly hostWeight?: number;
    /** How likely other things are; default WEIGHTS. */
    readonly weights?: Partial<Weights>;
    /**
     * Events kept for a report; default 400. With 0 nothing is written down, which is several times faster:
     * the same seed run again with a history shows the same events.
     */
    readonly keep?: number;
}
/** Something that happened. */
export interface ScheduleEvent {
    readonly number: number;
    /** A CPU with its task, a flavour of RCU, `host`, or empty for what follows from the event before. */
    readonly who: string;
    readonly text: string;
}
/** The first thing that went wrong. */
export interface SimulationFault {
    readonly task: string;
    readonly fault: Fault;
}
/** How likely things are, beside each other: whole numbers. */
export interface Weights {
    /** A CPU runs its task. */
    readonly run: number;
    /** An idle CPU takes one on. */
    readonly dispatch: number;
    /** A CPU's task is preempted. */
    readonly preempt: number;
    /** A task that waits for a CPU goes to another one. */
    readonly migrate: number;
    /** A task that sleeps is woken. */
    readonly wake: number;
    /** A flavour of RCU looks at the tasks. */
    readonly tick: number;
    /** A callback or a work item runs. */
    readonly callback: number;
}
export declare const WEIGHTS: Weights;
export declare class Simulation {
    #private;
    readonly kernel: Kernel;
    readonly sched: Scheduler;
    constructor(kernel: Kernel, options: SimulationOptions);
    /** What went wrong first; nothing happens after it. */
    get fault(): SimulationFault | undefined;
    /** How many events there were. */
    get events(): number;
    /** Operations of the host that have not begun. */
    get waiting(): number;
    /** A whole number in low..high, from the simulation's own sequence. */
    pick(low: number, high: number): number;
    spawn(name: string, cpu: number, next: () => TaskCall | undefined): Task;
    /** Has an operation of the host happen at some time; operations keep their order. */
    host(name: string, run: () => void): void;
    /** One event. False when there is nothing left that could happen. */
    step(): boolean;
    /** At most `events` events. */
    run(events: number): void;
    /** Everything that can still happen. @param limit events after which it gives up */
    drain(limit?: number): boolean;
    /** The last events, a line each, for people: number, who, what. */
    history(last?: number): string;
}
