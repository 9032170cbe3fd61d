import type { Machine } from '../emu/index.ts';
import { type HelperAddresses, type Revision, type TrampolineConfig } from '../jit/index.ts';
import { type Kaddr } from '../lib/index.ts';
import type { KernelBug, KernelBugs } from './bugs.ts';
import { CgroupLsm } from './cgroup-lsm.ts';
import { FailPoints } from './failpoints.ts';
import { Ftrace } from './ftrace.ts';
import type { TrampImage } from './image.ts';
import { type ImageMemory } from './image-memory.ts';
import { Kallsyms } from './kallsyms.ts';
import { ModmemCharge } from './modmem.ts';
import { type KModule, ModuleText } from './module.ts';
import type { BpfProg } from './prog.ts';
import { GracePeriods, type RcuTask } from './rcu.ts';
import type { ManagerRules } from './rev/rules.ts';
import { type ManagedRevision } from './revisions.ts';
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
     * How long programs and images stay once they are detached. `kernel`, as in v5.13 and v5.15: a program
     * until a grace period of its own is over, an fentry-only image until one wait for sleepable programs and
     * one for tasks are over. `held`, which is safe: a program until every image that calls it is freed as
     * well, an image until it has waited for each sleepable program. Default `kernel`. See docs/lifetimes.md.
     */
    readonly programLifetime?: 'kernel' | 'held';
    /** Bugs to have. Default none. */
    readonly bugs?: readonly KernelBug[];
}
/**
 * What of a running kernel the trampolines stand on: its text with the enter and exit functions, the
 * symbol table, ftrace's sites, grace periods, and the knobs. One per machine.
 */
export declare class Kernel {
    #private;
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
    readonly fail: FailPoints;
    /** Changes live text. */
    readonly text: TextPoker;
    /** The tasks, when there are any beside those that each CPU starts with. */
    scheduler: Scheduler | undefined;
    /** Lets the other CPUs run between two steps of a text poke; a simulation puts itself here. */
    sync: () => void;
    /** Told what happens to images and programs, as it happens; a simulation puts its history here. */
    trace: (what: string) => void;
    readonly kallsyms: Kallsyms;
    readonly ftrace: Ftrace;
    readonly grace: GracePeriods;
    readonly modmem: ModmemCharge;
    readonly imageMemory: ImageMemory;
    readonly trampolines: TrampolineTable;
    /** What is loaded, oldest first. */
    readonly modules: KModule[];
    /** The same by address. */
    readonly moduleText: ModuleText;
    /** Programs whose memory is not given back yet. Kernel: prog_idr */
    readonly progs: Set<BpfProg>;
    /** Images that are not freed yet. */
    readonly images: Set<TrampImage>;
    /** Those of them that nothing calls any more. */
    readonly retired: Set<TrampImage>;
    /** LSM programs of cgroups. */
    readonly cgroupLsm: CgroupLsm;
    /** The functions that images call, by symbol. */
    readonly helpers: HelperAddresses;
    /** Kernel: the warnings that WARN_ON would print, oldest first. */
    readonly warnings: string[];
    /** @throws InputError for a revision without a manager */
    constructor(machine: Machine, options: KernelOptions);
    /** Whether run-time statistics are counted; switched by patching the text. Kernel: sysctl kernel.bpf_stats_enabled */
    get statsEnabled(): boolean;
    set statsEnabled(on: boolean);
    /** The deterministic clock, nanoseconds. Every reading by a guest adds 10. Kernel: sched_clock */
    get clock(): bigint;
    set clock(nanoseconds: bigint);
    /** Waits: time passes, and the other CPUs run. */
    msleep(milliseconds: number): void;
    /** How often a CPU entered a sleepable program where sleeping was not allowed. */
    mightFaultSplats(cpu: number): number;
    /** Kernel: is_kernel_text, is_bpf_text_address. Text of modules counts as neither. */
    isPokableText(address: Kaddr): boolean;
    warnOn(condition: boolean, what: string): boolean;
    /** Address at which a task goes to sleep. */
    get scheduleEntry(): Kaddr;
    /** What the grace periods look at: every task, and the calls of the library, which have none. */
    tasks(): RcuTask[];
    /**
     * What is left when a call of the library died on a CPU: its task is in no read-side section any more, and
     * is the CPU's current one again, whatever the guest wrote there. References and counters that it took stay
     * taken. Kernel: make_task_dead, exit_rcu, exit_tasks_rcu_finish
     */
    killCurrent(cpu: number): void;
    /** Does what need not wait for any task: grace periods that are over, images whose last caller has left. */
    settle(): void;
}
