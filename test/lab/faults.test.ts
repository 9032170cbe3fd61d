/* Guest code that goes wrong: a typed fault, the lab alive, and the next call works. */

import { describe, expect, test } from 'vitest';
import { kaddr } from '../../lib/index.ts';
import { fixture, freshLab, labWith, symbolAddress } from './support.ts';

const BAD_PROGRAMS = [
  ['loops', 'again: jmp again', 'step-limit'],
  ['jumps to data', 'mov rax, rsp\njmp rax', 'fetch-data'],
  ['jumps to nowhere', 'mov rax, 0x1234\njmp rax', 'fetch-unmapped'],
  ['smashes its return address', 'mov qword ptr [rsp], 0\nret', 'fetch-unmapped'],
  ['returns past its own return address', 'add rsp, 8\nret', 'fetch-unmapped'],
  ['eats its stack', 'again: push rax\njmp again', 'stack-overflow'],
  ['divides by zero', 'xor ecx, ecx\nmov eax, 1\ncdq\nidiv ecx\nret', 'divide-error'],
  ['runs ud2', 'ud2', 'invalid-opcode'],
  ['runs int3', 'int3', 'int3'],
  ['reads nothing', 'xor eax, eax\nmov rax, [rax]\nret', 'read-unmapped'],
  ['writes nothing', 'xor eax, eax\nmov [rax], rax\nret', 'write-unmapped'],
  ['writes text', 'mov rax, offset shave_yak\nmov [rax], al\nret', 'write-text'],
  ['halts', 'hlt', 'halt'],
] as const;

describe('a program that', () => {
  test.each(BAD_PROGRAMS)('%s', async (_what, source, kind) => {
    const lab = await freshLab();
    lab.load(fixture('demo.o'));
    const probe = await lab.assemble('bad', source);
    const attachment = lab.attach('fentry', 'shave_yak', probe);
    const report = lab.call('shave_yak', [3], { watch: true, steps: 5000 });
    expect(report).toMatchObject({ ret: null, fault: { kind, cpu: 0 } });
    expect(report.seen).toMatchObject([{ program: 'bad', returned: undefined }]);
    const unwatched = lab.call('shave_yak', [3], { steps: 5000 });
    // The counter of the program that did not come back says that it still runs: it is skipped.
    expect(unwatched).toMatchObject({ ret: 6n, fault: null });
    expect(attachment.prog.counters(0)).toMatchObject({ active: 1, misses: 4n });
    // The task that died holds nothing up.
    attachment.detach();
    expect([...lab.kernel.retired]).toEqual([]);
    probe.put();
    expect(lab.kernel.kallsyms.named('bad')).toBeUndefined();
    expect(lab.call('shave_yak', [3])).toMatchObject({ ret: 6n, fault: null });
  });
});

describe('a function that', () => {
  test('recurses without end', async () => {
    const { lab } = await labWith('demo.o');
    lab.attach('fentry', 'shave_yak', await lab.assemble('probe', 'xor eax, eax\nret'));
    const { fault, instructions } = lab.call('shave_yak', [1_000_000]);
    expect(fault?.kind).toBe('stack-overflow');
    expect(instructions).toBe(fault?.instructions);
    expect(lab.call('shave_yak', [3])).toMatchObject({ ret: 6n, fault: null });
  });

  test('loops: the limit is exact, watched or not', async () => {
    const { lab } = await labWith('demo.o');
    await lab.loadText('spin: jmp spin');
    for (const watch of [false, true]) {
      for (const steps of [1, 2, 1000]) {
        expect(lab.call('spin', [], { steps, watch })).toMatchObject({
          instructions: steps,
          fault: { kind: 'step-limit' },
        });
      }
      const { instructions } = lab.call('shave_yak', [4], { watch });
      expect(lab.call('shave_yak', [4], { watch, steps: instructions }).ret).toBe(24n);
      expect(lab.call('shave_yak', [4], { watch, steps: instructions - 1 }).fault?.kind).toBe('step-limit');
    }
  });

  test('is freed while it runs', async () => {
    const lab = await freshLab();
    const target = lab.load(fixture('demo.o'), { as: 'module' });
    const [cpu] = lab.machine.cpus;
    cpu?.begin(symbolAddress(target, 'shave_yak'), [9n]);
    cpu?.run({ steps: 20 });
    lab.unload(target);
    const stopped = cpu?.run();
    expect(stopped).toMatchObject({ reason: 'fault', fault: { kind: 'freed-image' } });
    expect(stopped?.fault?.detail).toContain('demo text');
    expect(cpu?.inCall).toBe(false);
  });

  test('comes back into an image that was freed under it', async () => {
    const { lab, target } = await labWith('demo.o');
    lab.attach('fexit', 'schedule_coffee', await lab.assemble('probe', 'xor eax, eax\nret'));
    const [info] = lab.trampolines();
    const [cpu] = lab.machine.cpus;
    cpu?.begin(symbolAddress(target, 'schedule_coffee'), [1n, 0n, 1n]);
    cpu?.run({ stopAt: symbolAddress(target, 'grind_beans') });
    lab.machine.memory.freeText(info?.image ?? kaddr(0));
    const { fault } = cpu?.run() ?? {};
    expect(fault).toMatchObject({ kind: 'freed-image', symbol: { name: info?.ksym } });
  });

  test('a fault in an image names the emitter step', async () => {
    const { lab } = await labWith('demo.o');
    const probe = await lab.assemble('probe', 'xor eax, eax\nret');
    lab.attach('fexit', 'shave_yak', probe);
    const [info] = lab.trampolines();
    const steps = lab.call('shave_yak', [2], { watch: true }).instructions;
    // stopped after every instruction, also those in the image
    const named: string[] = [];
    for (let limit = 1; limit < steps; limit++) {
      const at = lab.call('shave_yak', [2], { steps: limit }).fault;
      if (at?.symbol?.name === info?.ksym) named.push(at?.step ?? '(none)');
    }
    expect(new Set(named)).toEqual(
      new Set([
        ...['prologue', 'save_regs', '__bpf_tramp_enter', 'call_orig', 'call_orig/restore_regs'],
        ...['fexit/invoke_bpf_prog/enter', 'fexit/invoke_bpf_prog'],
        ...['fexit/invoke_bpf_prog/exit', '__bpf_tramp_exit', 'epilogue'],
      ]),
    );
  });
});

test('a closed lab says so', async () => {
  const { lab, target } = await labWith('demo.o');
  const probe = await lab.assemble('probe', 'xor eax, eax\nret');
  const attachment = lab.attach('fentry', 'shave_yak', probe);
  lab.close();
  lab.close();
  const closed = 'lab: it is closed';
  expect(() => lab.call('shave_yak', [3])).toThrow(closed);
  expect(() => lab.load(fixture('wide.o'))).toThrow(closed);
  expect(() => lab.loadPrograms(fixture('probes.o'))).toThrow(closed);
  expect(() => lab.attach('fentry', 'shave_yak', probe)).toThrow(closed);
  expect(() => attachment.detach()).toThrow(closed);
  expect(() => lab.unload(target)).toThrow(closed);
  expect(() => lab.trampolines()).toThrow(closed);
  expect(() => lab.listing('shave_yak')).toThrow(closed);
  expect(() => lab.machine).toThrow(closed);
  expect(() => lab.kernel).toThrow(closed);
  await expect(lab.loadText('f: ret')).rejects.toThrow(closed);
  await expect(lab.assemble('f', 'ret')).rejects.toThrow(closed);
});
