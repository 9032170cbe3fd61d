/* tramplab run and tramplab listing TARGET: what they print, for machines and for people. */

import { describe, expect, test } from 'vitest';
import { DEMO, file, PROBES, TRACED, tramplab, tramplabJson } from './support.ts';

describe('run --json', () => {
  test('is one document with every field that was promised', async () => {
    const document = await tramplabJson([
      ...['run', DEMO, ...TRACED, '--call', 'schedule_coffee(2, -1, 300)'],
      ...['--call', 'schedule_coffee(13, 0, 0xffff)', '--call', 'panic_reason(1)'],
    ]);
    expect(Object.keys(document)).toEqual([
      ...['revision', 'engine', 'calls', 'programs', 'globals', 'trampolines', 'log'],
    ]);
    expect(document).toMatchObject({ revision: 'v5.15', engine: 'unicorn', log: [] });
    const calls = document['calls'] as Readonly<Record<string, unknown>>[];
    expect(calls[0]).toMatchObject({
      function: 'schedule_coffee',
      args: ['0x2', '0xffffffff', '0x12c'],
      ret: '0x41',
      fault: null,
    });
    expect(calls[0]?.['instructions']).toBeGreaterThan(300);
    expect(calls[1]).toMatchObject({ args: ['0xd', '0x0', '0xffff'], ret: '0xfffffff0', fault: null });
    expect(calls[2]).toMatchObject({ function: 'panic_reason', instructions: 7 });
    const common = { target: 'schedule_coffee', runs: 2, misses: 0, cookie: '0x0' };
    expect(document['programs']).toEqual([
      { name: 'coffee_entry', kind: 'fentry', ...common },
      { name: 'coffee_modify_return', kind: 'fmod_ret', ...common },
      { name: 'coffee_exit', kind: 'fexit', ...common },
    ]);
    expect(document['globals']).toMatchObject({
      entry_runs: '0x2',
      entry_cups: '0xd',
      entry_sugar: '0x0',
      exit_result: '0xfffffff0',
      unlucky_cups: '0xd',
      seen: '00'.repeat(56),
    });
    const [trampoline, ...others] = document['trampolines'] as Readonly<Record<string, unknown>>[];
    expect(others).toEqual([]);
    expect(trampoline).toEqual({
      function: 'schedule_coffee',
      key: expect.stringMatching(/^0x1800000[0-9a-f]+$/),
      ksym: expect.stringMatching(/^bpf_trampoline_\d+_2$/),
      image: expect.stringMatching(/^0xffffffff[0-9a-f]{8}$/),
      length: 268,
      bytes: expect.stringMatching(/^554889e5[0-9a-f]{528}$/),
    });
  });

  test('--trace and --listing add their fields', async () => {
    const document = await tramplabJson([
      'run',
      DEMO,
      ...TRACED,
      '--call',
      'grind_beans(1, 1)',
      '--trace',
      '--listing',
    ]);
    const [call] = document['calls'] as {
      trace: Readonly<Record<string, unknown>>[];
      instructions: number;
    }[];
    expect(call?.trace).toHaveLength(call?.instructions ?? 0);
    expect(call?.trace[0]).toMatchObject({ place: 'grind_beans+0x0', instruction: 'nop     [rax+rax]' });
    const [trampoline] = document['trampolines'] as { listing: { step: string }[] }[];
    expect(trampoline?.listing[0]?.step).toBe('prologue');
  });

  test('a fault is a finding: exit 1, and the document says what, where and in which step', async () => {
    const bad = file('bad.s', 'ud2');
    const document = await tramplabJson(
      [
        'run',
        DEMO,
        '--attach',
        `fexit:schedule_coffee=${bad}`,
        '--call',
        'schedule_coffee(1, 2, 3)',
        '--call',
        'shave_yak(3)',
      ],
      1,
    );
    const calls = document['calls'] as Readonly<Record<string, unknown>>[];
    expect(calls[0]).toMatchObject({
      ret: null,
      fault: {
        kind: 'invalid-opcode',
        rip: expect.stringMatching(/^0x[0-9a-f]{16}$/),
        step: null,
        detail: expect.stringContaining('bad'),
      },
    });
    expect(calls[1]).toMatchObject({ ret: '0x6', fault: null });
    expect(document['programs']).toMatchObject([{ name: 'bad', runs: 1 }]);

    const limited = await tramplabJson(
      ['run', DEMO, ...TRACED, '--call', 'schedule_coffee(1, 2, 3)', '--steps', '5'],
      1,
    );
    expect(limited['calls']).toMatchObject([
      {
        instructions: 5,
        fault: { kind: 'step-limit', step: 'save_regs', detail: expect.stringContaining('5 instr') },
      },
    ]);
  });

  test('two objects with variables of one name keep them apart', async () => {
    const { readFileSync } = await import('node:fs');
    const copy = file('copied.o', readFileSync(PROBES));
    const document = await tramplabJson([
      ...['run', DEMO, '--attach', `fentry:schedule_coffee=${PROBES}:coffee_entry`],
      ...['--attach', `fexit:schedule_coffee=${copy}:coffee_exit`, '--call', 'schedule_coffee(1, 2, 3)'],
    ]);
    expect(document['globals']).toMatchObject({
      'probes.entry_runs': '0x1',
      'copied.entry_runs': '0x0',
      'probes.exit_runs': '0x0',
      'copied.exit_runs': '0x1',
    });
  });

  test('revision, CPUs and memory for arguments are taken from the options', async () => {
    const document = await tramplabJson([
      ...['run', 'test/fixtures/wide.o', '--revision', 'v5.13', '--cpus', '4', '--cpu', '3'],
      ...['--call', String.raw`pointer_args2(&"tramp\n\"line\"", &hex:0a00)`, '--call', 'void_args0()'],
    ]);
    expect(document).toMatchObject({ revision: 'v5.13' });
    expect(document['calls']).toMatchObject([{ ret: '0x5' }, { args: [], ret: null }]);
  });
});

