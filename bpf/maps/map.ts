/*
 * A map: its struct bpf_map in guest memory, and the operations that the kernel has for its type.
 *
 *   table.ts             by type: which there are, how each is made
 *   array.ts             array, per-CPU array
 *   hash.ts              hash, per-CPU hash, LRU hash
 *   queue-stack.ts       queue, stack
 *   prog-array.ts        programs that tail calls go to
 *   ringbuf.ts           ring buffer
 *   perf-event-array.ts  perf event array
 *
 * Values lie in guest memory, so that programs read and write them by the pointers that a lookup gives. Which
 * value belongs to which key is kept by the host.
 *
 * Operations answer as the kernel's: 0 or a negative error number.
 */

import type { Machine } from '../../emu/index.ts';
import { addrAdd, Errno, type Kaddr, KernelError } from '../../lib/index.ts';
import type { ManagedRevision } from '../../tramp/index.ts';

/** What a map is made like, sizes in bytes. Kernel: union bpf_attr, BPF_MAP_CREATE */
export interface MapSpec {
  readonly name: string;
  /** BPF_MAP_TYPE_*. */
  readonly typeId: number;
  readonly keyBytes: number;
  readonly valueBytes: number;
  readonly maxEntries: number;
  /** BPF_F_*. */
  readonly flags: number;
  /** Where in a value its struct bpf_spin_lock lies, if it has one. */
  readonly spinLockOffset?: number | undefined;
}

/** What maps stand on. */
export interface MapHome {
  readonly machine: Machine;
  readonly revision: ManagedRevision;
  /** Does `work` when no CPU can hold a pointer from before any more. Kernel: call_rcu */
  readonly callRcu: (work: () => void) => void;
}

/** What may be in `flags` of a map. Kernel: include/uapi/linux/bpf.h */
export const MapFlag = {
  NO_PREALLOC: 0x1,
  NUMA_NODE: 0x4,
  RDONLY: 0x8,
  WRONLY: 0x10,
  ZERO_SEED: 0x40,
  RDONLY_PROG: 0x80,
  WRONLY_PROG: 0x100,
  MMAPABLE: 0x400,
  PRESERVE_ELEMS: 0x800,
} as const;

/** Any map may have these. Kernel: BPF_F_ACCESS_MASK */
export const ACCESS_FLAGS: number =
  MapFlag.NUMA_NODE | MapFlag.RDONLY | MapFlag.WRONLY | MapFlag.RDONLY_PROG | MapFlag.WRONLY_PROG;

/** How an update treats what is there. Kernel: BPF_ANY and its like */
export const BPF_ANY = 0n;
export const BPF_NOEXIST = 1n;
export const BPF_EXIST = 2n;
export const BPF_F_LOCK = 4n;

/** struct bpf_map and struct bpf_array, as far as compiled programs look into them. */
export const MapStruct = {
  mapType: 0x18,
  keySize: 0x1c,
  valueSize: 0x20,
  maxEntries: 0x24,
  mapFlags: 0x28,
} as const;

/** Where values or pointers of an array begin. Kernel: offsetof(struct bpf_array, ptrs) */
export function arrayStart(revision: ManagedRevision): number {
  return revision === 'v6.12' ? 0x108 : 0x110;
}

/** Most that the values of one map may take. Simplified: the kernel asks for memory, and a control group's limit. */
export const MAX_MAP_BYTES: number = 256 << 20;

const EINVAL = -Errno.EINVAL;

/** Kernel: struct bpf_map, struct bpf_map_ops */
export abstract class BpfMap {
  readonly spec: MapSpec;
  /** Its struct bpf_map. */
  readonly address: Kaddr;
  protected readonly home: MapHome;

  /**
   * @param behindBytes room behind the struct, for what the type keeps there
   * @throws KernelError ENOMEM
   */
  constructor(home: MapHome, spec: MapSpec, behindBytes = 0) {
    this.home = home;
    this.spec = spec;
    if (behindBytes > MAX_MAP_BYTES) throw tooLarge(spec, behindBytes);
    const { memory } = home.machine;
    this.address = memory.kmalloc(arrayStart(home.revision) + behindBytes, `map ${spec.name}`, 64);
    const put = (field: number, value: number): void => memory.writeU32(addrAdd(this.address, field), value);
    put(MapStruct.mapType, spec.typeId);
    put(MapStruct.keySize, spec.keyBytes);
    put(MapStruct.valueSize, spec.valueBytes);
    put(MapStruct.maxEntries, spec.maxEntries);
    put(MapStruct.mapFlags, spec.flags);
  }

