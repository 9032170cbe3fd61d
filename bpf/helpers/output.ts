/* Helpers that tell others. Kernel: kernel/bpf/ringbuf.c, kernel/trace/bpf_trace.c */

import { Errno, kaddr } from '../../lib/index.ts';
import { MemoryFault } from '../interp/memory.ts';
import { PerfEventArrayMap } from '../maps/perf-event-array.ts';
import { RingbufMap } from '../maps/ringbuf.ts';
import { type Helper, type HelperCall, mapAt } from './helper.ts';

/** @throws MemoryFault for what is no ring buffer */
function ringOf({ world, args: [address] }: HelperCall): RingbufMap {
  const map = mapAt(world, address);
  if (map instanceof RingbufMap) return map;
  throw new MemoryFault('read', address, 8);
}

/** Kernel: bpf_ringbuf_commit */
function commit({ world, args: [record] }: HelperCall, discards: boolean): number {
  for (const map of world.maps.values()) {
    if (map instanceof RingbufMap && map.holds(kaddr(record))) {
      map.commit(kaddr(record), discards);
      return 0;
    }
  }
  throw new MemoryFault('write', record - 8n, 4);
}

export const OUTPUT_HELPERS: readonly Helper[] = [
  {
    id: 25,
    name: 'bpf_perf_event_output',
    since: 'v5.13',
    doc: '0; ENOENT when nobody listens on the CPU, E2BIG when there is no such slot, EOPNOTSUPP for another CPU',
    run: ({ world, cpu, args: [, address, flags, data, size] }) => {
      const map = mapAt(world, address);
      if (!(map instanceof PerfEventArrayMap)) return -Errno.EINVAL;
      return map.output(flags, world.guest.copy(data, Number(size)), cpu);
    },
  },
  {
    id: 130,
    name: 'bpf_ringbuf_output',
    since: 'v5.13',
    doc: '0, or EAGAIN when there is no room',
    run: (call) => {
      const [, data, size, flags] = call.args;
      return ringOf(call).output(call.world.guest.copy(data, Number(size)), flags);
    },
  },
  {
    id: 131,
    name: 'bpf_ringbuf_reserve',
    since: 'v5.13',
    doc: 'the address of the record, or 0 when there is no room',
    run: (call) => {
      const [, size, flags] = call.args;
      return flags === 0n ? (ringOf(call).reserve(size) ?? 0n) : 0n;
    },
  },
  {
    id: 132,
    name: 'bpf_ringbuf_submit',
    since: 'v5.13',
    doc: 'nothing; the record can be read once those before it are ready',
    run: (call) => commit(call, false),
  },
  {
    id: 133,
    name: 'bpf_ringbuf_discard',
    since: 'v5.13',
    doc: 'nothing; the record is passed over',
    run: (call) => commit(call, true),
  },
  {
    id: 134,
    name: 'bpf_ringbuf_query',
    since: 'v5.13',
    doc: 'bytes not yet read, size, the position of the reader or of the writers, by the flags; 0 for others',
    run: (call) => ringOf(call).query(call.args[1]),
  },
];
