/*
 * A perf event array: by CPU, who is told of records. Kernel: kernel/bpf/arraymap.c, kernel/trace/bpf_trace.c
 *
 * Who listens here gets the bytes that the program gave. Simplified: a kernel's buffer has a size, and loses records.
 */

import { Errno } from '../../lib/index.ts';
import { ACCESS_FLAGS, BpfMap, demand, MapFlag, type MapHome, type MapSpec } from './map.ts';

/** The bits of the flags that are an index; all set: that of the current CPU. Kernel: BPF_F_INDEX_MASK */
const INDEX = 0xffff_ffffn;

export type PerfListener = (record: Uint8Array, cpu: number) => void;

export class PerfEventArrayMap extends BpfMap {
  readonly #slots = new Map<number, PerfListener>();

  constructor(home: MapHome, spec: MapSpec) {
    demand(spec.keyBytes === 4 && spec.valueBytes === 4, spec, 'keys and values have 4 bytes each');
    demand(spec.maxEntries > 0, spec, 'no entries');
    demand(
      (spec.flags & ~(MapFlag.PRESERVE_ELEMS | ACCESS_FLAGS)) === 0,
      spec,
      `flags 0x${spec.flags.toString(16)}`,
    );
    super(home, spec);
  }

  /** Puts somebody who listens into a CPU's slot. @returns takes it out again */
  listen(cpu: number, listener: PerfListener): () => void {
    this.#slots.set(cpu, listener);
    return () => {
      if (this.#slots.get(cpu) === listener) this.#slots.delete(cpu);
    };
  }

  /** Kernel: __bpf_perf_event_output */
  output(flags: bigint, data: Uint8Array, cpu: number): number {
    if ((flags & ~INDEX) !== 0n) return -Errno.EINVAL;
    const index = flags === INDEX ? cpu : Number(flags);
    if (index >= this.spec.maxEntries) return -Errno.E2BIG;
    const listener = this.#slots.get(index);
    if (listener === undefined) return -Errno.ENOENT;
    // An event counts on one CPU.
    if (index !== cpu) return -Errno.EOPNOTSUPP;
    listener(data, cpu);
    return 0;
  }
}
