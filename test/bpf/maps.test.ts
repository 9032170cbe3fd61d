import { afterEach, describe, expect, test } from 'vitest';
import {
  BPF_ANY,
  BPF_EXIST,
  BPF_NOEXIST,
  type BpfMap,
  createMap,
  MAP_TYPES,
  type MapHome,
  type MapSpec,
  PerfEventArrayMap,
  RingbufMap,
} from '../../bpf/index.ts';
import { createMachine, type Machine } from '../../emu/index.ts';
import { Errno, type Kaddr, KernelError, kaddr } from '../../lib/index.ts';

const machines: Machine[] = [];
afterEach(() => {
  for (const machine of machines.splice(0)) machine.close();
});

interface Home extends MapHome {
  readonly waiting: (() => void)[];
}

async function home(cpus = 2): Promise<Home> {
  const machine = await createMachine({ cpus });
  machines.push(machine);
  const waiting: (() => void)[] = [];
  return { machine, revision: 'v5.15', callRcu: (work) => waiting.push(work), waiting };
}

const typeId = (name: string): number => MAP_TYPES.find((type) => type.name === name)?.id ?? 0;

const spec = (type: string, more: Partial<MapSpec> = {}): MapSpec => ({
  ...{ name: 'm', typeId: typeId(type), keyBytes: 4, valueBytes: 8, maxEntries: 4, flags: 0 },
  ...more,
});

const NO_KEYS = { keyBytes: 0 };

const u32 = (value: number): Uint8Array => new Uint8Array(Uint32Array.of(value).buffer);
const u64 = (value: number): Uint8Array => new Uint8Array(BigUint64Array.of(BigInt(value)).buffer);

const NO_PREALLOC = 1;

function read({ machine }: MapHome, place: Kaddr | undefined): number | undefined {
  return place === undefined ? undefined : Number(machine.memory.readU64(place));
}

function keysOf(map: BpfMap): number[] {
  return [...(map.walk() ?? [])].map((key) => new DataView(key.buffer).getUint32(0, true));
}

/** The same by asking for the next key again and again. */
function nextKeys(map: BpfMap): number[] {
  const keys: number[] = [];
  for (let key = map.nextKey(undefined); typeof key !== 'number'; key = map.nextKey(key)) {
    keys.push(new DataView(key.buffer).getUint32(0, true));
  }
  return keys;
}

describe('array', () => {
  test('values lie one behind the other, where compiled programs count on', async () => {
    const on = await home();
    const map = createMap(on, spec('ARRAY', { valueBytes: 5 }));
    expect(map.lookup(u32(3), 0)).toBe(kaddr(map.address + 0x110n + 24n));
    expect(on.machine.memory.readU32(kaddr(map.address + 0x24n))).toBe(4);
    expect(map.lookup(u32(4), 0)).toBeUndefined();
    expect(keysOf(map)).toEqual([0, 1, 2, 3]);
    expect(nextKeys(map)).toEqual([0, 1, 2, 3]);
  });

  test("the kernel's errors, in its order", async () => {
    const map = createMap(await home(), spec('ARRAY'));
    expect(map.update(u32(0), u64(1), BPF_ANY, 0)).toBe(0);
    expect(map.update(u32(0), u64(1), BPF_EXIST, 0)).toBe(0);
    expect(map.update(u32(0), u64(1), BPF_NOEXIST, 0)).toBe(-Errno.EEXIST);
    expect(map.update(u32(9), u64(1), BPF_NOEXIST, 0)).toBe(-Errno.E2BIG);
    expect(map.update(u32(9), u64(1), 3n, 0)).toBe(-Errno.EINVAL);
    expect(map.update(u32(0), u64(1), 4n, 0)).toBe(-Errno.EINVAL);
    expect(map.delete(u32(0))).toBe(-Errno.EINVAL);
    expect(map.push(u64(1), 0n)).toBe(-Errno.ENOTSUPP);
  });

  test('a lock in a value stays as it is when the value is written', async () => {
    const on = await home();
    const map = createMap(on, spec('ARRAY', { valueBytes: 12, spinLockOffset: 4 }));
    const place = map.lookup(u32(0), 0) as Kaddr;
    on.machine.memory.writeU32(kaddr(place + 4n), 1);
    expect(map.update(u32(0), new Uint8Array(12).fill(0xee), 4n, 0)).toBe(0);
    expect(Buffer.from(on.machine.memory.bytes(place, 12)).toString('hex')).toBe('eeeeeeee01000000eeeeeeee');
  });
});

