/* Programs and functions that call each other, on one CPU and on several. */

import { describe, expect, test } from 'vitest';
import type { Attachment } from '../../lab/index.ts';
import { MANAGED_REVISIONS } from '../../tramp/index.ts';
import { labWith, symbolAddress } from './support.ts';

const misses = (attachment: Attachment, cpus: number): bigint[] =>
  Array.from({ length: cpus }, (_, cpu) => attachment.prog.counters(cpu).misses);

describe.each(MANAGED_REVISIONS)('%s', (revision) => {
  test.each([
    ['fentry', false],
    ['fexit', false],
    ['fmod_ret', false],
    ['fentry', true],
    ['fexit', true],
  ] as const)(
    'a program that calls the function it traces is skipped there: %s, sleepable %s',
    async (kind, sleepable) => {
      const { lab, probes } = await labWith('demo.o', { revision });
      const attachment = lab.attach(kind, 'schedule_coffee', probes.program('coffee_nested'), { sleepable });
      const { seen, fault, ret } = lab.call('schedule_coffee', [1, 2, 300], { watch: true });
      expect(fault).toBeNull();
      expect(ret).toBe(29n);
      expect(seen.map(({ depth, returned }) => [depth, returned])).toEqual([[0, 0n]]);
      const globals = new Map(probes.globals().map(({ name, bytes }) => [name, bytes[0]]));
      expect([globals.get('nested_runs'), globals.get('nested_result')]).toEqual([1, 27]);
      expect(misses(attachment, 1)).toEqual([1n]);
      expect(attachment.prog.counters(0).active).toBe(0);
      // an unwatched call counts the same
      expect(lab.call('schedule_coffee', [0, 2, 300]).fault).toBeNull();
      expect(misses(attachment, 1)).toEqual([2n]);
    },
  );

  test('only the program itself is skipped: its neighbours see the nested call', async () => {
    const { lab, probes } = await labWith('demo.o', { revision });
    const nested = lab.attach('fentry', 'schedule_coffee', probes.program('coffee_nested'));
    const entry = lab.attach('fentry', 'schedule_coffee', probes.program('coffee_entry'));
    const exit = lab.attach('fexit', 'schedule_coffee', probes.program('coffee_exit'));
    const { seen } = lab.call('schedule_coffee', [2, 1, 300], { watch: true });
    expect(seen.map(({ program, depth, args }) => [program, depth, args[0]])).toEqual([
      ['coffee_entry', 0, 2n],
      ['coffee_nested', 0, 2n],
      ['coffee_entry', 1, 1n],
      ['coffee_exit', 1, 1n],
      ['coffee_exit', 0, 2n],
    ]);
    expect([nested, entry, exit].map((attachment) => misses(attachment, 1))).toEqual([[1n], [0n], [0n]]);
  });

  test('two programs that call the traced function stop each other at depth 2', async () => {
    const { lab, probes } = await labWith('demo.o', { revision });
    const inner = lab.attach('fentry', 'schedule_coffee', probes.program('coffee_nested'));
    const outer = lab.attach('fexit', 'schedule_coffee', probes.program('coffee_nested'));
    const { seen } = lab.call('schedule_coffee', [1, 1, 300], { watch: true });
    expect(seen.map(({ prog, kind, depth }) => [prog === inner.prog, kind, depth])).toEqual([
      [true, 'fentry', 0],
      [false, 'fexit', 1],
      [false, 'fexit', 0],
      [true, 'fentry', 1],
    ]);
    expect([misses(inner, 1), misses(outer, 1)]).toEqual([[3n], [3n]]);
  });

  test('a traced function that calls itself is traced at every depth', async () => {
    const { lab } = await labWith('demo.o', { revision });
    const fexit = lab.attach('fexit', 'shave_yak', await lab.assemble('probe', 'xor eax, eax\nret'));
    const { seen, ret } = lab.call('shave_yak', [6], { watch: true });
    expect(ret).toBe(720n);
    expect(seen.map(({ args, ret: result, depth }) => [args[0], result, depth])).toEqual([
      [0n, 1n, 0],
      [1n, 1n, 0],
      [2n, 2n, 0],
      [3n, 6n, 0],
      [4n, 24n, 0],
      [5n, 120n, 0],
      [6n, 720n, 0],
    ]);
    expect(misses(fexit, 1)).toEqual([0n]);
  });

  test('misses are counted on the CPU where they happen', async () => {
    const { lab, probes } = await labWith('demo.o', { revision, cpus: 4 });
    const attachment = lab.attach('fentry', 'schedule_coffee', probes.program('coffee_nested'));
    for (const [cpu, times] of [1, 0, 3, 2].entries()) {
      for (let i = 0; i < times; i++) {
        expect(lab.call('schedule_coffee', [0, 0, 300], { cpu }).fault).toBeNull();
      }
    }
    expect(misses(attachment, 4)).toEqual([1n, 0n, 3n, 2n]);
  });

  test('the counter is per CPU: a program runs on one CPU while it runs on another', async () => {
    const { lab, target, probes } = await labWith('demo.o', { revision, cpus: 2 });
    const attachment = lab.attach('fentry', 'schedule_coffee', probes.program('coffee_entry'));
    const entry = symbolAddress(target, 'schedule_coffee');
    const inside = symbolAddress(probes, 'coffee_entry');
    const [a, b] = lab.machine.cpus;
    if (a === undefined || b === undefined) throw new Error('two CPUs');
    a.begin(entry, [1n, 0n, 1n]);
    b.begin(entry, [1n, 0n, 1n]);
    expect(a.run({ stopAt: inside }).reason).toBe('stop');
    expect(attachment.prog.counters(0).active).toBe(1);
    expect(b.run({ stopAt: inside }).reason).toBe('stop');
    expect([0, 1].map((cpu) => attachment.prog.counters(cpu).active)).toEqual([1, 1]);
    // instruction by instruction, in turn
    while (a.inCall || b.inCall) {
      for (const cpu of [a, b]) if (cpu.inCall) expect(cpu.step().fault).toBeNull();
    }
    expect([0, 1].map((cpu) => attachment.prog.counters(cpu))).toMatchObject([
      { active: 0, misses: 0n },
      { active: 0, misses: 0n },
    ]);
    const runs = probes.globals().find(({ name }) => name === 'entry_runs');
    expect(runs?.bytes[0]).toBe(2);
  });
});

