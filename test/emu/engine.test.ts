/*
 * What every engine must do, run against every engine there is. The machine's own tests build on it.
 */

import { afterEach, describe, expect, test } from 'vitest';
import type { Engine, EngineCpu, EngineStop, HostBlock } from '../../emu/engine.ts';
import { KERNEL_LAYOUT, type Layout, USER_LAYOUT } from '../../emu/layout.ts';
import { createNativeEngine } from '../../emu/native/engine.ts';
import { createUnicornEngine } from '../../emu/unicorn/engine.ts';
import { createUnicornJsEngine } from '../../emu/unicorn-js/engine.ts';
import { loadUnicornJs } from '../../emu/unicorn-js/package.ts';
import { addrAdd, type Kaddr } from '../../lib/index.ts';
import * as x86 from './code.ts';
import { nativeMissing } from './machines.ts';
import { standInFactory } from './unicorn-js-stand-in.ts';

const PAGES = 4 * 4096;

/** Where the tests put things. */
interface Places {
  readonly TEXT: Kaddr;
  readonly DATA: Kaddr;
  readonly RODATA: Kaddr;
  readonly NOWHERE: Kaddr;
}

function placesIn({ modulesText, directMap, kernelRodata, vmalloc }: Layout): Places {
  return {
    TEXT: modulesText.start,
    DATA: directMap.start,
    RODATA: kernelRodata.start,
    NOWHERE: vmalloc.start,
  };
}

interface Candidate {
  readonly name: string;
  readonly open: (cpus: number) => Promise<Engine>;
  /** Why it cannot be tested here. */
  readonly missing?: string;
  readonly portIo: boolean;
  readonly layout: Layout;
}

const unicornJsMissing = await loadUnicornJs().then(
  () => undefined,
  (error: unknown) => String(error),
);

const candidates: readonly Candidate[] = [
  {
    name: 'unicorn, native hooks',
    open: async (cpus) => createUnicornEngine({ cpus }),
    portIo: true,
    layout: KERNEL_LAYOUT,
  },
  {
    name: 'unicorn, JavaScript hooks',
    open: async (cpus) => createUnicornEngine({ cpus, hooks: 'javascript' }),
    portIo: true,
    layout: KERNEL_LAYOUT,
  },
  {
    name: 'the unicorn.js adapter over a native stand-in',
    open: (cpus) => createUnicornJsEngine({ cpus, factory: standInFactory }),
    portIo: false,
    layout: KERNEL_LAYOUT,
  },
  {
    name: 'unicorn.js',
    open: (cpus) => createUnicornJsEngine({ cpus }),
    portIo: false,
    layout: KERNEL_LAYOUT,
    ...(unicornJsMissing !== undefined && { missing: unicornJsMissing }),
  },
  {
    name: 'native',
    open: async (cpus) => createNativeEngine({ cpus, timeLimitMs: 10_000 }),
    portIo: true,
    layout: USER_LAYOUT,
    ...(nativeMissing !== undefined && { missing: nativeMissing }),
  },
];

