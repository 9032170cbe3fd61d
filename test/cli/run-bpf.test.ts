import { describe, expect, test } from 'vitest';
import { file, tramplab, tramplabJson } from './support.ts';

/* `tramplab run` with eBPF objects. */

const FOLDER = 'test/fixtures/bpf/';
const object = (name: string): string => `${FOLDER}${name}.bpf.o`;
const run = (...args: readonly string[]): string[] => ['run', `${FOLDER}targets.o`, ...args];

describe('--bpf', () => {
  test('JSON: what programs saw, their variables, what they printed, their code', async () => {
    const document = await tramplabJson(
      run('--bpf', object('rebates'), '--bpf', object('globals'), '--call', 'sell(1, 7)'),
    );
    expect(document).toMatchObject({
      calls: [{ function: 'sell', ret: '0xf99', fault: null }],
      programs: [
        { name: 'on_value', kind: 'fexit', target: 'order_value', runs: 1, misses: 0, cookie: '0x0' },
        { runs: 1 },
      ],
      globals: { granted: '0x7', pair: '01000000f9ffffff', seen: '0x1' },
      log: ['order 101: 3993 after a rebate of 7'],
    });
    const [first] = document['bpf'] as { ksym: string; length: number; bytes: string }[];
    expect(first?.ksym).toMatch(/^bpf_prog_[0-9a-f]{16}_on_value$/);
    expect(first?.bytes).toHaveLength(2 * (first?.length ?? 0));
    expect(first?.bytes.startsWith('0f1f440000')).toBe(true);
  });

  test('the listing has source lines, eBPF and machine instructions', async () => {
    const { stdout, status } = await tramplab(run('--bpf', object('rebates'), '--listing'));
    expect(status).toBe(0);
    expect(stdout).toMatch(/^bpf_prog_[0-9a-f]{16}_on_value: \d+ bytes$/m);
    expect(stdout).toMatch(/^; granted \+= rebate; {2}\(line \d+\)$/m);
    expect(stdout).toMatch(/^ {2}\d+: \(85\) call bpf_map_lookup_elem$/m);
    expect(stdout).toMatch(/^ {4}[0-9a-f]{16} {2}e8[0-9a-f]{8} +call +bpf_map_lookup_elem/m);
  });

  test('variables that two objects have are told apart', async () => {
    const { globals } = await tramplabJson(
      run(
        '--bpf',
        object('array-map'),
        '--bpf',
        object('rebates'),
        '--bpf',
        object('rebates'),
        '--call',
        'sell(0, 5)',
      ),
    );
    expect(Object.keys(globals as object)).toContain('rebates.granted');
  });
});

describe('--attach with a program of an object', () => {
  test('one program alone, on the function that is named, with a cookie', async () => {
    const source = `${object('cookie')}:on_entry`;
    const { programs, globals } = await tramplabJson(
      run(
        '--revision',
        'v6.1',
        '--attach',
        `fentry:ring_bell=${source},cookie=0x55`,
        '--call',
        'ring_bell()',
      ),
    );
    expect(programs).toEqual([
      { name: 'on_entry', kind: 'fentry', target: 'ring_bell', runs: 1, misses: 0, cookie: '0x55' },
    ]);
    expect(globals).toMatchObject({ entry_cookies: '0x55' });
  });
});

test.each([
  ['its section fentry/ring_bell makes it fentry', '--attach', `fexit:ring_bell=${object('time')}:on_bell`],
  ['no program nothing; there are', '--attach', `fentry:ring_bell=${object('time')}:nothing`],
  [
    'attaches to ring_bell; it can do so once',
    '--attach',
    `fentry:ring_bell=${object('time')}:on_bell`,
    '--attach',
    `fentry:sell=${object('time')}:on_bell`,
  ],
  ['helper 181 (bpf_loop) is unknown to v5.15', '--bpf', object('loop')],
  ['type 12 is not here; there are HASH', '--bpf', object('inner-maps')],
  ['no program that is loaded has a function rule', '--bpf', object('freplace')],
  ['no such file', '--bpf', 'nowhere.bpf.o'],
  [
    'no ELF file',
    '--bpf',
    file('text.bpf.o', 'some text that is no object, and long enough to look like one'),
  ],
])('one line, exit 2: %s', async (message, ...args) => {
  const { status, stdout, stderr } = await tramplab(run(...args));
  expect(stderr).toContain(message);
  expect(stderr.trimEnd()).not.toContain('\n');
  expect([status, stdout]).toEqual([2, '']);
});
