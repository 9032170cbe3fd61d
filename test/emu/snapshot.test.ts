import { expect, test } from 'vitest';
import type { Machine, Vcpu } from '../../emu/index.ts';
import { addrAdd, InputError, type Kaddr, kaddr } from '../../lib/index.ts';
import * as x86 from './code.ts';
import { onEachEngine, place, random } from './machines.ts';

onEachEngine((machine) => {
  test('memory, text and registers come back', async () => {
    const on = await machine({ cpus: 2 });
    const [cpu] = on.cpus as [Vcpu];
    const object = on.memory.kmalloc(64);
    const slot = on.percpu.alloc(8, 8);
    const f = place(on, x86.code(x86.movEax(1), x86.ret));
    on.memory.writeU64(object, 1n);
    on.memory.writeU64(on.percpu.address(slot, 1), 1n);
    cpu.regs.set('rbx', 1n);
    expect(cpu.call(f).ret).toBe(1n);
    const snapshot = on.snapshot();
    expect(snapshot.sizeBytes).toBeGreaterThan(4096);
    expect(snapshot.sizeBytes).toBeLessThan(1 << 20);

    for (let round = 0; round < 3; round++) {
      on.memory.writeU64(object, 2n);
      on.memory.writeU64(on.percpu.address(slot, 1), 2n);
      cpu.regs.set('rbx', 2n);
      on.patchText(f, x86.code(x86.movEax(2), x86.ret));
      on.setCurrent(1, object);
      expect(on.cpus.map((each) => each.call(f).ret)).toEqual([2n, 2n]);
      on.memory.freeText(f);
      on.restore(snapshot);
      expect(on.memory.readU64(object)).toBe(1n);
      expect(on.memory.readU64(on.percpu.address(slot, 1))).toBe(1n);
      expect(cpu.regs.get('rbx')).toBe(1n);
      expect(on.current(1)).not.toBe(object);
      expect(on.cpus.map((each) => each.call(f).ret)).toEqual([1n, 1n]);
    }
  });

  test('a call in flight goes on where it was, as often as one likes', async () => {
    const on = await machine({ stepLimit: 1000 });
    const [cpu] = on.cpus as [Vcpu];
    const sum = on.memory.kmalloc(8);
    const loop = place(
      on,
      x86.code(x86.addRdiRsi, [0x48, 0xff, 0xce], x86.jne8(-8), x86.loadRaxRdi, x86.ret),
    );
    cpu.begin(loop, [sum, 100n]);
    cpu.run({ steps: 100 });
    const snapshot = on.snapshot();
    for (let round = 0; round < 5; round++) {
      expect(cpu.inCall).toBe(true);
      expect(cpu.run()).toEqual({ reason: 'returned', instructions: 202, fault: null });
      expect(cpu.regs.get('rax')).toBe(5050n);
      if (round % 2 === 0) cpu.call(loop, [sum, 3n]);
      on.restore(snapshot);
    }
  });

  test('a fault does not outlive the restore', async () => {
    const on = await machine();
    const [cpu] = on.cpus as [Vcpu];
    const f = place(on, x86.code(x86.xorEcxEcx, x86.divEcx));
    const clean = on.snapshot();
    expect(cpu.call(f).fault?.kind).toBe('divide-error');
    const faulted = on.snapshot();
    on.restore(clean);
    expect(cpu.call(f).fault?.kind).toBe('divide-error');
    on.restore(faulted);
    expect(cpu.call(f).fault?.kind).toBe('divide-error');
  });

  test('mappings and allocators come back', async () => {
    const on = await machine();
    const { memory } = on;
    const [cpu] = on.cpus as [Vcpu];
    const kept = memory.map(kaddr(0x40_0000n), 4096, 'rx', 'kept');
    on.patchText(kept.start, x86.code(x86.movEax(7), x86.ret));
    const area = memory.vmalloc(4096, 'area');
    memory.writeU64(area, 77n);
    const object = memory.kmalloc(32);
    const image = memory.allocText(4096, 'image');
    const snapshot = on.snapshot();

    const probe = (): Kaddr[] => [
      memory.kmalloc(32),
      memory.kmalloc(5000),
      memory.allocText(4096, 'p'),
      memory.allocData(4096, 'p'),
      memory.vmalloc(1),
      kaddr(on.percpu.alloc(8, 8)),
    ];
    const expected = probe();
    on.restore(snapshot);

    memory.unmap(kept);
    memory.vfree(area);
    memory.kfree(object);
    memory.freeText(image);
    const extra = memory.map(kaddr(0x50_0000n), 4096, 'rw', 'extra');
    memory.map(kept.start, 8192, 'rw', 'in its place');
    expect(cpu.call(kept.start).fault?.kind).toBe('fetch-data');
    on.restore(snapshot);

    expect(memory.regionAt(extra.start)).toBeUndefined();
    expect(() => memory.readU8(extra.start)).toThrow(InputError);
    expect(memory.regionAt(kept.start)).toEqual(kept);
    expect(cpu.call(kept.start).ret).toBe(7n);
    expect(memory.readU64(area)).toBe(77n);
    expect(memory.regionAt(image)?.name).toBe('image');
    expect(probe()).toEqual(expected);
    memory.kfree(object);
    memory.freeText(image);
    memory.vfree(area);
    memory.unmap(kept);
  });

  test('random work between snapshots leaves nothing behind', async () => {
    const on = await machine({ cpus: 2 });
    const next = random(2024);
    const live: { at: Kaddr; value: number }[] = [];
    const objects: Kaddr[] = [];
    for (let i = 0; i < 30; i++) live.push({ at: image(on, i), value: i });
    for (let i = 0; i < 30; i++) objects.push(on.memory.kmalloc(16 << (i % 10)));
    const store = place(on, x86.code(x86.storeRdiRsi, x86.movRaxRdi, x86.ret));
    const base = { snapshot: on.snapshot(), digest: digest() };

    for (let round = 0; round < 60; round++) {
      const mine = live.map((each) => ({ ...each }));
      for (let work = 0; work < 40; work++) {
        const cpu = on.cpus[next(2)] as Vcpu;
        const pick = mine[next(mine.length)] as { at: Kaddr; value: number };
        switch (next(6)) {
          case 0:
            pick.value = next(1 << 30);
            on.patchText(pick.at, x86.code(x86.movEax(pick.value), x86.ret));
            break;
          case 1:
            on.memory.freeText(pick.at);
            mine.splice(mine.indexOf(pick), 1);
            expect(cpu.call(pick.at).fault?.kind).toBe('freed-image');
            break;
          case 2:
            mine.push({ at: image(on, work), value: work });
            break;
          case 3:
            cpu.call(store, [objects[next(objects.length)] as Kaddr, BigInt(work)]);
            break;
          case 4:
            on.memory.write(on.memory.kmalloc(100), new Uint8Array(100).fill(work));
            break;
          case 5:
            expect(cpu.call(pick.at).ret).toBe(BigInt(pick.value));
            break;
        }
      }
      on.restore(base.snapshot);
      expect(digest()).toEqual(base.digest);
      for (const { at, value } of live) expect((on.cpus[next(2)] as Vcpu).call(at).ret).toBe(BigInt(value));
      on.restore(base.snapshot);
    }

    function digest(): bigint[] {
      return [
        ...objects.map((object) => on.memory.readU64(object)),
        ...live.map(({ at }) => on.memory.readU64(at)),
        ...on.cpus.flatMap((cpu) => [cpu.regs.get('rax'), cpu.regs.get('rdi'), cpu.regs.get('rsp')]),
      ];
    }
  });

  function image(on: Machine, value: number): Kaddr {
    return place(on, x86.code(x86.movEax(value), x86.ret), `image ${value}`);
  }

  test('large data that was never used is neither copied nor kept', async () => {
    const on = await machine();
    const before = on.snapshot().sizeBytes;
    const text = on.memory.allocText(1 << 20, 'module');
    expect(on.snapshot().sizeBytes - before).toBeLessThan(1.5 * (1 << 20));
    on.memory.freeText(text);
  });

  test('a snapshot of another machine is refused', async () => {
    const on = await machine();
    const other = await machine();
    expect(() => other.restore(on.snapshot())).toThrow(InputError);
    expect(() => on.restore({ sizeBytes: 0 })).toThrow(InputError);
    expect(addrAdd(on.current(0), 0)).toBe(on.current(0));
  });
});
