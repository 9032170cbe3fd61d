/* What attaching and detaching does to the text, the symbols and the counts, and what a refusal leaves alone. */

import { describe, expect, test } from 'vitest';
import type { Attachment, Lab, ProgramCode } from '../../lab/index.ts';
import { hex64, InputError, kaddr } from '../../lib/index.ts';
import { MAX_TRAMP_PROGS } from '../../tramp/index.ts';
import {
  callBytes,
  fixture,
  freshLab,
  kernelError,
  labWith,
  NOP5,
  siteBytes,
  stateOf,
  symbolAddress,
} from './support.ts';

/** A program that returns 0. */
function nothing(lab: Lab, name = 'nothing'): Promise<ProgramCode> {
  return lab.assemble(name, 'xor eax, eax\nret');
}

describe('the site, the image and its name', () => {
  test('every change makes a new image and calls it; the last detach leaves the nop', async () => {
    const { lab, target } = await labWith('demo.o');
    const site = symbolAddress(target, 'schedule_coffee');
    const probe = await nothing(lab);
    expect(siteBytes(lab, target, 'schedule_coffee')).toBe(NOP5);

    const attached: Attachment[] = [];
    const images = new Set<bigint>();
    const check = (): void => {
      const [info, ...others] = lab.trampolines();
      expect(others).toEqual([]);
      expect(siteBytes(lab, target, 'schedule_coffee')).toBe(callBytes(site, info?.image ?? 0n));
      expect(info?.length).toBe(info?.bytes.length);
      expect(lab.kernel.kallsyms.lookup(info?.image ?? kaddr(0))?.ksym.name).toBe(info?.ksym);
      images.add(info?.image ?? 0n);
    };
    for (const kind of ['fentry', 'fexit', 'fmod_ret', 'fentry'] as const) {
      attached.push(lab.attach(kind, 'schedule_coffee', probe));
      check();
      expect(lab.call('schedule_coffee', [1, 1, 300])).toMatchObject({ ret: 28n, fault: null });
    }
    while (attached.length > 1) {
      attached.shift()?.detach();
      check();
      expect(lab.call('schedule_coffee', [0, 1, 0]).ret).toBe(BigInt.asUintN(32, -62n));
    }
    attached.shift()?.detach();
    expect(images.size).toBe(7);
    expect(siteBytes(lab, target, 'schedule_coffee')).toBe(NOP5);
    expect(lab.trampolines()).toEqual([]);
  });

  test('images are named by key and number; the number starts again after the last detach', async () => {
    const { lab } = await labWith('demo.o');
    const probe = await nothing(lab);
    const names = (): string[] => lab.trampolines().map(({ ksym }) => ksym);
    const first = lab.attach('fentry', 'schedule_coffee', probe);
    const key = lab.trampolines()[0]?.key;
    // the first target's BTF is number 1; a type id, never 0, is in the low half
    expect((key ?? 0n) >> 32n).toBe(1n);
    expect((key ?? 0n) & 0x8000_0000n).toBe(0x8000_0000n);
    expect(names()).toEqual([`bpf_trampoline_${key}_0`]);
    const second = lab.attach('fexit', 'schedule_coffee', probe);
    expect(names()).toEqual([`bpf_trampoline_${key}_1`]);
    first.detach();
    expect(names()).toEqual([`bpf_trampoline_${key}_2`]);
    second.detach();
    expect(lab.kernel.kallsyms.lines().filter((line) => line.includes('bpf_trampoline'))).toEqual([]);
    lab.attach('fentry', 'schedule_coffee', probe);
    expect(names()).toEqual([`bpf_trampoline_${key}_0`]);
  });

  test('everything that was taken is given back', async () => {
    const { lab, target } = await labWith('wide.o');
    const before = stateOf(lab);
    const probe = await nothing(lab, 'later');
    const withProbe = stateOf(lab);
    const all = target.module.contents.functions.map(({ name }) => name);
    const attached = all.flatMap((name) => [
      lab.attach('fexit', name, probe),
      lab.attach('fentry', name, probe, { sleepable: true }),
    ]);
    expect(lab.kernel.modmem.pages).toBe(all.length);
    expect(new Set(lab.trampolines().map(({ key }) => key)).size).toBe(all.length);
    for (const attachment of attached) attachment.detach();
    expect(stateOf(lab)).toEqual(withProbe);
    probe.put();
    expect(stateOf(lab)).toEqual(before);
  });

  test('the newest program of a kind runs first; kinds run in their own order', async () => {
    const { lab } = await labWith('demo.o');
    for (const kind of ['fexit', 'fentry', 'fmod_ret'] as const) {
      for (const nth of [1, 2, 3]) {
        lab.attach(kind, 'schedule_coffee', await nothing(lab, `${kind}${nth}`));
      }
    }
    const { seen } = lab.call('schedule_coffee', [1, 2, 3], { watch: true });
    expect(seen.map(({ program }) => program)).toEqual([
      ...['fentry3', 'fentry2', 'fentry1'],
      ...['fmod_ret3', 'fmod_ret2', 'fmod_ret1'],
      ...['fexit3', 'fexit2', 'fexit1'],
    ]);
  });

  test('one code can be attached many times, to many functions, again after it was detached', async () => {
    const { lab, probes } = await labWith('demo.o');
    const text = await lab.assemble('text', 'xor eax, eax\nret');
    const object = probes.program('coffee_exit');
    for (let round = 0; round < 3; round++) {
      const attached = [
        lab.attach('fentry', 'schedule_coffee', text),
        lab.attach('fexit', 'schedule_coffee', text),
        lab.attach('fentry', 'grind_beans', text),
        lab.attach('fexit', 'schedule_coffee', object),
      ];
      const { seen } = lab.call('schedule_coffee', [1, 0, 1], { watch: true });
      expect(seen.map(({ prog, target, kind }) => [prog.name, target, kind])).toEqual([
        ['text', 'schedule_coffee', 'fentry'],
        ['text', 'grind_beans', 'fentry'],
        ['coffee_exit', 'schedule_coffee', 'fexit'],
        ['text', 'schedule_coffee', 'fexit'],
      ]);
      expect(seen[1]?.args).toEqual([9n, 1n]);
      for (const attachment of attached) attachment.detach();
    }
  });
});