test('a call on one CPU waits for no other', async () => {
  const { lab } = await labWith('demo.o', { cpus: 64 });
  lab.attach('fexit', 'schedule_coffee', await lab.assemble('probe', 'xor eax, eax\nret'));
  for (let cpu = 0; cpu < 64; cpu++) {
    const { ret, fault } = lab.call('shave_yak', [5], { cpu });
    expect([ret, fault]).toEqual([120n, null]);
  }
});

test('what the instruction callback throws comes out, and the CPU can be used again', async () => {
  const { lab } = await labWith('demo.o');
  const stop = new RangeError('enough');
  expect(() =>
    lab.call('shave_yak', [5], {
      onInstruction: () => {
        throw stop;
      },
    }),
  ).toThrow(stop);
  expect(lab.call('shave_yak', [5]).ret).toBe(120n);
});

test('programs may come and go in the middle of a watched call', async () => {
  const { lab, target } = await labWith('demo.o', { cpus: 2 });
  const probe = await lab.assemble('probe', 'xor eax, eax\nret');
  const entry = symbolAddress(target, 'shave_yak');
  const attached: Attachment[] = [lab.attach('fexit', 'shave_yak', probe)];
  let entries = 0;
  const { seen, ret, fault } = lab.call('shave_yak', [6], {
    onInstruction: ({ address }) => {
      if (address !== entry) return;
      // The entry is about to run: from now on it calls another image, or none.
      entries++;
      if (entries === 3) attached.push(lab.attach('fentry', 'shave_yak', probe));
      if (entries === 5) for (const each of attached.splice(0)) each.detach();
      // calls on another CPU do not disturb; on this one they are refused
      expect(lab.call('shave_yak', [1], { cpu: 1 }).ret).toBe(1n);
      expect(() => lab.call('shave_yak', [1])).toThrow('a call is in flight on CPU 0');
    },
  });
  expect([ret, fault, entries]).toEqual([720n, null, 7]);
  const kinds = seen.map(({ kind, args }) => `${kind} ${args[0]}`);
  // Depths 6 and 5 went through the first image, 4 and 3 through the second; both images are retired on the
  // way, so that what comes back into them jumps over fexit programs.
  expect(kinds).toEqual(['fentry 4', 'fentry 3']);
  expect([...lab.kernel.retired]).toEqual([]);
  expect(lab.kernel.modmem.pages).toBe(0);
});

test('a program that jumps back to its first instruction has run once', async () => {
  const { lab } = await labWith('demo.o');
  const source = ['again: inc dword ptr [rdi]', 'cmp dword ptr [rdi], 9', 'jb again', 'xor eax, eax', 'ret'];
  lab.attach('fentry', 'cpu_is_awake', await lab.assemble('looping', source.join('\n')));
  const { seen, fault } = lab.call('cpu_is_awake', [0], { watch: true });
  expect(fault).toBeNull();
  expect(seen).toMatchObject([{ program: 'looping', args: [0n], returned: 0n }]);
});
