import { expect, test } from 'vitest';
import { type AccessEvent, createMachine } from '../../emu/index.ts';
import { Assembler, gsPtr, piece, ptr, qword, rax, rbx, rcx, rdi } from '../../jit/index.ts';
import { addrAdd, InputError, type Kaddr } from '../../lib/index.ts';

test('a recording machine tells what was executed, read and written, in order', async () => {
  const machine = await createMachine({ record: true });
  const [cpu] = machine.cpus;
  if (cpu === undefined) throw new RangeError('no CPU');
  const data = machine.memory.kmalloc(16);
  const counter = machine.percpu.alloc(8, 8);
  const offsets: number[] = [];
  const text = machine.memory.allocText(64, 'recorded');
  const asm = new Assembler(text);
  piece('recorded', () => {
    const emit = (one: () => void): void => {
      offsets.push(asm.offset);
      one();
    };
    emit(() => asm.push(rbx));
    emit(() => asm.mov(rax, ptr(rdi, 8)));
    emit(() => asm.movImm32(rcx.as(4), counter));
    emit(() => asm.inc(qword(gsPtr(rcx))));
    emit(() => asm.pop(rbx));
    emit(() => asm.ret());
  })({ asm });
  machine.patchText(text, asm.bytes());
  cpu.recorded();

  cpu.call(text, [data]);
  const top = addrAdd(cpu.stack.top, 0);
  const events = cpu.recorded();
  const [pushRbx, load, imm, inc, popRbx, ret] = offsets.map((offset, i) => ({
    kind: 'execute',
    address: addrAdd(text, offset),
    sizeBytes: (offsets[i + 1] ?? asm.offset) - offset,
  }));
  const access = (kind: AccessEvent['kind'], address: Kaddr): AccessEvent => ({
    kind,
    address,
    sizeBytes: 8,
  });
  const returnSlot = events.find(({ kind }) => kind === 'write')?.address as Kaddr;
  expect(events.slice(0, -1)).toEqual([
    pushRbx,
    access('write', returnSlot),
    load,
    access('read', addrAdd(data, 8)),
    imm,
    inc,
    access('read', machine.percpu.address(counter, 0)),
    access('write', machine.percpu.address(counter, 0)),
    popRbx,
    access('read', returnSlot),
    ret,
    access('read', addrAdd(returnSlot, 8)),
  ]);
  expect(returnSlot).toBeLessThan(top);
  expect(events.at(-1)).toMatchObject({ kind: 'execute', sizeBytes: 1 });
  expect(cpu.recorded()).toEqual([]);
  machine.close();
});

test('a machine made without it says so', async () => {
  const machine = await createMachine();
  expect(() => machine.cpus[0]?.recorded()).toThrow(InputError);
  machine.close();
});

test('events beyond the buffer are an error, not a loss', async () => {
  const machine = await createMachine({ record: true });
  const [cpu] = machine.cpus;
  if (cpu === undefined) throw new RangeError('no CPU');
  const text = machine.memory.allocText(16, 'endless');
  machine.patchText(text, Uint8Array.of(0xeb, 0xfe));
  cpu.call(text, [], { steps: 300_000 });
  expect(() => cpu.recorded()).toThrow(/more than 262144 events/);
  expect(cpu.recorded()).toEqual([]);
  machine.close();
});
