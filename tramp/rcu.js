/*
 * Grace periods: the wait between "nobody new can get in" and "nobody who was in is in any more".
 * Three flavours differ in whom they wait for:
 *
 *   flavour           a task holds it up            until
 *   rcu               inside rcu_read_lock          it has left it
 *     not preemptible running in the kernel         as rcu-tasks
 *   rcu-tasks         running or preempted in the   it switched voluntarily, went to sleep,
 *                     kernel                        back to user mode, or is gone
 *   rcu-tasks-trace   inside rcu_read_lock_trace    it has left it
 *
 * One flavour at a time goes through
 *
 *         call()                  tick()                       tick()                  run()
 *   idle ---------> callbacks ---------------> grace period ----------> callbacks ---------> called
 *                   waiting     holdouts noted               no holdout  are ready
 *                                                            left
 *
 * Callbacks that arrive during a grace period wait for the next one. Pure: a flavour sees tasks, and
 * nothing else. Kernel: kernel/rcu/tree.c, kernel/rcu/tasks.h
 */
import { NO_BUGS } from './bugs.js';
export const RCU_FLAVOURS = ['rcu', 'rcu-tasks', 'rcu-tasks-trace'];
const RULES = {
    rcu: {
        blocks: (task) => task.rcuReadLockNesting > 0,
        passed: (task) => task.rcuReadLockNesting === 0,
    },
    'rcu-tasks': {
        blocks: (task) => task.onRq && task.inKernel,
        passed: (task, start) => !task.onRq || !task.inKernel || task.voluntarySwitches !== start.voluntarySwitches,
    },
    'rcu-tasks-trace': {
        blocks: (task) => task.trcReaderNesting > 0,
        passed: (task) => task.trcReaderNesting === 0,
    },
};
/**
 * Without CONFIG_PREEMPTION rcu_read_lock is nothing: a task is a reader wherever it cannot be preempted,
 * and that is all kernel code. Simplified: one that was woken and waits for a CPU counts too.
 */
const NOT_PREEMPTIBLE = { ...RULES, rcu: RULES['rcu-tasks'] };
function rulesOf(name, preemption, bugs) {
    const rules = (preemption ? RULES : NOT_PREEMPTIBLE)[name];
    if (name !== 'rcu-tasks-trace')
        return rules;
    if (bugs.has('L9')) {
        return {
            blocks: (task) => task.trcReaderNesting === 1,
            passed: (task) => task.trcReaderNesting !== 1,
        };
    }
    if (bugs.has('L9-asleep')) {
        return { ...rules, passed: (task, start) => rules.passed(task, start) || !task.onRq };
    }
    return rules;
}
/** One flavour of RCU. */
export class RcuFlavour {
    name;
    #rules;
    #late;
    #waiting = [];
    #current;
    #ready = [];
    /** @param preemption CONFIG_PREEMPTION */
    constructor(name, preemption = true, bugs = NO_BUGS) {
        this.name = name;
        this.#rules = rulesOf(name, preemption, bugs);
        this.#late = bugs.has('late-callbacks');
    }
    /** Runs `callback` after a grace period that starts from now on. Kernel: call_rcu, call_rcu_tasks, call_rcu_tasks_trace */
    call(callback) {
        this.#waiting.push(callback);
    }
    /** Looks at all tasks once: starts a grace period when one is wanted, ends it when nobody holds it up. */
    tick(tasks) {
        if (this.#current === undefined) {
            if (this.#waiting.length === 0)
                return;
            const holdouts = new Map();
            for (const task of tasks)
                if (this.#rules.blocks(task))
                    holdouts.set(task.id, { ...task });
            this.#current = { holdouts, callbacks: this.#waiting };
            this.#waiting = [];
        }
        const { holdouts, callbacks } = this.#current;
        if (holdouts.size > 0) {
            const alive = new Map(tasks.map((task) => [task.id, task]));
            for (const [id, start] of holdouts) {
                const now = alive.get(id);
                if (now === undefined || this.#rules.passed(now, start))
                    holdouts.delete(id);
            }
        }
        if (holdouts.size > 0)
            return;
        this.#ready.push(...callbacks);
        if (this.#late)
            this.#ready.push(...this.#waiting.splice(0));
        this.#current = undefined;
    }
    /** Runs the oldest callback whose grace period is over; false when there is none. */
    run() {
        const callback = this.#ready.shift();
        callback?.();
        return callback !== undefined;
    }
    /** Callbacks whose grace period is over. */
    get ready() {
        return this.#ready.length;
    }
    /** Callbacks that have not run, whatever they wait for. */
    get pending() {
        return this.#waiting.length + (this.#current?.callbacks.length ?? 0) + this.#ready.length;
    }
    /** Ids of the tasks that hold up the grace period under way. */
    get holdouts() {
        return [...(this.#current?.holdouts.keys() ?? [])];
    }
}
/** All flavours, and the workqueue that their callbacks defer to. */
export class GracePeriods {
    flavours;
    #work = [];
    #tasks;
    /**
     * @param tasks every task there is, exiting ones included
     * @param preemption CONFIG_PREEMPTION
     */
    constructor(tasks, preemption = true, bugs = NO_BUGS) {
        this.#tasks = tasks;
        this.flavours = {
            rcu: new RcuFlavour('rcu', preemption, bugs),
            'rcu-tasks': new RcuFlavour('rcu-tasks', preemption, bugs),
            'rcu-tasks-trace': new RcuFlavour('rcu-tasks-trace', preemption, bugs),
        };
    }
    callRcu(callback) {
        this.flavours.rcu.call(callback);
    }
    callRcuTasks(callback) {
        this.flavours['rcu-tasks'].call(callback);
    }
    callRcuTasksTrace(callback) {
        this.flavours['rcu-tasks-trace'].call(callback);
    }
    /** Kernel: schedule_work, kernel/workqueue.c */
    scheduleWork(callback) {
        this.#work.push(callback);
    }
    /** Lets one flavour look at the tasks. */
    tick(flavour) {
        this.flavours[flavour].tick(this.#tasks());
    }
    /** Runs the oldest work item; false when there is none. */
    runWork() {
        const work = this.#work.shift();
        work?.();
        return work !== undefined;
    }
    get pendingWork() {
        return this.#work.length;
    }
    /** Goes on until nothing happens without a task moving; false when nothing happened at all. */
    settle() {
        let progress = false;
        for (let again = true; again;) {
            again = false;
            for (const name of RCU_FLAVOURS) {
                const flavour = this.flavours[name];
                if (flavour.pending > 0)
                    this.tick(name);
                while (flavour.run())
                    again = true;
            }
            while (this.runWork())
                again = true;
            progress ||= again;
        }
        return progress;
    }
}
//# sourceMappingURL=rcu.js.map