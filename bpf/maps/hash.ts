/*
 * Hashes: an element per key, in a slot of guest memory.
 *
 *   slot   | key, rounded up to 8 | value, rounded up to 8 |
 *
 * Without BPF_F_NO_PREALLOC all slots are there from the start, one more for each CPU, and an update of a key that
 * is there takes a fresh one: who holds a pointer from before keeps the old value. A slot that is given up comes
 * back at once, as the kernel's does. With BPF_F_NO_PREALLOC each element is memory of its own, freed after a grace
 * period.
 *
 * Simplified: keys are walked in the order in which they came, where the kernel's order is that of a seeded hash;
 * and the element that an LRU hash gives up is exactly the one that was used least recently, where the kernel looks
 * at batches per CPU.
 *
 * Kernel: kernel/bpf/hashtab.c, kernel/bpf/bpf_lru_list.c
 */

import { addrAdd, Errno, type Kaddr } from '../../lib/index.ts';
import {
  ACCESS_FLAGS,
  BPF_EXIST,
  BPF_F_LOCK,
  BPF_NOEXIST,
  BpfMap,
  demand,
  MAX_MAP_BYTES,
  MapFlag,
  type MapHome,
  type MapSpec,
  roundUp8,
  tooLarge,
} from './map.ts';

/** A place for an element; of per-CPU values, the offset of the value in each CPU's area as well. */
interface Slot {
  readonly address: Kaddr;
  readonly percpu: number;
}

/** Kernel: MAX_BPF_STACK, KMALLOC_MAX_SIZE */
const MAX_KEY_BYTES = 512;
const MAX_VALUE_BYTES = 4 << 20;

/** Keys as text: what a JavaScript map can compare. */
const textOf = (key: Uint8Array): string => String.fromCharCode(...key);
const bytesOf = (text: string): Uint8Array => Uint8Array.from(text, (char) => char.charCodeAt(0));

export class HashMap extends BpfMap {
  /** Elements by key, oldest first; of an LRU hash, the one used least recently first. */
  readonly #elements = new Map<string, Slot>();
  readonly #kind: 'plain' | 'percpu' | 'lru';
  readonly #free: Slot[] = [];
  readonly #preallocated: boolean;
  /** Of all slots, where they are there from the start. */
  #block: Kaddr | undefined;
  #percpuBlock: number | undefined;

  constructor(home: MapHome, spec: MapSpec, kind: 'plain' | 'percpu' | 'lru' = 'plain') {
    const flags = kind === 'lru' ? 0 : MapFlag.NO_PREALLOC;
    demand(
      (spec.flags & ~(flags | MapFlag.ZERO_SEED | ACCESS_FLAGS)) === 0,
      spec,
      `flags 0x${spec.flags.toString(16)}`,
    );
    demand(spec.maxEntries > 0, spec, 'no entries');
    demand(spec.keyBytes > 0, spec, 'keys of no bytes');
    demand(spec.valueBytes > 0, spec, 'values of no bytes');
    demand(
      spec.keyBytes <= MAX_KEY_BYTES,
      spec,
      `keys of ${spec.keyBytes} bytes, more than ${MAX_KEY_BYTES}`,
    );
    demand(spec.valueBytes <= MAX_VALUE_BYTES, spec, `values of ${spec.valueBytes} bytes`);
    super(home, spec);
    this.#kind = kind;
    this.#preallocated = (spec.flags & MapFlag.NO_PREALLOC) === 0;
    if (!this.#preallocated) return;
    try {
      this.#preallocate();
    } catch (error) {
      this.free();
      throw error;
    }
  }

  get #slotBytes(): number {
    const { keyBytes, valueBytes } = this.spec;
    return roundUp8(keyBytes) + (this.perCpu ? 0 : roundUp8(valueBytes));
  }

  /** Kernel: prealloc_init */
  #preallocate(): void {
    const { machine } = this.home;
    const spare = this.perCpu ? 0 : machine.cpus.length;
    const count = this.spec.maxEntries + spare;
    const bytes = count * this.#slotBytes;
    const percpuBytes = this.perCpu ? count * roundUp8(this.spec.valueBytes) : 0;
    if (bytes + percpuBytes > MAX_MAP_BYTES) throw tooLarge(this.spec, bytes + percpuBytes);
    this.#block = machine.memory.kmalloc(bytes, `elements of ${this.spec.name}`);
    if (this.perCpu) this.#percpuBlock = machine.percpu.alloc(percpuBytes, 8);
    for (let i = count - 1; i >= 0; i--) {
      const percpu = (this.#percpuBlock ?? 0) + i * roundUp8(this.spec.valueBytes);
      this.#free.push({ address: addrAdd(this.#block, i * this.#slotBytes), percpu });
    }
  }

  /** @throws KernelError ENOMEM */
  #take(): Slot {
    const slot = this.#free.pop();
    if (slot !== undefined) return slot;
    const { memory, percpu } = this.home.machine;
    const address = memory.kmalloc(this.#slotBytes, `element of ${this.spec.name}`);
    return { address, percpu: this.perCpu ? percpu.alloc(roundUp8(this.spec.valueBytes), 8) : 0 };
  }

