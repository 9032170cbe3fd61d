import { expect, test } from 'vitest';
import type { Vcpu } from '../../emu/index.ts';
import { addrAdd, type Kaddr } from '../../lib/index.ts';
import * as x86 from './code.ts';
import { onEachEngine, place } from './machines.ts';

onEachEngine((machine) => {
  test('a handler that sets rip makes int3 unseen; one that declines leaves the fault', async () => {
    const on = await machine({ cpus: 2 });
    const [, cpu] = on.cpus as [Vcpu, Vcpu];
    // int3; mov eax, 1; ret; and where the handler sends it: mov eax, 2; ret
    const f = place(on, x86.code(x86.int3, x86.movEax(1), x86.ret, x86.movEax(2), x86.ret));
    const seen: [number, Kaddr][] = [];
    on.breakpoint = (by, address) => {
      seen.push([by.id, address]);
      by.regs.set('rip', addrAdd(f, 7));
      return true;
    };
    expect(cpu.call(f)).toEqual({ ret: 2n, instructions: 2, fault: null });
    expect(seen).toEqual([[1, f]]);
    on.breakpoint = () => false;
    expect(cpu.call(f)).toMatchObject({ ret: 0n, fault: { kind: 'int3', rip: f, instructions: 0 } });
    on.breakpoint = undefined;
    expect(cpu.call(f).fault?.kind).toBe('int3');
    expect(cpu.inCall).toBe(false);
  });

  test('a fault after a handled int3 is itself, with the whole count', async () => {
    const on = await machine();
    const [cpu] = on.cpus as [Vcpu];
    const f = place(on, x86.code(x86.xorEcxEcx, x86.int3, x86.nop, x86.divEcx));
    on.breakpoint = (by, address) => {
      by.regs.set('rip', addrAdd(address, 1));
      return true;
    };
    for (let round = 0; round < 2; round++) {
      expect(cpu.call(f).fault).toMatchObject({ kind: 'divide-error', rip: addrAdd(f, 4), instructions: 2 });
    }
    cpu.begin(f);
    expect(cpu.run({ steps: 2 })).toMatchObject({ reason: 'steps' });
    expect(cpu.run().fault).toMatchObject({ kind: 'divide-error', rip: addrAdd(f, 4) });
  });

  test('an int3 that the handler never leaves behind meets the step limit', async () => {
    const on = await machine({ stepLimit: 100 });
    const [cpu] = on.cpus as [Vcpu];
    const f = place(on, x86.code(x86.nop, x86.int3));
    on.breakpoint = (by) => {
      by.regs.set('rip', f);
      return true;
    };
    expect(cpu.call(f).fault).toMatchObject({ kind: 'step-limit', instructions: 100 });
  });
});
