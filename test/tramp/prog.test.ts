import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { createGuest, type Guest, Ledger } from '../../check/index.ts';
import { BpfProg, linkProg, unlinkProg } from '../../tramp/index.ts';

let guest: Guest;

beforeEach(async () => {
  guest = await createGuest();
});
afterEach(() => guest.close());

describe('references to a program', () => {
  test('the last one frees it, once a grace period of RCU is over', () => {
    const { prog } = guest.addProgram('p', 'fentry');
    prog.get();
    prog.put();
    guest.kernel.settle();
    expect([prog.references, prog.freed]).toEqual([1, false]);
    prog.put();
    expect([prog.references, prog.freed, guest.kernel.progs.has(prog)]).toEqual([0, false, true]);
    guest.kernel.settle();
    expect([prog.freed, guest.kernel.progs.has(prog)]).toEqual([true, false]);
    expect(guest.kernel.kallsyms.named('bpf_prog_p')).toBeUndefined();
  });

  test('a sleepable one waits for RCU-tasks-trace', () => {
    const { prog } = guest.addProgram('p', 'fentry', { sleepable: true });
    prog.put();
    const { flavours } = guest.kernel.grace;
    expect([flavours.rcu.pending, flavours['rcu-tasks-trace'].pending]).toEqual([0, 1]);
  });

  test('none is taken or dropped once they are gone', () => {
    const { prog } = guest.addProgram('p', 'fentry');
    prog.put();
    expect(() => prog.get()).toThrow('program p is gone');
    expect(() => prog.put()).toThrow('program p is put once too often');
  });
});

test('more programs than there is room for mappings: all run, and all memory comes back', () => {
  const { kernel, machine } = guest;
  const code = guest.addProgram('first', 'fentry');
  const f = guest.addFunction('f');
  const memory = new Ledger(machine);
  const progs = Array.from(
    { length: 2000 },
    (_, i) => new BpfProg(kernel, { name: `p${i}`, kind: 'fentry', bpfFunc: code.prog.bpfFunc }),
  );
  const tr = kernel.trampolines.get(kernel, f.key, f);
  const last = progs.at(-1) as BpfProg;
  linkProg(kernel, last, tr);
  kernel.statsEnabled = true;
  expect(machine.cpus[0]?.call(f.addr, [1n, 2n])).toMatchObject({ ret: 3n, fault: null });
  expect(last.counters(0).runs).toBe(1n);
  unlinkProg(kernel, last, tr);
  for (const prog of progs) prog.put();
  kernel.settle();
  expect(kernel.progs.size).toBe(1);
  expect(memory.taken).toEqual({ kmalloc: 0, vmalloc: 0, text: 0, percpu: 0 });
});
