import { type KernelBugs } from './bugs.ts';
/** What a flavour looks at in a task. */
export interface RcuTask {
    readonly id: number;
    /** Running or preempted; false while it sleeps. Kernel: t->on_rq */
    readonly onRq: boolean;
    /** In kernel code: neither in user mode nor idle. */
    readonly inKernel: boolean;
    /** How often it has gone to sleep by itself. Kernel: t->nvcsw */
    readonly voluntarySwitches: number;
    readonly rcuReadLockNesting: number;
    readonly trcReaderNesting: number;
}
export declare const RCU_FLAVOURS: readonly ['rcu', 'rcu-tasks', 'rcu-tasks-trace'];
export type RcuFlavourName = (typeof RCU_FLAVOURS)[number];
type Callback = () => void;
/** One flavour of RCU. */
export declare class RcuFlavour {
    #private;
    readonly name: RcuFlavourName;
    /** @param preemption CONFIG_PREEMPTION */
    constructor(name: RcuFlavourName, preemption?: boolean, bugs?: KernelBugs);
    /** Runs `callback` after a grace period that starts from now on. Kernel: call_rcu, call_rcu_tasks, call_rcu_tasks_trace */
    call(callback: Callback): void;
    /** Looks at all tasks once: starts a grace period when one is wanted, ends it when nobody holds it up. */
    tick(tasks: readonly RcuTask[]): void;
    /** Runs the oldest callback whose grace period is over; false when there is none. */
    run(): boolean;
    /** Callbacks whose grace period is over. */
    get ready(): number;
    /** Callbacks that have not run, whatever they wait for. */
    get pending(): number;
    /** Ids of the tasks that hold up the grace period under way. */
    get holdouts(): number[];
}
/** All flavours, and the workqueue that their callbacks defer to. */
export declare class GracePeriods {
    #private;
    readonly flavours: Readonly<Record<RcuFlavourName, RcuFlavour>>;
    /**
     * @param tasks every task there is, exiting ones included
     * @param preemption CONFIG_PREEMPTION
     */
    constructor(tasks: () => readonly RcuTask[], preemption?: boolean, bugs?: KernelBugs);
    callRcu(callback: Callback): void;
    callRcuTasks(callback: Callback): void;
    callRcuTasksTrace(callback: Callback): void;
    /** Kernel: schedule_work, kernel/workqueue.c */
    scheduleWork(callback: Callback): void;
    /** Lets one flavour look at the tasks. */
    tick(flavour: RcuFlavourName): void;
    /** Runs the oldest work item; false when there is none. */
    runWork(): boolean;
    get pendingWork(): number;
    /** Goes on until nothing happens without a task moving; false when nothing happened at all. */
    settle(): boolean;
}
export {};
