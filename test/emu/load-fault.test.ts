import { expect, test } from 'vitest';
import type { Vcpu } from '../../emu/index.ts';
import { addrAdd, type Kaddr } from '../../lib/index.ts';
import * as x86 from './code.ts';
import { onEachEngine, place } from './machines.ts';

/** mov rax, [rdi] */
const LOAD = [0x48, 0x8b, 0x07];
/** mov [rdi], rax */
const STORE = [0x48, 0x89, 0x07];
/** inc rsi */
const COUNT = [0x48, 0xff, 0xc6];

onEachEngine((machine) => {
  test('a handler gives a load from nowhere a value, and the call goes on', async () => {
    const on = await machine();
    const [cpu] = on.cpus as [Vcpu];
    const f = place(on, x86.code(COUNT, LOAD, COUNT, [0x48, 0x01, 0xf0], x86.ret));
    const seen: Kaddr[] = [];
    on.loadFault = (by, address) => {
      seen.push(address);
      by.regs.set('rax', 100n);
      by.regs.set('rip', addrAdd(address, LOAD.length));
      return true;
    };
    const nowhere = [0x10n, 0xffff_c800_0000_0000n, 0x1234_5678_9abc_def0n];
    for (const address of nowhere) {
      expect(cpu.call(f, [address, 5n])).toEqual({ ret: 107n, instructions: 4, fault: null });
    }
    expect(seen).toEqual(nowhere.map(() => addrAdd(f, COUNT.length)));
  });

  test('one that declines leaves the fault; stores are not its affair', async () => {
    const on = await machine();
    const [cpu] = on.cpus as [Vcpu];
    const load = place(on, x86.code(LOAD, x86.ret));
    const store = place(on, x86.code(STORE, x86.ret));
    let asked = 0;
    on.loadFault = () => {
      asked++;
      return false;
    };
    expect(cpu.call(load, [0x10n]).fault).toMatchObject({ kind: 'read-unmapped', rip: load });
    expect(cpu.call(store, [0x10n]).fault).toMatchObject({ kind: 'write-unmapped', rip: store });
    expect(asked).toBe(1);
  });
});
