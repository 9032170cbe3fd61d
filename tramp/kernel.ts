import type { Machine } from '../emu/index.ts';
import {
  emitRuntime,
  type HelperAddresses,
  linkCode,
  NOP5,
  patchBytes,
  type RevisionName,
  RuntimeData,
  STATS_KEY,
  TaskStruct,
} from '../jit/index.ts';
import { addrAdd, Bug, type Kaddr } from '../lib/index.ts';
import { Ftrace } from './ftrace.ts';
import { ModmemCharge, type TrampImage } from './image.ts';
import { Kallsyms } from './kallsyms.ts';
import type { KModule } from './module.ts';
import { GracePeriods, type RcuTask } from './rcu.ts';
import { TrampolineTable } from './trampoline.ts';

/** Nanoseconds that the clock shows at boot, and what each reading of it adds. */
const CLOCK_START = 1_000_000_000n;
const CLOCK_TICK = 10n;

export interface KernelOptions {
  readonly revision: RevisionName;
  /** CONFIG_PREEMPTION: decides how a retired image is waited for. Default true. */
  readonly preemption?: boolean;
  /** Pages of executable memory that images may take in all. Default: no limit that matters. */
  readonly modmemLimitPages?: number;
}

/**
 * What of a running kernel the trampolines stand on: its text with the enter and exit functions, the
 * symbol table, ftrace's sites, grace periods, and the knobs. One per machine.
 */
export class Kernel {
  readonly machine: Machine;
  readonly revision: RevisionName;
  readonly preemption: boolean;
  readonly kallsyms: Kallsyms = new Kallsyms();
  readonly ftrace: Ftrace;
  readonly grace: GracePeriods = new GracePeriods(() => this.tasks());
  readonly modmem: ModmemCharge;
  readonly trampolines: TrampolineTable = new TrampolineTable();
  /** What is loaded, oldest first. */
  readonly modules: KModule[] = [];
  /** Images that nothing calls any more and that are not freed yet. */
  readonly retired: Set<TrampImage> = new Set();
  /** The functions that images call, by symbol. */
  readonly helpers: HelperAddresses;
  /** Kernel: the warnings that WARN_ON would print, oldest first. */
  readonly warnings: string[] = [];

  readonly #clock: Kaddr;
  readonly #splats: number;
  readonly #statsSites: readonly { address: Kaddr; target: Kaddr }[];
  #statsOn = false;

  constructor(machine: Machine, options: KernelOptions) {
    this.machine = machine;
    this.revision = options.revision;
    this.preemption = options.preemption ?? true;
    this.modmem = new ModmemCharge(options.modmemLimitPages ?? Number.MAX_SAFE_INTEGER);
    this.ftrace = new Ftrace(machine);
    machine.locate = (address) => this.kallsyms.locate(address);

    const data = machine.memory.allocKernelData(16, 'clock');
    this.#clock = data;
    machine.memory.writeU64(data, CLOCK_START);
    const tick = addrAdd(data, 8);
    machine.memory.writeU64(tick, CLOCK_TICK);

    this.#splats = machine.percpu.alloc(4, 4);
    const { currentTask, preemptCount } = machine.percpu.vars;
    const code = emitRuntime(this.revision, { currentTask, preemptCount, mightFaultSplats: this.#splats });
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
      this.machine.patchText(address, on ? jump : Uint8Array.from(NOP5));
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
    if (condition) this.warnings.push(what);
    return condition;
  }

  /** What the grace periods look at: the current task of every CPU. */
  tasks(): RcuTask[] {
    const { machine } = this;
    return machine.cpus.map(({ id, inCall }): RcuTask => {
      const task = machine.current(id);
      const field = (offset: number): number => machine.memory.readU32(addrAdd(task, offset));
      return {
        id,
        onRq: inCall,
        inKernel: inCall,
        voluntarySwitches: 0,
        rcuReadLockNesting: field(TaskStruct.rcuReadLockNesting),
        trcReaderNesting: field(TaskStruct.trcReaderNesting),
      };
    });
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
