/*
 * Arrays: every index below max_entries has a value, zero at first; none can be taken out.
 * Kernel: kernel/bpf/arraymap.c
 */

import { addrAdd, Errno, type Kaddr } from '../../lib/index.ts';
import {
  ACCESS_FLAGS,
  BPF_NOEXIST,
  BpfMap,
  demand,
  indexOf,
  keyOf,
  MAX_MAP_BYTES,
  MapFlag,
  type MapHome,
  type MapSpec,
  roundUp8,
  tooLarge,
} from './map.ts';

abstract class Indexed extends BpfMap {
  protected inRange(key: Uint8Array): boolean {
    return indexOf(key) < this.spec.maxEntries;
  }

  /** Every check that an update of either kind of array makes. Kernel: array_map_update_elem */
  protected refuses(key: Uint8Array, flags: bigint): number | undefined {
    if ((flags & ~4n) > 2n) return -Errno.EINVAL;
    if (!this.inRange(key)) return -Errno.E2BIG;
    if ((flags & BPF_NOEXIST) !== 0n) return -Errno.EEXIST;
    return this.flagsFit(flags) ? undefined : -Errno.EINVAL;
  }

  override *walk(): Generator<Uint8Array> {
    for (let index = 0; index < this.spec.maxEntries; index++) yield keyOf(index);
  }

  override nextKey(key: Uint8Array | undefined): Uint8Array | number {
    const { maxEntries } = this.spec;
    const index = key === undefined ? maxEntries : indexOf(key);
    if (index >= maxEntries) return keyOf(0);
    return index === maxEntries - 1 ? -Errno.ENOENT : keyOf(index + 1);
  }
}

function check(spec: MapSpec, flags: number): void {
  demand(spec.keyBytes === 4, spec, `keys of ${spec.keyBytes} bytes; an array's have 4`);
  demand(spec.valueBytes > 0, spec, 'values of no bytes');
  demand(spec.maxEntries > 0, spec, 'no entries');
  demand((spec.flags & ~(flags | ACCESS_FLAGS)) === 0, spec, `flags 0x${spec.flags.toString(16)}`);
}

export class ArrayMap extends Indexed {
  readonly #strideBytes: number;

  constructor(home: MapHome, spec: MapSpec) {
    check(spec, MapFlag.MMAPABLE | MapFlag.PRESERVE_ELEMS);
    super(home, spec, roundUp8(spec.valueBytes) * spec.maxEntries);
    this.#strideBytes = roundUp8(spec.valueBytes);
  }

  #at(index: number): Kaddr {
    return addrAdd(this.behind, index * this.#strideBytes);
  }

  /** Where the first value lies: what a program's reference to a variable counts from. */
  get values(): Kaddr {
    return this.behind;
  }

  override lookup(key: Uint8Array): Kaddr | undefined {
    return this.inRange(key) ? this.#at(indexOf(key)) : undefined;
  }

  override update(key: Uint8Array, value: Uint8Array, flags: bigint): number {
    const refusal = this.refuses(key, flags);
    if (refusal !== undefined) return refusal;
    this.copyValue(this.#at(indexOf(key)), value);
    return 0;
  }
}

export class PerCpuArrayMap extends Indexed {
  readonly #strideBytes: number;
  readonly #offset: number;

  constructor(home: MapHome, spec: MapSpec) {
    check(spec, 0);
    const bytes = roundUp8(spec.valueBytes) * spec.maxEntries;
    if (bytes > MAX_MAP_BYTES) throw tooLarge(spec, bytes);
    super(home, spec);
    this.#strideBytes = roundUp8(spec.valueBytes);
    try {
      this.#offset = home.machine.percpu.alloc(bytes, 8);
    } catch (error) {
      super.free();
      throw error;
    }
  }

  override get perCpu(): boolean {
    return true;
  }

  override lookup(key: Uint8Array, cpu: number): Kaddr | undefined {
    if (!this.inRange(key)) return undefined;
    return this.home.machine.percpu.address(this.#offset + indexOf(key) * this.#strideBytes, cpu);
  }

  override update(key: Uint8Array, value: Uint8Array, flags: bigint, cpu: number): number {
    const refusal = this.refuses(key, flags);
    if (refusal !== undefined) return refusal;
    this.copyValue(this.lookup(key, cpu) as Kaddr, value);
    return 0;
  }

  override places(key: Uint8Array): readonly Kaddr[] {
    return this.inRange(key) ? this.home.machine.cpus.map(({ id }) => this.lookup(key, id) as Kaddr) : [];
  }

  override store(key: Uint8Array, values: readonly Uint8Array[], flags: bigint): number {
    const refusal = this.refuses(key, flags);
    if (refusal !== undefined) return refusal;
    for (const [cpu, place] of this.places(key).entries()) this.copyValue(place, values[cpu] as Uint8Array);
    return 0;
  }

  override free(): void {
    this.home.machine.percpu.free(this.#offset);
    super.free();
  }
}