describe('run for people', () => {
  test('each call as it was written, its result, what each program saw; tables', async () => {
    const { status, stdout, stderr } = await tramplab([
      ...['run', DEMO, ...TRACED, '--attach', `fexit.s:schedule_coffee=${PROBES}:coffee_nested`],
      ...[
        '--call',
        'schedule_coffee(2, -1, 0x12c)',
        '--call',
        'schedule_coffee(13, 0, 300)',
        '--call',
        'panic_reason( 1 )',
      ],
    ]);
    expect([status, stderr]).toEqual([0, '']);
    expect(stdout.split('\n').slice(0, 17).join('\n')).toMatchInlineSnapshot(`
      "schedule_coffee(2, -1, 0x12c) = 65  (690 instructions)
        fentry      coffee_entry          schedule_coffee(cups=2, sugar=-1, deadline=300)
        fmod_ret    coffee_modify_return  schedule_coffee(cups=2, sugar=-1, deadline=300)       returned 0
        fexit.s     coffee_nested         schedule_coffee(cups=2, sugar=-1, deadline=300) = 65
          fentry    coffee_entry          schedule_coffee(cups=1, sugar=0, deadline=300)
          fmod_ret  coffee_modify_return  schedule_coffee(cups=1, sugar=0, deadline=300)        returned 0
          fexit     coffee_exit           schedule_coffee(cups=1, sugar=0, deadline=300) = 27
        fexit       coffee_exit           schedule_coffee(cups=2, sugar=-1, deadline=300) = 65
      schedule_coffee(13, 0, 300) = -16  (489 instructions)
        fentry      coffee_entry          schedule_coffee(cups=13, sugar=0, deadline=300)
        fmod_ret    coffee_modify_return  schedule_coffee(cups=13, sugar=0, deadline=300)        returned -16: original skipped
        fexit.s     coffee_nested         schedule_coffee(cups=13, sugar=0, deadline=300) = -16
          fentry    coffee_entry          schedule_coffee(cups=1, sugar=0, deadline=300)
          fmod_ret  coffee_modify_return  schedule_coffee(cups=1, sugar=0, deadline=300)         returned 0
          fexit     coffee_exit           schedule_coffee(cups=1, sugar=0, deadline=300) = 27
        fexit       coffee_exit           schedule_coffee(cups=13, sugar=0, deadline=300) = -16
      panic_reason(1) = 0xffffffff8080000e "hung barista"  (7 instructions)"
    `);
    expect(stdout).not.toContain('\x1b');
    expect(Math.max(...stdout.split('\n').map((line) => line.length))).toBeLessThan(130);
    expect(stdout).toContain('exit_result           -16\n');
    expect(stdout.endsWith('\n')).toBe(true);
  });

  test('--trace prints every instruction, also those before a fault', async () => {
    const { status, stdout } = await tramplab([
      'run',
      DEMO,
      ...TRACED,
      '--call',
      'schedule_coffee(1, 2, 3)',
      '--steps',
      '6',
      '--trace',
    ]);
    expect(status).toBe(1);
    const lines = stdout.split('\n');
    expect(
      lines.slice(0, 7).map((line) =>
        line
          .trim()
          .split(/\s{2,}/)
          .slice(1),
      ),
    ).toEqual([
      [
        'schedule_coffee+0x0',
        expect.stringMatching(/^call$/),
        expect.stringMatching(/^bpf_trampoline_\d+_2$/),
      ],
      [expect.stringMatching(/_2\+0x0$/), 'push', 'rbp', 'prologue'],
      [expect.stringMatching(/_2\+0x1$/), 'mov', 'rbp, rsp', 'prologue'],
      [expect.stringMatching(/_2\+0x4$/), 'sub', 'rsp, 0x20', 'prologue'],
      [expect.stringMatching(/_2\+0x8$/), 'push', 'rbx', 'prologue'],
      [expect.stringMatching(/_2\+0x9$/), 'mov', '[rbp-0x20], dil', 'save_regs'],
      [expect.stringMatching(/_2\+0xd$/), 'mov', '[rbp-0x18], esi', 'save_regs'],
    ]);
    expect(lines[7]).toBe('schedule_coffee(1, 2, 3) faulted: step-limit');
    expect(lines[8]).toContain('the step limit is reached');
  });

  test('--listing shows the image of every traced function', async () => {
    const { stdout } = await tramplab([
      'run',
      DEMO,
      ...TRACED,
      '--attach',
      `fentry:shave_yak=${PROBES}:record_slots`,
      '--listing',
    ]);
    expect(stdout.match(/^bpf_trampoline_\d+_\d: \w+, \d+ bytes, v5\.15$/gm)).toHaveLength(2);
    expect(stdout).toContain('fmod_ret  coffee_modify_return');
    const listing = await tramplab([
      'listing',
      DEMO,
      ...TRACED,
      '--attach',
      `fentry:shave_yak=${PROBES}:record_slots`,
    ]);
    expect(listing).toMatchObject({ status: 0, stderr: '' });
    expect(stdout.startsWith(listing.stdout.trimEnd())).toBe(true);
  });

  test('text in place of a target, prototypes, programs in text', async () => {
    const target = file('sum.s', 'sum: call __fentry__\n  lea rax, [rdi + rsi]\n  ret\n');
    const probe = file('probe.s', 'xor eax, eax\nret\n');
    const { status, stdout } = await tramplab([
      ...['run', '--asm', target, '--model', 's64 sum(s64 a, s64 b)', '--call', 'sum(-3, 1)'],
      ...['--attach', `fentry.s:sum=${probe}`, '--attach', `fexit:sum=${probe}`],
    ]);
    expect(status).toBe(0);
    expect(stdout.split('\n').slice(0, 3)).toEqual([
      expect.stringMatching(/^sum\(-3, 1\) = -2 {2}\(\d+ instructions\)$/),
      '  fentry.s  probe  sum(a=-3, b=1)',
      '  fexit     probe  sum(a=-3, b=1) = -2',
    ]);
  });

  test('without a model the words are shown as they are', async () => {
    const target = file('bare.s', 'bare: mov rax, rdi\nret\n');
    const { stdout } = await tramplab(['run', '--asm', target, '--call', 'bare(-2)', '--call', 'bare(7)']);
    expect(stdout).toBe('bare(-2) = 0xfffffffffffffffe  (2 instructions)\nbare(7) = 0x7  (2 instructions)\n');
  });
});

