/* Helpers on maps. Kernel: kernel/bpf/helpers.c */

import { Errno } from '../../lib/index.ts';
import { MemoryFault } from '../interp/memory.ts';
import type { BpfMap } from '../maps/map.ts';
import { type Callback, type Helper, type HelperCall, low32, mapAt } from './helper.ts';

/** @throws MemoryFault for what is no map: the kernel would follow its pointers */
function mapOf({ world, args: [address] }: HelperCall): BpfMap {
  const map = mapAt(world, address);
  if (map === undefined) throw new MemoryFault('read', address, 8);
  return map;
}

function keyOf({ world, args }: HelperCall, map: BpfMap): Uint8Array {
  return world.guest.copy(args[1], map.spec.keyBytes);
}

/** Has a value filled in that r2 points to. */
function take(call: HelperCall, from: (map: BpfMap, to: Uint8Array) => number): number {
  const map = mapOf(call);
  const to = new Uint8Array(map.spec.valueBytes);
  const result = from(map, to);
  call.world.guest.store(call.args[1], to);
  return result;
}

/** Kernel: bpf_for_each_array_elem, bpf_for_each_hash_elem */
function* forEach(call: HelperCall): Generator<Callback, number, bigint> {
  const { world, cpu, args } = call;
  const [address, fn, context, flags] = args;
  const map = mapOf(call);
  const keys = map.walk();
  if (flags !== 0n || keys === undefined) return -Errno.EINVAL;
  const { memory } = world.kernel.machine;
  // The key is handed out by address; hash elements have it before them, array indices are nowhere.
  const key = memory.kmalloc(Math.max(map.spec.keyBytes, 1), 'key of bpf_for_each_map_elem');
  let count = 0;
  try {
    for (const bytes of keys) {
      const value = map.places(bytes)[map.perCpu ? cpu : 0];
      if (value === undefined) continue;
      memory.write(key, bytes);
      count++;
      const stop = yield { fn, args: [address, key, value, context] };
      if (stop !== 0n) break;
    }
    return count;
  } finally {
    memory.kfree(key);
  }
}

const EXCHANGE_UNTIL_ZERO = [0xb8, 1, 0, 0, 0, 0x87, 0x07, 0x85, 0xc0, 0x75, 0xf5, 0xc3];
const STORE_ZERO = [0xc7, 0x07, 0, 0, 0, 0, 0xc3];

export const MAP_HELPERS: readonly Helper[] = [
  {
    id: 1,
    name: 'bpf_map_lookup_elem',
    since: 'v5.13',
    doc: 'the address of the value, on this CPU where each has its own; 0 when there is none',
    run: (call) => {
      const map = mapOf(call);
      return map.lookup(keyOf(call, map), call.cpu) ?? 0n;
    },
  },
  {
    id: 2,
    name: 'bpf_map_update_elem',
    since: 'v5.13',
    doc: '0, or an error by the rules of the type of map: EEXIST, ENOENT, E2BIG, EINVAL',
    run: (call) => {
      const map = mapOf(call);
      const value = call.world.guest.copy(call.args[2], map.spec.valueBytes);
      return map.update(keyOf(call, map), value, call.args[3], call.cpu);
    },
  },
  {
    id: 3,
    name: 'bpf_map_delete_elem',
    since: 'v5.13',
    doc: '0, or ENOENT; EINVAL for what has no elements to take out',
    run: (call) => {
      const map = mapOf(call);
      return map.delete(keyOf(call, map));
    },
  },
  {
    id: 87,
    name: 'bpf_map_push_elem',
    since: 'v5.13',
    doc: '0, or E2BIG when it is full; with BPF_EXIST the oldest value goes',
    run: (call) => {
      const map = mapOf(call);
      return map.push(call.world.guest.copy(call.args[1], map.spec.valueBytes), call.args[2]);
    },
  },
  {
    id: 88,
    name: 'bpf_map_pop_elem',
    since: 'v5.13',
    doc: '0; ENOENT, and a value of zeros, when it is empty',
    run: (call) => take(call, (map, to) => map.pop(to)),
  },
  {
    id: 89,
    name: 'bpf_map_peek_elem',
    since: 'v5.13',
    doc: 'as bpf_map_pop_elem, and the value stays',
    run: (call) => take(call, (map, to) => map.peek(to)),
  },
  {
    id: 93,
    name: 'bpf_spin_lock',
    since: 'v5.13',
    doc: 'spins until the word is 0, and makes it 1, in guest code: who never gets it meets the step limit',
    run: ({ world, args: [lock] }) => {
      world.guest.write(lock, 4, 1n);
      return 0;
    },
    code: () => EXCHANGE_UNTIL_ZERO,
  },
  {
    id: 94,
    name: 'bpf_spin_unlock',
    since: 'v5.13',
    doc: 'makes the word 0',
    run: ({ world, args: [lock] }) => {
      world.guest.write(lock, 4, 0n);
      return 0;
    },
    code: () => STORE_ZERO,
  },
  {
    id: 164,
    name: 'bpf_for_each_map_elem',
    since: 'v5.13',
    doc: 'how often the function was called; it stops when that gives anything but 0. Elements that come meanwhile are not seen',
    run: forEach,
  },
  {
    id: 181,
    name: 'bpf_loop',
    since: 'v6.1',
    doc: 'how often the function was called; E2BIG for more than 8,388,608 times, EINVAL for flags',
    run: loop,
  },
  {
    id: 195,
    name: 'bpf_map_lookup_percpu_elem',
    since: 'v6.1',
    doc: "the address of a CPU's value; 0 when there is none, or no such CPU",
    run: (call) => {
      const map = mapOf(call);
      const cpu = low32(call.args[2]);
      if (!map.perCpu || cpu >= call.world.kernel.machine.cpus.length) return 0n;
      return map.lookup(keyOf(call, map), cpu) ?? 0n;
    },
  },
];

/** Kernel: BPF_MAX_LOOPS */
const MAX_LOOPS = 8 << 20;

/** Kernel: bpf_loop, kernel/bpf/bpf_iter.c */
function* loop({ args: [times, fn, context, flags] }: HelperCall): Generator<Callback, number, bigint> {
  const count = low32(times);
  if (flags !== 0n) return -Errno.EINVAL;
  if (count > MAX_LOOPS) return -Errno.E2BIG;
  for (let i = 0; i < count; i++) {
    const stop = yield { fn, args: [BigInt(i), context] };
    if (stop !== 0n) return i + 1;
  }
  return count;
}
