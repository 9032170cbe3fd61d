/*
 * Grace periods: the wait between "nobody new can get in" and "nobody is in any more".
 *
 *   call_rcu, call_rcu_tasks, call_rcu_tasks_trace     a callback waits for a grace period of its flavour
 *   schedule_work                                       a work item waits for the worker
 *
 * Simplified: one observation ends a grace period of every flavour, namely that no vCPU has a call in
 * flight. That is later than the kernel needs and never too early.
 */

export type RcuFlavour = 'rcu' | 'rcu-tasks' | 'rcu-tasks-trace';

interface Waiting {
  readonly what: RcuFlavour | 'work';
  readonly run: () => void;
}

export class GracePeriods {
  readonly #waiting: Waiting[] = [];

  /** Kernel: call_rcu, kernel/rcu/tree.c */
  callRcu(run: () => void): void {
    this.#waiting.push({ what: 'rcu', run });
  }

  /** Kernel: call_rcu_tasks, kernel/rcu/tasks.h */
  callRcuTasks(run: () => void): void {
    this.#waiting.push({ what: 'rcu-tasks', run });
  }

  /** Kernel: call_rcu_tasks_trace, kernel/rcu/tasks.h */
  callRcuTasksTrace(run: () => void): void {
    this.#waiting.push({ what: 'rcu-tasks-trace', run });
  }

  /** Kernel: schedule_work, kernel/workqueue.c */
  scheduleWork(run: () => void): void {
    this.#waiting.push({ what: 'work', run });
  }

  /** What is waiting, oldest first. */
  pending(): readonly (RcuFlavour | 'work')[] {
    return this.#waiting.map(({ what }) => what);
  }

  /** To be called when no vCPU has a call in flight: runs all callbacks, and those that they queue. */
  quiescent(): void {
    for (let next = this.#waiting.shift(); next !== undefined; next = this.#waiting.shift()) next.run();
  }
}
