import { describe, expect, test } from 'vitest';
import type { Machine, RegisterName, Vcpu } from '../../emu/index.ts';
import { addrAdd, InputError, type Kaddr } from '../../lib/index.ts';
import * as x86 from './code.ts';
import { onEachEngine, place, random } from './machines.ts';

onEachEngine((machine) => {
  function cpu(on: Machine, id = 0): Vcpu {
    return on.cpus[id] as Vcpu;
  }

  describe('call', () => {
    test('passes arguments, counts instructions, returns rax', async () => {
      const on = await machine();
      const add = place(on, x86.code(x86.leaRaxRdiRsi, x86.ret));
      expect(cpu(on).call(add, [-1n, 3n])).toEqual({ ret: 2n, instructions: 2, fault: null });
      expect(cpu(on).call(add, [1n << 63n, 0n]).ret).toBe(1n << 63n);
    });

    test('aligns the stack as the ABI has it', async () => {
      const on = await machine();
      const where = place(on, x86.code(x86.movRaxRsp, x86.ret));
      const { ret } = cpu(on).call(where);
      // Aligned before the call pushed the return address.
      expect((ret + 8n) % 16n).toBe(0n);
      expect(ret + 8n).toBe(cpu(on).stack.top);
      // The address on top is where the call returns to: not text of anybody's.
      expect(cpu(on).call(where).ret).toBe(ret);
    });

    test('refuses a seventh argument and changes nothing', async () => {
      const on = await machine();
      const add = place(on, x86.code(x86.leaRaxRdiRsi, x86.ret));
      cpu(on).regs.set('rdi', 5n);
      expect(() => cpu(on).call(add, [1n, 2n, 3n, 4n, 5n, 6n, 7n])).toThrow(InputError);
      expect(cpu(on).regs.get('rdi')).toBe(5n);
      expect(cpu(on).inCall).toBe(false);
    });

    test.each([-1, 1.5, Number.NaN])('refuses %d steps', async (steps) => {
      const on = await machine();
      const add = place(on, x86.code(x86.ret));
      expect(() => cpu(on).call(add, [], { steps })).toThrow(InputError);
      expect(cpu(on).call(add).fault).toBeNull();
    });

    test('a limit of exactly the instructions it takes is enough, one less is not', async () => {
      const on = await machine();
      const add = place(on, x86.code(x86.nop, x86.leaRaxRdiRsi, x86.ret));
      expect(cpu(on).call(add, [1n, 2n], { steps: 3 })).toEqual({ ret: 3n, instructions: 3, fault: null });
      expect(cpu(on).call(add, [1n, 2n], { steps: 2 })).toMatchObject({
        instructions: 2,
        fault: { kind: 'step-limit', rip: addrAdd(add, 5) },
      });
    });

    test('counts beyond 32 bits can be asked for', async () => {
      const on = await machine();
      const add = place(on, x86.code(x86.leaRaxRdiRsi, x86.ret));
      expect(cpu(on).call(add, [1n, 1n], { steps: 2 ** 40 })).toEqual({
        ret: 2n,
        instructions: 2,
        fault: null,
      });
    });
  });

  describe('begin and run', () => {
    test('any split of a call runs the same instructions as one piece', async () => {
      const on = await machine({ cpus: 2 });
      const counter = on.memory.kmalloc(8);
      // add [rdi], rsi; dec rsi; jne back; mov rax, [rdi]; ret
      const loop = place(
        on,
        x86.code(x86.addRdiRsi, [0x48, 0xff, 0xce], x86.jne8(-8), x86.loadRaxRdi, x86.ret),
      );
      const whole = cpu(on).call(loop, [counter, 100n]);
      expect(whole).toEqual({ ret: 5050n, instructions: 302, fault: null });

      const trail = singleStep(cpu(on, 1), loop, [counter, 100n]);
      expect(trail.length).toBe(whole.instructions);

      const next = random(7);
      for (let round = 0; round < 50; round++) {
        on.memory.writeU64(counter, 0n);
        cpu(on).begin(loop, [counter, 100n]);
        let done = 0;
        for (;;) {
          const steps = next(40);
          const result = cpu(on).run({ steps });
          done += result.instructions;
          if (result.reason === 'returned') break;
          expect(result).toEqual({ reason: 'steps', instructions: steps, fault: null });
          expect(cpu(on).regs.get('rip')).toBe(trail[done]);
        }
        expect(done).toBe(whole.instructions);
        expect(cpu(on).regs.get('rax')).toBe(5050n);
      }
    });

    /** rip before each instruction. */
    function singleStep(on: Vcpu, fn: Kaddr, args: bigint[]): bigint[] {
      const trail: bigint[] = [];
      on.begin(fn, args);
      do trail.push(on.regs.get('rip'));
      while (on.step().reason === 'steps');
      return trail;
    }

    test('stops before an address each time it comes by', async () => {
      const on = await machine();
      const loop = place(on, x86.code(x86.incRax, [0x48, 0xff, 0xce], x86.jne8(-8), x86.ret));
      const stopAt = addrAdd(loop, 3);
      cpu(on).begin(loop, [0n, 3n]);
      cpu(on).regs.set('rax', 0n);
      const seen: bigint[] = [];
      for (let i = 0; i < 3; i++) {
        expect(cpu(on).run({ stopAt })).toEqual({
          reason: 'stop',
          instructions: i === 0 ? 1 : 3,
          fault: null,
        });
        expect(cpu(on).regs.get('rip')).toBe(stopAt);
        seen.push(cpu(on).regs.get('rax'));
      }
      expect(seen).toEqual([1n, 2n, 3n]);
      expect(cpu(on).run({ stopAt, steps: 1 })).toEqual({ reason: 'steps', instructions: 1, fault: null });
      expect(cpu(on).run({ stopAt })).toEqual({ reason: 'returned', instructions: 2, fault: null });
    });

    test('stopAt at the last instruction, and steps of zero', async () => {
      const on = await machine();
      const f = place(on, x86.code(x86.nop, x86.ret));
      cpu(on).begin(f);
      expect(cpu(on).run({ steps: 0 })).toEqual({ reason: 'steps', instructions: 0, fault: null });
      expect(cpu(on).run({ stopAt: addrAdd(f, 1) }).reason).toBe('stop');
      expect(cpu(on).run({ stopAt: addrAdd(f, 1) })).toEqual({
        reason: 'returned',
        instructions: 1,
        fault: null,
      });
    });

    test('a fault in the first instruction after a stop there', async () => {
      const on = await machine();
      const f = place(on, x86.code(x86.nop, x86.ud2));
      cpu(on).begin(f);
      const stopAt = addrAdd(f, 1);
      cpu(on).run({ stopAt });
      expect(cpu(on).run({ stopAt })).toMatchObject({
        reason: 'fault',
        fault: { rip: stopAt, instructions: 1 },
      });
    });

    test('the step limit covers the whole of a call in pieces', async () => {
      const on = await machine({ stepLimit: 10 });
      const loop = place(on, x86.code(x86.jmpSelf));
      cpu(on).begin(loop);
      expect(cpu(on).run({ steps: 6 }).reason).toBe('steps');
      expect(cpu(on).run({ steps: 6 })).toMatchObject({
        reason: 'fault',
        instructions: 4,
        fault: { kind: 'step-limit', instructions: 10 },
      });
    });

    test('one call at a time; abort drops it', async () => {
      const on = await machine({ cpus: 2 });
      const f = place(on, x86.code(x86.movEax(1), x86.ret));
      cpu(on).begin(f);
      expect(cpu(on).inCall).toBe(true);
      expect(() => cpu(on).call(f)).toThrow(/in flight on CPU 0/);
      expect(() => cpu(on).begin(f)).toThrow(InputError);
      expect(cpu(on, 1).call(f).ret).toBe(1n);
      cpu(on).abort();
      expect(() => cpu(on).run()).toThrow(/no call is in flight/);
      expect(cpu(on).call(f).ret).toBe(1n);
    });

    test('calls on stacks of their own, switched on one vCPU', async () => {
      const on = await machine();
      // push rdi; nop; pop rax; ret
      const f = place(on, x86.code(x86.pushRdi, x86.nop, x86.popRax, x86.ret));
      const tasks = [11n, 22n, 33n].map((value) => {
        const top = addrAdd(on.memory.vmalloc(16384, 'task stack'), 16384);
        cpu(on).begin(f, [value], { stackTop: top });
        cpu(on).run({ steps: 2 });
        expect(on.memory.readU64(addrAdd(top, -16))).toBe(value);
        const context = cpu(on).saveContext();
        cpu(on).abort();
        return { value, context };
      });
      for (const { value, context } of tasks.reverse()) {
        cpu(on).restoreContext(context);
        expect(cpu(on).inCall).toBe(true);
        expect(cpu(on).run()).toEqual({ reason: 'returned', instructions: 2, fault: null });
        expect(cpu(on).regs.get('rax')).toBe(value);
      }
      expect(() => cpu(on).begin(f, [], { stackTop: addrAdd(cpu(on).stack.top, 4) })).toThrow(/aligned/);
      expect(() => cpu(on).begin(f, [], { stackTop: cpu(on).stack.guard })).toThrow(/not mapped/);
      expect(cpu(on).inCall).toBe(false);
    });

    test('a context moves to another CPU and sees its per-CPU area', async () => {
      const on = await machine({ cpus: 2 });
      const { thisCpuOff } = on.percpu.vars;
      const f = place(on, x86.code(x86.nop, x86.loadRaxGs(thisCpuOff), x86.ret));
      cpu(on).begin(f);
      cpu(on).step();
      cpu(on, 1).restoreContext(cpu(on).saveContext());
      expect(cpu(on, 1).run().reason).toBe('returned');
      expect(cpu(on, 1).regs.get('rax')).toBe(on.percpu.base(1));
      const other = await machine();
      expect(() => cpu(other).restoreContext(cpu(on).saveContext())).toThrow(InputError);
    });
  });

  test('registers by name survive between calls', async () => {
    const on = await machine();
    const f = place(on, x86.code(x86.nop, x86.ret));
    const calleeSaved: RegisterName[] = ['rbx', 'rbp', 'r12', 'r13', 'r14', 'r15'];
    calleeSaved.forEach((name, i) => {
      cpu(on).regs.set(name, 0xdead_0000_0000_0000n + BigInt(i));
    });
    cpu(on).call(f);
    expect(calleeSaved.map((name) => cpu(on).regs.get(name))).toEqual(
      calleeSaved.map((_, i) => 0xdead_0000_0000_0000n + BigInt(i)),
    );
  });

  test('64 vCPUs, each with its own GS_BASE, stack and task', async () => {
    const on = await machine({ cpus: 64 });
    const { percpu, memory } = on;
    const slot = percpu.alloc(8, 8);
    const { thisCpuOff, cpuNumber, currentTask } = percpu.vars;
    const setSlot = place(on, x86.code(x86.storeGsRdi(slot), x86.movRaxRsp, x86.ret));
    const readGs = (offset: number): Kaddr => place(on, x86.code(x86.loadRaxGs(offset), x86.ret));
    const readers = [thisCpuOff, cpuNumber, currentTask, slot].map(readGs);
    const stacks = on.cpus.map((vcpu) => vcpu.call(setSlot, [BigInt(1000 + vcpu.id)]).ret);
    expect(new Set(stacks).size).toBe(64);
    for (const vcpu of on.cpus) {
      const { id, stack } = vcpu;
      expect(stacks[id]).toBe(addrAdd(stack.top, -8));
      const [offset, number, task, value] = readers.map((reader) => vcpu.call(reader).ret);
      expect(offset).toBe(percpu.base(id));
      expect(Number(BigInt.asUintN(32, number ?? 0n))).toBe(id);
      expect(task).toBe(on.current(id));
      expect(value).toBe(BigInt(1000 + id));
      expect(memory.readU64(percpu.address(slot, id))).toBe(BigInt(1000 + id));
    }
    expect(new Set(on.cpus.map(({ id }) => on.current(id))).size).toBe(64);
  });
});
