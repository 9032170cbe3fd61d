/* What only the engine native does, or does differently. The rest is in the suites that run on each engine. */

import { spawn } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { setImmediate } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { describe, expect, test } from 'vitest';
import { createMachine, type Machine, type Vcpu } from '../../../emu/index.ts';
import { addrAdd, InputError, kaddr } from '../../../lib/index.ts';
import * as x86 from '../code.ts';
import { type MakeMachine, machine as make, nativeMissing, place } from '../machines.ts';

const machine: MakeMachine = (options) => make({ engine: 'native', ...options });

function cpu(on: Machine, id = 0): Vcpu {
  return on.cpus[id] as Vcpu;
}

/** Process ids of the runners that this process has started. */
function runners(): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .flatMap((pid) => {
      try {
        const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
        const [, state, parent] = stat.slice(stat.lastIndexOf(')')).split(' ');
        const ours = Number(parent) === process.pid && state !== 'Z' && stat.includes('(tramplab-runner)');
        return ours ? [Number(pid)] : [];
      } catch {
        return [];
      }
    });
}

/** The runner of a machine that was just made. */
async function withRunner(options = {}): Promise<{ on: Machine; pid: number }> {
  const before = new Set(runners());
  const on = await machine(options);
  const [pid] = runners().filter((each) => !before.has(each));
  if (pid === undefined) throw new Error('no runner');
  return { on, pid };
}

/** pushfq; pop rax */
const flagsToRax = [0x9c, 0x58];
/** popfq */
const popfq = 0x9d;
const TRAP_FLAG = 0x100n;

