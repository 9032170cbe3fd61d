/*
 * The types of maps. To add one: a class in a file of its own, a row here; docs/bpf-programs.md is held against the rows.
 */

import { KernelError } from '../../lib/index.ts';
import { ArrayMap, PerCpuArrayMap } from './array.ts';
import { HashMap } from './hash.ts';
import type { BpfMap, MapHome, MapSpec } from './map.ts';
import { PerfEventArrayMap } from './perf-event-array.ts';
import { ProgArrayMap } from './prog-array.ts';
import { QueueStackMap } from './queue-stack.ts';
import { RingbufMap } from './ringbuf.ts';

export interface MapType {
  /** The number of BPF_MAP_TYPE_*. */
  readonly id: number;
  /** What follows BPF_MAP_TYPE_. */
  readonly name: string;
  /** What it holds, and what is not as in the kernel; for docs/bpf-programs.md. */
  readonly doc: string;
  /** @throws KernelError EINVAL for sizes and flags that the type does not take, ENOMEM */
  readonly make: (home: MapHome, spec: MapSpec) => BpfMap;
}

export const MAP_TYPES: readonly MapType[] = [
  {
    id: 1,
    name: 'HASH',
    doc: 'values by key; an update of a key that is there takes another element. Walked in the order in which keys came',
    make: (home, spec) => new HashMap(home, spec),
  },
  {
    id: 2,
    name: 'ARRAY',
    doc: 'values by index, zero at first; sections of variables are arrays of one value',
    make: (home, spec) => new ArrayMap(home, spec),
  },
  {
    id: 3,
    name: 'PROG_ARRAY',
    doc: 'programs for tail calls, all of one kind; direct tail calls are patched when a slot changes',
    make: (home, spec) => new ProgArrayMap(home, spec),
  },
  {
    id: 4,
    name: 'PERF_EVENT_ARRAY',
    doc: 'who listens, by CPU; every CPU has somebody after loading. No record is lost',
    make: (home, spec) => new PerfEventArrayMap(home, spec),
  },
  {
    id: 5,
    name: 'PERCPU_HASH',
    doc: 'as HASH, with a value for each CPU; updated in place',
    make: (home, spec) => new HashMap(home, spec, 'percpu'),
  },
  {
    id: 6,
    name: 'PERCPU_ARRAY',
    doc: 'as ARRAY, with a value for each CPU',
    make: (home, spec) => new PerCpuArrayMap(home, spec),
  },
  {
    id: 9,
    name: 'LRU_HASH',
    doc: 'as HASH; when full, gives up the element that was used least recently, exactly',
    make: (home, spec) => new HashMap(home, spec, 'lru'),
  },
  {
    id: 22,
    name: 'QUEUE',
    doc: 'values without keys, oldest first',
    make: (home, spec) => new QueueStackMap(home, spec, 'queue'),
  },
  {
    id: 23,
    name: 'STACK',
    doc: 'values without keys, newest first',
    make: (home, spec) => new QueueStackMap(home, spec, 'stack'),
  },
  {
    id: 27,
    name: 'RINGBUF',
    doc: 'records in the order in which their room was taken; read from TypeScript',
    make: (home, spec) => new RingbufMap(home, spec),
  },
];

const BY_ID: ReadonlyMap<number, MapType> = new Map(MAP_TYPES.map((type) => [type.id, type]));

/** Makes a map. @throws KernelError EINVAL for a type that is not here, too. Kernel: map_create */
export function createMap(home: MapHome, spec: MapSpec): BpfMap {
  const type = BY_ID.get(spec.typeId);
  if (type === undefined) {
    const known = MAP_TYPES.map(({ name }) => name).join(', ');
    throw new KernelError(
      'EINVAL',
      'map_create',
      `${spec.name}: type ${spec.typeId} is not here; there are ${known}`,
    );
  }
  return type.make(home, spec);
}