  #give(slot: Slot): void {
    if (this.#preallocated) this.#free.push(slot);
    else this.home.callRcu(() => this.#freeSlot(slot));
  }

  #freeSlot({ address, percpu }: Slot): void {
    this.home.machine.memory.kfree(address);
    if (this.perCpu) this.home.machine.percpu.free(percpu);
  }

  override get perCpu(): boolean {
    return this.#kind === 'percpu';
  }

  /** How many elements there are. */
  get size(): number {
    return this.#elements.size;
  }

  #valueOf(slot: Slot, cpu: number): Kaddr {
    if (this.perCpu) return this.home.machine.percpu.address(slot.percpu, cpu);
    return addrAdd(slot.address, roundUp8(this.spec.keyBytes));
  }

  override lookup(key: Uint8Array, cpu: number): Kaddr | undefined {
    const text = textOf(key);
    const slot = this.#elements.get(text);
    if (slot === undefined) return undefined;
    if (this.#kind === 'lru') this.#used(text, slot);
    return this.#valueOf(slot, cpu);
  }

  /** Makes it the newest. */
  #used(text: string, slot: Slot): void {
    this.#elements.delete(text);
    this.#elements.set(text, slot);
  }

  override update(key: Uint8Array, value: Uint8Array, flags: bigint, cpu: number): number {
    return this.#put(key, flags, (slot, fresh) => {
      if (this.perCpu && fresh) this.#clear(slot);
      this.copyValue(this.#valueOf(slot, cpu), value);
    });
  }

  override store(key: Uint8Array, values: readonly Uint8Array[], flags: bigint): number {
    return this.#put(key, flags, (slot) => {
      const cpus = this.perCpu ? this.home.machine.cpus.map(({ id }) => id) : [0];
      for (const cpu of cpus) this.copyValue(this.#valueOf(slot, cpu), values[cpu] as Uint8Array);
    });
  }

  /** A fresh per-CPU value is zero on the other CPUs. Kernel: pcpu_init_value */
  #clear(slot: Slot): void {
    const { cpus, memory } = this.home.machine;
    for (const { id } of cpus) memory.bytes(this.#valueOf(slot, id), roundUp8(this.spec.valueBytes)).fill(0);
  }

  /** Kernel: htab_map_update_elem, htab_lru_map_update_elem, __htab_percpu_map_update_elem */
  #put(key: Uint8Array, flags: bigint, write: (slot: Slot, fresh: boolean) => void): number {
    if (!this.flagsFit(flags)) return -Errno.EINVAL;
    const text = textOf(key);
    const old = this.#elements.get(text);
    const mode = flags & ~BPF_F_LOCK;
    if (old !== undefined && mode === BPF_NOEXIST) return -Errno.EEXIST;
    if (old === undefined && mode === BPF_EXIST) return -Errno.ENOENT;
    // In place: where each CPU has its own, and under the lock.
    if (old !== undefined && (this.perCpu || (flags & BPF_F_LOCK) !== 0n)) {
      write(old, false);
      return 0;
    }
    if (old === undefined && this.#elements.size >= this.spec.maxEntries) {
      if (this.#kind !== 'lru') return -Errno.E2BIG;
      this.#evict();
    }
    const slot = this.#take();
    const { memory } = this.home.machine;
    memory.bytes(slot.address, this.#slotBytes).fill(0);
    memory.write(slot.address, key.subarray(0, this.spec.keyBytes));
    write(slot, true);
    this.#used(text, slot);
    if (old !== undefined) this.#give(old);
    return 0;
  }

  /** Kernel: bpf_lru_pop_free */
  #evict(): void {
    const [oldest] = this.#elements;
    if (oldest === undefined) return;
    this.#elements.delete(oldest[0]);
    this.#give(oldest[1]);
  }

  override delete(key: Uint8Array): number {
    const text = textOf(key);
    const slot = this.#elements.get(text);
    if (slot === undefined) return -Errno.ENOENT;
    this.#elements.delete(text);
    this.#give(slot);
    return 0;
  }

  override *walk(): Generator<Uint8Array> {
    for (const text of [...this.#elements.keys()]) {
      if (this.#elements.has(text)) yield bytesOf(text);
    }
  }

  override nextKey(key: Uint8Array | undefined): Uint8Array | number {
    const keys = [...this.#elements.keys()];
    const at = key === undefined ? -1 : keys.indexOf(textOf(key));
    const next = keys[at + 1];
    return next === undefined ? -Errno.ENOENT : bytesOf(next);
  }

  override places(key: Uint8Array): readonly Kaddr[] {
    const slot = this.#elements.get(textOf(key));
    if (slot === undefined) return [];
    const cpus = this.perCpu ? this.home.machine.cpus.map(({ id }) => id) : [0];
    return cpus.map((cpu) => this.#valueOf(slot, cpu));
  }

  override free(): void {
    const { memory, percpu } = this.home.machine;
    if (!this.#preallocated) for (const slot of this.#elements.values()) this.#freeSlot(slot);
    if (this.#block !== undefined) memory.kfree(this.#block);
    if (this.#percpuBlock !== undefined) percpu.free(this.#percpuBlock);
    super.free();
  }
}
