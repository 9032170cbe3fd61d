import type { Machine, Vcpu } from '../emu/index.ts';
import {
  emitRuntime,
  type HelperAddresses,
  linkCode,
  NOP5,
  patchBytes,
  type Revision,
  type RevisionName,
  RuntimeData,
  revisions,
  SCHEDULE,
  STATS_KEY,
  TaskStruct,
} from '../jit/index.ts';
import { addrAdd, Bug, type Kaddr } from '../lib/index.ts';
import type { KernelBug } from './bugs.ts';
import { FailPoints } from './failpoints.ts';
import { Ftrace } from './ftrace.ts';
import { ModmemCharge, type TrampImage } from './image.ts';
import { Kallsyms } from './kallsyms.ts';
import { type KModule, ModuleText } from './module.ts';
import type { BpfProg } from './prog.ts';
import { GracePeriods, type RcuTask } from './rcu.ts';
import type { Scheduler } from './sched.ts';
import { TextPoker } from './text-poke.ts';
import { TrampolineTable } from './trampoline.ts';

/** Nanoseconds that the clock shows at boot, and what each reading of it adds. */
const CLOCK_START = 1_000_000_000n;
const CLOCK_TICK = 10n;

export interface KernelOptions {
  readonly revision: RevisionName;
  /** Emitter to use in place of the revision's own. */
  readonly emitter?: Revision;
  /** CONFIG_PREEMPTION: decides how a retired image is waited for. Default true. */
  readonly preemption?: boolean;
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
export class Kernel {
  readonly machine: Machine;
  readonly revision: RevisionName;
  readonly emitter: Revision;
  readonly preemption: boolean;
  readonly programLifetime: 'kernel' | 'held';
  readonly bugs: ReadonlySet<KernelBug>;
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
  readonly kallsyms: Kallsyms = new Kallsyms();
  readonly ftrace: Ftrace;
  readonly grace: GracePeriods;
  readonly modmem: ModmemCharge;
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
  /** The functions that images call, by symbol. */
  readonly helpers: HelperAddresses;
  /** Kernel: the warnings that WARN_ON would print, oldest first. */
  readonly warnings: string[] = [];

  readonly #initTasks: readonly Kaddr[];
  readonly #clock: Kaddr;
  readonly #splats: number;
  readonly #statsSites: readonly { address: Kaddr; target: Kaddr }[];
  #statsOn = false;

  constructor(machine: Machine, options: KernelOptions) {
    this.machine = machine;
    this.revision = options.revision;
    this.emitter = options.emitter ?? revisions[options.revision];
    this.preemption = options.preemption ?? true;
    this.grace = new GracePeriods(() => this.tasks(), this.preemption);
    this.programLifetime = options.programLifetime ?? 'kernel';
    this.bugs = new Set(options.bugs);
    this.text = new TextPoker(machine, () => this.sync(), this.bugs.has('torn-write'));
    this.modmem = new ModmemCharge(options.modmemLimitPages ?? Number.MAX_SAFE_INTEGER);
    this.ftrace = new Ftrace(machine, this.text);
    machine.locate = (address) => this.kallsyms.locate(address);

    this.#initTasks = machine.cpus.map(({ id }) => machine.current(id));
    const data = machine.memory.allocKernelData(16, 'clock');
    this.#clock = data;
    machine.memory.writeU64(data, CLOCK_START);
    const tick = addrAdd(data, 8);
    machine.memory.writeU64(tick, CLOCK_TICK);

    this.#splats = machine.percpu.alloc(4, 4);
    const { currentTask, preemptCount } = machine.percpu.vars;
    const code = emitRuntime(
      this.revision,
      { currentTask, preemptCount, mightFaultSplats: this.#splats },
      {
        migrateDisableSleepable: !this.bugs.has('L12'),
        recursionCounter: !this.bugs.has('L13'),
      },
    );
    const base = machine.memory.allocKernelText(code.bytes.length, 'kernel text');
    const addresses = new Map<string, Kaddr>([
      [RuntimeData.clock, data],
      [RuntimeData.tick, tick],
    ]);
    const linked = linkCode(code, base, (symbol) => addresses.get(symbol));
    machine.patchText(base, linked.bytes);
    for (const { name, offset, sizeBytes } of linked.symbols) {
      this.kallsyms.add({
        name,
        start: addrAdd(base, offset),
        sizeBytes,
        kind: 'kernel',
        code: () => slice(linked, offset, sizeBytes),
      });
    }
    this.helpers = Object.fromEntries(
      linked.symbols.map(({ name, offset }) => [name, addrAdd(base, offset)]),
    );
    this.#statsSites = linked.sites
      .filter(({ name }) => name === STATS_KEY)
      .map(({ offset, targetOffset }) => {
        if (targetOffset === undefined) throw new Bug('a static branch without a target');
        return { address: addrAdd(base, offset), target: addrAdd(base, targetOffset) };
      });
  }

  /** Whether run-time statistics are counted. Kernel: sysctl kernel.bpf_stats_enabled */
  get statsEnabled(): boolean {
    return this.#statsOn;
  }

  /** Switches run-time statistics by patching the static branches in the enter and exit functions. */
  set statsEnabled(on: boolean) {
    for (const { address, target } of this.#statsSites) {
      const jump = patchBytes('JUMP', address, target);
      if (jump === undefined) throw new Bug('a static branch reaches further than 2 GiB');
      if (on !== this.#statsOn) this.text.poke(address, on ? jump : Uint8Array.from(NOP5));
    }
    this.#statsOn = on;
  }

  /** The deterministic clock, nanoseconds. Every reading by a guest adds 10. Kernel: sched_clock */
  get clock(): bigint {
    return this.machine.memory.readU64(this.#clock);
  }

  set clock(nanoseconds: bigint) {
    this.machine.memory.writeU64(this.#clock, nanoseconds);
  }

  /** How often a CPU entered a sleepable program where sleeping was not allowed. */
  mightFaultSplats(cpu: number): number {
    const { memory, percpu } = this.machine;
    return memory.readU32(percpu.address(this.#splats, cpu));
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
   * What is left of a task that died in the kernel: it is in no read-side section any more. References and
   * counters that it took stay taken. Kernel: make_task_dead, exit_rcu, exit_tasks_rcu_finish
   */
  killCurrent(cpu: number): void {
    const { memory, percpu } = this.machine;
    const task = this.machine.current(cpu);
    for (const field of [
      TaskStruct.rcuReadLockNesting,
      TaskStruct.trcReaderNesting,
      TaskStruct.migrationDisabled,
    ]) {
      memory.writeU32(addrAdd(task, field), 0);
    }
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

/** The part of linked code that one symbol covers, offsets from its start. */
function slice(
  code: ReturnType<typeof linkCode>,
  offset: number,
  sizeBytes: number,
): ReturnType<typeof linkCode> {
  const within = <T extends { readonly offset: number }>(items: readonly T[]): T[] =>
    items
      .filter((item) => item.offset >= offset && item.offset < offset + sizeBytes)
      .map((item) => ({ ...item, offset: item.offset - offset }));
  return {
    bytes: code.bytes.subarray(offset, offset + sizeBytes),
    insns: within(code.insns),
    relocs: within(code.relocs),
    sites: [],
    symbols: [],
  };
}