test('listing TARGET --json is one document', async () => {
  const { status, stdout } = await tramplab(['listing', DEMO, ...TRACED, '--json']);
  expect(status).toBe(0);
  const [image] = JSON.parse(stdout) as { listing: { bytes: string }[] }[];
  expect(image).toMatchObject({
    function: 'schedule_coffee',
    length: 268,
    image: expect.stringMatching(/^0xffffffff/),
  });
  expect(image?.listing.map(({ bytes }) => bytes).join('')).toHaveLength(2 * 268);
});

describe('run --revision v6.12', () => {
  const target = file('pair.s', 'f: call __fentry__\nlea rax, [rdi + rsi]\nadd rax, [rsp + 8]\nret\n');
  const cookie = file('cookie.s', 'sub rsp, 8\ncall bpf_get_attach_cookie\nadd rsp, 8\nret');
  const args = [
    ...['run', '--asm', target, '--revision', 'v6.12'],
    ...['--model', 'long f(struct pair { long a, b; } p, long c, long d, long e, long f, long g)'],
    ...['--attach', `fexit:f=${cookie},cookie=0x1234`, '--attach', `fentry:f=${cookie}`],
    ...['--call', 'f(&hex:05000000000000000600000000000000, 1, 2, 3, 4, 100)'],
  ];

  test('cookies, a struct by value, a word on the stack: for machines', async () => {
    const document = await tramplabJson(args);
    expect(document['programs']).toMatchObject([
      { kind: 'fexit', cookie: '0x1234', runs: 1 },
      { kind: 'fentry', cookie: '0x0', runs: 1 },
    ]);
    const pair = '0x60000000000000005';
    expect(document['calls']).toMatchObject([
      {
        ret: '0x6f',
        args: [pair, '0x1', '0x2', '0x3', '0x4', '0x64'],
        seen: [
          {
            kind: 'fentry',
            cookie: '0x0',
            returned: '0x0',
            args: [pair, '0x1', '0x2', '0x3', '0x4', '0x64'],
          },
          { kind: 'fexit', cookie: '0x1234', returned: '0x1234', ret: '0x6f' },
        ],
      },
    ]);
    expect(document['trampolines']).toMatchObject([{ ksym: expect.stringMatching(/^bpf_trampoline_\d+$/) }]);
  });

  test('and for people', async () => {
    const { status, stdout } = await tramplab(args);
    expect(status).toBe(0);
    expect(stdout).toContain('p={05 00 00 00 00 00 00 00 06 00 00 00 00 00 00 00}');
    expect(stdout).toMatch(/fexit +cookie cookie=0x1234 +f\(p=/);
    expect(stdout).toMatch(/function +runs +misses +cookie/);
  });

  test('a cookie that is none, or that the revision has not', async () => {
    const bad = await tramplab(['run', '--asm', target, '--attach', `fentry:f=${cookie},cookie=x`]);
    expect([bad.status, bad.stderr.trim()]).toEqual([
      2,
      expect.stringMatching(/--attach: .*cookie x is no number; wanted 0x1234$/),
    ]);
    const old = await tramplab([
      ...['run', '--asm', target, '--model', 'long f(long a)', '--attach', `fentry:f=${cookie},cookie=1`],
    ]);
    expect(old.status).toBe(2);
    expect(old.stderr).toContain('bpf_get_attach_cookie');
  });
});
