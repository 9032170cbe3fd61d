import type { VcpuContext } from '../emu/index.ts';
import { TaskStruct } from '../jit/index.ts';
import { addrAdd, type Kaddr } from '../lib/index.ts';
import type { Kernel } from './kernel.ts';
import type { RcuTask } from './rcu.ts';

/** Stack of a task, bytes. Kernel: THREAD_SIZE */
const STACK_BYTES = 16 * 1024;
/** Room above the first frame. Kernel: struct pt_regs lies there */
const STACK_HEADROOM = 256;

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
export class Task implements RcuTask {
  readonly id: number;
  readonly name: string;
  /** The struct task_struct. */
  readonly struct: Kaddr;
  readonly stackTop: Kaddr;
  /** The CPU whose run queue it is on. */
  cpu: number;
  onCpu = false;
  asleep = false;
  gone = false;
  /** On its way out: no longer in the list of tasks, but still running kernel code. */
  exiting = false;
  inKernel = false;
  voluntarySwitches = 0;
  /** Registers of the call in flight while it is off the CPU. */
  context: VcpuContext | undefined;
  /** Results of its calls, oldest first. */
  readonly results: bigint[] = [];

  readonly #kernel: Kernel;
  readonly #stack: Kaddr;
  readonly #next: () => TaskCall | undefined;

  /** @param next the next call to make; undefined ends the task */
  constructor(kernel: Kernel, id: number, name: string, cpu: number, next: () => TaskCall | undefined) {
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

  get onRq(): boolean {
    return !this.asleep && !this.gone;
  }

  get rcuReadLockNesting(): number {
    return this.#field(TaskStruct.rcuReadLockNesting);
  }

  get trcReaderNesting(): number {
    return this.#field(TaskStruct.trcReaderNesting);
  }

  get migrationDisabled(): number {
    return this.#field(TaskStruct.migrationDisabled);
  }

  nextCall(): TaskCall | undefined {
    return this.#next();
  }

  /** Gives struct and stack back. */
  free(): void {
    const { memory } = this.#kernel.machine;
    memory.kfree(this.struct);
    memory.vfree(this.#stack);
  }

  #field(offset: number): number {
    return this.gone ? 0 : this.#kernel.machine.memory.readU32(addrAdd(this.struct, offset));
  }
}
