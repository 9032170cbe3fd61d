import { HelperPair, BpfProg as ProgField, type ProgRef, BpfProgStats as StatField } from '../jit/index.ts';
import { addrAdd, Bug, type Kaddr, KernelError } from '../lib/index.ts';
import type { FuncModel } from '../obj/index.ts';
import type { Kernel } from './kernel.ts';
import { TrampLink } from './link.ts';
import type { KModule } from './module.ts';
import { Mutex } from './mutex.ts';

/** Where in a trampoline a program runs. Kernel: enum bpf_tramp_prog_type, its first three. */
export const PROG_KINDS: readonly ProgKind[] = ['fentry', 'fmod_ret', 'fexit'];
export type ProgKind = 'fentry' | 'fmod_ret' | 'fexit';

/** What a program is loaded to be attached as. Kernel: prog->expected_attach_type and its program type */
export const ATTACH_KINDS: readonly AttachKind[] = ['fentry', 'fmod_ret', 'fexit', 'lsm', 'freplace'];
export type AttachKind = ProgKind | 'lsm' | 'freplace';

/**
 * What a program was loaded as, as far as rules look at it. `iter`: a tracing program that is an iterator.
 * `lsm_cgroup`: an LSM program for cgroups. `ext`: a freplace program. `other`: any other type.
 * Kernel: prog->type and prog->expected_attach_type
 */
export type ProgType = 'tracing' | 'iter' | 'lsm' | 'lsm_cgroup' | 'struct_ops' | 'ext' | 'other';
export const PROG_TYPES: readonly ProgType[] = [
  'tracing',
  'iter',
  'lsm',
  'lsm_cgroup',
  'struct_ops',
  'ext',
  'other',
];

/** What a kind of attaching takes. */
const TYPE_OF: Readonly<Record<AttachKind, ProgType>> = {
  fentry: 'tracing',
  fmod_ret: 'tracing',
  fexit: 'tracing',
  lsm: 'lsm',
  freplace: 'ext',
};

/**
 * Which enter and exit functions stand around a program from v6.1 on. One that may not run twice on a CPU is
 * every one but iterators, LSM and struct_ops programs.
 * Kernel: bpf_trampoline_enter, kernel/bpf/trampoline.c; bpf_prog_check_recur, include/linux/bpf_verifier.h
 */
export function helperPair(type: ProgType): HelperPair {
  switch (type) {
    case 'tracing':
    case 'ext':
    case 'other':
      return HelperPair.RECUR;
    case 'lsm_cgroup':
      return HelperPair.LSM_CGROUP;
    case 'iter':
    case 'lsm':
    case 'struct_ops':
      return HelperPair.PLAIN;
  }
}

export interface ProgOptions {
  readonly name: string;
  readonly kind: AttachKind;
  /** Default what the kind takes. */
  readonly type?: ProgType;
  /** Address of its code. */
  readonly bpfFunc: Kaddr;
  readonly sleepable?: boolean;
  /** It asks for the traced function's address, so its image keeps that. Kernel: prog->call_get_func_ip */
  readonly callsGetFuncIp?: boolean;
  /** False: bpfFunc is an interpreter, and gets the program's instructions as its second argument. Default true. */
  readonly jited?: boolean;
  /** It can end in a tail call, itself or in what it calls. Kernel: prog->aux->tail_call_reachable */
  readonly tailCallReachable?: boolean;
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
  readonly type: ProgType;
  readonly sleepable: boolean;
  readonly callsGetFuncIp: boolean;
  readonly jited: boolean;
  readonly tailCallReachable: boolean;
  readonly bpfFunc: Kaddr;
  /** The struct bpf_prog. */
  readonly address: Kaddr;
  /** Its own link, without a cookie; from v6.1 on there may be others. */
  readonly link: TrampLink = new TrampLink(this);
  /** Those of its links that are on a trampoline's list. */
  readonly linkedBy: Set<TrampLink> = new Set();
  /** Its memory has been given back. */
  freed = false;

  readonly #kernel: Kernel;
  readonly #ownPages: boolean;
  readonly #stats: number;
  readonly #active: number;
  readonly #release: (() => void) | undefined;
  #references = 1;
  /** Modules of what it traces, where programs keep those loaded: v6.12. Kernel: prog->aux->mod */
  readonly #modules: Set<KModule> = new Set();
  /** Prog arrays that it is in, times over. Kernel: prog->aux->prog_array_member_cnt */
  #arrays = 0;
  /** A freplace program stands in for it. Kernel: prog->aux->is_extended */
  #extended = false;
  /** Guards the two. Kernel: prog->aux->ext_mutex */
  readonly #extMutex: Mutex = new Mutex('ext_mutex');

  constructor(kernel: Kernel, options: ProgOptions) {
    const { memory, percpu } = kernel.machine;
    this.#kernel = kernel;
    this.name = options.name;
    this.kind = options.kind;
    this.type = options.type ?? TYPE_OF[options.kind];
    this.jited = options.jited ?? true;
    this.tailCallReachable = options.tailCallReachable ?? false;
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

  /** Whether it is on a trampoline's list. */
  get linked(): boolean {
    return this.linkedBy.size > 0;
  }

  /** As the emitter wants it, but for its cookie. */
  ref(): ProgRef {
    return {
      prog: this.address,
      bpfFunc: this.bpfFunc,
      insnsi: addrAdd(this.address, ProgField.insnsi),
      sleepable: this.sleepable,
      jited: this.jited,
      kind: helperPair(this.type),
      name: this.name,
    };
  }

  get extended(): boolean {
    return this.#extended;
  }

  /** Marks it as replaced. @throws KernelError EBUSY while it is in a prog array. Kernel: __bpf_trampoline_link_prog */
  extend(): void {
    this.#extMutex.with(() => {
      if (this.#arrays > 0 && !this.#kernel.bugs.has('guard-unchecked')) {
        throw new KernelError('EBUSY', 'bpf_trampoline_link_prog', `${this.name} is in a prog array`);
      }
      this.#extended = true;
    });
  }

  unextend(): void {
    this.#extMutex.with(() => {
      this.#extended = false;
    });
  }

  /** Notes that it is in one more prog array. @throws KernelError EBUSY while it is replaced. Kernel: prog_fd_array_get_ptr */
  enterArray(): void {
    this.#extMutex.with(() => {
      if (this.#extended && !this.#kernel.bugs.has('extended-unchecked')) {
        throw new KernelError(
          'EBUSY',
          'prog_fd_array_get_ptr',
          `${this.name} is replaced by a freplace program`,
        );
      }
      this.#arrays++;
    });
  }

  leaveArray(): void {
    this.#extMutex.with(() => {
      if (this.#arrays === 0) throw new Bug(`${this.name} is in no prog array`);
      this.#arrays--;
    });
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

  /** Keeps a module loaded until the program is freed. @returns undoes it; undefined when it did so already */
  holdModule(module: KModule): (() => void) | undefined {
    if (this.#modules.has(module)) return undefined;
    this.#modules.add(module);
    return () => {
      this.#modules.delete(module);
      module.put();
    };
  }

  #free(): void {
    const { memory, percpu } = this.#kernel.machine;
    if (!this.#kernel.bugs.has('module-kept-by-program')) for (const module of this.#modules) module.put();
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