describe.skipIf(nativeMissing !== undefined)('native', () => {
  test('says what it is, and lies at user-space addresses', async () => {
    const on = await machine();
    expect(on.engine).toMatch(/^native \S+/);
    expect(on.layout.name).toBe('user');
    expect(() => on.memory.map(kaddr(0xffff_ffff_8100_0000n), 4096, 'rx', 'vmlinux')).toThrow(
      /none of the kernel/,
    );
    expect(() => on.memory.map(kaddr(0x1000n), 4096, 'rw', 'low')).toThrow(InputError);
  });

  describe('uncounted', () => {
    test('calls return, and nothing is counted', async () => {
      const on = await machine({ counting: false });
      const add = place(on, x86.code(x86.leaRaxRdiRsi, x86.ret));
      for (const options of [{}, { steps: 1 }]) {
        const { ret, instructions, fault } = cpu(on).call(add, [40n, 2n], options);
        expect([ret, fault]).toEqual([42n, null]);
        expect(instructions).toBeNaN();
      }
    });

    test('what asks for a count is counted', async () => {
      const on = await machine({ counting: false });
      const add = place(on, x86.code(x86.nop, x86.leaRaxRdiRsi, x86.ret));
      cpu(on).begin(add, [1n, 2n], { steps: 2 });
      expect(cpu(on).run({ steps: 3 }).fault).toMatchObject({ kind: 'step-limit', instructions: 2 });
      cpu(on).begin(add, [1n, 2n]);
      expect(cpu(on).step()).toEqual({ reason: 'steps', instructions: 1, fault: null });
      expect(cpu(on).run({ stopAt: addrAdd(add, 5) })).toMatchObject({ reason: 'stop', instructions: 1 });
      const rest = cpu(on).run();
      expect(rest.reason).toBe('returned');
      expect(rest.instructions).toBeNaN();
      expect(cpu(on).regs.get('rax')).toBe(3n);
    });

    test('faults are placed as ever, without a count', async () => {
      const on = await machine({ counting: false });
      const f = place(on, x86.code(x86.nop, x86.loadRaxRdi));
      const fault = cpu(on).call(f, [0x10n]).fault;
      expect(fault).toMatchObject({ kind: 'read-unmapped', rip: addrAdd(f, 1), address: 0x10n, size: 8 });
      expect(fault?.instructions).toBeNaN();
      expect(fault?.detail).toMatch(/on CPU 0$/);
    });

    test('a breakpoint handler lets a call go on', async () => {
      const on = await machine({ counting: false });
      const f = place(on, x86.code(x86.movEax(1), x86.int3, x86.incRax, x86.ret));
      on.breakpoint = (by, address) => {
        by.regs.set('rip', addrAdd(address, 1));
        return true;
      };
      const { ret, instructions, fault } = cpu(on).call(f);
      expect([ret, fault]).toEqual([2n, null]);
      expect(instructions).toBeNaN();
    });

    test('an endless loop ends with its time; registers are where it was, and the CPU is well', async () => {
      const on = await machine({ counting: false, timeLimitMs: 500 });
      const loop = place(on, x86.code(x86.movEax(7), x86.jmpSelf));
      const { fault } = cpu(on).call(loop);
      expect(fault).toMatchObject({ kind: 'time-limit', rip: addrAdd(loop, 5) });
      expect(cpu(on).regs.get('rax')).toBe(7n);
      const add = place(on, x86.code(x86.leaRaxRdiRsi, x86.ret));
      for (let i = 0n; i < 100n; i++) expect(cpu(on).call(add, [i, 1n]).ret).toBe(i + 1n);
    });

    test('a counted run may take longer than the time limit, while it gets on', async () => {
      const on = await machine({ timeLimitMs: 120 });
      const loop = place(on, x86.code([0x48, 0xff, 0xcf] /* dec rdi */, x86.jne8(-5), x86.ret));
      expect(cpu(on).call(loop, [25_000n])).toEqual({ ret: 0n, instructions: 50_001, fault: null });
    });
  });

  describe('the trap flag', () => {
    test.each([
      ['pushfq', [0x9c]],
      ['pushfw', [0x66, 0x9c]],
      ['pushfq with prefixes', [0x2e, 0x48, 0x9c]],
    ])('is not seen by a guest that looks: %s', async (_, push) => {
      const on = await machine();
      const f = place(
        on,
        x86.code(x86.pushRax, push, x86.nop, [0x48, 0x8b, 0x04, 0x24], [0x48, 0x89, 0xec], x86.ret),
      );
      cpu(on).regs.set('rbp', addrAdd(cpu(on).stack.top, -8));
      const { ret, fault } = cpu(on).call(f);
      expect(fault).toBeNull();
      expect(ret & TRAP_FLAG).toBe(0n);
      expect(ret & 2n).toBe(2n);
    });

    test('outlives a popfq that clears it, and the count is exact', async () => {
      const on = await machine();
      // pushfq; popfq; pushfq; popfq; mov eax, 3; ret
      const f = place(on, x86.code(0x9c, popfq, 0x9c, popfq, x86.movEax(3), x86.ret));
      expect(cpu(on).call(f)).toEqual({ ret: 3n, instructions: 6, fault: null });
    });

    test.each([true, false])(
      'set by the guest is a #DB after the next instruction (counting: %s)',
      async (counting) => {
        const on = await machine({ counting });
        // pushfq; or dword [rsp], 0x100; popfq; nop; nop; ret
        const f = place(on, x86.code(0x9c, [0x81, 0x0c, 0x24, 0, 1, 0, 0], popfq, x86.nop, x86.nop, x86.ret));
        expect(cpu(on).call(f).fault).toMatchObject({ kind: 'interrupt', vector: 1, rip: addrAdd(f, 10) });
        const add = place(on, x86.code(x86.leaRaxRdiRsi, x86.ret));
        expect(cpu(on).call(add, [1n, 2n])).toMatchObject({ ret: 3n, fault: null });
      },
    );

    test('is not in flags that are saved, restored and run on uncounted', async () => {
      const on = await machine({ counting: false });
      const f = place(on, x86.code(x86.nop, x86.nop, flagsToRax, x86.ret));
      cpu(on).begin(f);
      cpu(on).step();
      const context = cpu(on).saveContext();
      cpu(on).abort();
      cpu(on).restoreContext(context);
      expect(cpu(on).run().reason).toBe('returned');
      expect(cpu(on).regs.get('rax') & TRAP_FLAG).toBe(0n);
    });
  });

  describe('system calls of a guest never reach the kernel', () => {
    test.each([
      ['syscall: exit_group', [...x86.movEax(231), 0x0f, 0x05], 'syscall'],
      ['syscall: kill', [...x86.movEax(62), 0x0f, 0x05], 'syscall'],
      ['int 0x80: exit', [...x86.movEax(1), 0xcd, 0x80], 'interrupt'],
    ])('%s', async (_, bytes, kind) => {
      for (const counting of [true, false]) {
        const { on, pid } = await withRunner({ counting });
        const f = place(on, x86.code(bytes, x86.ret));
        const { fault } = cpu(on).call(f, [BigInt(pid), 9n]);
        expect(fault).toMatchObject({ kind, rip: addrAdd(f, 5) });
        expect(runners()).toContain(pid);
      }
    });

    test('a guest finds nothing of the process but the runner', async () => {
      const { on, pid } = await withRunner();
      const f = place(on, x86.code(x86.ret));
      cpu(on).call(f);
      const areas = readFileSync(`/proc/${pid}/maps`, 'utf8').trim().split('\n');
      const foreign = areas.filter((line) => !/memfd:tramplab|\[vsyscall\]/.test(line));
      expect(foreign).toEqual([]);
    });
  });

  describe('the end of the child is not the end', () => {
    test('killed while idle: the next call says so, and the one after runs on the same memory', async () => {
      const { on, pid } = await withRunner({ cpus: 2 });
      const counter = on.memory.kmalloc(8);
      const add = place(on, x86.code(x86.addRdiRsi, x86.loadRaxRdi, x86.ret));
      const percpu = place(on, x86.code(x86.loadRaxGs(on.percpu.vars.thisCpuOff), x86.ret));
      expect(cpu(on).call(add, [counter, 1n]).ret).toBe(1n);
      cpu(on, 1).regs.set('rbx', 77n);
      process.kill(pid, 'SIGKILL');
      const { fault } = cpu(on).call(add, [counter, 1n]);
      expect(fault).toMatchObject({ kind: 'host-crash', cpu: 0 });
      expect(fault?.detail).toContain('signal 9');
      expect(cpu(on).call(add, [counter, 1n])).toEqual({ ret: 2n, instructions: 3, fault: null });
      expect(cpu(on, 1).regs.get('rbx')).toBe(77n);
      for (const { id } of on.cpus) expect(cpu(on, id).call(percpu).ret).toBe(on.percpu.base(id));
      expect(runners()).not.toContain(pid);
    });

    test('killed before a mapping: it is made all the same', async () => {
      const { on, pid } = await withRunner();
      const f = place(on, x86.code(x86.loadRaxRdi, x86.ret));
      process.kill(pid, 'SIGKILL');
      const area = on.memory.vmalloc(4096);
      on.memory.writeU64(area, 5n);
      expect(cpu(on).call(f, [area]).ret).toBe(5n);
    });

    test('one that stops answering is replaced', async () => {
      const { on, pid } = await withRunner({ counting: false, timeLimitMs: 500 });
      const f = place(on, x86.code(x86.movEax(1), x86.ret));
      process.kill(pid, 'SIGSTOP');
      expect(cpu(on).call(f).fault).toMatchObject({ kind: 'host-crash' });
      expect(cpu(on).call(f).ret).toBe(1n);
      expect(runners()).not.toContain(pid);
    });

    test('a guest that breaks the runner itself ends the child only', async () => {
      const on = await machine({ counting: false });
      // mov [rdi], rsi; ud2, with rdi at the runner's own slot: its control block is overwritten.
      const f = place(on, x86.code(x86.jmpRdi));
      const good = place(on, x86.code(x86.movEax(4), x86.ret));
      // Into the middle of the runner's text, with registers that make no sense there.
      const { fault } = cpu(on).call(f, [0x7d00_0000_0100n]);
      expect(fault).not.toBeNull();
      expect(cpu(on).call(good).ret).toBe(4n);
    });

    test('close leaves no process behind', async () => {
      const { on, pid } = await withRunner({ cpus: 3 });
      expect(runners()).toContain(pid);
      on.close();
      expect(runners()).not.toContain(pid);
    });

    test('close leaves no memory behind, once it is collected', async () => {
      setFlagsFromString('--expose-gc');
      const collect = runInNewContext('gc') as () => void;
      const mappings = async (): Promise<number> => {
        // What is found to be garbage is given back in a later turn of the event loop.
        for (let turn = 0; turn < 5; turn++) {
          collect();
          await setImmediate();
        }
        return readFileSync('/proc/self/maps', 'utf8').split('/memfd:tramplab-guest').length;
      };
      const use = async (): Promise<void> => {
        const on = await createMachine({ engine: 'native' });
        expect(cpu(on).call(place(on, x86.code(x86.movEax(4), x86.ret))).ret).toBe(4n);
        on.close();
      };
      await use();
      const before = await mappings();
      for (let i = 0; i < 5; i++) await use();
      // A machine has a dozen; the last one may still be on the stack.
      expect(await mappings()).toBeLessThan(before + 20);
    });
  });

  test('a context keeps vector registers on its way to another CPU, ymm included', async () => {
    if (!/\bavx\b/.test(readFileSync('/proc/cpuinfo', 'utf8'))) return;
    const on = await machine({ cpus: 2 });
    // vmovq xmm1, rdi; vinsertf128 ymm1, ymm1, xmm1, 1; nop; vextractf128 xmm0, ymm1, 1; vmovq rax, xmm0; ret
    const f = place(
      on,
      x86.code(
        [0xc4, 0xe1, 0xf9, 0x6e, 0xcf, 0xc4, 0xe3, 0x75, 0x18, 0xc9, 0x01, x86.nop],
        [0xc4, 0xe3, 0x7d, 0x19, 0xc8, 0x01, 0xc4, 0xe1, 0xf9, 0x7e, 0xc0, x86.ret],
      ),
    );
    cpu(on).begin(f, [0x1122_3344_5566_7788n]);
    cpu(on).run({ steps: 3 });
    const context = cpu(on).saveContext();
    cpu(on).abort();
    cpu(on).call(f, [1n]);
    cpu(on, 1).restoreContext(context);
    expect(cpu(on, 1).run().reason).toBe('returned');
    expect(cpu(on, 1).regs.get('rax')).toBe(0x1122_3344_5566_7788n);
  });

  test.each([
    ['a privileged instruction', [0xfa] /* cli */, 'general-protection'],
    ['a read of a control register', [0x0f, 0x20, 0xc0], 'general-protection'],
    ['int 3 in two bytes', [0xcd, 0x03], 'int3'],
    ['int 4', [0xcd, 0x04], 'interrupt'],
    ['wrmsr', [0x0f, 0x30], 'general-protection'],
  ])('%s is a fault', async (_, bytes, kind) => {
    const on = await machine();
    const f = place(on, x86.code(x86.nop, bytes, x86.ret));
    expect(cpu(on).call(f).fault).toMatchObject({ kind, rip: addrAdd(f, 1), instructions: 1 });
  });

  test('a call, a return and a jump to no address are fetches of it', async () => {
    const on = await machine();
    const nowhere = 0x6b6b_6b6b_6b6b_6b6bn;
    const codes: readonly number[][] = [
      x86.callRdi,
      x86.jmpRdi,
      [x86.pushRdi, x86.ret],
      [0xff, 0x26] /* jmp [rsi] */,
    ];
    const cell = on.memory.kmalloc(8);
    on.memory.writeU64(cell, nowhere);
    for (const bytes of codes) {
      const f = place(on, x86.code(bytes));
      const { fault } = cpu(on).call(f, [nowhere, cell]);
      expect(fault).toMatchObject({ kind: 'general-protection', rip: nowhere, address: nowhere });
      expect(fault?.instructions).toBe(bytes[0] === x86.pushRdi ? 2 : 1);
    }
    expect(cpu(on).call(kaddr(nowhere)).fault).toMatchObject({ kind: 'general-protection', instructions: 0 });
  });

  test('memory comes back when nobody looks at it any more', async () => {
    const on = await machine();
    const f = place(on, x86.code(x86.loadRaxRdi, x86.ret));
    for (let i = 0; i < 200; i++) {
      const area = on.memory.vmalloc(1 << 20);
      on.memory.writeU64(addrAdd(area, 8 * i), BigInt(i));
      expect(cpu(on).call(f, [addrAdd(area, 8 * i)]).ret).toBe(BigInt(i));
      on.memory.vfree(area);
    }
  });
});