describe('per CPU', () => {
  test.each(['PERCPU_ARRAY', 'PERCPU_HASH'])('%s: each CPU writes its own value', async (type) => {
    const on = await home(3);
    const map = createMap(on, spec(type));
    expect(map.update(u32(1), u64(5), BPF_ANY, 2)).toBe(0);
    expect([0, 1, 2].map((cpu) => read(on, map.lookup(u32(1), cpu)))).toEqual([0, 0, 5]);
    expect(map.store(u32(1), [u64(7), u64(8), u64(9)], BPF_ANY)).toBe(0);
    expect(map.places(u32(1)).map((place) => read(on, place))).toEqual([7, 8, 9]);
    const before = map.lookup(u32(1), 0);
    map.update(u32(1), u64(3), BPF_ANY, 0);
    expect(map.lookup(u32(1), 0)).toBe(before);
  });

  test('a key that comes again starts from zero on the other CPUs', async () => {
    const on = await home(2);
    const map = createMap(on, spec('PERCPU_HASH', { maxEntries: 1 }));
    map.store(u32(1), [u64(7), u64(8)], BPF_ANY);
    map.delete(u32(1));
    map.update(u32(1), u64(1), BPF_ANY, 0);
    expect(map.places(u32(1)).map((place) => read(on, place))).toEqual([1, 0]);
  });
});

describe('hash', () => {
  test.each([0, NO_PREALLOC])("flags %d: the kernel's errors; full, and room again", async (flags) => {
    const on = await home();
    const map = createMap(on, spec('HASH', { flags, maxEntries: 2 }));
    expect(map.update(u32(1), u64(10), BPF_EXIST, 0)).toBe(-Errno.ENOENT);
    expect(map.update(u32(1), u64(10), BPF_NOEXIST, 0)).toBe(0);
    expect(map.update(u32(1), u64(10), BPF_NOEXIST, 0)).toBe(-Errno.EEXIST);
    expect(map.update(u32(2), u64(20), BPF_ANY, 0)).toBe(0);
    expect(map.update(u32(3), u64(30), BPF_ANY, 0)).toBe(-Errno.E2BIG);
    expect(map.update(u32(2), u64(21), BPF_EXIST, 0)).toBe(0);
    expect(map.delete(u32(1))).toBe(0);
    expect(map.delete(u32(1))).toBe(-Errno.ENOENT);
    expect(map.update(u32(3), u64(30), BPF_ANY, 0)).toBe(0);
    expect([1, 2, 3].map((key) => read(on, map.lookup(u32(key), 0)))).toEqual([undefined, 21, 30]);
    expect(nextKeys(map)).toEqual(keysOf(map));
    expect(keysOf(map)).toEqual([2, 3]);
  });

  test('who holds a pointer keeps the old value when it is replaced', async () => {
    const on = await home();
    const map = createMap(on, spec('HASH'));
    map.update(u32(1), u64(10), BPF_ANY, 0);
    const held = map.lookup(u32(1), 0);
    map.update(u32(1), u64(11), BPF_ANY, 0);
    expect([read(on, held), read(on, map.lookup(u32(1), 0))]).toEqual([10, 11]);
  });

  test('an element of its own memory is freed after a grace period', async () => {
    const on = await home();
    const map = createMap(on, spec('HASH', { flags: NO_PREALLOC }));
    map.update(u32(1), u64(10), BPF_ANY, 0);
    const held = map.lookup(u32(1), 0) as Kaddr;
    map.delete(u32(1));
    expect(read(on, held)).toBe(10);
    for (const work of on.waiting) work();
    expect(on.machine.memory.regionAt(held)).toBeUndefined();
  });

  test('a walk sees no element that has gone meanwhile', async () => {
    const map = createMap(await home(), spec('HASH'));
    for (const key of [1, 2, 3]) map.update(u32(key), u64(key), BPF_ANY, 0);
    const seen: number[] = [];
    for (const key of map.walk() ?? []) {
      seen.push(key[0] ?? 0);
      map.delete(u32(2));
    }
    expect(seen).toEqual([1, 3]);
  });

  test('LRU: gives up what was used least recently', async () => {
    const on = await home();
    const map = createMap(on, spec('LRU_HASH', { maxEntries: 3 }));
    for (const key of [1, 2, 3]) map.update(u32(key), u64(key), BPF_ANY, 0);
    map.lookup(u32(1), 0);
    map.update(u32(2), u64(22), BPF_ANY, 0);
    map.update(u32(4), u64(4), BPF_ANY, 0);
    expect(keysOf(map)).toEqual([1, 2, 4]);
    expect(read(on, map.lookup(u32(2), 0))).toBe(22);
  });
});

