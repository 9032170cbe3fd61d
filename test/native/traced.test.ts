/*
 * Traced functions on four CPUs at the same time, on the engine native, with real atomics: images, the
 * functions they call and the programs count exactly, while programs come and go between the rounds.
 */

import { afterEach, describe, expect, test } from 'vitest';
import { Guest, type GuestFunction, type GuestProgram } from '../../check/index.ts';
import { createMachine, type Machine } from '../../emu/index.ts';
import type { Assembler } from '../../jit/index.ts';
import type { Kaddr } from '../../lib/index.ts';
import { Kernel, linkProg, type ManagedRevision, type Trampoline, unlinkProg } from '../../tramp/index.ts';
import { nativeMissing } from '../emu/machines.ts';

const CPUS = 4;
const CALLS = 3000;

/**
 * u64 driver(fn, n): calls fn(1, 2) n times and returns the sum of what it returned.
 *
 *   push rbx; push rbp; push r12; mov rbx, rsi; mov rbp, rdi; xor r12d, r12d
 *   1: mov edi, 1; mov esi, 2; call rbp; add r12, rax; dec rbx; jne 1b
 *   mov rax, r12; pop r12; pop rbp; pop rbx; ret
 */
const DRIVER = Uint8Array.from(
  [
    [0x53, 0x55, 0x41, 0x54, 0x48, 0x89, 0xf3, 0x48, 0x89, 0xfd, 0x45, 0x31, 0xe4],
    [0xbf, 1, 0, 0, 0, 0xbe, 2, 0, 0, 0, 0xff, 0xd5, 0x49, 0x01, 0xc4, 0x48, 0xff, 0xcb, 0x75, 0xec],
    [0x4c, 0x89, 0xe0, 0x41, 0x5c, 0x5d, 0x5b, 0xc3],
  ].flat(),
);

let machine: Machine | undefined;

afterEach(() => {
  machine?.close();
  machine = undefined;
});

interface Stage {
  readonly machine: Machine;
  readonly kernel: Kernel;
  readonly guest: Guest;
  readonly f: GuestFunction;
  readonly tr: Trampoline;
  /** A word that every program with `shared` increments, locked. */
  readonly cell: Kaddr;
  readonly shared: (asm: Assembler) => void;
  /** Calls f on all CPUs at once, CALLS times on each. Gives what the calls returned, added up, per CPU. */
  callAll(): bigint[];
}

async function stage(revision: ManagedRevision): Promise<Stage> {
  const on = await createMachine({ engine: 'native', cpus: CPUS, counting: false });
  machine = on;
  const kernel = new Kernel(on, { revision });
  kernel.statsEnabled = true;
  const guest = new Guest(kernel);
  const f = guest.addFunction('f');
  const driver = on.memory.allocText(DRIVER.length, 'driver');
  on.patchText(driver, DRIVER);
  const cell = on.memory.kmalloc(8, 'cell', 64);
  // mov rax, cell; lock inc qword [rax]
  const address = Array.from({ length: 8 }, (_, i) => Number((cell >> BigInt(8 * i)) & 0xffn));
  const increment = [0x48, 0xb8, ...address, 0xf0, 0x48, 0xff, 0x00];
  return {
    machine: on,
    kernel,
    guest,
    f,
    cell,
    tr: kernel.trampolines.get(kernel, f.key, f),
    shared: (asm) => asm.raw(increment),
    callAll: () => {
      const calls = on.cpus.map(({ id }) => ({ cpu: id, fn: driver, args: [f.addr, BigInt(CALLS)] }));
      return on.callAll(calls).map(({ ret, fault }) => {
        expect(fault).toBeNull();
        return ret;
      });
    },
  };
}

const everyCpu = (value: number): bigint[] => Array<bigint>(CPUS).fill(BigInt(value));

describe.skipIf(nativeMissing !== undefined).each(['v5.13', 'v5.15'] as const)('%s', (revision) => {
  test('programs of every kind, attached and detached between: all counts are exact', async () => {
    const { kernel, guest, tr, f, cell, shared, callAll, machine: on } = await stage(revision);
    const runsOf = ({ prog }: GuestProgram): bigint[] => on.cpus.map(({ id }) => prog.counters(id).runs);

    expect(callAll()).toEqual(everyCpu(3 * CALLS));
    expect(f.runs()).toBe(BigInt(CPUS * CALLS));

    const fentry = guest.addProgram('first', 'fentry', { enter: shared });
    const fexit = guest.addProgram('last', 'fexit', { enter: shared });
    linkProg(kernel, fentry.prog, tr);
    linkProg(kernel, fexit.prog, tr);
    kernel.settle();
    expect(callAll()).toEqual(everyCpu(3 * CALLS));
    expect([runsOf(fentry), runsOf(fexit)]).toEqual([everyCpu(CALLS), everyCpu(CALLS)]);
    expect(on.memory.readU64(cell)).toBe(BigInt(2 * CPUS * CALLS));

    unlinkProg(kernel, fentry.prog, tr);
    const refuses = guest.addProgram('refuses', 'fmod_ret', { returns: 7, sleepable: true });
    linkProg(kernel, refuses.prog, tr);
    kernel.settle();
    // The original is skipped; fexit runs all the same.
    expect(callAll()).toEqual(everyCpu(7 * CALLS));
    expect([runsOf(fentry), runsOf(refuses), runsOf(fexit)]).toEqual([
      everyCpu(CALLS),
      everyCpu(CALLS),
      everyCpu(2 * CALLS),
    ]);
    expect(f.runs()).toBe(BigInt(2 * CPUS * CALLS));
    expect(on.memory.readU64(cell)).toBe(BigInt(3 * CPUS * CALLS));

    for (const { prog } of [refuses, fexit]) unlinkProg(kernel, prog, tr);
    kernel.settle();
    expect(callAll()).toEqual(everyCpu(3 * CALLS));
    expect(kernel.images.size).toBe(0);
    for (const { prog } of [fentry, fexit, refuses]) {
      const counters = on.cpus.map(({ id }) => prog.counters(id));
      expect(counters.map(({ misses, active }) => [misses, active])).toEqual(
        Array<unknown>(CPUS).fill([0n, 0]),
      );
    }
  });

  test('a program that calls what it traces is skipped inside, on each CPU by itself', async () => {
    const { kernel, guest, tr, f, callAll, machine: on } = await stage(revision);
    const nested = guest.addProgram('nested', 'fentry', { calls: f.addr });
    linkProg(kernel, nested.prog, tr);
    kernel.settle();
    expect(callAll()).toEqual(everyCpu(3 * CALLS));
    const counters = on.cpus.map(({ id }) => nested.prog.counters(id));
    expect(counters.map(({ runs }) => runs)).toEqual(everyCpu(CALLS));
    expect(f.runs()).toBe(BigInt(2 * CPUS * CALLS));
    expect(nested.runs()).toBe(BigInt(CPUS * CALLS));
    expect(counters.map(({ misses }) => misses)).toEqual(everyCpu(CALLS));
  });
});
