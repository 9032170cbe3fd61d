/* The functions that images of v6.1 and v6.12 call, one by one, as machine code on the machine. */

import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { createMachine, type Machine, type Vcpu } from '../../emu/index.ts';
import {
  BpfProg,
  BpfProgStats,
  BpfTrampRunCtx,
  emitRuntime,
  linkCode,
  patchBytes,
  RuntimeData,
  STATS_KEY,
  TaskStruct,
} from '../../jit/index.ts';
import { addrAdd, Bug, type Kaddr, kaddr, toHex } from '../../lib/index.ts';

const CPUS = 2;
const CLOCK = 1_000_000n;
const TICK = 10n;
const JUNK = 0xbad0_bad0_bad0_bad0n;
const SCRATCH = ['rax', 'rcx', 'rdx', 'rsi', 'r8', 'r9', 'r10', 'r11'] as const;

/** What is said of each pair in the kernel's words, to be tried one by one. */
const PAIRS = [
  { pair: '_recur', reader: 'rcu', recur: true, timed: true },
  { pair: '_sleepable_recur', reader: 'trace', recur: true, timed: true },
  { pair: '', reader: 'rcu', recur: false, timed: true },
  { pair: '_sleepable', reader: 'trace', recur: false, timed: true },
  { pair: '_lsm_cgroup', reader: 'rcu', recur: false, timed: false },
] as const;