describe('queue and stack', () => {
  test.each([
    ['QUEUE', [1, 2, 3]],
    ['STACK', [3, 2, 1]],
  ] as const)('%s', async (type, order) => {
    const map = createMap(await home(), spec(type, { ...NO_KEYS, maxEntries: 3 }));
    const to = new Uint8Array(8);
    const take = (): number => {
      expect(map.pop(to)).toBe(0);
      return to[0] ?? 0;
    };
    for (let round = 0; round < 3; round++) {
      for (const value of [1, 2, 3]) expect(map.push(u64(value), BPF_ANY)).toBe(0);
      expect(map.push(u64(4), BPF_ANY)).toBe(-Errno.E2BIG);
      expect(map.peek(to)).toBe(0);
      expect(to[0]).toBe(order[0]);
      expect([take(), take(), take()]).toEqual(order);
      to.fill(9);
      expect(map.pop(to)).toBe(-Errno.ENOENT);
      expect([...to]).toEqual([0, 0, 0, 0, 0, 0, 0, 0]);
    }
    expect(map.push(u64(1), BPF_NOEXIST)).toBe(-Errno.EINVAL);
    for (const value of [1, 2, 3, 4]) expect(map.push(u64(value), BPF_EXIST)).toBe(0);
    expect(take()).toBe(type === 'QUEUE' ? 2 : 4);
  });
});

describe('ring buffer', () => {
  const ring = async (maxEntries = 4096): Promise<{ on: Home; map: RingbufMap }> => {
    const on = await home();
    const map = createMap(on, spec('RINGBUF', { keyBytes: 0, valueBytes: 0, maxEntries }));
    if (!(map instanceof RingbufMap)) throw new Error('no ring buffer');
    return { on, map };
  };

  test('records come in the order in which their room was taken, and wait for those before', async () => {
    const { on, map } = await ring();
    const first = map.reserve(8n) as Kaddr;
    const second = map.reserve(3n) as Kaddr;
    expect(map.reserve(1n << 40n)).toBeUndefined();
    on.machine.memory.writeU64(first, 0x11n);
    on.machine.memory.writeU8(second, 0x22);
    map.commit(second, false);
    expect(map.consume()).toEqual([]);
    map.commit(first, false);
    expect(map.consume().map((bytes) => [...bytes])).toEqual([
      [0x11, 0, 0, 0, 0, 0, 0, 0],
      [0x22, 0, 0],
    ]);
    expect(map.availableBytes).toBe(0);
  });

  test('one that is full takes nothing until it is read; records run over the end', async () => {
    const { map } = await ring();
    const record = new Uint8Array(1000).map((_, i) => i);
    for (let round = 0; round < 10; round++) {
      for (let i = 0; i < 4; i++) expect(map.output(record, 0n)).toBe(0);
      expect(map.output(record, 0n)).toBe(-Errno.EAGAIN);
      expect([0n, 1n, 9n].map((what) => map.query(what))).toEqual([4 * 1008, 4096, 0]);
      expect(map.consume()).toEqual([record, record, record, record]);
    }
    expect(map.output(record, 4n)).toBe(-Errno.EINVAL);
    expect([2n, 3n].map((what) => map.query(what))).toEqual([40 * 1008, 40 * 1008]);
  });
});

