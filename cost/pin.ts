import process from 'node:process';
import koffi from 'koffi';

/** Words of a cpu_set_t: 1024 CPUs. */
const SET_WORDS = 16;

/** Where this process runs from now on, and how to undo it. */
export interface Pinned {
  /** The core; undefined where the system does not let a process be pinned. */
  readonly core: number | undefined;
  readonly unpin: () => void;
}

/** Pins this process, and processes that it starts, to the last core that it may use. */
export function pinned(): Pinned {
  const not: Pinned = { core: undefined, unpin: () => undefined };
  if (process.platform !== 'linux') return not;
  const libc = koffi.load('libc.so.6');
  const get = libc.func('int sched_getaffinity(int pid, size_t bytes, void *set)');
  const set = libc.func('int sched_setaffinity(int pid, size_t bytes, void *set)');
  const allowed = new BigUint64Array(SET_WORDS);
  if (get(0, allowed.byteLength, allowed) !== 0) return not;
  const core = lastOf(allowed);
  const one = new BigUint64Array(SET_WORDS);
  one[core >> 6] = 1n << BigInt(core & 63);
  if (set(0, one.byteLength, one) !== 0) return not;
  return { core, unpin: () => set(0, allowed.byteLength, allowed) };
}

function lastOf(set: BigUint64Array): number {
  const word = set.findLastIndex((bits) => bits !== 0n);
  return 64 * word + (set[word] as bigint).toString(2).length - 1;
}
