/*
 * Tasks on CPUs, moved only when told. Nothing here is random: a simulation decides what happens, this
 * decides what may.
 *
 * Kernel: kernel/sched/core.c
 */
import { Bug } from '../lib/index.js';
import { Task } from './task.js';
export class Scheduler {
    #kernel;
    #tasks = [];
    #asleep = [];
    /** By CPU: tasks that could run and do not. */
    #queues;
    #running;
    #idle;
    #nextId = 1;
    constructor(kernel) {
        const { cpus } = kernel.machine;
        this.#kernel = kernel;
        this.#queues = cpus.map(() => []);
        this.#running = cpus.map(() => undefined);
        this.#idle = cpus.map(({ id }) => kernel.machine.current(id));
        kernel.scheduler = this;
    }
    /** Every task that is not gone, exiting ones included. */
    get tasks() {
        return this.#tasks;
    }
    /** Tasks that wait to be woken. */
    get asleep() {
        return this.#asleep;
    }
    /** Makes a runnable task on a CPU's queue, in user mode. */
    spawn(name, cpu, next) {
        const task = new Task(this.#kernel, this.#nextId++, name, cpu, next);
        this.#tasks.push(task);
        this.#queue(cpu).push(task);
        return task;
    }
    running(cpu) {
        return this.#running[cpu];
    }
    /** Tasks that could be put on a CPU now. */
    runnable(cpu) {
        return this.#queue(cpu);
    }
    /** Puts a runnable task on its idle CPU. */
    dispatch(task) {
        const cpu = this.#cpu(task.cpu);
        if (this.#running[task.cpu] !== undefined)
            throw new Bug(`CPU ${task.cpu} is busy`);
        if (!task.onRq || task.onCpu)
            throw new Bug(`${task.name} cannot be dispatched`);
        remove(this.#queue(task.cpu), task);
        this.#running[task.cpu] = task;
        task.onCpu = true;
        this.#kernel.machine.setCurrent(task.cpu, task.struct);
        if (task.context !== undefined)
            cpu.restoreContext(task.context);
        task.context = undefined;
    }
    /** Lets a CPU execute up to `steps` instructions of its task's call; starts the next call when there is none. */
    run(cpuId, steps) {
        const task = this.#running[cpuId];
        if (task === undefined)
            return { what: 'idle' };
        const cpu = this.#cpu(cpuId);
        if (!task.inKernel) {
            const call = task.nextCall();
            if (call === undefined) {
                this.#leave(task);
                this.#gone(task);
                return { what: 'gone', task };
            }
            if (call.exiting === true)
                task.exiting = true;
            cpu.begin(call.fn, call.args, { stackTop: task.stackTop, steps: Number.MAX_SAFE_INTEGER });
            task.inKernel = true;
        }
        const { reason, instructions, fault } = cpu.run({ steps, stopAt: this.#kernel.scheduleEntry });
        if (fault !== null) {
            task.inKernel = false;
            return { what: 'fault', task, instructions, fault };
        }
        if (reason === 'returned') {
            task.inKernel = false;
            task.results.push(cpu.regs.get('rax'));
            return { what: 'returned', task, instructions };
        }
        if (reason === 'steps')
            return { what: 'ran', task, instructions };
        this.#sleep(task);
        return { what: 'slept', task, instructions };
    }
    /** Whether a CPU's task may be taken off it against its will. */
    preemptible(cpuId) {
        const task = this.#running[cpuId];
        if (task === undefined)
            return false;
        return !task.inKernel || this.#kernel.preemption;
    }
    /** Takes the task off the CPU; it stays runnable. */
    preempt(cpuId) {
        const task = this.#running[cpuId];
        if (task === undefined || !this.preemptible(cpuId))
            throw new Bug(`CPU ${cpuId} has no task to preempt`);
        this.#leave(task);
        this.#queue(cpuId).push(task);
        return task;
    }
    wake(task) {
        if (!task.asleep)
            throw new Bug(`${task.name} is awake`);
        task.asleep = false;
        remove(this.#asleep, task);
        this.#queue(task.cpu).push(task);
    }
    /** Moves a task that is off the CPU to another one's queue; false when it has migration disabled. */
    migrate(task, cpuId) {
        if (task.onCpu)
            throw new Bug(`${task.name} is on a CPU`);
        if (task.migrationDisabled > 0)
            return false;
        if (!task.asleep) {
            remove(this.#queue(task.cpu), task);
            this.#queue(cpuId).push(task);
        }
        task.cpu = cpuId;
        return true;
    }
    /** A task reached schedule(): it sleeps until somebody wakes it. */
    #sleep(task) {
        if (task.rcuReadLockNesting > 0) {
            this.#kernel.warnOn(true, `schedule: ${task.name} sleeps inside rcu_read_lock`);
        }
        task.voluntarySwitches++;
        task.asleep = true;
        this.#leave(task);
        this.#asleep.push(task);
    }
    #leave(task) {
        const cpu = this.#cpu(task.cpu);
        if (task.inKernel)
            task.context = cpu.saveContext();
        cpu.abort();
        this.#running[task.cpu] = undefined;
        task.onCpu = false;
        this.#kernel.machine.setCurrent(task.cpu, this.#idle[task.cpu]);
    }
    #gone(task) {
        task.gone = true;
        remove(this.#tasks, task);
        task.free();
    }
    #queue(cpu) {
        const queue = this.#queues[cpu];
        if (queue === undefined)
            throw new Bug(`no CPU ${cpu}`);
        return queue;
    }
    #cpu(id) {
        const cpu = this.#kernel.machine.cpus[id];
        if (cpu === undefined)
            throw new Bug(`no CPU ${id}`);
        return cpu;
    }
}
function remove(tasks, task) {
    tasks.splice(tasks.indexOf(task), 1);
}
//# sourceMappingURL=sched.js.map