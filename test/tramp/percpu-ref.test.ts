import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { createMachine, type Machine } from '../../emu/index.ts';
import { BpfTrampImage } from '../../jit/index.ts';
import { addrAdd, Bug, type Kaddr, kaddr } from '../../lib/index.ts';
import { Kernel, PercpuRef } from '../../tramp/index.ts';

const CPUS = 3;
const SEED = 20_261_121;

let machine: Machine;
let kernel: Kernel;
let im: Kaddr;
let released: number;
let ref: PercpuRef;

function fresh(): void {
  im = machine.memory.kmalloc(BpfTrampImage.size);
  released = 0;
  ref = new PercpuRef(machine, kernel.grace, addrAdd(im, BpfTrampImage.pcref), () => released++);
}

beforeEach(async () => {
  machine = await createMachine({ cpus: CPUS });
  kernel = new Kernel(machine, { revision: 'v5.15' });
  fresh();
});
afterEach(() => machine.close());

/** References are taken and dropped by the guest's own functions. */
function guest(cpu: number, name: '__bpf_tramp_enter' | '__bpf_tramp_exit'): void {
  const { fault } = machine.cpus[cpu]?.call(kernel.helpers[name] ?? kaddr(0), [im]) ?? {};
  expect(fault).toBeNull();
}
const get = (cpu: number): void => guest(cpu, '__bpf_tramp_enter');
const put = (cpu: number): void => guest(cpu, '__bpf_tramp_exit');

const settle = (): void => {
  kernel.grace.settle();
  ref.poll();
};

describe('the life of a reference count', () => {
  test('starts with the owner’s reference; a CPU may drop what another took', () => {
    expect([ref.state, ref.references()]).toEqual(['percpu', 1n]);
    get(0);
    get(0);
    get(1);
    put(2);
    put(2);
    expect(ref.references()).toBe(2n);
    put(2);
    expect([ref.state, ref.references(), released]).toEqual(['percpu', 1n, 0]);
  });

  test('nothing is released without kill, even when only the owner is left', () => {
    get(0);
    put(1);
    settle();
    expect([ref.state, released]).toEqual(['percpu', 0]);
  });

  test('kill without other references: released after a grace period, once', () => {
    ref.kill();
    expect([ref.state, released]).toEqual(['dead', 0]);
    settle();
    settle();
    expect([ref.state, ref.references(), released]).toEqual(['released', 0n, 1]);
  });

  test('kill with calls in flight: released when the last leaves, on whichever CPU', () => {
    get(0);
    get(1);
    ref.kill();
    put(2);
    settle();
    expect([ref.state, ref.references(), released]).toEqual(['atomic', 1n, 0]);
    put(0);
    expect(ref.wantsRelease).toBe(true);
    ref.poll();
    expect([ref.state, released]).toEqual(['released', 1]);
  });

  test('a call that comes after kill counts too', () => {
    get(0);
    ref.kill();
    get(1);
    settle();
    get(2);
    put(0);
    put(0);
    settle();
    expect([ref.references(), released]).toEqual([1n, 0]);
    put(0);
    settle();
    expect(released).toBe(1);
  });

  test('a second kill is a broken invariant', () => {
    ref.kill();
    expect(() => ref.kill()).toThrow(Bug);
  });

  test('its counters are given back', () => {
    const offset = machine.percpu.alloc(8, 8);
    machine.percpu.free(offset);
    const other = new PercpuRef(machine, kernel.grace, addrAdd(im, BpfTrampImage.pcref), () => undefined);
    other.exit();
    expect(machine.percpu.alloc(8, 8)).toBe(offset);
  });
});

test('any history: exact while it lives, released once, and only when all are gone', () => {
  const cpu = fc.nat({ max: CPUS - 1 });
  const step = fc.oneof(
    { weight: 4, arbitrary: fc.record({ do: fc.constant('get' as const), cpu }) },
    { weight: 5, arbitrary: fc.record({ do: fc.constant('put' as const), cpu }) },
    fc.record({ do: fc.constant('kill' as const) }),
    fc.record({ do: fc.constant('settle' as const) }),
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 40 }), (history) => {
      fresh();
      let held = 0;
      let killed = false;
      for (const each of history) {
        // Once it is released nobody may touch it.
        if (released > 0) break;
        if (each.do === 'get') {
          // Whoever takes a reference must know of one that is there.
          if (ref.wantsRelease) continue;
          get(each.cpu);
          held++;
        } else if (each.do === 'put') {
          if (held === 0) continue;
          put(each.cpu);
          held--;
        } else if (each.do === 'kill') {
          if (!killed) ref.kill();
          killed = true;
        } else {
          settle();
        }
        const owner = ref.state === 'percpu' || ref.state === 'dead' ? 1 : 0;
        expect(ref.references()).toBe(BigInt(held + owner));
        if (released > 0) expect([killed, held]).toEqual([true, 0]);
      }
      if (released > 0) return;
      for (; held > 0; held--) put(0);
      if (!killed) ref.kill();
      settle();
      expect([ref.state, released]).toEqual(['released', 1]);
    }),
    { seed: SEED, numRuns: 200 },
  );
});
