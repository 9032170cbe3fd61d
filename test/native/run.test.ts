/* The command and the library on the engine native: as on Unicorn, at other addresses. */

import { afterEach, describe, expect, test } from 'vitest';
import { createMachine } from '../../emu/index.ts';
import { createLab, type Lab } from '../../lab/index.ts';
import { DEMO, file, TRACED, tramplab, tramplabJson } from '../cli/support.ts';
import { nativeMissing } from '../emu/machines.ts';

const CALLS = ['--call', 'schedule_coffee(2, -1, 300)', '--call', 'schedule_coffee(13, 0, 0xffff)'];

type Document = Readonly<Record<string, unknown>>;

describe.skipIf(nativeMissing !== undefined)('run --engine native', () => {
  const document = (engine: string, ...more: readonly string[]): Promise<Document> =>
    tramplabJson([
      'run',
      DEMO,
      ...TRACED,
      ...CALLS,
      '--engine',
      engine,
      '--cpus',
      '2',
      '--cpu',
      '1',
      ...more,
    ]);

  test('does what Unicorn does: results, counts, what programs saw, globals', async () => {
    const [unicorn, native] = await Promise.all([document('unicorn'), document('native')]);
    expect(native['engine']).toBe('native');
    for (const field of ['revision', 'calls', 'programs', 'globals', 'log']) {
      expect([field, native[field]]).toEqual([field, unicorn[field]]);
    }
    const shape = ({ trampolines }: Document): unknown =>
      (trampolines as Document[]).map(({ function: fn, key, ksym, length }) => ({ fn, key, ksym, length }));
    expect(shape(native)).toEqual(shape(unicorn));
  });

  test('traces every instruction, with its step', async () => {
    const trace = async (engine: string): Promise<string[]> => {
      const { stdout } = await tramplab([
        'run',
        DEMO,
        ...TRACED,
        '--call',
        'schedule_coffee(2, 1, 5)',
        '--trace',
        '--engine',
        engine,
      ]);
      // Without addresses and what is an address.
      return stdout.split('\n').map((line) => line.replace(/\b(0x)?[0-9a-f]{8,16}\b/g, '@'));
    };
    const [unicorn, native] = await Promise.all([trace('unicorn'), trace('native')]);
    expect(native.length).toBe(unicorn.length);
    expect(native.filter((line) => line.includes('invoke_bpf_prog')).length).toBeGreaterThan(10);
  });

  test('a fault is a finding: exit 1', async () => {
    const text = file('null.s', 'f:\n  mov rax, qword ptr [rdi]\n  ret\n');
    const { status, stdout } = await tramplab([
      'run',
      '--asm',
      text,
      '--call',
      'f(16)',
      '--engine',
      'native',
      '--json',
    ]);
    expect(status).toBe(1);
    const [call] = (JSON.parse(stdout) as { calls: { fault: Document }[] }).calls;
    expect(call?.fault).toMatchObject({ kind: 'read-unmapped' });
  });

  test('an executable at kernel addresses is refused in one line', async () => {
    const { status, stderr } = await tramplab(['run', 'test/fixtures/demo.image', '--engine', 'native']);
    expect(status).toBe(2);
    expect(stderr).toMatch(/^tramplab: .*0xffffffff8\w+.*none of the kernel.*\n$/);
  });
});

describe.skipIf(nativeMissing !== undefined)('a lab', () => {
  let lab: Lab | undefined;

  afterEach(() => lab?.close());

  test('at full speed: results without counts, unless a call is watched', async () => {
    lab = await createLab({ engine: 'native', counting: false });
    await lab.loadText('f:\n  call __fentry__\n  lea rax, [rdi + rsi]\n  ret\n');
    lab.prototype('long f(long a, long b)');
    const probe = await lab.assemble('probe', 'mov rax, qword ptr [rdi]\nxor eax, eax\nret');
    const attached = lab.attach('fentry', 'f', probe);
    const { ret, instructions, fault } = lab.call('f', [40, 2]);
    expect([ret, fault]).toEqual([42n, null]);
    expect(instructions).toBeNaN();
    const watched = lab.call('f', [40, 2], { watch: true });
    expect(watched.instructions).toBeGreaterThan(20);
    expect(watched.seen).toMatchObject([{ program: 'probe', args: [40n, 2n] }]);
    attached.detach();
    expect(lab.call('f', [1, 2], { watch: true })).toMatchObject({ ret: 3n, instructions: 3, seen: [] });
  });
});

test.each([
  ['arch', 'arm64'],
  ['platform', 'darwin'],
] as const)('another host, by %s, is refused in one line that says what to do', async (property, value) => {
  const own = Object.getOwnPropertyDescriptor(process, property) as PropertyDescriptor;
  Object.defineProperty(process, property, { ...own, value });
  try {
    await expect(createMachine({ engine: 'native' })).rejects.toThrow(
      new RegExp(`^engine: native .*x86-64 under Linux.*${value}.*take the engine unicorn$`),
    );
  } finally {
    Object.defineProperty(process, property, own);
  }
});
