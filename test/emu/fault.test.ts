import { describe, expect, test } from 'vitest';
import type { Fault, Machine, Vcpu } from '../../emu/index.ts';
import { addrAdd, type Kaddr, kaddr } from '../../lib/index.ts';
import * as x86 from './code.ts';
import { onEachEngine, place } from './machines.ts';

onEachEngine((machine, layout, engine) => {
  interface Scene {
    readonly machine: Machine;
    readonly cpu: Vcpu;
    /** Calls bytes at `f`, behind two nops, and returns the fault. */
    fault(bytes: readonly number[], ...args: bigint[]): Fault;
    f: Kaddr;
  }

  async function scene(): Promise<Scene> {
    const on = await machine({ cpus: 2 });
    const cpu = on.cpus[1] as Vcpu;
    const f = place(on, x86.code(...Array<number>(64).fill(x86.nop)));
    return {
      machine: on,
      cpu,
      f,
      fault: (bytes, ...args) => {
        on.patchText(f, x86.code(x86.nop, x86.nop, bytes, x86.ret));
        const { fault, ret } = cpu.call(f, args);
        expect(ret).toBe(0n);
        if (fault === null) throw new Error('no fault');
        expect(stepped(cpu, f, args)).toEqual(fault);
        return fault;
      },
    };
  }

  /** The fault of the same call, made one instruction at a time. */
  function stepped(cpu: Vcpu, f: Kaddr, args: bigint[]): Fault | null {
    cpu.begin(f, args);
    for (;;) {
      const { reason, fault } = cpu.step();
      if (reason !== 'steps') return fault;
    }
  }

  /** After any fault the vCPU works. */
  function expectWell({ machine: on, cpu }: Scene): void {
    const add = place(on, x86.code(x86.leaRaxRdiRsi, x86.ret), 'add');
    expect(cpu.call(add, [40n, 2n])).toEqual({ ret: 42n, instructions: 2, fault: null });
  }

  describe('faults of data accesses', () => {
    test('unmapped memory', async () => {
      const on = await scene();
      const address = addrAdd(layout.directMap.start, 0x4000_0000);
      expect(on.fault(x86.loadRaxRdi, address)).toMatchObject({
        kind: 'read-unmapped',
        cpu: 1,
        rip: addrAdd(on.f, 2),
        address,
        size: 8,
        instructions: 2,
        symbol: { name: 'f', offset: 2 },
      });
      expect(on.fault(x86.storeRdiRsi, address)).toMatchObject({ kind: 'write-unmapped', address, size: 8 });
      expect(on.fault(x86.loadRaxRdi, 0x10n).detail).toMatch(
        /read of 8 bytes at 0x10: a null pointer, at 0x/,
      );
      expectWell(on);
    });

    test('stores to text, live, free and freed, and to read-only data', async () => {
      const on = await scene();
      const { memory } = on.machine;
      const before = memory.bytes(on.f, 16).slice();
      expect(on.fault(x86.storeRdiRsi, on.f, 0x1234n)).toMatchObject({ kind: 'write-text', address: on.f });
      expect(before.length).toBe(16);
      expect([...memory.bytes(on.f, 2)]).toEqual([x86.nop, x86.nop]);
      const image = memory.allocText(4096, 'image');
      memory.freeText(image);
      expect(on.fault(x86.storeRdiRsi, image, 1n)).toMatchObject({ kind: 'write-text' });
      expect(on.fault(x86.storeRdiRsi, addrAdd(image, 4096), 1n)).toMatchObject({ kind: 'write-text' });
      const rodata = memory.allocRodata(16, '.rodata');
      memory.write(rodata, Uint8Array.of(1, 2, 3));
      expect(on.fault(x86.storeRdiRsi, rodata, 9n)).toMatchObject({ kind: 'write-rodata', address: rodata });
      expect(memory.readU32(rodata)).toBe(0x030201);
      expectWell(on);
    });

    test('addresses that are not canonical are #GP', async () => {
      const on = await scene();
      const address = 0x6b6b_6b6b_6b6b_6b6bn;
      expect(on.fault(x86.loadRaxRdi, address)).toMatchObject({
        kind: 'general-protection',
        address,
        vector: 13,
      });
      expect(on.fault(x86.storeRdiRsi, address)).toMatchObject({ kind: 'general-protection' });
      expect(on.fault(x86.jmpRdi, address)).toMatchObject({ kind: 'general-protection', rip: address });
      expectWell(on);
    });

    test('a pointer read from freed memory is not canonical', async () => {
      const on = await scene();
      const object = on.machine.memory.kmalloc(64);
      on.machine.memory.kfree(object);
      // mov rax, [rdi]; mov rax, [rax]
      expect(on.fault([...x86.loadRaxRdi, 0x48, 0x8b, 0x00], object)).toMatchObject({
        kind: 'general-protection',
      });
    });
  });

  describe('guard pages', () => {
    test('a stack that overflows', async () => {
      const on = await scene();
      const { stack } = on.cpu;
      // 2 nops, then push/jmp for as many words as fit below the return address.
      const pushes = Number(stack.top - stack.base) / 8 - 1;
      const fault = on.fault([x86.pushRax, ...x86.jmp8(-3)]);
      expect(fault).toMatchObject({
        kind: 'stack-overflow',
        address: addrAdd(stack.base, -8),
        size: 8,
        rip: addrAdd(on.f, 2),
        instructions: 2 + 2 * pushes,
      });
      expect(fault.detail).toContain('guard page of stack of CPU 1');
      expect(stack.guard).toBe(addrAdd(stack.base, -4096));
      expectWell(on);
    });

    test('both sides of a vmalloc area, and what was freed', async () => {
      const on = await scene();
      const area = on.machine.memory.vmalloc(5000, 'map value');
      for (const address of [addrAdd(area, -1), addrAdd(area, 8192), addrAdd(area, 8185)]) {
        expect(on.fault(x86.storeRdiRsi, address)).toMatchObject({ kind: 'stack-overflow' });
      }
      expect(on.fault(x86.jmpRdi, addrAdd(area, -4096))).toMatchObject({ kind: 'fetch-unmapped' });
      on.machine.memory.vfree(area);
      const freed = on.fault(x86.loadRaxRdi, area);
      expect(freed).toMatchObject({ kind: 'read-unmapped', address: area });
      expect(freed.detail).toContain('map value was there, and is freed');
    });
  });

  describe('faults of fetches', () => {
    test('data, rodata, stack and nothing', async () => {
      const on = await scene();
      const { memory } = on.machine;
      const targets: [Kaddr, string][] = [
        [memory.kmalloc(64), 'fetch-data'],
        [memory.allocData(64, '.data'), 'fetch-data'],
        [memory.allocRodata(64, '.rodata'), 'fetch-data'],
        [on.machine.percpu.base(1), 'fetch-data'],
        [on.cpu.stack.base, 'fetch-data'],
        [addrAdd(layout.directMap.start, 0x4000_0000), 'fetch-unmapped'],
        [kaddr(0n), 'fetch-unmapped'],
        // A page of text that was never allocated.
        [addrAdd(on.f, 3 * 4096), 'fetch-unmapped'],
      ];
      for (const [target, kind] of targets) {
        expect(on.fault(x86.jmpRdi, target)).toMatchObject({
          kind,
          rip: target,
          address: target,
          instructions: 3,
        });
        expect(on.cpu.call(target)).toMatchObject({ ret: 0n, fault: { kind, rip: target, instructions: 0 } });
      }
      expectWell(on);
    });

    test('a freed image is named, wherever in it one lands', async () => {
      const on = await scene();
      const { memory } = on.machine;
      const image = place(on.machine, x86.code(x86.movEax(1), x86.ret), 'bpf_trampoline_6442536467');
      expect(on.cpu.call(image).ret).toBe(1n);
      memory.freeText(image);
      for (const offset of [0, 1, 4095]) {
        const rip = addrAdd(image, offset);
        const symbol = { name: 'bpf_trampoline_6442536467', offset };
        expect(on.fault(x86.jmpRdi, rip)).toMatchObject({ kind: 'freed-image', rip, address: rip, symbol });
      }
      expectWell(on);
    });

    test('an image freed while a call is in it', async () => {
      const on = await scene();
      const image = place(on.machine, x86.code(x86.nop, x86.nop, x86.ret), 'image');
      on.cpu.begin(image);
      expect(on.cpu.step().reason).toBe('steps');
      on.machine.memory.freeText(image);
      expect(on.cpu.run()).toMatchObject({
        reason: 'fault',
        instructions: 0,
        fault: {
          kind: 'freed-image',
          rip: addrAdd(image, 1),
          instructions: 1,
          symbol: { name: 'image', offset: 1 },
        },
      });
      expect(on.cpu.inCall).toBe(false);
      expectWell(on);
    });

    test('text of a mapping of its own, unmapped and mapped again', async () => {
      const on = await scene();
      const { memory } = on.machine;
      const at = layout.kernelData.end;
      const vmlinux = memory.map(at, 8192, 'rx', 'vmlinux');
      on.machine.patchText(at, x86.code(x86.movEax(3), x86.ret));
      expect(on.cpu.call(at).ret).toBe(3n);
      memory.unmap(vmlinux);
      expect(on.cpu.call(addrAdd(at, 4096)).fault).toMatchObject({
        kind: 'freed-image',
        symbol: { name: 'vmlinux', offset: 4096 },
      });
      memory.map(at, 4096, 'rx', 'again');
      expect(on.cpu.call(at).fault).toMatchObject({ kind: 'int3', rip: at });
      on.machine.patchText(at, x86.code(x86.movEax(4), x86.ret));
      expect(on.cpu.call(at).ret).toBe(4n);
      expect(on.cpu.call(addrAdd(at, 4096)).fault).toMatchObject({ kind: 'fetch-unmapped' });
    });
  });

  describe('other faults', () => {
    test.each([
      ['int3', [x86.int3], { kind: 'int3', vector: 3 }],
      ['ud2', x86.ud2, { kind: 'invalid-opcode', vector: 6 }],
      ['an opcode that does not exist', [0x06], { kind: 'invalid-opcode' }],
      ['divide error', [...x86.divEcx], { kind: 'divide-error', vector: 0 }],
      ['int 0x80', [0xcd, 0x80], { kind: 'interrupt', vector: 0x80 }],
      ['a far jump to a null selector', [0xff, 0x2f], { kind: 'general-protection', vector: 13 }],
      ['syscall', x86.syscall, { kind: 'syscall' }],
      ['in al, 0x80', [0xe4, 0x80], { kind: 'port-io' }],
      ['hlt', [x86.hlt], { kind: 'halt' }],
    ])('%s', async (_, bytes, expected) => {
      const on = await scene();
      const zeroed = on.machine.memory.kmalloc(64);
      for (let round = 0; round < 2; round++) {
        expect(on.fault(bytes, zeroed, 0n, 0n, 0n)).toMatchObject({
          ...expected,
          cpu: 1,
          rip: addrAdd(on.f, 2),
          instructions: 2,
          symbol: { name: 'f', offset: 2 },
        });
      }
      expectWell(on);
    });

    test('the step limit, of the call and of the machine', async () => {
      const on = await scene();
      on.machine.patchText(on.f, x86.code(x86.nop, x86.jmpSelf));
      expect(on.cpu.call(on.f, [], { steps: 1000 })).toMatchObject({
        instructions: 1000,
        fault: { kind: 'step-limit', rip: addrAdd(on.f, 1), instructions: 1000 },
      });
      const limited = await machine({ stepLimit: 77 });
      const loop = place(limited, x86.code(x86.jmpSelf));
      expect(limited.cpus[0]?.call(loop)).toMatchObject({ instructions: 77, fault: { kind: 'step-limit' } });
      expectWell(on);
    });

    test('symbol and step come from the locator', async () => {
      const on = await scene();
      on.machine.locate = (address) =>
        address === addrAdd(on.f, 2)
          ? { symbol: 'bpf_trampoline_1', offset: 18, step: 'invoke_bpf_prog' }
          : undefined;
      const fault = on.fault(x86.ud2);
      expect(fault).toMatchObject({
        symbol: { name: 'bpf_trampoline_1', offset: 18 },
        step: 'invoke_bpf_prog',
      });
      expect(fault.detail).toBe(
        `invalid opcode, at 0x${addrAdd(on.f, 2).toString(16)} (bpf_trampoline_1+0x12, invoke_bpf_prog) ` +
          'on CPU 1 after 2 instructions',
      );
      on.machine.locate = () => undefined;
      const bare = on.fault(x86.ud2);
      expect(bare).not.toHaveProperty('symbol');
      expect(bare).not.toHaveProperty('step');
    });

    test('memory stays as the guest left it', async () => {
      const on = await scene();
      const object = on.machine.memory.kmalloc(8);
      on.fault([...x86.storeRdiRsi, ...x86.ud2], object, 0x1122n);
      expect(on.machine.memory.readU64(object)).toBe(0x1122n);
    });

    test.runIf(engine === 'unicorn')(
      'what aborts libunicorn is a fault, and nothing is lost but translations',
      async () => {
        const on = await scene();
        const untouched = on.machine.memory.kmalloc(8);
        const gs = place(on.machine, x86.code(x86.loadRaxGs(on.machine.percpu.vars.thisCpuOff), x86.ret));
        on.cpu.regs.set('rbx', 77n);
        // jmp far cx: there is no such form, and QEMU's translator gives up on it.
        on.machine.patchText(on.f, x86.code(x86.nop, x86.nop, [0xff, 0xe9], x86.ret));
        const { fault } = on.cpu.call(on.f, [untouched]);
        expect(fault).toMatchObject({ kind: 'invalid-opcode', vector: 6, rip: on.f, instructions: 0 });
        expect(on.cpu.regs.get('rbx')).toBe(77n);
        expect(on.cpu.call(gs).ret).toBe(on.machine.percpu.base(1));
        on.machine.patchText(gs, x86.code(x86.movEax(3), x86.ret));
        expect(on.machine.cpus.map((cpu) => cpu.call(gs).ret)).toEqual([3n, 3n]);
        const later = on.machine.memory.vmalloc(4096);
        on.machine.memory.vfree(later);
        expect(on.fault(x86.loadRaxRdi, later).kind).toBe('read-unmapped');
        expectWell(on);
      },
    );

    test('hostile bytes of every kind end in a fault or a return, and the process lives', async () => {
      const on = await machine({ stepLimit: 2000, counting: false, timeLimitMs: 1000 });
      const cpu = on.cpus[0] as Vcpu;
      const f = on.memory.allocText(64, 'f');
      const add = place(on, x86.code(x86.leaRaxRdiRsi, x86.ret));
      const object = on.memory.kmalloc(4096);
      let faults = 0;
      for (let first = 0; first < 256; first++) {
        for (const second of [0x00, 0x01, 0x05, 0x0b, 0x22, 0x30, 0x7f, 0xc0, 0xcf, 0xd8, 0xf8, 0xff]) {
          for (const prefix of [[], [0x0f], [0x48, 0x0f], [0xf3, 0x0f], [0x0f, 0x01], [0xf0]]) {
            // mov dr: see unicorn/abort-guard.ts.
            if (prefix.at(-1) === 0x0f && first === 0x23) continue;
            on.patchText(f, x86.code(prefix, first, second, Array<number>(12).fill(x86.nop), x86.ret));
            const { fault } = cpu.call(f, [object, object]);
            if (fault !== null) faults++;
          }
        }
      }
      expect(faults).toBeGreaterThan(1000);
      // Privileged instructions may have changed the mode; the first fault brings the vCPU back.
      on.patchText(f, x86.code(x86.ud2));
      cpu.call(f);
      expect(cpu.call(add, [1n, 2n]).ret).toBe(3n);
    });
  });
});