describe.skipIf(nativeMissing !== undefined)('many at once', () => {
  /** lock xadd [rdi], rax, rsi times: with rax = 1. Returns the sum of what it saw. */
  const lockedLoop = x86.code(
    x86.movEax(1),
    [0xf0, 0x48, 0x0f, 0xc1, 0x07], // lock xadd [rdi], rax
    x86.movEax(1),
    [0x48, 0xff, 0xce], // dec rsi
    x86.jne8(-15),
    x86.ret,
  );

  test('lock xadd on four threads loses nothing, and runs at the same time', async () => {
    const on = await machine({ cpus: 4, counting: false });
    const counter = on.memory.kmalloc(8, 'counter', 64);
    const f = place(on, lockedLoop);
    const rounds = 200_000n;
    const results = on.callAll(on.cpus.map(({ id }) => ({ cpu: id, fn: f, args: [counter, rounds] })));
    expect(results.map(({ fault }) => fault)).toEqual([null, null, null, null]);
    expect(on.memory.readU64(counter)).toBe(4n * rounds);
  });

  test('they wait for each other: a barrier that one alone never passes', async () => {
    const on = await machine({ cpus: 2, counting: false, timeLimitMs: 5000 });
    const counter = on.memory.kmalloc(8);
    // mov eax, 1; lock xadd [rdi], rax; 1: pause; cmp qword [rdi], 2; jne 1b; ret
    const barrier = place(
      on,
      x86.code(
        x86.movEax(1),
        [0xf0, 0x48, 0x0f, 0xc1, 0x07],
        [0xf3, 0x90],
        [0x48, 0x83, 0x3f, 2],
        x86.jne8(-8),
        x86.ret,
      ),
    );
    const results = on.callAll([0, 1].map((id) => ({ cpu: id, fn: barrier, args: [counter] })));
    expect(results.map(({ ret, fault }) => [ret, fault]).sort()).toEqual([
      [0n, null],
      [1n, null],
    ]);
  });

  test('per-CPU counters are exact, counted or not', async () => {
    for (const counting of [true, false]) {
      const on = await machine({ cpus: 4, counting });
      const slot = on.percpu.alloc(8, 8);
      // inc qword gs:[slot]; dec rdi; jne; mov rax, gs:[slot]; ret
      const inc = [0x65, 0x48, 0xff, 0x04, 0x25, slot & 0xff, slot >> 8, 0, 0];
      const f = place(on, x86.code(inc, [0x48, 0xff, 0xcf], x86.jne8(-14), x86.loadRaxGs(slot), x86.ret));
      const results = on.callAll(
        on.cpus.map(({ id }) => ({ cpu: id, fn: f, args: [BigInt(100 * (id + 1))] })),
      );
      expect(results.map(({ ret }) => ret)).toEqual([100n, 200n, 300n, 400n]);
      const counts = results.map(({ instructions }) => instructions);
      expect(counts).toEqual(counting ? [302, 602, 902, 1202] : Array(4).fill(Number.NaN));
    }
  });

  test('one faults, one runs out of time, one returns', async () => {
    const on = await machine({ cpus: 3, counting: false, timeLimitMs: 500 });
    const codes = [x86.code(x86.ud2), x86.code(x86.jmpSelf), x86.code(x86.movEax(9), x86.ret)];
    const results = on.callAll(codes.map((bytes, id) => ({ cpu: id, fn: place(on, bytes) })));
    expect(results.map(({ ret, fault }) => fault?.kind ?? ret)).toEqual(['invalid-opcode', 'time-limit', 9n]);
  });

  test('when the child dies under them, each gets to know, and all go on', async () => {
    const { on, pid } = await withRunner({ cpus: 2, counting: false, timeLimitMs: 20_000 });
    const loop = place(on, x86.code(x86.jmpSelf));
    const killer = spawn('sh', ['-c', `sleep 0.1; kill -9 ${pid}`]);
    const results = on.callAll([0, 1].map((id) => ({ cpu: id, fn: loop })));
    expect(results.map(({ fault }) => fault?.kind)).toEqual(['host-crash', 'host-crash']);
    const f = place(on, x86.code(x86.movEax(9), x86.ret));
    expect(on.callAll([0, 1].map((id) => ({ cpu: id, fn: f }))).map(({ ret }) => ret)).toEqual([9n, 9n]);
    await new Promise((resolve) => killer.on('exit', resolve));
  });
});