describe('fmod_ret', () => {
  test('the first that says something else than 0 ends the chain and keeps the function from running', async () => {
    const { lab } = await labWith('demo.o');
    const sayer = (value: number): Promise<ProgramCode> =>
      lab.assemble(`says${value}`, `mov rax, ${value}\nret`);
    lab.attach('fmod_ret', 'schedule_coffee', await sayer(5));
    lab.attach('fmod_ret', 'schedule_coffee', await sayer(-7));
    lab.attach('fmod_ret', 'schedule_coffee', await sayer(0));
    lab.attach('fexit', 'schedule_coffee', await sayer(0));
    lab.attach('fentry', 'grind_beans', await sayer(0));
    const { ret, seen } = lab.call('schedule_coffee', [1, 0, 1], { watch: true });
    expect(BigInt.asIntN(32, ret ?? 0n)).toBe(-7n);
    expect(seen.map(({ program, kind }) => [program, kind])).toEqual([
      ['says0', 'fmod_ret'],
      ['says-7', 'fmod_ret'],
      ['says0', 'fexit'],
    ]);
    expect(BigInt.asIntN(32, seen[2]?.ret ?? 0n)).toBe(-7n);
  });
});

describe('limits', () => {
  test.each(['fentry', 'fexit'] as const)(
    '38 %s programs run; the 39th of either kind is refused',
    async (kind) => {
      const { lab } = await labWith('demo.o');
      const probe = await nothing(lab);
      for (let i = 0; i < MAX_TRAMP_PROGS; i++) lab.attach(kind, 'grind_beans', probe);
      expect(lab.call('grind_beans', [3, 1], { watch: true }).seen).toHaveLength(38);
      const before = stateOf(lab);
      for (const other of ['fentry', 'fexit', 'fmod_ret'] as const) {
        expect(kernelError(() => lab.attach(other, 'grind_beans', probe)).code).toBe('E2BIG');
      }
      expect(stateOf(lab)).toEqual(before);
      expect(lab.call('grind_beans', [3, 1]).ret).toBe(3n);
    },
  );

  test('fmod_ret programs are counted too: 38 run, the 39th is refused, others have room', async () => {
    const { lab } = await labWith('demo.o');
    const probe = await nothing(lab);
    for (let i = 0; i < MAX_TRAMP_PROGS; i++) lab.attach('fmod_ret', 'grind_beans', probe);
    const before = stateOf(lab);
    expect(kernelError(() => lab.attach('fmod_ret', 'grind_beans', probe)).code).toBe('E2BIG');
    expect(stateOf(lab)).toEqual(before);
    lab.attach('fexit', 'grind_beans', probe);
    const { seen, ret } = lab.call('grind_beans', [3, 1], { watch: true });
    expect([seen.length, ret]).toEqual([39, 3n]);
  });

  test('an image that does not fit its page is refused', async () => {
    const { lab } = await labWith('demo.o');
    const probe = await nothing(lab);
    for (let i = 0; i < MAX_TRAMP_PROGS; i++) lab.attach('fmod_ret', 'grind_beans', probe);
    for (let i = 0; i < MAX_TRAMP_PROGS; i++) {
      const before = stateOf(lab);
      try {
        lab.attach('fexit', 'grind_beans', probe);
      } catch (error) {
        expect(error).toMatchObject({ code: 'EFAULT', op: 'arch_prepare_bpf_trampoline' });
        expect(stateOf(lab)).toEqual(before);
        expect(lab.call('grind_beans', [3, 1]).ret).toBe(3n);
        return;
      }
    }
    expect.unreachable('76 programs fit one page');
  });
});

