import { TaskStruct } from '../jit/index.js';
import { addrAdd } from '../lib/index.js';
/** Stack of a task, bytes. Kernel: THREAD_SIZE */
const STACK_BYTES = 16 * 1024;
/** Room above the first frame. Kernel: struct pt_regs lies there */
const STACK_HEADROOM = 256;
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
export class Task {
    id;
    name;
    /** The struct task_struct. */
    struct;
    stackTop;
    /** The CPU whose run queue it is on. */
    cpu;
    onCpu = false;
    asleep = false;
    gone = false;
    /** On its way out: no longer in the list of tasks, but still running kernel code. */
    exiting = false;
    inKernel = false;
    voluntarySwitches = 0;
    /** Registers of the call in flight while it is off the CPU. */
    context;
    /** Results of its calls, oldest first. */
    results = [];
    #kernel;
    #stack;
    #next;
    /** @param next the next call to make; undefined ends the task */
    constructor(kernel, id, name, cpu, next) {
        const { memory } = kernel.machine;
        this.#kernel = kernel;
        this.id = id;
        this.name = name;
        this.cpu = cpu;
        this.#next = next;
        this.struct = memory.kmalloc(TaskStruct.size, `task ${name}`);
        this.#stack = memory.vmalloc(STACK_BYTES, `stack of ${name}`);
        this.stackTop = addrAdd(this.#stack, STACK_BYTES - STACK_HEADROOM);
    }
    get onRq() {
        return !this.asleep && !this.gone;
    }
    get rcuReadLockNesting() {
        return this.#field(TaskStruct.rcuReadLockNesting);
    }
    get trcReaderNesting() {
        return this.#field(TaskStruct.trcReaderNesting);
    }
    get migrationDisabled() {
        return this.#field(TaskStruct.migrationDisabled);
    }
    nextCall() {
        return this.#next();
    }
    /** Gives struct and stack back. */
    free() {
        const { memory } = this.#kernel.machine;
        memory.kfree(this.struct);
        memory.vfree(this.#stack);
    }
    #field(offset) {
        return this.gone ? 0 : this.#kernel.machine.memory.readU32(addrAdd(this.struct, offset));
    }
}
//# sourceMappingURL=task.js.map