import { describe, expect, test } from 'vitest';
import type { AddressRange, Machine, Vcpu } from '../../emu/index.ts';
import { PERCPU_UNIT } from '../../emu/layout.ts';
import { addrAdd, addrDistance, InputError, type Kaddr, KernelError, kaddr } from '../../lib/index.ts';
import * as x86 from './code.ts';
import { onEachEngine, place, random } from './machines.ts';

onEachEngine((machine, layout) => {
  const { notMappable } = layout;
  const vmlinux = layout.kernelData.end;
  const { end } = layout.mappable.at(-1) as AddressRange;

  describe('map', () => {
    test('takes any free canonical pages, and gives them back', async () => {
      const { memory, cpus, ...rest } = await machine();
      expect(rest).toBeDefined();
      for (const address of [0x40_5000n, 0x7c00_4000_0000n, vmlinux, end - 4096n]) {
        const region = memory.map(kaddr(address), 4096, 'rw', 'golden');
        expect(memory.regionAt(kaddr(address + 4095n))).toEqual({
          name: 'golden',
          start: address,
          sizeBytes: 4096,
          perms: 'rw',
        });
        memory.writeU64(kaddr(address + 4088n), 7n);
        expect(memory.readU64(kaddr(address + 4088n))).toBe(7n);
        memory.unmap(region);
        expect(memory.regionAt(kaddr(address))).toBeUndefined();
        expect(() => memory.unmap(region)).toThrow(InputError);
      }
      expect(cpus.length).toBe(1);
    });

    test.each([
      ['not page-aligned', 0x40_5001n, 4096, /page-aligned/],
      ['not whole pages', 0x40_5000n, 100, /multiple of 4096/],
      ['empty', 0x40_5000n, 0, /multiple of 4096/],
      ['negative', 0x40_5000n, -4096, /multiple of 4096/],
      ['not a number', 0x40_5000n, Number.NaN, /multiple of 4096/],
      ['not canonical', 0x8000_0000_0000n, 4096, notMappable],
      ['across the hole', 0x7fff_ffff_f000n, 8192, notMappable],
      ['in the last page', 0xffff_ffff_ffff_f000n, 4096, notMappable],
      ['past the end', end - 4096n, 0x4000, notMappable],
      ['in the modules area', layout.modulesText.start + 0x800_0000n, 4096, /own allocators/],
      ['around the modules area', layout.modulesText.start - 4096n, 0x4000_0000, /own allocators/],
      ['in vmalloc', layout.vmalloc.start + 0x1000_0000n, 4096, /own allocators/],
      ['in the direct map', layout.directMap.start, 4096, /own allocators/],
      ['on the per-CPU areas', layout.percpuStart, 4096, /per-CPU area of CPU 0/],
    ])('refuses a range %s', async (_, address, size, message) => {
      const { memory } = await machine();
      expect(() => memory.map(kaddr(address), size, 'rw', 'bad')).toThrow(message);
      expect(() => memory.map(kaddr(address), size, 'rw', 'bad')).toThrow(InputError);
    });

    test.runIf(layout.name === 'kernel')('page 0 takes data but no text', async () => {
      const on = await machine();
      expect(() => on.memory.map(kaddr(0n), 4096, 'rx', 'zero')).toThrow(/null pointer/);
      on.memory.map(kaddr(0n), 4096, 'rw', 'zero');
      on.memory.writeU8(kaddr(0n), x86.ret);
      const jump = place(on, x86.code(x86.jmpRdi));
      for (const address of [0n, 1n]) {
        expect(on.cpus[0]?.call(jump, [address]).fault).toMatchObject({ kind: 'fetch-data', rip: address });
      }
    });

    test('refuses what overlaps, from every side', async () => {
      const { memory } = await machine();
      memory.map(kaddr(0x40_5000n), 3 * 4096, 'rw', 'first');
      for (const [address, pages] of [
        [0x40_5000n, 3],
        [0x40_4000n, 2],
        [0x40_7000n, 2],
        [0x40_6000n, 1],
        [0x40_4000n, 5],
      ] as const) {
        expect(() => memory.map(kaddr(address), pages * 4096, 'rw', 'second')).toThrow(/taken by first/);
      }
      memory.map(kaddr(0x40_4000n), 4096, 'rw', 'below');
      memory.map(kaddr(0x40_8000n), 4096, 'rw', 'above');
    });

    test('too many mappings are ENOMEM, not the end of the process', async () => {
      const { memory } = await machine();
      let mapped = 0;
      const fill = (): void => {
        for (; ; mapped++) memory.map(kaddr(0x1000_0000n + BigInt(mapped) * 8192n), 4096, 'rw', 'one');
      };
      expect(fill).toThrow(KernelError);
      expect(mapped).toBeGreaterThan(1000);
    });
  });

  describe('text', () => {
    test('is int3 until patched, page by page, within reach of kernel text and data', async () => {
      const { memory } = await machine();
      const image = memory.allocText(100, 'image');
      expect(image % 4096n).toBe(0n);
      expect(memory.regionAt(image)).toMatchObject({ name: 'image', sizeBytes: 4096, perms: 'rx' });
      expect(new Set(memory.bytes(image, 4096))).toEqual(new Set([0xcc]));
      const others = [
        memory.allocKernelText(64, 'runtime'),
        memory.allocKernelData(64, 'clock'),
        memory.allocKernelData(64, 'table', 'r'),
        memory.allocData(64, '.data'),
        memory.allocRodata(64, '.rodata'),
      ];
      for (const other of others) {
        const distance = addrDistance(image, other);
        expect(distance > -(2n ** 31n) && distance < 2n ** 31n).toBe(true);
      }
    });

    test('honours alignment', async () => {
      const { memory } = await machine();
      memory.allocText(4096, 'odd');
      const aligned = memory.allocText(4096, 'aligned', { align: 1 << 21 });
      expect(aligned % (1n << 21n)).toBe(0n);
      expect(() => memory.allocText(4096, 'bad', { align: 64 })).toThrow(InputError);
      expect(() => memory.allocText(4096, 'bad', { align: 12288 })).toThrow(InputError);
      expect(() => memory.allocText(0, 'bad')).toThrow(InputError);
    });

    test('more than a chunk in one piece, and the whole area at most', async () => {
      const on = await machine();
      const big = on.memory.allocText(10 << 20, 'big');
      on.patchText(addrAdd(big, (10 << 20) - 6), x86.code(x86.movEax(9), x86.ret));
      expect(on.cpus[0]?.call(addrAdd(big, (10 << 20) - 6)).ret).toBe(9n);
      expect(() => on.memory.allocText(1 << 30, 'too big')).toThrow(KernelError);
    });

    test('only patchText writes it; it writes all or nothing, and only text', async () => {
      const on = await machine();
      const { memory } = on;
      const image = memory.allocText(4096, 'image');
      expect(() => memory.writeU8(image, 1)).toThrow(/patchText/);
      expect(() => memory.writeU64(image, 1n)).toThrow(/patchText/);
      expect(() => memory.write(image, Uint8Array.of(1))).toThrow(/patchText/);
      expect(() => on.patchText(addrAdd(image, 4090), new Uint8Array(8))).toThrow(InputError);
      expect(() => on.patchText(memory.kmalloc(64), Uint8Array.of(1))).toThrow(/not text/);
      expect(() => on.patchText(kaddr(0x1000n), Uint8Array.of(1))).toThrow(/nothing is mapped/);
      expect(new Set(memory.bytes(image, 4096))).toEqual(new Set([0xcc]));
      const second = memory.allocText(4096, 'second');
      expect(second).toBe(addrAdd(image, 4096));
      on.patchText(addrAdd(image, 4090), new Uint8Array(8).fill(0x90));
      expect(memory.readU16(second)).toBe(0x9090);
      memory.freeText(second);
      expect(() => on.patchText(addrAdd(image, 4090), new Uint8Array(8))).toThrow(InputError);
      expect(memory.readU16(addrAdd(image, 4090))).toBe(0x9090);
      on.patchText(image, new Uint8Array(0));
    });

    test('freed text is int3, is freed once, and comes back late', async () => {
      const on = await machine();
      const { memory } = on;
      const image = place(on, x86.code(x86.movEax(1), x86.ret), 'image');
      memory.freeText(image);
      expect(memory.readU64(image)).toBe(0xcccc_cccc_cccc_ccccn);
      expect(memory.regionAt(image)).toBeUndefined();
      expect(() => memory.bytes(image, 1)).toThrow(InputError);
      expect(() => memory.freeText(image)).toThrow(/freed already/);
      expect(() => memory.freeText(addrAdd(image, 4096))).toThrow(InputError);
      expect(() => memory.freeText(memory.kmalloc(8))).toThrow(InputError);
      let reusedAfter = 0;
      for (; memory.allocText(4096, 'next') !== image; reusedAfter++) {
        memory.freeText(memory.allocText(4096, 'churn'));
        if (reusedAfter > 5000) break;
      }
      expect(reusedAfter).toBeGreaterThan(500);
      expect(reusedAfter).toBeLessThan(5000);
    });

    test('20,000 live images in a few mappings; churn keeps to its addresses', async () => {
      const on = await machine();
      const { memory } = on;
      const live: Kaddr[] = [];
      for (let i = 0; i < 20_000; i++) live.push(memory.allocText(4096, `image ${i}`));
      expect(new Set(live).size).toBe(20_000);
      const next = random(3);
      for (let i = 0; i < 5_000; i++) {
        const victim = next(live.length);
        memory.freeText(live[victim] as Kaddr);
        live[victim] = memory.allocText(4096, `again ${i}`);
      }
      expect(new Set(live).size).toBe(20_000);
      const last = live.reduce((a, b) => (a > b ? a : b));
      expect(Number(last - (live[0] as Kaddr)) / 4096).toBeLessThan(20_000 + 2 * 1024 + 1024);
      const image = live[12_345] as Kaddr;
      on.patchText(image, x86.code(x86.movEax(5), x86.ret));
      expect(on.cpus[0]?.call(image).ret).toBe(5n);
    });
  });

  describe('kmalloc', () => {
    test('gives zeroed, aligned objects that do not overlap; kfree poisons', async () => {
      const { memory } = await machine();
      const next = random(5);
      const live = new Map<Kaddr, number>();
      for (let i = 0; i < 3000; i++) {
        if (live.size > 200 && next(2) === 0) {
          const [address, size] = [...live][next(live.size)] as [Kaddr, number];
          expect(new Set(memory.bytes(address, size))).toEqual(new Set([size & 0xff]));
          memory.kfree(address);
          expect(memory.readU8(address)).toBe(0x6b);
          live.delete(address);
          continue;
        }
        const size = 1 + next(next(10) === 0 ? 20_000 : 300);
        const align = 2 ** (3 + next(5));
        const address = memory.kmalloc(size, 'object', align);
        expect(address % BigInt(align)).toBe(0n);
        const bytes = memory.bytes(address, size);
        expect(bytes.every((byte) => byte === 0)).toBe(true);
        bytes.fill(size & 0xff);
        live.set(address, size);
      }
    });

    test('names its objects, checks their bounds, refuses nonsense', async () => {
      const { memory } = await machine();
      const object = memory.kmalloc(24, 'struct bpf_prog');
      expect(memory.regionAt(addrAdd(object, 23))).toEqual({
        name: 'struct bpf_prog',
        start: object,
        sizeBytes: 24,
        perms: 'rw',
      });
      expect(memory.regionAt(addrAdd(object, 24))).toBeUndefined();
      expect(() => memory.bytes(object, 25)).toThrow(/not inside struct bpf_prog/);
      expect(() => memory.write(addrAdd(object, 20), new Uint8Array(5))).toThrow(InputError);
      expect(() => memory.kfree(addrAdd(object, 8))).toThrow(InputError);
      memory.kfree(object);
      expect(() => memory.kfree(object)).toThrow(InputError);
      expect(() => memory.kfree(kaddr(0n))).toThrow(InputError);
      for (const size of [0, -1, 1.5, Number.NaN]) expect(() => memory.kmalloc(size)).toThrow(InputError);
      expect(() => memory.kmalloc(8, 'x', 3)).toThrow(InputError);
      expect(() => memory.kmalloc(8, 'x', 8192)).toThrow(InputError);
      const large = memory.kmalloc(3000, 'page', 4096);
      expect(large % 4096n).toBe(0n);
      memory.kfree(large);
      expect(() => memory.kfree(large)).toThrow(/freed already/);
    });
  });

  test('vmalloc areas are apart and zeroed; vfree takes them away', async () => {
    const { memory } = await machine();
    const a = memory.vmalloc(5000, 'a');
    const b = memory.vmalloc(1, 'b');
    expect(memory.regionAt(a)).toMatchObject({ name: 'a', sizeBytes: 8192 });
    expect(b - a).toBeGreaterThanOrEqual(8192n + 4096n);
    expect(memory.regionAt(addrAdd(a, 8192))).toBeUndefined();
    expect(() => memory.vfree(addrAdd(a, 4096))).toThrow(InputError);
    memory.vfree(a);
    expect(() => memory.vfree(a)).toThrow(InputError);
    expect(() => memory.readU8(a)).toThrow(/not mapped/);
    expect(() => memory.vmalloc(-1)).toThrow(InputError);
  });

  describe('reads and writes by the host', () => {
    test('every width, little-endian, unaligned', async () => {
      const { memory } = await machine();
      const at = memory.kmalloc(64);
      memory.writeU64(at, -2n);
      expect(memory.readU64(at)).toBe(0xffff_ffff_ffff_fffen);
      memory.writeU32(addrAdd(at, 3), 0x8899_aabb);
      expect(memory.readU32(addrAdd(at, 3))).toBe(0x8899_aabb);
      expect(memory.readU16(addrAdd(at, 4))).toBe(0x99aa);
      expect(memory.readU8(addrAdd(at, 6))).toBe(0x88);
      memory.writeU16(at, 0x1234);
      memory.writeU8(at, 0x56);
      expect(memory.readU16(at)).toBe(0x1256);
    });

    test('a view is live in both directions', async () => {
      const on = await machine();
      const at = on.memory.kmalloc(16);
      const view = on.memory.bytes(at, 16);
      const store = place(on, x86.code(x86.addRdiRsi, x86.ret));
      view[0] = 40;
      on.cpus[0]?.call(store, [at, 2n]);
      expect(view[0]).toBe(42);
    });

    test('ranges that are not mapped are refused', async () => {
      const { memory } = await machine();
      const end = kaddr(0x40_6000n);
      memory.map(kaddr(0x40_5000n), 4096, 'rw', 'page');
      for (const [offset, width] of [
        [-7, 8],
        [-3, 4],
        [-1, 2],
        [0, 1],
      ] as const) {
        const at = addrAdd(end, offset);
        const reads = { 8: 'readU64', 4: 'readU32', 2: 'readU16', 1: 'readU8' } as const;
        expect(() => memory[reads[width]](at)).toThrow(InputError);
        expect(() => memory.bytes(at, width)).toThrow(InputError);
        expect(() => memory.write(at, new Uint8Array(width))).toThrow(InputError);
      }
      expect(() => memory.bytes(kaddr(0x40_5000n), -1)).toThrow(InputError);
      expect(() => memory.bytes(kaddr(0x40_5000n), 1.5)).toThrow(InputError);
      expect(memory.bytes(kaddr(0x40_5000n), 4096).length).toBe(4096);
    });
  });

  describe('per-CPU memory', () => {
    test('has the static words, as the guest sees them too', async () => {
      const on = await machine({ cpus: 3 });
      const { percpu, memory } = on;
      expect(percpu.vars.stackCanary).toBe(0x28);
      for (const { id } of on.cpus) {
        expect(memory.readU64(percpu.address(percpu.vars.thisCpuOff, id))).toBe(percpu.base(id));
        expect(memory.readU32(percpu.address(percpu.vars.cpuNumber, id))).toBe(id);
        expect(memory.readU32(percpu.address(percpu.vars.preemptCount, id))).toBe(0);
        expect(memory.readU64(percpu.address(percpu.vars.stackCanary, id)) & 0xffn).toBe(0n);
        expect(memory.bytes(on.current(id), 256).every((byte) => byte === 0)).toBe(true);
      }
      expect(() => percpu.base(3)).toThrow(InputError);
      expect(() => percpu.address(0, -1)).toThrow(InputError);
    });

    test('alloc: zeroed on every CPU, aligned, apart; free: once', async () => {
      const { percpu, memory } = await machine({ cpus: 4 });
      const taken: [number, number][] = [];
      for (const [size, align] of [
        [8, 8],
        [1, 1],
        [64, 64],
        [24, 8],
        [4, 4],
      ] as const) {
        const offset = percpu.alloc(size, align);
        expect(offset % align).toBe(0);
        for (const [other, length] of taken)
          expect(offset >= other + length || other >= offset + size).toBe(true);
        taken.push([offset, size]);
        for (let cpu = 0; cpu < 4; cpu++) memory.bytes(percpu.address(offset, cpu), size).fill(0xee);
      }
      const [offset] = taken[0] as [number, number];
      percpu.free(offset);
      expect(() => percpu.free(offset)).toThrow(InputError);
      const again = percpu.alloc(8, 8);
      for (let cpu = 0; cpu < 4; cpu++) expect(memory.readU64(percpu.address(again, cpu))).toBe(0n);
      expect(() => percpu.alloc(0, 8)).toThrow(InputError);
      expect(() => percpu.alloc(8, 3)).toThrow(InputError);
      expect(() => percpu.alloc(PERCPU_UNIT, 8)).toThrow(KernelError);
    });

    test('setCurrent changes what the guest loads', async () => {
      const on: Machine = await machine({ cpus: 2 });
      const load = place(on, x86.code(x86.loadRaxGs(on.percpu.vars.currentTask), x86.ret));
      const task = on.memory.kmalloc(256);
      on.setCurrent(1, task);
      expect(on.current(1)).toBe(task);
      expect((on.cpus[1] as Vcpu).call(load).ret).toBe(task);
      expect((on.cpus[0] as Vcpu).call(load).ret).toBe(on.current(0));
      expect(on.current(0)).not.toBe(task);
    });
  });
});
