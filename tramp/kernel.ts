import type { Machine, Vcpu } from '../emu/index.ts';
import {
  type HelperAddresses,
  type Revision,
  type RuntimeBug,
  revisions,
  SCHEDULE,
  TaskStruct,
  type TrampolineConfig,
} from '../jit/index.ts';
import { addrAdd, type Kaddr } from '../lib/index.ts';
import type { KernelBug, KernelBugs } from './bugs.ts';
import { CgroupLsm } from './cgroup-lsm.ts';
import { FailPoints } from './failpoints.ts';
import { Ftrace } from './ftrace.ts';
import type { TrampImage } from './image.ts';
import { type ImageMemory, PackMemory, PageMemory } from './image-memory.ts';
import { Kallsyms } from './kallsyms.ts';
import { ModmemCharge } from './modmem.ts';
import { type KModule, ModuleText } from './module.ts';
import type { BpfProg } from './prog.ts';
import { GracePeriods, type RcuTask } from './rcu.ts';
import { placeReturnThunk } from './return-thunk.ts';
import { managers } from './rev/managers.ts';
import type { ManagerRules } from './rev/rules.ts';
import { type ManagedRevision, managedRevision } from './revisions.ts';
import { RuntimeText } from './runtime-text.ts';
import type { Scheduler } from './sched.ts';
import { TextPoker } from './text-poke.ts';
import { TrampolineTable } from './trampoline.ts';

/** How the kernel was built and on which CPU it runs, as far as images and patches show it (v6.1 on). Default: no. */
export type BuildConfig = Omit<TrampolineConfig, 'origCallStartsWithEndbr'>;

export interface KernelOptions {
  readonly revision: ManagedRevision;
  readonly config?: BuildConfig;
  /** Emitter to use in place of the revision's own. */
  readonly emitter?: Revision;
  /** CONFIG_PREEMPTION: decides how a retired image is waited for. Default true. */
  readonly preemption?: boolean;
  /** CONFIG_TASKS_RCU: what v6.12 looks at in its place. Default as `preemption`, which selects it. */
  readonly tasksRcu?: boolean;
  /** CONFIG_DYNAMIC_FTRACE_WITH_DIRECT_CALLS: without it, v6 kernels cannot trace ftrace's sites. Default true. */
  readonly directCalls?: boolean;
  /** Pages of executable memory that images may take in all. Default: no limit that matters. */
  readonly modmemLimitPages?: number;
  /**
   * How long programs and images stay once they are detached. `kernel`, as in the kernels: a program
   * until a grace period of its own is over, an fentry-only image until one wait for sleepable programs and
   * one for tasks are over. `held`, which is safe: a program until every image that calls it is freed as
   * well, an image until it has waited for each sleepable program. Default `kernel`. See docs/lifetimes.md.
   */
  readonly programLifetime?: 'kernel' | 'held';
  /** Bugs to have. Default none. */
  readonly bugs?: readonly KernelBug[];
}

/** A limit that does not matter: 16 TiB. */
const NO_LIMIT_PAGES = 2 ** 32;

/**
 * What of a running kernel the trampolines stand on: its text with the enter and exit functions, the
 * symbol table, ftrace's sites, grace periods, and the knobs. One per machine.
 */
export class Kernel {
  readonly machine: Machine;
  readonly revision: ManagedRevision;
  readonly emitter: Revision;
  /** What this revision does differently from others. */
  readonly rules: ManagerRules;
  readonly config: BuildConfig;
  readonly preemption: boolean;
  readonly tasksRcu: boolean;
  readonly directCalls: boolean;
  readonly programLifetime: 'kernel' | 'held';
  readonly bugs: KernelBugs;
  /** Where operations can be made to fail. */
  readonly fail: FailPoints = new FailPoints();
  /** Changes live text. */
  readonly text: TextPoker;
  /** The tasks, when there are any beside those that each CPU starts with. */
  scheduler: Scheduler | undefined;
  /** Lets the other CPUs run between two steps of a text poke; a simulation puts itself here. */
  sync: () => void = () => undefined;
  /** Told what happens to images and programs, as it happens; a simulation puts its history here. */
  trace: (what: string) => void = () => undefined;
  readonly kallsyms: Kallsyms;
  readonly ftrace: Ftrace;
  readonly grace: GracePeriods;
  readonly modmem: ModmemCharge;
  readonly imageMemory: ImageMemory;
  readonly trampolines: TrampolineTable = new TrampolineTable();
  /** What is loaded, oldest first. */
  readonly modules: KModule[] = [];
  /** The same by address. */
  readonly moduleText: ModuleText = new ModuleText();
  /** Programs whose memory is not given back yet. Kernel: prog_idr */
  readonly progs: Set<BpfProg> = new Set();
  /** Images that are not freed yet. */
  readonly images: Set<TrampImage> = new Set();
  /** Those of them that nothing calls any more. */
  readonly retired: Set<TrampImage> = new Set();
  /** LSM programs of cgroups. */
  readonly cgroupLsm: CgroupLsm = new CgroupLsm(this);
  /** The functions that images call, by symbol. */
  readonly helpers: HelperAddresses;
  /** Kernel: the warnings that WARN_ON would print, oldest first. */
  readonly warnings: string[] = [];

  readonly #initTasks: readonly Kaddr[];
  readonly #runtime: RuntimeText;

