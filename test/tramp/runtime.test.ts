/* The enter and exit functions that images call, one by one, as machine code on the machine. */

import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { createMachine, type Machine, type RegisterName, type Vcpu } from '../../emu/index.ts';
import {
  BpfProgStats,
  BpfTrampImage,
  GET_FUNC_IP,
  NOP5,
  BpfProg as ProgField,
  PercpuRef as RefField,
  SCHEDULE,
  TaskStruct,
} from '../../jit/index.ts';
import { addrAdd, Bug, type Kaddr, kaddr } from '../../lib/index.ts';
import { BpfProg, Kernel, PercpuRef } from '../../tramp/index.ts';

const CPUS = 3;
/** The kernel's clock at boot, and what each reading adds. */
const CLOCK = 1_000_000_000n;
const TICK = 10n;

/** Registers that are neither kept nor argument 0 or 1. */
const SCRATCH = ['rax', 'rcx', 'rdx', 'r8', 'r9', 'r10', 'r11'] as const;
const JUNK = 0xbad0_bad0_bad0_bad0n;

const PAIRS = [
  ['__bpf_prog_enter', '__bpf_prog_exit', 'rcu'],
  ['__bpf_prog_enter_sleepable', '__bpf_prog_exit_sleepable', 'trace'],
] as const;

const DEPTHS = {
  rcu: TaskStruct.rcuReadLockNesting,
  trace: TaskStruct.trcReaderNesting,
  migration: TaskStruct.migrationDisabled,
} as const;