describe('what is refused changes nothing', () => {
  test('a function of more than 6 arguments', async () => {
    const lab = await freshLab();
    await lab.loadText('f: call __fentry__\nmov eax, 1\nret');
    lab.prototype('int f(int a, int b, int c, int d, int e, int f, int g)');
    const probe = await nothing(lab);
    const before = stateOf(lab);
    for (const kind of ['fentry', 'fmod_ret', 'fexit'] as const) {
      expect(kernelError(() => lab.attach(kind, 'f', probe)).code).toBe('ENOTSUPP');
    }
    expect(stateOf(lab)).toEqual(before);
    // it is called all the same: the seventh is on the stack
    expect(lab.call('f', [1, 2, 3, 4, 5, 6, 7]).ret).toBe(1n);
    probe.put();
  });

  test('a function without a trace site, or with the site behind its entry', async () => {
    const lab = await freshLab();
    lab.load(fixture('demo-untraced.o'));
    await lab.loadText('behind: endbr64\ncall __fentry__\nmov eax, 7\nret');
    lab.prototype('int behind(void)');
    const probe = await nothing(lab);
    const before = stateOf(lab);
    const siteless = kernelError(() => lab.attach('fentry', 'schedule_coffee', probe));
    expect([siteless.code, siteless.message]).toEqual(['EINVAL', expect.stringContaining('-pg -mfentry')]);
    const behind = kernelError(() => lab.attach('fentry', 'behind', probe));
    expect([behind.code, behind.message]).toEqual([
      'EINVAL',
      expect.stringContaining('4 bytes behind its entry'),
    ]);
    expect(stateOf(lab)).toEqual(before);
    expect(lab.call('behind').ret).toBe(7n);
    expect(lab.call('schedule_coffee', [1, 0, 1]).ret).toBe(27n);
  });

  test('unknown functions, functions without a prototype, prototypes that differ', async () => {
    const lab = await freshLab();
    lab.load(fixture('demo.o'));
    await lab.loadText('f: call __fentry__\nret');
    const probe = await nothing(lab);
    const before = stateOf(lab);
    expect(() => lab.attach('fentry', 'espresso', probe)).toThrow(
      /no function named espresso; there are grind_beans/,
    );
    expect(() => lab.attach('fentry', 'f', probe)).toThrow(
      'no prototype of f: compile with -gbtf or give --model',
    );
    expect(() => lab.prototype('int schedule_coffee(int cups)')).toThrow(
      'int schedule_coffee(int cups) differs from what is known, int schedule_coffee(u8 cups, int sugar, u64 deadline)',
    );
    lab.prototype('void f(int a)');
    expect(() => lab.prototype('void f(long a)')).toThrow('differs');
    lab.prototype('void f(int a)');
    expect(stateOf(lab)).toEqual(before);
    expect(lab.call('schedule_coffee', [1, 0, 1]).ret).toBe(27n);
  });

  test('a prototype that a target loaded later knows better', async () => {
    const lab = await freshLab();
    lab.prototype('int schedule_coffee(int cups)');
    lab.load(fixture('demo.o'));
    const probe = await nothing(lab);
    const before = stateOf(lab);
    expect(() => lab.attach('fentry', 'schedule_coffee', probe)).toThrow(InputError);
    expect(() => lab.call('schedule_coffee', [1])).toThrow('differs');
    expect(stateOf(lab)).toEqual(before);
  });

  test('calls with wrong arguments', async () => {
    const { lab } = await labWith('demo.o');
    const before = stateOf(lab);
    const bad: readonly (readonly [args: readonly (number | bigint)[], message: string])[] = [
      [[], 'takes 3 arguments, not 0'],
      [[1, 2, 3, 4], 'takes 3 arguments, not 4'],
      [[256, 0, 0], 'argument cups (u8) cannot hold 256'],
      [[-129, 0, 0], 'argument cups (u8) cannot hold -129'],
      [[0, 0x1_0000_0000, 0], 'argument sugar (int) cannot hold 4294967296'],
      [[0, 0, 1n << 64n], 'argument deadline (u64) cannot hold 18446744073709551616'],
      [[0, 0.5, 0], 'argument 2 is 0.5; give an integer'],
      [[0, 0, 2 ** 60], 'give an integer'],
    ];
    for (const [args, message] of bad) {
      expect(() => lab.call('schedule_coffee', args)).toThrow(message);
    }
    expect(() => lab.call('schedule_coffee', [{ bytes: Buffer.of(1) }, 0, 0])).toThrow('is no pointer');
    expect(() => lab.call('schedule_coffee', [1, 2, 3], { cpu: 1 })).toThrow('no CPU 1; the last one is 0');
    expect(() => lab.call('schedule_coffee', [1, 2, 3], { steps: -1 })).toThrow(InputError);
    expect(stateOf(lab)).toEqual(before);
  });

  test('a second detach', async () => {
    const { lab } = await labWith('demo.o');
    const probe = await nothing(lab);
    const attachment = lab.attach('fentry', 'schedule_coffee', probe);
    attachment.detach();
    const before = stateOf(lab);
    expect(() => attachment.detach()).toThrow('nothing is detached from schedule_coffee already');
    expect(stateOf(lab)).toEqual(before);
  });

  test('over the limit of executable memory', async () => {
    const { lab } = await labWith('demo.o');
    const probe = await nothing(lab);
    const attachment = lab.attach('fexit', 'schedule_coffee', probe);
    const { modmem } = lab.kernel;
    modmem.charge(4096 * (modmem.limitPages - modmem.pages));
    const before = stateOf(lab);
    expect(kernelError(() => lab.attach('fentry', 'schedule_coffee', probe)).code).toBe('EPERM');
    expect(kernelError(() => lab.attach('fentry', 'grind_beans', probe)).code).toBe('EPERM');
    expect(stateOf(lab)).toEqual(before);
    attachment.detach();
    expect(lab.trampolines()).toEqual([]);
  });
});