describe.each(candidates)('engine: $name', ({ open, missing, portIo, layout }) => {
  const { TEXT, DATA, RODATA, NOWHERE } = placesIn(layout);
  const it = test.skipIf(missing !== undefined);
  let engine: Engine | undefined;

  afterEach(() => {
    engine?.close();
    engine = undefined;
  });

  interface Bench {
    readonly engine: Engine;
    readonly text: HostBlock;
    readonly data: HostBlock;
    readonly cpu: EngineCpu;
    put(bytes: Uint8Array, offset?: number): void;
    /** Runs text from an offset with the stack at the end of the data. */
    run(offset?: number, args?: readonly bigint[], budget?: number, stopAt?: Kaddr): EngineStop;
  }

  async function bench(cpus = 1): Promise<Bench> {
    const opened = await open(cpus);
    engine = opened;
    const text = opened.allocBlock(PAGES);
    const data = opened.allocBlock(PAGES);
    const rodata = opened.allocBlock(PAGES);
    opened.map(TEXT, text, 'rx');
    opened.map(DATA, data, 'rw');
    opened.map(RODATA, rodata, 'r');
    const cpu = opened.cpus[0] as EngineCpu;
    return {
      engine: opened,
      text,
      data,
      cpu,
      put: (bytes, offset = 0) => {
        text.bytes.set(bytes, offset);
        opened.textChanged(addrAdd(TEXT, offset), bytes.length);
      },
      run: (offset = 0, args = [], budget = 1000, stopAt = undefined) => {
        cpu.load(addrAdd(TEXT, offset), addrAdd(DATA, PAGES), args);
        return cpu.run(budget, stopAt);
      },
    };
  }

  it('runs to hlt and returns rax', async () => {
    const { put, run, cpu } = await bench();
    put(x86.code(x86.leaRaxRdiRsi, x86.nop, x86.hlt));
    expect(run(0, [40n, 2n])).toBe('halted');
    expect(cpu.rax).toBe(42n);
    expect(cpu.executed).toBe(2);
    expect(cpu.rip).toBe(addrAdd(TEXT, 6));
    expect(cpu.stopRip).toBe(addrAdd(TEXT, 5));
  });

  it('passes six arguments of 64 bits, unsigned', async () => {
    const { put, run, cpu } = await bench();
    put(x86.code(x86.hlt));
    const args = [-1n, 1n << 63n, 3n, 0xffff_ffff_8100_0000n, 5n, 6n];
    run(0, args);
    const seen = (['rdi', 'rsi', 'rdx', 'rcx', 'r8', 'r9'] as const).map((name) => cpu.get(name));
    expect(seen).toEqual(args.map((arg) => BigInt.asUintN(64, arg)));
    expect(cpu.get('rsp')).toBe(addrAdd(DATA, PAGES));
  });

  it('reads and writes every register by name', async () => {
    const { cpu } = await bench();
    const names = ['rax', 'rcx', 'rdx', 'rbx', 'rsp', 'rbp', 'rsi', 'rdi', 'rip'] as const;
    const high = ['r8', 'r9', 'r10', 'r11', 'r12', 'r13', 'r14', 'r15'] as const;
    const all = [...names, ...high];
    all.forEach((name, i) => {
      cpu.set(name, 0xffff_8000_0000_0000n + BigInt(i));
    });
    expect(all.map((name) => cpu.get(name))).toEqual(all.map((_, i) => 0xffff_8000_0000_0000n + BigInt(i)));
  });

  it('shows stores to the host and host writes to the guest, with no call between', async () => {
    const { put, run, data, cpu } = await bench();
    put(x86.code(x86.addRdiRsi, x86.loadRaxRdi, x86.hlt));
    const words = new BigUint64Array(data.bytes.buffer, data.bytes.byteOffset, 8);
    words[1] = 40n;
    run(0, [DATA + 8n, 2n]);
    expect(cpu.rax).toBe(42n);
    expect(words[1]).toBe(42n);
    words[1] = 7n;
    run(0, [DATA + 8n, 1n]);
    expect(cpu.rax).toBe(8n);
  });

  it.each([0, 1, 2, 17, 999])('executes exactly %i instructions of a loop', async (budget) => {
    const { put, run, cpu } = await bench();
    put(x86.code(x86.incRdi, x86.jmp8(-5)));
    expect(run(0, [0n], budget)).toBe('budget');
    expect(cpu.executed).toBe(budget);
    expect(cpu.get('rdi')).toBe(BigInt(Math.ceil(budget / 2)));
    expect(cpu.stopRip).toBe(addrAdd(TEXT, budget % 2 === 0 ? 0 : 3));
  });

  it('goes on where a budget ended, flags and all', async () => {
    const { put, cpu, engine } = await bench();
    // dec rsi; jne -5; hlt: the flags of dec must survive a stop before jne.
    put(x86.code([0x48, 0xff, 0xce], x86.jne8(-5), x86.hlt));
    cpu.load(TEXT, DATA, [0n, 3n]);
    const trail: Kaddr[] = [];
    for (let stop: EngineStop = 'budget'; stop === 'budget'; ) {
      // What stops in between may be saved and put back, on a fresh state.
      const context = cpu.saveContext();
      engine.cpus[0]?.load(TEXT, DATA, [0n, 99n]);
      cpu.restoreContext(context);
      trail.push(cpu.rip);
      stop = cpu.run(1);
    }
    expect(trail.map((rip) => Number(rip - TEXT))).toEqual([0, 3, 0, 3, 0, 3, 5]);
    expect(cpu.get('rsi')).toBe(0n);
  });

  it('stops before an address', async () => {
    const { put, run, cpu } = await bench();
    put(x86.code(x86.nop, x86.incRax, x86.incRax, x86.hlt));
    expect(run(0, [], 1000, addrAdd(TEXT, 4))).toBe('stop-at');
    expect(cpu.executed).toBe(2);
    expect(cpu.stopRip).toBe(addrAdd(TEXT, 4));
    // Engines stop at the first instruction too; and a later run has no stop left over.
    expect(cpu.run(1000, addrAdd(TEXT, 4))).toBe('stop-at');
    expect(cpu.executed).toBe(0);
    expect(cpu.run(1000)).toBe('halted');
    expect(cpu.executed).toBe(1);
  });

  it('starts with the direction flag clear', async () => {
    const { put, run, cpu } = await bench();
    put(x86.code(0xfd /* std */, x86.hlt));
    put(x86.code([0x9c, 0x58] /* pushfq; pop rax */, x86.hlt), 16);
    run(0);
    run(16);
    expect(cpu.rax & 0x400n).toBe(0n);
  });

  const faulting: readonly [string, Uint8Array, bigint, object][] = [
    ['a read', x86.code(x86.loadRaxRdi), NOWHERE, { access: 'read', cause: 'unmapped', sizeBytes: 8 }],
    ['a write', x86.code(x86.storeRdiRsi), NOWHERE, { access: 'write', cause: 'unmapped', sizeBytes: 8 }],
    [
      'a write to text',
      x86.code(x86.storeRdiRsi),
      TEXT,
      { access: 'write', cause: 'protected', sizeBytes: 8 },
    ],
    ['a write to rodata', x86.code(x86.storeRdiRsi), RODATA, { access: 'write', cause: 'protected' }],
    ['a non-canonical read', x86.code(x86.loadRaxRdi), 0x1234_5678_9abc_def0n, { access: 'read' }],
  ];

  it.each(faulting)('ends with memory at %s', async (_, bytes, address, expected) => {
    const { put, run, cpu } = await bench();
    put(x86.code(x86.nop, x86.nop, [...bytes], x86.hlt));
    expect(run(0, [address, 1n])).toBe('memory');
    expect(cpu.memoryStop).toMatchObject({ ...expected, address });
    expect(cpu.stopRip).toBe(addrAdd(TEXT, 2));
    expect(cpu.executed).toBe(2);
  });

  it.each([
    ['data', DATA as bigint, 'protected'],
    ['rodata', RODATA as bigint, 'protected'],
    ['nothing', NOWHERE as bigint, 'unmapped'],
    ['a null pointer', 0n, 'unmapped'],
    ['a non-canonical address', 0x1234_5678_9abc_def0n, 'unmapped'],
  ])('ends with memory at a fetch from %s', async (_, address, cause) => {
    const { put, run, cpu } = await bench();
    put(x86.code(x86.nop, x86.jmpRdi));
    expect(run(0, [address])).toBe('memory');
    expect(cpu.memoryStop).toMatchObject({ access: 'fetch', cause, address });
    expect(cpu.stopRip).toBe(address);
    expect(cpu.executed).toBe(2);
  });

  it.each([
    ['int3', x86.code(x86.int3), 'exception', 3],
    ['int 0x80', x86.code(0xcd, 0x80), 'exception', 0x80],
    ['#DE', x86.code(x86.divEcx), 'exception', 0],
    ['#GP', x86.code(0xff, 0x2f) /* jmp far [rdi], to a null selector */, 'exception', 13],
    ['ud2', x86.code(x86.ud2), 'invalid-opcode', undefined],
    ['a byte that is no opcode', x86.code(0x06), 'invalid-opcode', undefined],
    ['syscall', x86.code(x86.syscall), 'syscall', undefined],
    ['hlt', x86.code(x86.hlt), 'halted', undefined],
  ] as const)('ends at %s, twice, and is well after', async (_, bytes, stop, vector) => {
    const { put, run, cpu } = await bench();
    put(x86.code(x86.xorEcxEcx, x86.nop, [...bytes], x86.nop, x86.hlt));
    put(x86.code(x86.movEax(7), x86.hlt), 64);
    for (let round = 0; round < 2; round++) {
      expect(run(0, [DATA])).toBe(stop);
      if (vector !== undefined) expect(cpu.vector).toBe(vector);
      expect(cpu.stopRip).toBe(addrAdd(TEXT, 3));
      expect(cpu.executed).toBe(2);
    }
    expect(run(64)).toBe('halted');
    expect(cpu.rax).toBe(7n);
  });

  test.skipIf(missing !== undefined || !portIo).each([
    ['in', [0xe4, 0x80]],
    ['out', [0xe6, 0x80]],
    ['ins', [0x6c]],
  ])('ends at %s', async (_, bytes) => {
    const { put, run, cpu } = await bench();
    put(x86.code(x86.nop, bytes, x86.nop, x86.hlt));
    expect(run(0, [DATA])).toBe('port-io');
    expect(cpu.stopRip).toBe(addrAdd(TEXT, 1));
    expect(cpu.executed).toBe(1);
  });

  it('runs new text on every vCPU, and text that was mapped again', async () => {
    const { engine, put } = await bench(2);
    const [a, b] = engine.cpus as [EngineCpu, EngineCpu];
    const value = (cpu: EngineCpu, at: Kaddr): bigint => {
      cpu.load(at, addrAdd(DATA, 64), []);
      expect(cpu.run(10)).toBe('halted');
      return cpu.rax;
    };
    for (let round = 1; round <= 5; round++) {
      put(x86.code(x86.movEax(round), x86.hlt), 32);
      expect([value(a, addrAdd(TEXT, 32)), value(b, addrAdd(TEXT, 32))]).toEqual([
        BigInt(round),
        BigInt(round),
      ]);
    }
    const elsewhere = addrAdd(TEXT, 0x10_0000);
    for (let round = 1; round <= 5; round++) {
      const block = engine.allocBlock(4096);
      block.bytes.set(x86.code(x86.movEax(round), x86.hlt));
      engine.map(elsewhere, block, 'rx');
      expect([value(a, elsewhere), value(b, elsewhere)]).toEqual([BigInt(round), BigInt(round)]);
      engine.unmap(elsewhere, block);
      a.load(elsewhere, DATA, []);
      expect(a.run(10)).toBe('memory');
    }
  });

  it('keeps GS_BASE and registers of its vCPUs apart', async () => {
    const { engine, put, data } = await bench(3);
    put(x86.code(x86.storeGsRdi(16), x86.loadRaxGs(16), x86.hlt));
    engine.cpus.forEach((cpu, id) => {
      cpu.setGsBase(addrAdd(DATA, 256 * id));
      cpu.set('rbx', BigInt(100 + id));
    });
    engine.cpus.forEach((cpu, id) => {
      cpu.load(TEXT, addrAdd(DATA, PAGES), [BigInt(id + 1)]);
      expect(cpu.run(10)).toBe('halted');
    });
    const words = new BigUint64Array(data.bytes.buffer, data.bytes.byteOffset, 128);
    expect([words[2], words[34], words[66]]).toEqual([1n, 2n, 3n]);
    expect(engine.cpus.map((cpu) => cpu.get('rbx'))).toEqual([100n, 101n, 102n]);
    expect(engine.cpus.map((cpu) => cpu.get('rax'))).toEqual([1n, 2n, 3n]);
  });

  it('keeps GS_BASE through a fault', async () => {
    const { put, run, cpu } = await bench();
    cpu.setGsBase(addrAdd(DATA, 512));
    put(x86.code(x86.divEcx, x86.hlt));
    put(x86.code(x86.storeGsRdi(0), x86.loadRaxGs(0), x86.hlt), 32);
    expect(run()).toBe('exception');
    expect(run(32, [77n])).toBe('halted');
    expect(cpu.rax).toBe(77n);
  });

  it('puts a context back on another vCPU, xmm registers included', async () => {
    const { engine, put } = await bench(2);
    const [a, b] = engine.cpus as [EngineCpu, EngineCpu];
    // movq xmm0, rdi; nop; movq rax, xmm0; hlt
    put(x86.code([0x66, 0x48, 0x0f, 0x6e, 0xc7], x86.nop, [0x66, 0x48, 0x0f, 0x7e, 0xc0], x86.hlt));
    a.load(TEXT, DATA, [0x1234_5678_9abc_def0n]);
    expect(a.run(1)).toBe('budget');
    const context = a.saveContext();
    b.restoreContext(context);
    expect(b.rip).toBe(addrAdd(TEXT, 5));
    expect(b.run(10)).toBe('halted');
    expect(b.rax).toBe(0x1234_5678_9abc_def0n);
  });

  it('sees data that spans pages, written by a guest', async () => {
    const { put, run, data } = await bench();
    put(x86.code(x86.storeRdiRsi, x86.hlt));
    run(0, [addrAdd(DATA, 4096 - 3), 0x1122_3344_5566_7788n]);
    expect([...data.bytes.subarray(4096 - 3, 4096 + 5)]).toEqual([
      0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11,
    ]);
  });
});