describe.each(['v6.1', 'v6.12'] as const)('%s', (revision) => {
  let machine: Machine;
  let functions: ReadonlyMap<string, Kaddr>;
  let branches: readonly (readonly [at: Kaddr, to: Kaddr])[];
  let splats: number;
  let prog: Kaddr;
  let active: number;
  let stats: number;
  let runCtx: Kaddr;
  let clock: Kaddr;

  beforeEach(async () => {
    machine = await createMachine({ cpus: CPUS });
    const { memory, percpu } = machine;
    splats = percpu.alloc(4, 4);
    const code = emitRuntime(revision, { ...percpu.vars, mightFaultSplats: splats });
    const base = memory.allocKernelText(code.bytes.length, 'kernel text');
    clock = memory.allocKernelData(16, 'clock');
    memory.writeU64(clock, CLOCK);
    memory.writeU64(addrAdd(clock, 8), TICK);
    const data = new Map<string, Kaddr>([
      [RuntimeData.clock, clock],
      [RuntimeData.tick, addrAdd(clock, 8)],
    ]);
    const { bytes, symbols, sites } = linkCode(code, base, (name) => data.get(name));
    machine.patchText(base, bytes);
    functions = new Map(symbols.map(({ name, offset }) => [name, addrAdd(base, offset)]));
    branches = sites
      .filter(({ name }) => name === STATS_KEY)
      .map(({ offset, targetOffset }) => [addrAdd(base, offset), addrAdd(base, targetOffset ?? -1)]);
    prog = memory.kmalloc(BpfProg.size, 'prog');
    active = percpu.alloc(4, 4);
    stats = percpu.alloc(BpfProgStats.size, BpfProgStats.align);
    memory.writeU64(addrAdd(prog, BpfProg.active), BigInt(active));
    memory.writeU64(addrAdd(prog, BpfProg.stats), BigInt(stats));
    runCtx = memory.kmalloc(BpfTrampRunCtx.size, 'run_ctx');
  });
  afterEach(() => machine.close());

  function vcpu(cpu: number): Vcpu {
    const found = machine.cpus[cpu];
    if (found === undefined) throw new Bug(`there is no CPU ${cpu}`);
    return found;
  }

  /** Starts a call with nothing of use in the registers that are not its arguments. */
  function begin(cpu: number, name: string, args: readonly bigint[]): Vcpu {
    const at = vcpu(cpu);
    at.begin(functions.get(name) ?? kaddr(0), args);
    const passed = new Set(['rdi', 'rsi', 'rdx', 'rcx'].slice(0, args.length));
    for (const reg of SCRATCH) if (!passed.has(reg)) at.regs.set(reg, JUNK);
    return at;
  }

  function call(cpu: number, name: string, ...args: bigint[]): bigint {
    const at = begin(cpu, name, args);
    expect(at.run()).toMatchObject({ reason: 'returned', fault: null });
    return at.regs.get('rax');
  }

  const enter = (pair: string, cpu = 0, ctx = runCtx): bigint =>
    call(cpu, `__bpf_prog_enter${pair}`, prog, ctx);
  const exit = (pair: string, start: bigint, cpu = 0, ctx = runCtx): bigint =>
    call(cpu, `__bpf_prog_exit${pair}`, prog, start, ctx);

  const taskField = (cpu: number, field: number): number =>
    machine.memory.readU32(addrAdd(machine.current(cpu), field));
  const depths = (cpu = 0): object => ({
    rcu: taskField(cpu, TaskStruct.rcuReadLockNesting),
    trace: taskField(cpu, TaskStruct.trcReaderNesting),
    migration: taskField(cpu, TaskStruct.migrationDisabled),
  });
  const IDLE = { rcu: 0, trace: 0, migration: 0 };
  const currentRunCtx = (cpu = 0): bigint =>
    machine.memory.readU64(addrAdd(machine.current(cpu), TaskStruct.bpfCtx));
  const savedIn = (ctx: Kaddr): bigint => machine.memory.readU64(addrAdd(ctx, BpfTrampRunCtx.savedRunCtx));
  const activeOn = (cpu = 0): number => machine.memory.readU32(machine.percpu.address(active, cpu));
  const counter = (field: number, cpu = 0): bigint =>
    machine.memory.readU64(addrAdd(machine.percpu.address(stats, cpu), field));
  const counters = (cpu = 0): object => ({
    runs: counter(BpfProgStats.cnt, cpu),
    nsecs: counter(BpfProgStats.nsecs, cpu),
    misses: counter(BpfProgStats.misses, cpu),
  });
  const NOTHING = { runs: 0n, nsecs: 0n, misses: 0n };
  function statsOn(): void {
    for (const [at, to] of branches) machine.patchText(at, patchBytes('JUMP', at, to) ?? new Uint8Array());
  }

  describe.each(PAIRS)('__bpf_prog_enter$pair and exit', ({ pair, reader, recur, timed }) => {
    test('open and close the reader and migration; count the run where recursion is checked', () => {
      expect(enter(pair, 1)).toBe(1n);
      expect(depths(1)).toEqual({ ...IDLE, [reader]: 1, migration: 1 });
      expect([activeOn(0), activeOn(1)]).toEqual([0, recur ? 1 : 0]);
      exit(pair, 1n, 1);
      expect(depths(1)).toEqual(IDLE);
      expect([activeOn(0), activeOn(1)]).toEqual([0, 0]);
      expect([counters(0), counters(1)]).toEqual([NOTHING, NOTHING]);
    });

    test('make run_ctx current on that CPU, nest, and put back what was current before', () => {
      const inner = machine.memory.kmalloc(BpfTrampRunCtx.size, 'inner');
      enter(pair);
      expect([currentRunCtx(0), currentRunCtx(1), savedIn(runCtx)]).toEqual([runCtx, 0n, 0n]);
      const start = enter(pair, 0, inner);
      expect([currentRunCtx(), savedIn(inner), savedIn(runCtx)]).toEqual([inner, runCtx, 0n]);
      exit(pair, start, 0, inner);
      expect(currentRunCtx()).toBe(runCtx);
      exit(pair, 1n);
      expect([currentRunCtx(), depths(), activeOn()]).toEqual([0n, IDLE, 0]);
    });

    test(
      recur ? 'refuse a second run on this CPU, and count the miss' : 'let programs nest, and count no miss',
      () => {
        expect(enter(pair)).toBe(1n);
        const start = enter(pair);
        expect(start).toBe(recur ? 0n : 1n);
        expect(counters()).toEqual({ ...NOTHING, misses: recur ? 1n : 0n });
        expect(activeOn()).toBe(recur ? 2 : 0);
        expect(enter(pair, 1)).toBe(1n);
        exit(pair, start);
        exit(pair, 1n);
        expect([depths(), activeOn()]).toEqual([IDLE, 0]);
      },
    );

    test(timed ? 'measure time while statistics are on' : 'measure no time though statistics are on', () => {
      statsOn();
      const start = enter(pair);
      expect(start).toBe(timed ? CLOCK : 1n);
      machine.memory.writeU64(clock, CLOCK + 500n);
      exit(pair, start);
      expect(counters()).toEqual(timed ? { runs: 1n, nsecs: 500n, misses: 0n } : NOTHING);
      expect(machine.memory.readU64(clock)).toBe(CLOCK + 500n + (timed ? TICK : 0n));
    });

    test('may be asked to sleep only where that is allowed', () => {
      const splatted = (): number => machine.memory.readU32(machine.percpu.address(splats, 0));
      exit(pair, enter(pair));
      expect(splatted()).toBe(0);
      machine.memory.writeU32(addrAdd(machine.current(0), TaskStruct.rcuReadLockNesting), 1);
      enter(pair);
      expect(splatted()).toBe(reader === 'trace' ? 1 : 0);
    });

    test('enter: reader, migration, might_fault, run_ctx, count; exit: run_ctx, statistics, count, migration, reader', () => {
      statsOn();
      machine.memory.writeU32(
        addrAdd(machine.current(0), TaskStruct.rcuReadLockNesting),
        reader === 'trace' ? 1 : 0,
      );
      const state = (): Record<string, unknown> => ({
        ...depths(),
        fault: machine.memory.readU32(machine.percpu.address(splats, 0)),
        runCtx: currentRunCtx(),
        count: activeOn(),
        time: machine.memory.readU64(clock),
        statistics: counter(BpfProgStats.cnt),
      });
      /** What changes, in order, while a call is stepped through. */
      const order = (name: string, ...args: bigint[]): { seen: string[]; ret: bigint } => {
        const cpu = begin(0, name, args);
        const seen: string[] = [];
        for (let before = state(); cpu.inCall; ) {
          cpu.step();
          const now = state();
          seen.push(...Object.keys(now).filter((key) => now[key] !== before[key]));
          before = now;
        }
        return { seen, ret: cpu.regs.get('rax') };
      };
      const entered = order(`__bpf_prog_enter${pair}`, prog, runCtx);
      expect(entered.seen).toEqual([
        reader,
        'migration',
        ...(reader === 'trace' ? ['fault'] : []),
        'runCtx',
        ...(recur ? ['count'] : []),
        ...(timed ? ['time'] : []),
      ]);
      const exited = order(`__bpf_prog_exit${pair}`, prog, entered.ret, runCtx);
      expect(exited.seen).toEqual([
        'runCtx',
        ...(timed ? ['time', 'statistics'] : []),
        ...(recur ? ['count'] : []),
        'migration',
        reader,
      ]);
    });
  });

  test.each(['_recur', '_sleepable_recur'])(
    'a miss of a program without statistics is not counted (%s)',
    (pair) => {
      const inner = machine.memory.kmalloc(BpfTrampRunCtx.size, 'inner');
      machine.memory.writeU64(addrAdd(prog, BpfProg.stats), 0n);
      // what a counter at offset 0 would be
      const area = (): string => toHex(machine.memory.bytes(machine.percpu.address(0, 0), BpfProgStats.size));
      const before = area();
      expect([enter(pair), enter(pair, 0, inner), activeOn()]).toEqual([1n, 0n, 2]);
      exit(pair, 0n, 0, inner);
      exit(pair, 1n);
      expect([depths(), activeOn(), currentRunCtx(), area()]).toEqual([IDLE, 0, 0n, before]);
    },
  );

  test('each counter changes by one instruction, so that an interrupt in between finds it whole', () => {
    const seen: number[] = [];
    for (const [name, ...args] of [
      ['__bpf_prog_enter_recur', prog, runCtx],
      ['__bpf_prog_exit_recur', prog, 1n, runCtx],
    ] as const) {
      const cpu = begin(0, name, args);
      for (let before = activeOn(); cpu.inCall; before = activeOn()) {
        cpu.step();
        if (activeOn() !== before) seen.push(activeOn());
      }
    }
    expect(seen).toEqual([1, 0]);
  });

  describe('helpers of programs', () => {
    /** A frame as images make it: address, count, three words, return value. */
    let ctx: Kaddr;
    const WORDS = [0x1111n, 0x2222n, 0xffff_ffff_ffff_fff3n];
    beforeEach(() => {
      const frame = machine.memory.kmalloc(64, 'frame');
      [0xffff_ffff_81a2_b3c0n, 3n, ...WORDS, 0x7777n].forEach((word, i) => {
        machine.memory.writeU64(addrAdd(frame, 8 * i), word);
      });
      ctx = addrAdd(frame, 16);
    });

    test('the function address is two words below ctx, the count of words one', () => {
      expect(call(0, 'bpf_get_func_ip', ctx)).toBe(0xffff_ffff_81a2_b3c0n);
      expect(call(0, 'bpf_get_func_arg_cnt', ctx)).toBe(3n);
    });

    test('arguments by number, none beyond the last, and the return value behind them', () => {
      const value = machine.memory.kmalloc(8, 'value');
      const arg = (n: bigint): readonly [bigint, bigint] => {
        machine.memory.writeU64(value, JUNK);
        const ret = BigInt.asIntN(64, call(0, 'bpf_get_func_arg', ctx, n, value));
        return [ret, machine.memory.readU64(value)];
      };
      expect([0n, 1n, 2n].map(arg)).toEqual(WORDS.map((word) => [0n, word]));
      expect(arg(3n)).toEqual([-22n, JUNK]);
      // n is a u32: what is above it does not count, and it is not signed
      expect(arg(0xffff_ffffn)).toEqual([-22n, JUNK]);
      expect(arg(0x1_0000_0001n)).toEqual([0n, 0x2222n]);
      expect(call(0, 'bpf_get_func_ret', ctx, value)).toBe(0n);
      expect(machine.memory.readU64(value)).toBe(0x7777n);
    });

    test('the cookie is that of the program that runs now', () => {
      const inner = machine.memory.kmalloc(BpfTrampRunCtx.size, 'inner');
      machine.memory.writeU64(addrAdd(runCtx, BpfTrampRunCtx.bpfCookie), 0xc00c_1e00_0000_0001n);
      machine.memory.writeU64(addrAdd(inner, BpfTrampRunCtx.bpfCookie), 2n);
      const cookie = (): bigint => call(0, 'bpf_get_attach_cookie', ctx);
      enter('');
      expect(cookie()).toBe(0xc00c_1e00_0000_0001n);
      enter('', 0, inner);
      expect(cookie()).toBe(2n);
      exit('', 1n, 0, inner);
      expect(cookie()).toBe(0xc00c_1e00_0000_0001n);
    });
  });
});
