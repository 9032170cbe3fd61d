/*
 * Queues and stacks: values without keys, in a ring of one slot more than there are entries.
 * Kernel: kernel/bpf/queue_stack_maps.c
 */

import { addrAdd, Errno, type Kaddr } from '../../lib/index.ts';
import { ACCESS_FLAGS, BPF_EXIST, BPF_NOEXIST, BpfMap, demand, type MapHome, type MapSpec } from './map.ts';

export class QueueStackMap extends BpfMap {
  readonly #order: 'queue' | 'stack';
  /** Slots of the ring; where the next value goes, and where the oldest lies. */
  readonly #slots: number;
  #head = 0;
  #tail = 0;

  constructor(home: MapHome, spec: MapSpec, order: 'queue' | 'stack') {
    demand(spec.keyBytes === 0, spec, `keys of ${spec.keyBytes} bytes, where there are no keys`);
    demand(spec.valueBytes > 0, spec, 'values of no bytes');
    demand(spec.maxEntries > 0, spec, 'no entries');
    demand((spec.flags & ~ACCESS_FLAGS) === 0, spec, `flags 0x${spec.flags.toString(16)}`);
    super(home, spec, (spec.maxEntries + 1) * spec.valueBytes);
    this.#order = order;
    this.#slots = spec.maxEntries + 1;
  }

  #at(slot: number): Kaddr {
    return addrAdd(this.behind, slot * this.spec.valueBytes);
  }

  #after(slot: number): number {
    return slot + 1 === this.#slots ? 0 : slot + 1;
  }

  /** How many values there are. */
  get size(): number {
    return (this.#head - this.#tail + this.#slots) % this.#slots;
  }

  override push(value: Uint8Array, flags: bigint): number {
    // Only these two: whether a value is there cannot be asked of what has no keys.
    if ((flags & BPF_NOEXIST) !== 0n || flags > BPF_EXIST) return -Errno.EINVAL;
    if (this.#after(this.#head) === this.#tail) {
      if (flags !== BPF_EXIST) return -Errno.E2BIG;
      this.#tail = this.#after(this.#tail);
    }
    this.copyValue(this.#at(this.#head), value);
    this.#head = this.#after(this.#head);
    return 0;
  }

  override pop(to: Uint8Array): number {
    return this.#get(to, true);
  }

  override peek(to: Uint8Array): number {
    return this.#get(to, false);
  }

  /** Kernel: __queue_map_get, __stack_map_get */
  #get(to: Uint8Array, takes: boolean): number {
    if (this.#head === this.#tail) {
      to.fill(0);
      return -Errno.ENOENT;
    }
    const newest = this.#head === 0 ? this.#slots - 1 : this.#head - 1;
    const slot = this.#order === 'queue' ? this.#tail : newest;
    to.set(this.home.machine.memory.bytes(this.#at(slot), this.spec.valueBytes));
    if (!takes) return 0;
    if (this.#order === 'queue') this.#tail = this.#after(this.#tail);
    else this.#head = newest;
    return 0;
  }
}
