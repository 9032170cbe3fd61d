import { describe, expect, test } from 'vitest';
import { createMachine } from '../../emu/index.ts';
import { type CallArgument, createLab } from '../../lab/index.ts';
import { type AttachKind, Kernel } from '../../tramp/index.ts';
import { freshLab, labWith } from './support.ts';

/* What a program in JavaScript can hand in although the types forbid it, and what guests can do to a lab. */

describe('arguments of the library', () => {
  test('a revision, a kind, an argument that there is not', async () => {
    const unknown = createLab({ revision: 'v9' as 'v5.15' });
    await expect(unknown).rejects.toThrow('no revision v9 to run; there are v5.13, v5.15, v6.1, v6.12');
    const machine = await createMachine();
    expect(() => new Kernel(machine, { revision: 'v6.2' as 'v6.1' })).toThrow('no revision v6.2 to run');
    machine.close();
    const { lab, probes } = await labWith('demo.o');
    const code = probes.program('coffee_entry');
    expect(() => lab.attach('bogus' as AttachKind, 'shave_yak', code)).toThrow(
      'no kind bogus; there are fentry',
    );
    for (const bad of ['abc', '2', new Uint8Array(1), 1.5, undefined]) {
      expect(() => lab.call('shave_yak', [bad as unknown as CallArgument])).toThrow(
        'give an integer, or { bytes }',
      );
    }
    expect(() => lab.call('cpu_is_awake', [2n ** 40n])).toThrow('cannot hold');
  });

  test('a program of another lab', async () => {
    const { lab } = await labWith('demo.o');
    const other = await freshLab();
    const code = await other.assemble('stranger', 'xor eax, eax\nret');
    expect(() => lab.attach('fentry', 'shave_yak', code)).toThrow('stranger is loaded in another lab');
  });

  test('a bool is 0 or 1', async () => {
    const lab = await freshLab();
    await lab.loadText('f: call __fentry__\nmov eax, edi\nret', 'f.s');
    lab.prototype('int f(bool yes)');
    expect(lab.call('f', [1]).ret).toBe(1n);
    expect(() => lab.call('f', [2])).toThrow('(bool) cannot hold 2');
  });
});

describe('guests that misbehave', () => {
  test('a program that comes back with another rsp has not returned', async () => {
    const { lab } = await labWith('demo.o');
    lab.attach('fentry', 'shave_yak', await lab.assemble('crooked', 'mov eax, 7\nret 8'));
    lab.attach('fentry', 'cpu_is_awake', await lab.assemble('straight', 'mov eax, 8\nret'));
    const { seen } = lab.call('shave_yak', [0], { watch: true });
    expect(seen.map(({ program, returned }) => [program, returned])).toEqual([['crooked', undefined]]);
    expect(lab.call('cpu_is_awake', [1], { watch: true }).seen[0]?.returned).toBe(8n);
  });

  test('port I/O is the same fault, watched or not', async () => {
    // on two CPUs: the counter of a program that died stays up, so it is skipped where it died
    const { lab } = await labWith('demo.o', { cpus: 2 });
    lab.attach('fentry', 'shave_yak', await lab.assemble('ports', 'in al, 0x60\nret'));
    const [plain, watched] = [false, true].map(
      (watch) => lab.call('shave_yak', [1], { watch, cpu: watch ? 1 : 0 }).fault,
    );
    expect(plain?.kind).toBe('port-io');
    expect(watched?.rip).toBe(plain?.rip);
    expect(watched?.kind).toBe('port-io');
  });

  test('one that wipes its per-CPU area ends in a fault, and the next call works', async () => {
    const { lab, probes } = await labWith('demo.o');
    const { currentTask } = lab.machine.percpu.vars;
    const code = `xor eax, eax\nmov gs:[${currentTask}], rax\nret`;
    const attached = lab.attach('fentry', 'shave_yak', await lab.assemble('wipe', code));
    expect(lab.call('shave_yak', [1]).fault?.kind).toBe('read-unmapped');
    attached.detach();
    lab.attach('fentry', 'cpu_is_awake', probes.program('coffee_entry'));
    expect(lab.call('cpu_is_awake', [1])).toMatchObject({ fault: null });
  });
});