  /** @throws InputError for a revision without a manager */
  constructor(machine: Machine, options: KernelOptions) {
    this.machine = machine;
    this.revision = managedRevision(options.revision);
    this.emitter = options.emitter ?? revisions[this.revision];
    this.rules = managers[this.revision];
    this.config = options.config ?? {};
    this.preemption = options.preemption ?? true;
    this.directCalls = options.directCalls ?? true;
    this.tasksRcu = options.tasksRcu ?? this.preemption;
    const bugs: KernelBugs = new Set(options.bugs);
    this.bugs = bugs;
    this.grace = new GracePeriods(() => this.tasks(), this.preemption, bugs);
    this.programLifetime = options.programLifetime ?? 'kernel';
    this.kallsyms = new Kallsyms(bugs);
    this.text = new TextPoker(machine, () => this.sync(), bugs);
    this.modmem = new ModmemCharge(options.modmemLimitPages ?? NO_LIMIT_PAGES, this.rules.chargeUnitBytes);
    this.ftrace = new Ftrace(machine, this.text, this.fail, bugs);
    this.imageMemory =
      this.rules.imageMemory === 'page' ? new PageMemory(machine) : new PackMemory(machine, bugs);
    machine.locate = (address) => this.kallsyms.locate(address) ?? this.imageMemory.freedAt(address);

    this.#initTasks = machine.cpus.map(({ id }) => machine.current(id));
    this.#runtime = new RuntimeText(machine, this.kallsyms, this.text, this.revision, {
      bugs: bugs as ReadonlySet<RuntimeBug>,
    });
    const { helpers } = this.#runtime;
    this.helpers =
      this.config.rethunk === true ? { ...helpers, ...placeReturnThunk(machine, this.kallsyms) } : helpers;
  }

  /** Whether run-time statistics are counted; switched by patching the text. Kernel: sysctl kernel.bpf_stats_enabled */
  get statsEnabled(): boolean {
    return this.#runtime.statsEnabled;
  }

  set statsEnabled(on: boolean) {
    this.#runtime.statsEnabled = on;
  }

  /** The deterministic clock, nanoseconds. Every reading by a guest adds 10. Kernel: sched_clock */
  get clock(): bigint {
    return this.#runtime.clock;
  }

  set clock(nanoseconds: bigint) {
    this.#runtime.clock = nanoseconds;
  }

  /** Waits: time passes, and the other CPUs run. */
  msleep(milliseconds: number): void {
    this.clock += BigInt(milliseconds) * 1_000_000n;
    this.sync();
  }

  /** How often a CPU entered a sleepable program where sleeping was not allowed. */
  mightFaultSplats(cpu: number): number {
    return this.#runtime.mightFaultSplats(cpu);
  }

  /** Kernel: is_kernel_text, is_bpf_text_address. Text of modules counts as neither. */
  isPokableText(address: Kaddr): boolean {
    const kind = this.kallsyms.lookup(address)?.ksym.kind;
    return kind === 'kernel' || kind === 'bpf';
  }

  warnOn(condition: boolean, what: string): boolean {
    if (condition) {
      this.warnings.push(what);
      this.trace(`WARNING ${what}`);
    }
    return condition;
  }

  /** Address at which a task goes to sleep. */
  get scheduleEntry(): Kaddr {
    return this.helpers[SCHEDULE] as Kaddr;
  }

  /** What the grace periods look at: every task, and the calls of the library, which have none. */
  tasks(): RcuTask[] {
    const tasks = this.scheduler?.tasks ?? [];
    const seen = this.bugs.has('L8') ? tasks.filter((task) => !task.exiting) : tasks;
    return [...seen, ...this.machine.cpus.map((cpu) => this.#initTask(cpu))];
  }

  /** The task that a CPU starts with: in the kernel while a call of the library is in flight. */
  #initTask({ id, inCall }: Vcpu): RcuTask {
    const task = this.#initTasks[id] as Kaddr;
    const field = (offset: number): number => this.machine.memory.readU32(addrAdd(task, offset));
    const inKernel = inCall && this.machine.current(id) === task;
    return {
      id: -1 - id,
      onRq: inKernel,
      inKernel,
      voluntarySwitches: 0,
      rcuReadLockNesting: field(TaskStruct.rcuReadLockNesting),
      trcReaderNesting: field(TaskStruct.trcReaderNesting),
    };
  }

  /**
   * What is left when a call of the library died on a CPU: its task is in no read-side section any more, and
   * is the CPU's current one again, whatever the guest wrote there. References and counters that it took stay
   * taken. Kernel: make_task_dead, exit_rcu, exit_tasks_rcu_finish
   */
  killCurrent(cpu: number): void {
    const { memory, percpu } = this.machine;
    const task = this.#initTasks[cpu] as Kaddr;
    this.machine.setCurrent(cpu, task);
    for (const field of [
      TaskStruct.rcuReadLockNesting,
      TaskStruct.trcReaderNesting,
      TaskStruct.migrationDisabled,
    ]) {
      memory.writeU32(addrAdd(task, field), 0);
    }
    memory.writeU64(addrAdd(task, TaskStruct.bpfCtx), 0n);
    memory.writeU32(percpu.address(percpu.vars.preemptCount, cpu), 0);
  }

  /** Does what need not wait for any task: grace periods that are over, images whose last caller has left. */
  settle(): void {
    do {
      this.grace.settle();
      for (const im of this.retired) im.pcref.poll();
    } while (this.grace.settle());
  }
}
