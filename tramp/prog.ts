import { BpfProg as ProgField, type ProgRef, BpfProgStats as StatField } from '../jit/index.ts';
import { addrAdd, Bug, type Kaddr } from '../lib/index.ts';
import type { FuncModel } from '../obj/index.ts';
import type { Kernel } from './kernel.ts';

/** Where in a trampoline a program runs. Kernel: enum bpf_tramp_prog_type, its first three. */
export const PROG_KINDS: readonly ProgKind[] = ['fentry', 'fmod_ret', 'fexit'];
export type ProgKind = 'fentry' | 'fmod_ret' | 'fexit';

/** What a program is loaded to be attached as. Kernel: prog->expected_attach_type and its program type */
export const ATTACH_KINDS: readonly AttachKind[] = ['fentry', 'fmod_ret', 'fexit', 'lsm', 'freplace'];
export type AttachKind = ProgKind | 'lsm' | 'freplace';

export interface ProgOptions {
  readonly name: string;
  readonly kind: AttachKind;
  /** Address of its code. */
  readonly bpfFunc: Kaddr;
  readonly sleepable?: boolean;
  /** It asks for the traced function's address, so its image keeps that. Kernel: prog->call_get_func_ip */
  readonly callsGetFuncIp?: boolean;
  /** Gives the code back when the program is freed. */
  readonly release?: () => void;
}

/**
 * Which list of a trampoline a program goes to. An LSM program on a hook without result runs behind it,
 * on any other it may replace the result. Kernel: bpf_attach_type_to_tramp
 */
export function trampKind(kind: AttachKind, model: FuncModel): ProgKind | 'replace' {
  switch (kind) {
    case 'fentry':
    case 'fmod_ret':
    case 'fexit':
      return kind;
    case 'lsm':
      return model.ret.sizeBytes === 0 ? 'fexit' : 'fmod_ret';
    case 'freplace':
      return 'replace';
  }
}

/** What a CPU has counted for a program. Runs and time only while statistics are on. */
export interface ProgCounters {
  readonly runs: bigint;
  readonly nsecs: bigint;
  readonly misses: bigint;
  /** How deep the program runs on this CPU now. */
  readonly active: number;
}

/**
 * So many programs have pages of their own, as all have in the kernel, so that whoever uses a freed one
 * faults on it. Simplified: further ones share pages and are poisoned when freed, as a machine has room
 * for about a thousand mappings.
 */
const OWN_PAGES = 256;

/**
 * A loaded program: its struct bpf_prog and per-CPU counters in guest memory, and its code.
 * Starts with one reference, the loader's. Kernel: struct bpf_prog
 */
export class BpfProg {
  readonly name: string;
  readonly kind: AttachKind;
  readonly sleepable: boolean;
  readonly callsGetFuncIp: boolean;
  readonly bpfFunc: Kaddr;
  /** The struct bpf_prog. */
  readonly address: Kaddr;
  /** Whether it is on a trampoline's list. Kernel: !hlist_unhashed(&prog->aux->tramp_hlist) */
  linked = false;
  /** Its memory has been given back. */
  freed = false;

  readonly #kernel: Kernel;
  readonly #ownPages: boolean;
  readonly #stats: number;
  readonly #active: number;
  readonly #release: (() => void) | undefined;
  #references = 1;

  constructor(kernel: Kernel, options: ProgOptions) {
    const { memory, percpu } = kernel.machine;
    this.#kernel = kernel;
    this.name = options.name;
    this.kind = options.kind;
    this.bpfFunc = options.bpfFunc;
    this.sleepable = options.sleepable ?? false;
    this.callsGetFuncIp = options.callsGetFuncIp ?? false;
    this.#release = options.release;
    this.#ownPages = kernel.progs.size < OWN_PAGES;
    const what = `bpf_prog ${this.name}`;
    this.address = this.#ownPages
      ? memory.vmalloc(ProgField.size, what)
      : memory.kmalloc(ProgField.size, what);
    this.#stats = percpu.alloc(StatField.size, StatField.align);
    this.#active = percpu.alloc(4, 4);
    memory.writeU64(addrAdd(this.address, ProgField.stats), BigInt(this.#stats));
    memory.writeU64(addrAdd(this.address, ProgField.active), BigInt(this.#active));
    memory.writeU64(addrAdd(this.address, ProgField.bpfFunc), this.bpfFunc);
    kernel.progs.add(this);
  }

  /** Who keeps it loaded; 0 once it only waits to be freed. */
  get references(): number {
    return this.#references;
  }

  /** As the emitter wants it. */
  ref(): ProgRef {
    return {
      prog: this.address,
      bpfFunc: this.bpfFunc,
      insnsi: addrAdd(this.address, ProgField.insnsi),
      sleepable: this.sleepable,
      jited: true,
      name: this.name,
    };
  }

  counters(cpu: number): ProgCounters {
    const { memory, percpu } = this.#kernel.machine;
    const stats = percpu.address(this.#stats, cpu);
    const at = (field: number): bigint => memory.readU64(addrAdd(stats, field));
    return {
      runs: at(StatField.cnt),
      nsecs: at(StatField.nsecs),
      misses: at(StatField.misses),
      active: memory.readU32(percpu.address(this.#active, cpu)),
    };
  }

  /** Kernel: bpf_prog_inc */
  get(): void {
    if (this.#references === 0) throw new Bug(`program ${this.name} is gone`);
    this.#references++;
  }

  /** Drops a reference; with the last one the program is freed after a grace period. Kernel: bpf_prog_put */
  put(): void {
    if (this.#references === 0) throw new Bug(`program ${this.name} is put once too often`);
    if (--this.#references > 0) return;
    const { grace } = this.#kernel;
    const free = (): void => this.#free();
    this.#kernel.trace(`program ${this.name} waits for ${this.sleepable ? 'rcu-tasks-trace' : 'rcu'}`);
    if (this.sleepable) grace.callRcuTasksTrace(free);
    else grace.callRcu(free);
  }

  #free(): void {
    const { memory, percpu } = this.#kernel.machine;
    if (this.#ownPages) memory.vfree(this.address);
    else memory.kfree(this.address);
    percpu.free(this.#stats);
    percpu.free(this.#active);
    this.freed = true;
    this.#kernel.trace(`program ${this.name} is freed`);
    this.#kernel.progs.delete(this);
    this.#release?.();
  }
}
