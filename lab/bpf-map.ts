import { BPF_ANY, type BpfMap, type BpfMapDef, PerfEventArrayMap, RingbufMap } from '../bpf/index.ts';
import type { Machine } from '../emu/index.ts';
import { Errno, type ErrnoName, errnoName, InputError, KernelError } from '../lib/index.ts';
import type { Btf } from '../obj/index.ts';
import { type CInput, type CValue, decode, encode } from './bpf-values.ts';

/** A record that somebody wrote for the user's side. */
export interface BpfRecord {
  readonly bytes: Uint8Array;
  /** Of a perf event array: the CPU that it came from. */
  readonly cpu: number | undefined;
}

/**
 * A map from the user's side: keys and values as their BTF types say, see CValue. What the kernel refuses is a
 * KernelError.
 */
export class LabMap {
  readonly name: string;
  readonly map: BpfMap;
  readonly #machine: Machine;
  readonly #btf: Btf | undefined;
  readonly #def: Pick<BpfMapDef, 'keyType' | 'valueType'>;
  /** Of a perf event array: what came and is not taken yet. */
  readonly #received: BpfRecord[] = [];
  readonly #wakes: Set<() => void> = new Set();
  readonly #stop: (() => void)[] = [];
  #closed = false;

  constructor(
    machine: Machine,
    map: BpfMap,
    btf: Btf | undefined,
    def: Pick<BpfMapDef, 'keyType' | 'valueType'>,
  ) {
    this.name = map.spec.name;
    this.map = map;
    this.#machine = machine;
    this.#btf = btf;
    this.#def = def;
    const wake = (): void => {
      for (const tell of this.#wakes) tell();
    };
    if (map instanceof RingbufMap) {
      map.listeners.add(wake);
      this.#stop.push(() => map.listeners.delete(wake));
    }
    if (map instanceof PerfEventArrayMap) {
      for (const { id } of machine.cpus) {
        const stop = map.listen(id, (bytes, cpu) => {
          this.#received.push({ bytes, cpu });
          wake();
        });
        this.#stop.push(stop);
      }
    }
  }

  // -- values -----------------------------------------------------------------------------------

  /** The value of a key; undefined when there is none. Of per-CPU maps an array, by CPU. */
  get(key: CInput): CValue | undefined {
    const values = this.getBytes(key).map((bytes) => decode(this.#btf, this.#def.valueType, bytes));
    return this.map.perCpu && values.length > 0 ? values : values[0];
  }

  /** The bytes of a key's value: none, one, or of per-CPU maps one for each CPU. */
  getBytes(key: CInput): Uint8Array[] {
    const { memory } = this.#machine;
    return this.map
      .places(this.#key(key))
      .map((place) => memory.bytes(place, this.map.spec.valueBytes).slice());
  }

  /**
   * Writes a value; of per-CPU maps an array, by CPU.
   * @param flags BPF_ANY, BPF_NOEXIST, BPF_EXIST
   * @throws KernelError EEXIST, ENOENT, E2BIG, EINVAL
   */
  set(key: CInput, value: CInput, flags: bigint = BPF_ANY): void {
    const { valueBytes } = this.map.spec;
    const one = (part: CInput): Uint8Array =>
      encode(this.#btf, this.#def.valueType, valueBytes, part, this.name);
    let values: Uint8Array[];
    if (this.map.perCpu) {
      const wanted = this.#machine.cpus.length;
      if (!Array.isArray(value) || value.length !== wanted) {
        throw new InputError(this.name, undefined, `it has a value for each CPU; give an array of ${wanted}`);
      }
      values = value.map(one);
    } else values = [one(value)];
    this.#check('bpf_map_update_elem', this.map.store(this.#key(key), values, flags));
  }

  /** @throws KernelError ENOENT, EINVAL */
  delete(key: CInput): void {
    this.#check('bpf_map_delete_elem', this.map.delete(this.#key(key)));
  }

  /** Keys in the map's order. */
  keys(): CValue[] {
    return this.#keyBytes().map((key) => decode(this.#btf, this.#def.keyType, key));
  }

  /** Keys with their values. */
  entries(): [CValue, CValue][] {
    return this.#keyBytes().flatMap((bytes): [CValue, CValue][] => {
      const value = this.get(bytes);
      return value === undefined ? [] : [[decode(this.#btf, this.#def.keyType, bytes), value]];
    });
  }

  #keyBytes(): Uint8Array[] {
    return [...(this.map.walk() ?? [])];
  }

  /** Of queues and stacks. @throws KernelError E2BIG */
  push(value: CInput, flags: bigint = BPF_ANY): void {
    const bytes = encode(this.#btf, this.#def.valueType, this.map.spec.valueBytes, value, this.name);
    this.#check('bpf_map_push_elem', this.map.push(bytes, flags));
  }

  /** Of queues and stacks; undefined when it is empty. */
  pop(): CValue | undefined {
    const bytes = new Uint8Array(this.map.spec.valueBytes);
    const result = this.map.pop(bytes);
    if (result === -Errno.ENOENT) return undefined;
    this.#check('bpf_map_pop_elem', result);
    return decode(this.#btf, this.#def.valueType, bytes);
  }

  // -- records ----------------------------------------------------------------------------------

  /** Takes the records that are there, of a ring buffer or a perf event array. */
  consume(): BpfRecord[] {
    if (this.map instanceof RingbufMap) return this.map.consume().map((bytes) => ({ bytes, cpu: undefined }));
    if (this.map instanceof PerfEventArrayMap) return this.#received.splice(0);
    throw new InputError(this.name, undefined, 'it is no ring buffer and no perf event array');
  }

  /** Records as they come, until the map is closed. */
  async *records(): AsyncGenerator<BpfRecord> {
    for (;;) {
      const ready = this.consume();
      for (const record of ready) yield record;
      if (this.#closed) return;
      // Nothing has run since there was none: no wake is lost.
      if (ready.length === 0) await this.#woken();
    }
  }

  #woken(): Promise<void> {
    return new Promise((resolve) => {
      const wake = (): void => {
        this.#wakes.delete(wake);
        resolve();
      };
      this.#wakes.add(wake);
    });
  }

  /** Listens no more; what is read by `records` ends. */
  close(): void {
    this.#closed = true;
    for (const stop of this.#stop.splice(0)) stop();
    for (const wake of this.#wakes) wake();
  }

  #key(key: CInput): Uint8Array {
    return encode(this.#btf, this.#def.keyType, this.map.spec.keyBytes, key, `${this.name}: key`);
  }

  #check(op: string, result: number): void {
    if (result < 0) throw new KernelError(errnoName(-result) as ErrnoName, op, this.name);
  }
}
