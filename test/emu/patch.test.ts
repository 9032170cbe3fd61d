import { expect, test } from 'vitest';
import type { Vcpu } from '../../emu/index.ts';
import { addrAdd, type Kaddr, kaddr } from '../../lib/index.ts';
import * as x86 from './code.ts';
import { onEachEngine, place, random } from './machines.ts';

onEachEngine((machine, layout) => {
  test('10,000 random patches are seen by whichever vCPU runs next', async () => {
    const on = await machine({ cpus: 4 });
    const pages = 8;
    const text = on.memory.allocText(pages * 4096, 'patched');
    const next = random(0x5eed);

    // mov eax, imm32; ret: six bytes, whose borders with pages fall on every byte of it.
    interface Site {
      readonly at: Kaddr;
      value: number;
    }
    const sites: Site[] = [];
    for (let page = 1; page < pages; page++) {
      const before = (page % 6) + 1;
      sites.push({ at: addrAdd(text, page * 4096 - before), value: 0 });
      for (let i = 1; i <= 7; i++)
        sites.push({ at: addrAdd(text, page * 4096 + i * 400 + next(64)), value: 0 });
    }
    const write = (site: Site): void => {
      site.value = next(0x7fff_ffff);
      on.patchText(site.at, x86.code(x86.movEax(site.value), x86.ret));
    };
    sites.forEach(write);

    let stale = 0;
    for (let round = 0; round < 10_000; round++) {
      const site = sites[next(sites.length)] as Site;
      switch (next(4)) {
        case 0:
          write(site);
          break;
        case 1:
          // Only one byte of the immediate, as a text poke that changes part of an instruction.
          site.value = (site.value & ~0xff00) | (next(256) << 8);
          on.patchText(addrAdd(site.at, 2), Uint8Array.of((site.value >>> 8) & 0xff));
          break;
        case 2: {
          // As text_poke_bp: a breakpoint first, seen as one, then the new instruction.
          on.patchText(site.at, Uint8Array.of(x86.int3));
          const { fault } = (on.cpus[next(4)] as Vcpu).call(site.at);
          expect(fault).toMatchObject({ kind: 'int3', rip: site.at });
          write(site);
          break;
        }
      }
      const cpu = on.cpus[next(4)] as Vcpu;
      const seen = sites[next(sites.length)] as Site;
      for (const { at, value } of [site, seen]) {
        const { ret, fault } = cpu.call(at);
        if (fault !== null || ret !== BigInt(value)) stale++;
      }
    }
    expect(stale).toBe(0);
  });

  test('a call site is patched under a call in flight', async () => {
    const on = await machine();
    const cpu = on.cpus[0] as Vcpu;
    const text = on.memory.allocText(4096, 'f');
    // nop5; mov eax, 1; ret
    const nop5 = [0x0f, 0x1f, 0x44, 0x00, 0x00];
    on.patchText(text, x86.code(nop5, x86.movEax(1), x86.ret));
    cpu.begin(text);
    cpu.step();
    on.patchText(addrAdd(text, 5), x86.code(x86.movEax(2)));
    expect(cpu.run().reason).toBe('returned');
    expect(cpu.regs.get('rax')).toBe(2n);
  });

  test('a jump from one mapping into the next follows patches of either', async () => {
    const on = await machine({ cpus: 2 });
    const base = layout.kernelData.end;
    const first = on.memory.map(kaddr(base), 4096, 'rx', 'first').start;
    const second = on.memory.map(kaddr(base + 4096n), 4096, 'rx', 'second').start;
    const instruction = addrAdd(second, -3);
    for (let round = 1; round <= 20; round++) {
      // The patch runs over both mappings, the instruction too.
      on.patchText(instruction, x86.code(x86.movEax(round * 0x0101_0101), x86.ret));
      for (const cpu of on.cpus) expect(cpu.call(instruction).ret).toBe(BigInt(round * 0x0101_0101));
    }
    expect(on.memory.regionAt(first)?.name).toBe('first');
  });

  test('recycled images never run what was there before', async () => {
    const on = await machine({ cpus: 2 });
    const next = random(99);
    const live: { at: Kaddr; value: number }[] = [];
    let reused = 0;
    const seen = new Set<Kaddr>();
    for (let i = 0; i < 4000; i++) {
      if (live.length > 20) {
        const [gone] = live.splice(next(live.length), 1);
        on.memory.freeText((gone as { at: Kaddr }).at);
      }
      const at = on.memory.allocText(4096, `image ${i}`);
      if (seen.has(at)) reused++;
      seen.add(at);
      on.patchText(at, x86.code(x86.movEax(i), x86.ret));
      live.push({ at, value: i });
      const pick = live[next(live.length)] as { at: Kaddr; value: number };
      expect((on.cpus[next(2)] as Vcpu).call(pick.at).ret).toBe(BigInt(pick.value));
    }
    expect(reused).toBeGreaterThan(1000);
  });

  test('a call in flight lives through any number of patches, vector registers included', async () => {
    const on = await machine();
    const [cpu] = on.cpus as [Vcpu];
    // movq xmm0, rdi; 1: nop; jmp 1b; movq rax, xmm0; ret
    const f = place(
      on,
      x86.code(
        [0x66, 0x48, 0x0f, 0x6e, 0xc7],
        x86.nop,
        x86.jmp8(-3),
        [0x66, 0x48, 0x0f, 0x7e, 0xc0],
        x86.ret,
      ),
    );
    const other = on.memory.allocText(4096, 'patched');
    const filler = Array<number>(1018).fill(x86.nop);
    cpu.begin(f, [0x1122_3344_5566_7788n]);
    cpu.run({ steps: 2 });
    cpu.regs.set('rbx', 77n);
    for (let round = 0; round < 1800; round++) {
      on.patchText(other, x86.code(filler, x86.movEax(round), x86.ret));
      expect(cpu.run({ steps: 2 }).reason).toBe('steps');
    }
    cpu.regs.set('rip', addrAdd(f, 8));
    expect(cpu.run().reason).toBe('returned');
    expect([cpu.regs.get('rax'), cpu.regs.get('rbx')]).toEqual([0x1122_3344_5566_7788n, 77n]);
    expect(cpu.call(other).ret).toBe(1799n);
  });
});