  /** Where the room behind the struct begins. */
  protected get behind(): Kaddr {
    return addrAdd(this.address, arrayStart(this.home.revision));
  }

  // -- what programs ask for --------------------------------------------------------------------

  /** The value of a key, on a CPU where values are per CPU. Kernel: map_lookup_elem */
  lookup(_key: Uint8Array, _cpu: number): Kaddr | undefined {
    return undefined;
  }

  /** @param flags BPF_ANY, BPF_NOEXIST, BPF_EXIST; BPF_F_LOCK. Kernel: map_update_elem */
  update(_key: Uint8Array, _value: Uint8Array, _flags: bigint, _cpu: number): number {
    return EINVAL;
  }

  /** Kernel: map_delete_elem */
  delete(_key: Uint8Array): number {
    return EINVAL;
  }

  /** Kernel: map_push_elem */
  push(_value: Uint8Array, _flags: bigint): number {
    return -Errno.ENOTSUPP;
  }

  /** @param to where the value goes; zeroed when there is none. Kernel: map_pop_elem */
  pop(_to: Uint8Array): number {
    return -Errno.ENOTSUPP;
  }

  /** Kernel: map_peek_elem */
  peek(_to: Uint8Array): number {
    return -Errno.ENOTSUPP;
  }

  /** The keys that a callback is called with, in order; undefined: it cannot be walked. Kernel: map_for_each_callback */
  walk(): Iterable<Uint8Array> | undefined {
    return undefined;
  }

  // -- what the user's side asks for ------------------------------------------------------------

  /** The key behind a key, the first one without; an error number when there is none. Kernel: map_get_next_key */
  nextKey(_key: Uint8Array | undefined): Uint8Array | number {
    return EINVAL;
  }

  /** Where the value of a key lies: once, or on every CPU. */
  places(key: Uint8Array): readonly Kaddr[] {
    const place = this.lookup(key, 0);
    return place === undefined ? [] : [place];
  }

  /** Writes the values of a key: one, or one for each CPU. Kernel: bpf_map_update_value */
  store(key: Uint8Array, values: readonly Uint8Array[], flags: bigint): number {
    return this.update(key, values[0] as Uint8Array, flags, 0);
  }

  /** Whether each CPU has a value of its own. */
  get perCpu(): boolean {
    return false;
  }

  /** Gives its memory back. Kernel: map_free */
  free(): void {
    this.home.machine.memory.kfree(this.address);
  }

  // -- for the types ----------------------------------------------------------------------------

  /** Copies a value in, but for its lock, which belongs to whoever holds it. Kernel: copy_map_value */
  protected copyValue(to: Kaddr, value: Uint8Array): void {
    const { memory } = this.home.machine;
    const { valueBytes, spinLockOffset } = this.spec;
    const there = memory.bytes(to, valueBytes);
    if (spinLockOffset === undefined) {
      there.set(value.subarray(0, valueBytes));
      return;
    }
    there.set(value.subarray(0, spinLockOffset));
    there.set(value.subarray(spinLockOffset + 4, valueBytes), spinLockOffset + 4);
  }

  /** Whether an update by these flags is one that the map can do. */
  protected flagsFit(flags: bigint): boolean {
    const locks = (flags & BPF_F_LOCK) !== 0n;
    if ((flags & ~BPF_F_LOCK) > BPF_EXIST) return false;
    return !locks || this.spec.spinLockOffset !== undefined;
  }
}

/** @throws KernelError EINVAL when a rule of the type does not hold. Kernel: map_alloc_check */
export function demand(holds: boolean, spec: MapSpec, rule: string): void {
  if (!holds) throw new KernelError('EINVAL', 'map_create', `${spec.name}: ${rule}`);
}

export function tooLarge({ name }: MapSpec, bytes: number): KernelError {
  return new KernelError('ENOMEM', 'map_create', `${name}: ${bytes} bytes, more than ${MAX_MAP_BYTES}`);
}

/** Values begin at multiples of 8. */
export const roundUp8 = (bytes: number): number => Math.ceil(bytes / 8) * 8;

/** The number in a key of four bytes. */
export function indexOf(key: Uint8Array): number {
  return new DataView(key.buffer, key.byteOffset, 4).getUint32(0, true);
}

export function keyOf(index: number): Uint8Array {
  const key = new Uint8Array(4);
  new DataView(key.buffer).setUint32(0, index, true);
  return key;
}