describe('images that nothing calls any more', () => {
  test.each([true, false])(
    'are freed (preemption %s): running one is a fault that names it',
    async (preemption) => {
      const { lab } = await labWith('demo.o', { preemption });
      const probe = await nothing(lab);
      for (const kinds of [['fentry'], ['fexit'], ['fmod_ret', 'fentry']] as const) {
        const attached = kinds.map((kind) => lab.attach(kind, 'schedule_coffee', probe));
        const [info] = lab.trampolines();
        for (const attachment of attached) attachment.detach();
        expect([...lab.kernel.retired]).toEqual([]);
        const { fault } = lab.machine.cpus[0]?.call(info?.image ?? kaddr(0), [1n, 2n, 3n]) ?? {};
        expect(fault).toMatchObject({ kind: 'freed-image', rip: info?.image });
        expect(fault?.detail).toContain(info?.ksym);
        lab.kernel.killCurrent(0);
      }
    },
  );

  test('wait for a call that is inside', async () => {
    const { lab } = await labWith('demo.o');
    const probe = await nothing(lab);
    const attachment = lab.attach('fexit', 'schedule_coffee', probe);
    const [info] = lab.trampolines();
    const [cpu] = lab.machine.cpus;
    const fn = lab.kernel.kallsyms.named('grind_beans')?.start ?? kaddr(0);
    cpu?.begin(lab.kernel.kallsyms.named('schedule_coffee')?.start ?? kaddr(0), [1n, 5n, 9n]);
    expect(cpu?.run({ stopAt: fn }).reason).toBe('stop');
    attachment.detach();
    expect([...lab.kernel.retired].map(({ ksym, state }) => [ksym.name, state])).toEqual([
      [info?.ksym, 'rcu-tasks'],
    ]);
    // It comes back into the retired image, which jumps over the programs to its epilogue.
    expect(cpu?.run()).toMatchObject({ reason: 'returned', fault: null });
    expect(cpu?.regs.get('rax')).toBe(32n);
    lab.kernel.settle();
    expect([...lab.kernel.retired]).toEqual([]);
    expect(lab.kernel.modmem.pages).toBe(0);
  });
});

test('the lab says what is attached, and lists it', async () => {
  const { lab } = await labWith('demo.o');
  const probe = await nothing(lab);
  expect(() => lab.listing('schedule_coffee')).toThrow('nothing is attached to schedule_coffee');
  lab.attach('fentry', 'schedule_coffee', probe, { sleepable: true });
  expect(
    lab.attachments().map(({ kind, function: fn, prog }) => [kind, fn, prog.name, prog.sleepable]),
  ).toEqual([['fentry', 'schedule_coffee', 'nothing', true]]);
  const rows = lab.listing('schedule_coffee');
  const [info] = lab.trampolines();
  expect(rows.map(({ bytes }) => bytes).join('')).toBe(Buffer.from(info?.bytes ?? []).toString('hex'));
  expect(hex64(rows[0]?.address ?? 0n)).toBe(hex64(info?.image ?? 0n));
  expect(rows.map(({ instruction }) => instruction)).toContain('call    nothing');
});