describe('callAll on every engine', () => {
  test.each(['unicorn', ...(nativeMissing === undefined ? (['native'] as const) : [])] as const)(
    '%s',
    async (engine) => {
      const on = await make({ engine, cpus: 3 });
      const f = place(on, x86.code(x86.leaRaxRdiRsi, x86.ret));
      const calls = [2, 0].map((id) => ({ cpu: id, fn: f, args: [BigInt(id), 10n] }));
      expect(on.callAll(calls)).toEqual([
        { ret: 12n, instructions: 2, fault: null },
        { ret: 10n, instructions: 2, fault: null },
      ]);
      expect(on.callAll([])).toEqual([]);
      const twice = [1, 1].map((id) => ({ cpu: id, fn: f }));
      expect(() => on.callAll(twice)).toThrow(/one call at a time/);
      expect(() => on.callAll([{ cpu: 3, fn: f }])).toThrow(/no CPU 3/);
      cpu(on, 1).begin(f);
      expect(() => on.callAll([0, 1].map((id) => ({ cpu: id, fn: f })))).toThrow(/in flight on CPU 1/);
      cpu(on, 1).abort();
      expect(on.callAll([{ cpu: 1, fn: f, options: { steps: 1 } }])[0]?.fault?.kind).toBe('step-limit');
    },
  );
});

test.skipIf(nativeMissing !== undefined)('the child dies with its host', async () => {
  const emu = new URL('../../../dist/emu/index.js', import.meta.url).href;
  const script = `
    const { createMachine } = await import(${JSON.stringify(emu)});
    await createMachine({ engine: 'native' });
    console.log('made');
    setInterval(() => {}, 1000);`;
  const host = spawn(process.execPath, ['--input-type=module', '-e', script]);
  const childrenOf = (parent: number | undefined): string =>
    readFileSync(`/proc/${parent}/task/${parent}/children`, 'utf8').trim();
  await new Promise((resolve) => host.stdout.once('data', resolve));
  const runner = childrenOf(host.pid);
  expect(readFileSync(`/proc/${runner}/comm`, 'utf8')).toBe('tramplab-runner\n');
  const gone = new Promise((resolve) => host.once('exit', resolve));
  host.kill('SIGKILL');
  await gone;
  while (existsSync(`/proc/${runner}/comm`) && !isZombie(runner)) {
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
});

/** Ended, and waiting for an init process to notice. */
function isZombie(pid: string): boolean {
  try {
    return /\) Z/.test(readFileSync(`/proc/${pid}/stat`, 'utf8'));
  } catch {
    return true;
  }
}