test('perf event array: who listens on which CPU', async () => {
  const map = createMap(await home(), spec('PERF_EVENT_ARRAY', { valueBytes: 4, maxEntries: 2 }));
  if (!(map instanceof PerfEventArrayMap)) throw new Error('no perf event array');
  const heard: number[] = [];
  const stop = map.listen(1, (bytes, cpu) => heard.push(cpu, ...bytes));
  const CURRENT = 0xffff_ffffn;
  const data = Uint8Array.of(7);
  expect(map.output(CURRENT, data, 1)).toBe(0);
  expect(map.output(CURRENT, data, 0)).toBe(-Errno.ENOENT);
  expect(map.output(1n, data, 0)).toBe(-Errno.EOPNOTSUPP);
  expect(map.output(2n, data, 0)).toBe(-Errno.E2BIG);
  expect(map.output(1n << 40n, data, 0)).toBe(-Errno.EINVAL);
  stop();
  expect(map.output(CURRENT, data, 1)).toBe(-Errno.ENOENT);
  expect(heard).toEqual([1, 7]);
});

describe('making', () => {
  test.each([
    ['no entries', 'ARRAY', { maxEntries: 0 }],
    ['keys of 8 bytes', 'ARRAY', { keyBytes: 8 }],
    ['values of no bytes', 'HASH', { valueBytes: 0 }],
    ['keys of 513 bytes', 'HASH', { keyBytes: 513 }],
    ['flags 0x1', 'ARRAY', { flags: 1 }],
    ['flags 0x1', 'LRU_HASH', { flags: 1 }],
    ['keys of 4 bytes', 'QUEUE', {}],
    ['power of two', 'RINGBUF', { keyBytes: 0, valueBytes: 0, maxEntries: 3 * 4096 }],
    ['neither keys nor values', 'RINGBUF', { maxEntries: 4096 }],
    ['4 bytes each', 'PROG_ARRAY', {}],
  ] as const)('refuses %s: %s', async (why, type, more) => {
    const on = await home();
    expect(() => createMap(on, spec(type, more))).toThrow(KernelError);
    expect(() => createMap(on, spec(type, more))).toThrow(why);
  });

  test('refuses what no machine has room for, and keeps nothing of it', async () => {
    const on = await home();
    const before = on.machine.snapshot().sizeBytes;
    for (const type of ['ARRAY', 'PERCPU_ARRAY', 'HASH', 'PERCPU_HASH', 'LRU_HASH']) {
      expect(() => createMap(on, spec(type, { maxEntries: 0xffff_ffff }))).toThrow('-ENOMEM');
    }
    expect(on.machine.snapshot().sizeBytes - before).toBeLessThan(1 << 20);
  });

  test.each(MAP_TYPES.map(({ name }) => name))('%s gives back all that it took', async (name) => {
    const on = await home();
    const sizes = {
      QUEUE: NO_KEYS,
      STACK: NO_KEYS,
      RINGBUF: { keyBytes: 0, valueBytes: 0, maxEntries: 4096 },
    };
    const four = name === 'PROG_ARRAY' || name === 'PERF_EVENT_ARRAY' ? { valueBytes: 4 } : {};
    const map = createMap(on, spec(name, { ...four, ...sizes[name as keyof typeof sizes] }));
    const { address } = map;
    const place = map.lookup(u32(0), 0);
    map.free();
    expect(on.machine.memory.regionAt(address)).toBeUndefined();
    if (place !== undefined && !map.perCpu) expect(on.machine.memory.regionAt(place)).toBeUndefined();
  });
});
