import { describe, expect, test } from 'vitest';
import { createMachine, type MachineOptions, type Vcpu } from '../../emu/index.ts';
import { KERNEL_LAYOUT, type Layout, USER_LAYOUT } from '../../emu/layout.ts';
import { EngineMachine } from '../../emu/machine.ts';
import { createNativeEngine } from '../../emu/native/engine.ts';
import { createUnicornEngine } from '../../emu/unicorn/engine.ts';
import { createUnicornJsEngine } from '../../emu/unicorn-js/engine.ts';
import { addrAdd, InputError, type Kaddr } from '../../lib/index.ts';
import * as x86 from './code.ts';
import { machine, nativeMissing, place } from './machines.ts';
import { standInFactory } from './unicorn-js-stand-in.ts';

test.each([
  ['no CPU', { cpus: 0 }, /1 to 64 CPUs/],
  ['too many CPUs', { cpus: 65 }, /1 to 64 CPUs/],
  ['half a CPU', { cpus: 1.5 }, /1 to 64 CPUs/],
  ['no time', { timeLimitMs: 0 }, /timeLimitMs/],
  ['a layout that does not exist', { layout: 'flat' } as unknown as MachineOptions, /no layout flat/],
  ['native at kernel addresses', { engine: 'native', layout: 'kernel' } as const, /its layout is user/],
  ['no steps', { stepLimit: 0 }, /stepLimit/],
  ['an engine that does not exist', { engine: 'bochs' } as unknown as MachineOptions, /no engine bochs/],
])('refuses %s', async (_, options, message) => {
  await expect(createMachine(options)).rejects.toThrow(message);
  await expect(createMachine(options)).rejects.toBeInstanceOf(InputError);
});

test('says which engine it is', async () => {
  expect((await machine()).engine).toMatch(/^unicorn 2\.\d+\.\d+$/);
});

test('a closed machine refuses to be used, and closes once', async () => {
  const on = await machine();
  const f = place(on, x86.code(x86.ret));
  const [cpu] = on.cpus as [Vcpu];
  const snapshot = on.snapshot();
  const context = cpu.saveContext();
  const object = on.memory.kmalloc(8);
  const view = on.memory.bytes(object, 8);
  on.close();
  on.close();
  const uses: (() => unknown)[] = [
    () => cpu.call(f),
    () => cpu.begin(f),
    () => cpu.run(),
    () => cpu.regs.get('rax'),
    () => cpu.regs.set('rax', 1n),
    () => cpu.saveContext(),
    () => cpu.restoreContext(context),
    () => on.snapshot(),
    () => on.restore(snapshot),
  ];
  for (const use of uses) expect(use).toThrow(InputError);
  // Memory has no engine to ask: it is dead, but touching it harms nobody.
  view[0] = 1;
  on.memory.freeText(f);
});

test('many machines one after the other', async () => {
  for (let i = 0; i < 40; i++) {
    const on = await createMachine({ cpus: 2 });
    const f = place(on, x86.code(x86.movEax(i), x86.ret));
    expect(on.cpus[1]?.call(f).ret).toBe(BigInt(i));
    on.close();
  }
});

describe('one scenario on every adapter', () => {
  const engines = {
    unicorn: async () => createUnicornEngine({ cpus: 2 }),
    'unicorn with JavaScript hooks': async () => createUnicornEngine({ cpus: 2, hooks: 'javascript' }),
    'unicorn.js adapter over a stand-in': () => createUnicornJsEngine({ cpus: 2, factory: standInFactory }),
    native: async () => createNativeEngine({ cpus: 2, timeLimitMs: 10_000 }),
  };
  const scenario = async (open: keyof typeof engines, layout: Layout): Promise<unknown[]> => {
    const on = new EngineMachine(await engines[open](), { stepLimit: 10_000, layout });
    try {
      const [a, b] = on.cpus as [Vcpu, Vcpu];
      const seen: unknown[] = [];
      const cell = on.memory.kmalloc(16);
      const counter = on.percpu.alloc(8, 8);
      const store = place(
        on,
        x86.code(x86.storeRdiRsi, x86.storeGsRdi(counter), x86.loadRaxGs(counter), x86.ret),
        's',
      );
      seen.push(a.call(store, [cell, 7n]), b.call(store, [addrAdd(cell, 8), 8n]));
      seen.push(on.memory.readU64(cell), on.memory.readU64(addrAdd(cell, 8)));
      seen.push([0, 1].map((cpu) => on.memory.readU64(on.percpu.address(counter, cpu))));
      on.memory.writeU64(cell, 99n);
      const load = place(on, x86.code(x86.loadRaxRdi, x86.ret), 'l');
      seen.push(a.call(load, [cell]), b.call(load, [cell]));
      const snapshot = on.snapshot();
      on.patchText(load, x86.code(x86.movEax(5), x86.ret));
      a.begin(store, [cell, 1n]);
      a.step();
      seen.push(b.call(load, [cell]), on.memory.readU64(cell), a.run());
      on.memory.freeText(load);
      seen.push(b.call(load), a.call(store, [on.cpus[0]?.stack.guard as Kaddr]), b.call(store, [store]));
      on.restore(snapshot);
      seen.push(a.call(load, [cell]), b.call(load, [cell]), on.memory.readU64(cell));
      const big = place(on, x86.code(x86.pushRax, x86.jmp8(-3)), 'overflow');
      seen.push(b.call(big), a.call(big), b.call(load, [cell]));
      return seen;
    } finally {
      on.close();
    }
  };

  test.each([
    ['unicorn with JavaScript hooks', KERNEL_LAYOUT],
    ['unicorn.js adapter over a stand-in', KERNEL_LAYOUT],
    ...(nativeMissing === undefined ? ([['native', USER_LAYOUT]] as const) : []),
  ] as const)('%s does as unicorn does', async (name, layout) => {
    const unicorn = await scenario('unicorn', layout);
    expect(unicorn[2]).toBe(7n);
    expect(await scenario(name, layout)).toEqual(unicorn);
  });
});
