import { revisions, SCHEDULE, TaskStruct, } from '../jit/index.js';
import { addrAdd } from '../lib/index.js';
import { CgroupLsm } from './cgroup-lsm.js';
import { FailPoints } from './failpoints.js';
import { Ftrace } from './ftrace.js';
import { PackMemory, PageMemory } from './image-memory.js';
import { Kallsyms } from './kallsyms.js';
import { ModmemCharge } from './modmem.js';
import { ModuleText } from './module.js';
import { GracePeriods } from './rcu.js';
import { placeReturnThunk } from './return-thunk.js';
import { managers } from './rev/managers.js';
import { managedRevision } from './revisions.js';
import { RuntimeText } from './runtime-text.js';
import { TextPoker } from './text-poke.js';
import { TrampolineTable } from './trampoline.js';
/** A limit that does not matter: 16 TiB. */
const NO_LIMIT_PAGES = 2 ** 32;
/**
 * What of a running kernel the trampolines stand on: its text with the enter and exit functions, the
 * symbol table, ftrace's sites, grace periods, and the knobs. One per machine.
 */
export class Kernel {
    machine;
    revision;
    emitter;
    /** What this revision does differently from others. */
    rules;
    config;
    preemption;
    tasksRcu;
    directCalls;
    programLifetime;
    bugs;
    /** Where operations can be made to fail. */
    fail = new FailPoints();
    /** Changes live text. */
    text;
    /** The tasks, when there are any beside those that each CPU starts with. */
    scheduler;
    /** Lets the other CPUs run between two steps of a text poke; a simulation puts itself here. */
    sync = () => undefined;
    /** Told what happens to images and programs, as it happens; a simulation puts its history here. */
    trace = () => undefined;
    kallsyms;
    ftrace;
    grace;
    modmem;
    imageMemory;
    trampolines = new TrampolineTable();
    /** What is loaded, oldest first. */
    modules = [];
    /** The same by address. */
    moduleText = new ModuleText();
    /** Programs whose memory is not given back yet. Kernel: prog_idr */
    progs = new Set();
    /** Images that are not freed yet. */
    images = new Set();
    /** Those of them that nothing calls any more. */
    retired = new Set();
    /** LSM programs of cgroups. */
    cgroupLsm = new CgroupLsm(this);
    /** The functions that images call, by symbol. */
    helpers;
    /** Kernel: the warnings that WARN_ON would print, oldest first. */
    warnings = [];
    #initTasks;
    #runtime;
    /** @throws InputError for a revision without a manager */
    constructor(machine, options) {
        this.machine = machine;
        this.revision = managedRevision(options.revision);
        this.emitter = options.emitter ?? revisions[this.revision];
        this.rules = managers[this.revision];
        this.config = options.config ?? {};
        this.preemption = options.preemption ?? true;
        this.directCalls = options.directCalls ?? true;
        this.tasksRcu = options.tasksRcu ?? this.preemption;
        const bugs = new Set(options.bugs);
        this.bugs = bugs;
        this.grace = new GracePeriods(() => this.tasks(), this.preemption, bugs);
        this.programLifetime = options.programLifetime ?? 'kernel';
        this.kallsyms = new Kallsyms(bugs);
        this.text = new TextPoker(machine, () => this.sync(), bugs);
        this.modmem = new ModmemCharge(options.modmemLimitPages ?? NO_LIMIT_PAGES, this.rules.chargeUnitBytes);
        this.ftrace = new Ftrace(machine, this.text, this.fail, bugs);
        this.imageMemory = this.rules.imageMemory === 'page' ? new PageMemory(machine) : new PackMemory(machine);
        machine.locate = (address) => this.kallsyms.locate(address) ?? this.imageMemory.freedAt(address);
        this.#initTasks = machine.cpus.map(({ id }) => machine.current(id));
        this.#runtime = new RuntimeText(machine, this.kallsyms, this.text, this.revision, {
            bugs: bugs,
        });
        const { helpers } = this.#runtime;
        this.helpers =
            this.config.rethunk === true ? { ...helpers, ...placeReturnThunk(machine, this.kallsyms) } : helpers;
    }
    /** Whether run-time statistics are counted; switched by patching the text. Kernel: sysctl kernel.bpf_stats_enabled */
    get statsEnabled() {
        return this.#runtime.statsEnabled;
    }
    set statsEnabled(on) {
        this.#runtime.statsEnabled = on;
    }
    /** The deterministic clock, nanoseconds. Every reading by a guest adds 10. Kernel: sched_clock */
    get clock() {
        return this.#runtime.clock;
    }
    set clock(nanoseconds) {
        this.#runtime.clock = nanoseconds;
    }
    /** Waits: time passes, and the other CPUs run. */
    msleep(milliseconds) {
        this.clock += BigInt(milliseconds) * 1000000n;
        this.sync();
    }
    /** How often a CPU entered a sleepable program where sleeping was not allowed. */
    mightFaultSplats(cpu) {
        return this.#runtime.mightFaultSplats(cpu);
    }
    /** Kernel: is_kernel_text, is_bpf_text_address. Text of modules counts as neither. */
    isPokableText(address) {
        const kind = this.kallsyms.lookup(address)?.ksym.kind;
        return kind === 'kernel' || kind === 'bpf';
    }
    warnOn(condition, what) {
        if (condition) {
            this.warnings.push(what);
            this.trace(`WARNING ${what}`);
        }
        return condition;
    }
    /** Address at which a task goes to sleep. */
    get scheduleEntry() {
        return this.helpers[SCHEDULE];
    }
    /** What the grace periods look at: every task, and the calls of the library, which have none. */
    tasks() {
        const tasks = this.scheduler?.tasks ?? [];
        const seen = this.bugs.has('L8') ? tasks.filter((task) => !task.exiting) : tasks;
        return [...seen, ...this.machine.cpus.map((cpu) => this.#initTask(cpu))];
    }
    /** The task that a CPU starts with: in the kernel while a call of the library is in flight. */
    #initTask({ id, inCall }) {
        const task = this.#initTasks[id];
        const field = (offset) => this.machine.memory.readU32(addrAdd(task, offset));
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
    killCurrent(cpu) {
        const { memory, percpu } = this.machine;
        const task = this.#initTasks[cpu];
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
    settle() {
        do {
            this.grace.settle();
            for (const im of this.retired)
                im.pcref.poll();
        } while (this.grace.settle());
    }
}
//# sourceMappingURL=kernel.js.map