import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { createLab, type Lab } from '../../lab/index.ts';

/*
 * The kinds beside fentry, fmod_ret and fexit: LSM programs, which become one of these by the hook's
 * result, and freplace programs, which stand in for the function.
 */

const DEMO = 'test/fixtures/demo.o';
let lab: Lab;

beforeEach(async () => {
  lab = await createLab();
  lab.load(DEMO);
});

afterEach(() => lab.close());

const siteOf = (fn: string): number[] => {
  const address = lab.kernel.modules[0]?.symbol(fn)?.address;
  if (address === undefined) throw new RangeError(fn);
  return [...lab.machine.memory.bytes(address, 5)];
};

const NOP5 = [0x0f, 0x1f, 0x44, 0x00, 0x00];

describe('lsm', () => {
  test('on a hook with a result it can refuse the call', async () => {
    lab.attach('lsm', 'schedule_coffee', await lab.assemble('deny', 'mov eax, -13\nret'));
    const { ret, seen } = lab.call('schedule_coffee', [2, 1, 300], { watch: true });
    expect(BigInt.asIntN(32, ret ?? 0n)).toBe(-13n);
    expect(seen.map(({ kind, returned }) => [kind, BigInt.asIntN(32, returned ?? 0n)])).toEqual([
      ['lsm', -13n],
    ]);
  });

  test('on a void hook it runs behind it, and its result is ignored', async () => {
    await lab.loadText('hook: call __fentry__\nret', 'hook');
    lab.prototype('void hook(int a)');
    const attached = lab.attach('lsm', 'hook', await lab.assemble('watch', 'mov eax, -13\nret'));
    const { ret, fault, seen } = lab.call('hook', [5], { watch: true });
    expect([ret, fault, seen[0]?.args]).toEqual([null, null, [5n]]);
    const [trampoline] = lab.kernel.trampolines.list();
    expect(trampoline?.progs.fexit).toEqual([attached.prog]);
  });
});

describe('freplace', () => {
  const replacement = 'lea eax, [rdi + rsi + 100]\nret';

  test('stands in for the function, wherever it is called from, until it is detached', async () => {
    const before = lab.call('schedule_coffee', [1, 0, 300]).ret;
    const attached = lab.attach('freplace', 'grind_beans', await lab.assemble('more', replacement));
    expect(siteOf('grind_beans')[0]).toBe(0xe9);
    const { ret, seen } = lab.call('grind_beans', [3, 1], { watch: true });
    expect(ret).toBe(104n);
    expect(seen).toMatchObject([{ kind: 'freplace', args: [3n, 1n], returned: 104n }]);
    // 9 grams for one cup, three minutes a gram
    expect(lab.call('schedule_coffee', [1, 0, 300]).ret).toBe(3n * (9n + 1n + 100n));
    attached.detach();
    expect(siteOf('grind_beans')).toEqual(NOP5);
    expect(lab.call('schedule_coffee', [1, 0, 300]).ret).toBe(before);
  });

  test('keeps fentry and fexit programs away, and they it', async () => {
    const code = await lab.assemble('more', replacement);
    const attached = lab.attach('freplace', 'grind_beans', code);
    expect(() => lab.attach('fentry', 'grind_beans', code)).toThrow('EBUSY');
    expect(() => lab.attach('freplace', 'grind_beans', code)).toThrow('EBUSY');
    attached.detach();
    const traced = lab.attach('fexit', 'grind_beans', code);
    expect(() => lab.attach('freplace', 'grind_beans', code)).toThrow('EBUSY');
    traced.detach();
    expect(siteOf('grind_beans')).toEqual(NOP5);
  });

  test('is refused in a module, whose text the kernel does not poke', async () => {
    const other = await createLab();
    other.load(DEMO, { as: 'module' });
    const code = await other.assemble('more', replacement);
    expect(() => other.attach('freplace', 'grind_beans', code)).toThrow('EINVAL');
    expect(other.call('grind_beans', [3, 1]).ret).toBe(3n);
    other.close();
  });
});