// Those of v6 kernels: test/jit/runtime-v6.test.ts
describe.each(['v5.13', 'v5.15'] as const)('%s', (revision) => {
  let machine: Machine;
  let kernel: Kernel;
  let prog: BpfProg;

  beforeEach(async () => {
    machine = await createMachine({ cpus: CPUS });
    kernel = new Kernel(machine, { revision });
    prog = new BpfProg(kernel, { name: 'prog', kind: 'fentry', bpfFunc: kaddr(0) });
  });
  afterEach(() => {
    machine.close();
  });

  function func(name: string): Kaddr {
    const address = kernel.helpers[name];
    if (address === undefined) throw new Bug(`the runtime has no ${name}`);
    return address;
  }

  function vcpu(cpu: number): Vcpu {
    const found = machine.cpus[cpu];
    if (found === undefined) throw new Bug(`there is no CPU ${cpu}`);
    return found;
  }

  /** Calls a function with nothing of use in the registers that are not its arguments. */
  function call(cpu: number, name: string, ...args: bigint[]): bigint {
    const at = vcpu(cpu);
    at.begin(func(name), args);
    for (const reg of SCRATCH) at.regs.set(reg, JUNK);
    expect(at.run()).toMatchObject({ reason: 'returned', fault: null });
    return at.regs.get('rax');
  }

  function depths(cpu: number): Record<keyof typeof DEPTHS, number> {
    const at = (field: number): number => machine.memory.readU32(addrAdd(machine.current(cpu), field));
    return { rcu: at(DEPTHS.rcu), trace: at(DEPTHS.trace), migration: at(DEPTHS.migration) };
  }

  function setDepth(cpu: number, field: keyof typeof DEPTHS, value: number): void {
    machine.memory.writeU32(addrAdd(machine.current(cpu), DEPTHS[field]), value);
  }

  function stats(cpu: number): Kaddr {
    const offset = machine.memory.readU64(addrAdd(prog.address, ProgField.stats));
    return machine.percpu.address(Number(offset), cpu);
  }

  function sequence(cpu: number): number {
    return machine.memory.readU32(addrAdd(stats(cpu), BpfProgStats.syncp));
  }

  const idle = { rcu: 0, trace: 0, migration: 0 };
  const uncounted = { runs: 0n, nsecs: 0n, misses: 0n, active: 0 };

  describe.each(PAIRS)('%s and %s', (enter, exit, reader) => {
    test('open and close the reader, migration and the recursion counter', () => {
      expect(call(1, enter, prog.address)).toBe(1n);
      expect(depths(1)).toEqual({ ...idle, [reader]: 1, migration: 1 });
      expect(prog.counters(1)).toEqual({ ...uncounted, active: 1 });
      call(1, exit, prog.address, 1n);
      expect(depths(1)).toEqual(idle);
      expect(prog.counters(1)).toEqual(uncounted);
    });

    test('refuse a program that runs on this CPU, and count the miss', () => {
      expect(call(0, enter, prog.address)).toBe(1n);
      expect(call(0, enter, prog.address)).toBe(0n);
      expect(call(0, enter, prog.address)).toBe(0n);
      expect(prog.counters(0)).toEqual({ ...uncounted, misses: 2n, active: 3 });
      expect(depths(0)).toEqual({ ...idle, [reader]: 3, migration: 3 });
      call(0, exit, prog.address, 0n);
      call(0, exit, prog.address, 0n);
      // The outermost run goes on, so the program is refused still.
      expect(call(0, enter, prog.address)).toBe(0n);
      call(0, exit, prog.address, 0n);
      call(0, exit, prog.address, 1n);
      expect(call(0, enter, prog.address)).toBe(1n);
      expect(prog.counters(0)).toEqual({ ...uncounted, misses: 3n, active: 1 });
      expect(sequence(0)).toBe(6);
    });

    test('count per CPU: a program may run on several at once', () => {
      for (let cpu = 0; cpu < CPUS; cpu++) expect(call(cpu, enter, prog.address)).toBe(1n);
      expect(call(1, enter, prog.address)).toBe(0n);
      expect([0, 1, 2].map((cpu) => prog.counters(cpu).active)).toEqual([1, 2, 1]);
      expect([0, 1, 2].map((cpu) => prog.counters(cpu).misses)).toEqual([0n, 1n, 0n]);
      call(2, exit, prog.address, 1n);
      expect(call(2, enter, prog.address)).toBe(1n);
      expect([0, 1, 2].map((cpu) => depths(cpu).migration)).toEqual([1, 2, 1]);
    });

    test('hold the counter of each program apart', () => {
      const other = new BpfProg(kernel, { name: 'other', kind: 'fexit', bpfFunc: kaddr(0) });
      expect(call(0, enter, prog.address)).toBe(1n);
      expect(call(0, enter, other.address)).toBe(1n);
      expect([prog.counters(0), other.counters(0)]).toEqual([
        { ...uncounted, active: 1 },
        { ...uncounted, active: 1 },
      ]);
    });

    test('measure runs and time while statistics are on, per CPU', () => {
      kernel.statsEnabled = true;
      const first = call(0, enter, prog.address);
      expect(first).toBe(CLOCK);
      kernel.clock += 500n;
      call(0, exit, prog.address, first);
      const second = call(2, enter, prog.address);
      expect(second).toBe(CLOCK + 500n + 2n * TICK);
      call(2, exit, prog.address, second);
      expect(prog.counters(0)).toEqual({ ...uncounted, runs: 1n, nsecs: 500n + TICK });
      expect(prog.counters(1)).toEqual(uncounted);
      expect(prog.counters(2)).toEqual({ ...uncounted, runs: 1n, nsecs: TICK });
      expect([0, 1, 2].map(sequence)).toEqual([2, 0, 2]);
    });

    test('a refused run is no run, and takes no time', () => {
      kernel.statsEnabled = true;
      const outer = call(0, enter, prog.address);
      const inner = call(0, enter, prog.address);
      expect(inner).toBe(0n);
      call(0, exit, prog.address, inner);
      expect(prog.counters(0)).toEqual({ ...uncounted, misses: 1n, active: 1 });
      call(0, exit, prog.address, outer);
      // The clock was read at the start and at the end, by nobody else.
      expect(prog.counters(0)).toEqual({ ...uncounted, runs: 1n, nsecs: TICK, misses: 1n });
      expect(kernel.clock).toBe(CLOCK + 2n * TICK);
    });

    test('statistics switched on during a run do not count it', () => {
      const start = call(0, enter, prog.address);
      kernel.statsEnabled = true;
      call(0, exit, prog.address, start);
      expect(prog.counters(0)).toEqual(uncounted);
      expect(kernel.clock).toBe(CLOCK);
    });

    test('statistics switched off during a run do not count it', () => {
      kernel.statsEnabled = true;
      const start = call(0, enter, prog.address);
      kernel.statsEnabled = false;
      call(0, exit, prog.address, start);
      expect(prog.counters(0)).toEqual(uncounted);
      expect(kernel.clock).toBe(CLOCK + TICK);
    });

    test('a time of 0 becomes 1, which is no time', () => {
      kernel.statsEnabled = true;
      kernel.clock = 0n;
      const start = call(0, enter, prog.address);
      expect(start).toBe(1n);
      call(0, exit, prog.address, start);
      expect(prog.counters(0)).toEqual(uncounted);
    });

    test('times are 64-bit and unsigned', () => {
      kernel.statsEnabled = true;
      for (const time of [2n, 1n << 32n, 1n << 63n]) {
        kernel.clock = time;
        const start = call(0, enter, prog.address);
        expect(start).toBe(time);
        call(0, exit, prog.address, start);
      }
      expect(prog.counters(0)).toEqual({ ...uncounted, runs: 3n, nsecs: 3n * TICK });
    });

    test('counts are 64 bits wide', () => {
      kernel.statsEnabled = true;
      const full = 0xffff_ffffn;
      for (const field of [BpfProgStats.cnt, BpfProgStats.nsecs, BpfProgStats.misses]) {
        machine.memory.writeU64(addrAdd(stats(0), field), full);
      }
      const start = call(0, enter, prog.address);
      call(0, exit, prog.address, call(0, enter, prog.address));
      call(0, exit, prog.address, start);
      const { runs, nsecs, misses } = prog.counters(0);
      expect([runs, nsecs, misses]).toEqual([full + 1n, full + TICK, full + 1n]);
    });

    test('a reader of the statistics sees an odd sequence while they change', () => {
      kernel.statsEnabled = true;
      const counted = (): bigint[] =>
        [BpfProgStats.cnt, BpfProgStats.nsecs, BpfProgStats.misses].map((field) =>
          machine.memory.readU64(addrAdd(stats(0), field)),
        );
      const start = call(0, enter, prog.address);
      const changes: number[] = [];
      for (const [name, args] of [
        [enter, [prog.address]],
        [exit, [prog.address, 0n]],
        [exit, [prog.address, start]],
      ] as const) {
        const cpu = vcpu(0);
        cpu.begin(func(name), args);
        for (let before = counted(); cpu.inCall; before = counted()) {
          cpu.step();
          if (counted().some((value, i) => value !== before[i])) changes.push(sequence(0) % 2);
        }
      }
      // misses, cnt, nsecs
      expect(changes).toEqual([1, 1, 1]);
      expect(sequence(0) % 2).toBe(0);
    });
  });

  describe('might_fault', () => {
    const [enter, exit] = PAIRS[1];

    test('says nothing where sleeping is allowed', () => {
      const start = call(0, enter, prog.address);
      call(0, exit, prog.address, start);
      expect(kernel.mightFaultSplats(0)).toBe(0);
    });

    test('splats inside rcu_read_lock, on that CPU, and the program runs all the same', () => {
      setDepth(1, 'rcu', 1);
      expect(call(1, enter, prog.address)).toBe(1n);
      expect([0, 1, 2].map((cpu) => kernel.mightFaultSplats(cpu))).toEqual([0, 1, 0]);
      call(1, exit, prog.address, 1n);
      expect(depths(1)).toEqual({ ...idle, rcu: 1 });
    });

    test('splats with preemption off', () => {
      const { percpu, memory } = machine;
      memory.writeU32(percpu.address(percpu.vars.preemptCount, 2), 1);
      expect(call(2, enter, prog.address)).toBe(1n);
      expect(call(0, enter, prog.address)).toBe(1n);
      expect([0, 1, 2].map((cpu) => kernel.mightFaultSplats(cpu))).toEqual([0, 0, 1]);
    });

    test('does not mind other sleepable programs, and splats before recursion is looked at', () => {
      expect(call(0, enter, prog.address)).toBe(1n);
      expect(call(0, enter, prog.address)).toBe(0n);
      expect(kernel.mightFaultSplats(0)).toBe(0);
      setDepth(0, 'rcu', 2);
      expect(call(0, enter, prog.address)).toBe(0n);
      expect(kernel.mightFaultSplats(0)).toBe(1);
    });

    test('is not asked by programs that cannot sleep', () => {
      setDepth(0, 'rcu', 1);
      call(0, '__bpf_prog_enter', prog.address);
      expect(kernel.mightFaultSplats(0)).toBe(0);
    });
  });

  describe('__bpf_tramp_enter and __bpf_tramp_exit', () => {
    let im: Kaddr;
    let releases: number;
    let ref: PercpuRef;

    beforeEach(() => {
      im = machine.memory.kmalloc(BpfTrampImage.size, 'im');
      releases = 0;
      ref = new PercpuRef(machine, kernel.grace, addrAdd(im, BpfTrampImage.pcref), () => {
        releases++;
      });
    });

    const word = (field: number): bigint =>
      BigInt.asIntN(64, machine.memory.readU64(addrAdd(im, BpfTrampImage.pcref + field)));

    test('get and put on the counter of their CPU, wherever each happens', () => {
      const counter = Number(word(RefField.percpuCountPtr));
      const shared = word(RefField.count);
      const own = (): bigint[] =>
        [0, 1, 2].map((cpu) =>
          BigInt.asIntN(64, machine.memory.readU64(machine.percpu.address(counter, cpu))),
        );
      call(0, '__bpf_tramp_enter', im);
      call(0, '__bpf_tramp_enter', im);
      call(1, '__bpf_tramp_enter', im);
      expect(own()).toEqual([2n, 1n, 0n]);
      expect(ref.references()).toBe(4n);
      for (let i = 0; i < 3; i++) call(2, '__bpf_tramp_exit', im);
      expect(own()).toEqual([2n, 1n, -3n]);
      expect(ref.references()).toBe(1n);
      expect(word(RefField.count)).toBe(shared);
      expect([0, 1, 2].map(depths)).toEqual([idle, idle, idle]);
    });

    test('counts are 64 bits wide, in both modes', () => {
      // More puts than gets on CPU 0: its counter goes below zero and comes back.
      const counter = machine.percpu.address(Number(word(RefField.percpuCountPtr)), 0);
      call(1, '__bpf_tramp_enter', im);
      call(0, '__bpf_tramp_exit', im);
      expect(machine.memory.readU64(counter)).toBe(0xffff_ffff_ffff_ffffn);
      call(0, '__bpf_tramp_enter', im);
      expect(machine.memory.readU64(counter)).toBe(0n);

      ref.kill();
      kernel.settle();
      machine.memory.writeU64(addrAdd(im, BpfTrampImage.pcref + RefField.count), 0xffff_ffffn);
      call(0, '__bpf_tramp_enter', im);
      expect(word(RefField.count)).toBe(0x1_0000_0000n);
      call(0, '__bpf_tramp_exit', im);
      expect([word(RefField.count), word(RefField.released)]).toEqual([0xffff_ffffn, 0n]);
    });

    test('hold rcu_read_lock while they look at the mode and count', () => {
      for (const name of ['__bpf_tramp_enter', '__bpf_tramp_exit']) {
        const before = ref.references();
        const inside: number[] = [];
        const cpu = vcpu(0);
        cpu.begin(func(name), [im]);
        for (let counted = before; cpu.inCall; ) {
          cpu.step();
          if (ref.references() !== counted) inside.push(depths(0).rcu);
          counted = ref.references();
        }
        expect(inside).toEqual([1]);
        expect(depths(0).rcu).toBe(0);
      }
    });

    test('release once, with the last reference, after a kill', () => {
      call(0, '__bpf_tramp_enter', im);
      call(1, '__bpf_tramp_enter', im);
      ref.kill();
      kernel.settle();
      expect(ref.state).toBe('atomic');
      expect(ref.references()).toBe(2n);
      call(2, '__bpf_tramp_enter', im);
      expect(word(RefField.count)).toBe(3n);
      for (const cpu of [2, 2]) call(cpu, '__bpf_tramp_exit', im);
      ref.poll();
      expect([releases, word(RefField.released)]).toEqual([0, 0n]);
      call(0, '__bpf_tramp_exit', im);
      expect([word(RefField.count), word(RefField.released)]).toEqual([0n, 1n]);
      expect(releases).toBe(0);
      ref.poll();
      ref.poll();
      expect([releases, ref.state, ref.references()]).toEqual([1, 'released', 0n]);
    });

    test('count atomically from the kill on, and release nothing before the counters are summed', () => {
      const counter = Number(word(RefField.percpuCountPtr));
      call(0, '__bpf_tramp_enter', im);
      setDepth(1, 'rcu', 1);
      ref.kill();
      // CPU 1 is in a reader and might still count on its own counter: no sum can be taken yet.
      const cpu = vcpu(1);
      cpu.begin(func('sched_clock'));
      kernel.settle();
      expect(ref.state).toBe('dead');
      call(2, '__bpf_tramp_enter', im);
      call(0, '__bpf_tramp_exit', im);
      call(0, '__bpf_tramp_exit', im);
      expect(machine.memory.readU64(machine.percpu.address(counter, 0))).toBe(1n);
      expect(machine.memory.readU64(machine.percpu.address(counter, 2))).toBe(0n);
      expect([releases, word(RefField.released), ref.references()]).toEqual([0, 0n, 1n]);
      cpu.run();
      setDepth(1, 'rcu', 0);
      kernel.settle();
      expect([releases, ref.state]).toEqual([1, 'released']);
    });

    test('an image that nobody is in is released by the kill', () => {
      call(1, '__bpf_tramp_enter', im);
      call(2, '__bpf_tramp_exit', im);
      ref.kill();
      kernel.settle();
      expect([releases, ref.state]).toEqual([1, 'released']);
    });
  });

  describe('the clock', () => {
    test('passes by being read, on whichever CPU', () => {
      expect([0, 2, 1, 0].map((cpu) => call(cpu, 'sched_clock'))).toEqual(
        [0n, 1n, 2n, 3n].map((readings) => CLOCK + readings * TICK),
      );
      expect(kernel.clock).toBe(CLOCK + 4n * TICK);
    });

    test('shows the same on every machine that does the same', async () => {
      const times = async (): Promise<bigint[]> => {
        const other = await createMachine({ cpus: CPUS });
        const its = new Kernel(other, { revision });
        its.statsEnabled = true;
        const victim = new BpfProg(its, { name: 'prog', kind: 'fentry', bpfFunc: kaddr(0) });
        const enter = its.helpers['__bpf_prog_enter'] as Kaddr;
        const exit = its.helpers['__bpf_prog_exit'] as Kaddr;
        const starts = other.cpus.map((cpu) => cpu.call(enter, [victim.address]).ret);
        other.cpus.forEach((cpu, i) => {
          cpu.call(exit, [victim.address, starts[i] as bigint]);
        });
        const found = [...starts, ...other.cpus.map(({ id }) => victim.counters(id).nsecs), its.clock];
        other.close();
        return found;
      };
      const once = await times();
      expect(once).toEqual(await times());
      expect(once.slice(CPUS)).toEqual([3n * TICK, 3n * TICK, 3n * TICK, CLOCK + 6n * TICK]);
    });
  });

  test('statistics are a patched branch: nothing is left of them when they are off', () => {
    const region = machine.memory.regionAt(func('sched_clock'));
    if (region === undefined) throw new Bug('the runtime is not mapped');
    const text = (): Uint8Array => machine.memory.bytes(region.start, region.sizeBytes).slice();
    const off = text();
    kernel.statsEnabled = true;
    expect(kernel.statsEnabled).toBe(true);
    const on = text();
    const sites = [...off.keys()].filter((i) => off[i] === NOP5[0] && on[i] === 0xe9);
    // one in each enter and each exit function
    expect(sites.length).toBe(4);
    for (const site of sites) expect([...off.subarray(site, site + 5)]).toEqual(NOP5);
    kernel.statsEnabled = false;
    expect(text()).toEqual(off);
  });

  test('every function runs its own code, and that of sched_clock', () => {
    const im = machine.memory.kmalloc(BpfTrampImage.size, 'im');
    const ref = new PercpuRef(machine, kernel.grace, addrAdd(im, BpfTrampImage.pcref), () => undefined);
    const cpu = vcpu(0);
    kernel.statsEnabled = true;
    for (const name of Object.keys(kernel.helpers)) {
      cpu.begin(func(name), [name.startsWith('__bpf_tramp') ? im : prog.address, kernel.clock]);
      const ran = new Set<string | undefined>();
      while (cpu.inCall) {
        const rip = kaddr(cpu.regs.get('rip'));
        cpu.step();
        ran.add(kernel.kallsyms.locate(rip)?.symbol);
      }
      ran.delete('sched_clock');
      expect([...ran]).toEqual(name === 'sched_clock' ? [] : [name]);
    }
    expect(ref.references()).toBe(1n);
  });

  test('schedule returns at once, having changed nothing', () => {
    const before = depths(0);
    expect(vcpu(0).call(func(SCHEDULE)).instructions).toBe(1);
    expect(depths(0)).toEqual(before);
  });

  test('every function leaves the other registers, and the stack below its return addresses, alone', () => {
    const names: readonly RegisterName[] = [
      ...(['rbx', 'rbp', 'r12', 'r13', 'r14', 'r15'] as const),
      // more than a caller may count on: they use rax, rcx and rdx only
      ...(['rsi', 'rdi', 'r8', 'r9', 'r10', 'r11'] as const),
    ];
    const im = machine.memory.kmalloc(BpfTrampImage.size, 'im');
    const ref = new PercpuRef(machine, kernel.grace, addrAdd(im, BpfTrampImage.pcref), () => undefined);
    const ctx = addrAdd(machine.memory.kmalloc(64, 'ctx'), 8);
    const first: Readonly<Record<string, bigint>> = {
      __bpf_tramp_enter: im,
      __bpf_tramp_exit: im,
      [GET_FUNC_IP]: ctx,
    };
    const cpu = vcpu(0);
    const { base, top } = cpu.stack;
    // sched_clock is called from two of them, with one more return address.
    const untouched = Number(top - base) - 16;
    for (const stats of [false, true]) {
      kernel.statsEnabled = stats;
      for (const name of Object.keys(kernel.helpers)) {
        const stack = machine.memory.bytes(base, Number(top - base)).fill(0x5a);
        cpu.begin(func(name), [first[name] ?? prog.address, kernel.clock]);
        for (const reg of names.slice(0, 6)) cpu.regs.set(reg, 0x5151_0000_0000_0000n + func(name));
        for (const reg of names.slice(8)) cpu.regs.set(reg, 0xabcd_ef01_0203_0405n);
        const before = names.map((reg) => cpu.regs.get(reg));
        const { reason } = cpu.run();
        expect([name, reason]).toEqual([name, 'returned']);
        expect([name, ...names.map((reg) => cpu.regs.get(reg))]).toEqual([name, ...before]);
        expect([name, cpu.regs.get('rsp')]).toEqual([name, top]);
        expect([name, stack.subarray(0, untouched).every((byte) => byte === 0x5a)]).toEqual([name, true]);
      }
    }
    expect(ref.references()).toBe(1n);
  });

  test('bpf_get_func_ip reads the word below argument 0, from v5.15 on', () => {
    if (revision === 'v5.13') {
      expect(kernel.helpers[GET_FUNC_IP]).toBeUndefined();
      return;
    }
    const frame = machine.memory.kmalloc(16, 'frame');
    machine.memory.writeU64(frame, 0xffff_ffff_81a2_b3c0n);
    machine.memory.writeU64(addrAdd(frame, 8), 42n);
    expect(call(0, GET_FUNC_IP, addrAdd(frame, 8))).toBe(0xffff_ffff_81a2_b3c0n);
  });

  test('a program at no address is a fault of the runtime, placed by its symbol', () => {
    const { fault } = vcpu(0).call(func('__bpf_prog_enter'), [0n]);
    expect(fault).toMatchObject({
      kind: 'read-unmapped',
      address: kaddr(ProgField.active),
      symbol: { name: '__bpf_prog_enter' },
    });
  });
});
