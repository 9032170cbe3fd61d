/* Bad command lines and files: exit 2, one line on standard error, nothing on standard output. */

import { spawn } from 'node:child_process';
import { existsSync, openSync, readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { DEMO, file, MAIN, PROBES, TRACED, tramplab } from './support.ts';

const CALL = ['--call', 'schedule_coffee(1, 2, 3)'];
const demo = readFileSync(DEMO);

/** An ELF header's two bytes changed. */
function elfWith(name: string, at: number, ...bytes: number[]): string {
  const copy = Uint8Array.from(demo);
  copy.set(bytes, at);
  return file(name, copy);
}

const BAD: readonly (readonly [message: string, ...args: string[]])[] = [
  ['which command? See tramplab --help'],
  ["unknown command 'brew'", 'brew'],
  ["unknown option '--milk'", 'run', DEMO, '--milk'],
  ["unknown option '--milk'", 'emit', '--milk'],
  ["too many arguments for 'run'. Expected 1 argument but got 2; see --help", 'run', DEMO, DEMO],
  ["too many arguments for 'emit'", 'emit', DEMO],
  ["option '--call <call>' argument missing", 'run', DEMO, '--call'],
  ['TARGET: give an ELF file or --asm FILE, one of the two', 'run'],
  ['TARGET: give an ELF file or --asm FILE, one of the two', 'run', DEMO, '--asm', 'x.s'],
  ['nowhere.o: no such file', 'run', 'nowhere.o'],
  ['test: is a folder; give a file', 'run', 'test'],
  ['/dev/zero: is a device; give a file', 'run', '/dev/zero'],
  ['nowhere.s: no such file', 'run', '--asm', 'nowhere.s'],
  ['test: is a folder; give a file', 'run', '--asm', 'test'],
  ['package.json at offset 0x0: no ELF file', 'run', 'package.json'],
  ['at offset 0x4: ', 'run', elfWith('elf32.o', 4, 1)],
  ['at offset 0x12: ', 'run', elfWith('bpf.o', 18, 247, 0)],
  ['at offset 0x10: e_type is 3', 'run', elfWith('shared.o', 16, 3, 0)],
  ['cut.o', 'run', file('cut.o', demo.subarray(0, 1000))],
  ['--cpus: 0 is no whole number greater than 0', 'run', DEMO, '--cpus', '0'],
  ['--cpus: two is no whole number', 'run', DEMO, '--cpus', 'two'],
  ['cpus: a machine has 1 to 64 CPUs, not 65', 'run', DEMO, '--cpus', '65'],
  ['--cpu: -1 is no CPU number', 'run', DEMO, '--cpu', '-1'],
  ['cpu: there is no CPU 2; the last one is 1', 'run', DEMO, ...CALL, '--cpus', '2', '--cpu', '2'],
  ['--steps: 1e3 is no whole number', 'run', DEMO, '--steps', '1e3'],
  ['--steps: 0 is no whole number', 'run', DEMO, '--steps', '0'],
  [
    "'v5.14' is invalid. Allowed choices are v5.13, v5.15, v6.1, v6.12; see --help",
    'run',
    DEMO,
    '--revision',
    'v5.14',
  ],
  ["'qemu' is invalid", 'run', DEMO, '--engine', 'qemu'],
  ['--attach: x: wanted KIND:FUNCTION=SOURCE', 'run', DEMO, '--attach', 'x'],
  [
    'wanted KIND:FUNCTION=SOURCE with KIND one of',
    'run',
    DEMO,
    '--attach',
    `kprobe:shave_yak=${PROBES}:coffee_exit`,
  ],
  [
    '--attach: probe.c: wanted FILE.s or FILE.o:FUNCTION',
    'run',
    DEMO,
    '--attach',
    'fentry:shave_yak=probe.c',
  ],
  ['nowhere.o: no such file', 'run', DEMO, '--attach', 'fentry:shave_yak=nowhere.o:f'],
  ['nowhere.s: no such file', 'run', DEMO, '--attach', 'fentry:shave_yak=nowhere.s'],
  ['no function brew; there are coffee_entry', 'run', DEMO, '--attach', `fentry:shave_yak=${PROBES}:brew`],
  [
    'no function named brew; there are grind_beans',
    'run',
    DEMO,
    '--attach',
    `fentry:brew=${PROBES}:coffee_entry`,
  ],
  ['syntax.s line 2', 'run', DEMO, '--attach', `fentry:shave_yak=${file('syntax.s', 'ret\nmov rax\n')}`],
  ['no function named espresso', 'run', DEMO, '--call', 'espresso()'],
  ['schedule_coffee takes 3 arguments, not 1', 'run', DEMO, '--call', 'schedule_coffee(1)'],
  ['argument cups (u8) cannot hold 256', 'run', DEMO, '--call', 'schedule_coffee(256, 0, 0)'],
  ['--call column 1: f: wanted FUNCTION(ARGUMENT, ...)', 'run', DEMO, '--call', 'f'],
  ['--call column 4: f(1: wanted a comma or )', 'run', DEMO, '--call', 'f(1'],
  ['--call column 3: f(x): wanted an integer, &"text" or &hex:0011', 'run', DEMO, '--call', 'f(x)'],
  ['wanted an even number of hex digits', 'run', DEMO, '--call', 'f(&hex:123)'],
  ['--call column 1: f wanted more', 'run', DEMO, '--call', 'f\nwanted more'],
  [String.raw`--call column 3: f(\x1b[31m): wanted an integer`, 'run', DEMO, '--call', 'f(\x1b[31m)'],
  ['file: its name is empty', 'run', ''],
  [`${PROBES}:: wanted FILE.s or FILE.o:FUNCTION`, 'run', DEMO, '--attach', `fentry:shave_yak=${PROBES}:`],
  ['--model column 7', 'run', DEMO, '--model', 'int f('],
  ['--model', 'run', DEMO, '--model', 'double f(double x)'],
  ['--model: int shave_yak(int a, int b) differs', 'run', DEMO, '--model', 'int shave_yak(int a, int b)'],
  ['nothing is attached; give --attach', 'listing', DEMO],
  ['--attach needs a TARGET', 'listing', ...TRACED],
  [
    'schedule_coffee has no trace site; compile it with -pg -mfentry',
    ...['run', 'test/fixtures/demo-untraced.o', ...TRACED],
  ],
];

describe.concurrent('bad usage', () => {
  test.each(BAD)('%s', async (message, ...args) => {
    const { status, stdout, stderr } = await tramplab(args);
    expect(stderr).toContain(message);
    expect(stderr).toMatch(/^tramplab: [^\n]+\n$/);
    expect([status, stdout]).toEqual([2, '']);
  });
});

test('TRAMPLAB_DEBUG=1 shows where an error comes from', async () => {
  const { status, stderr } = await tramplab(['run', 'nowhere.o'], { env: { TRAMPLAB_DEBUG: '1' } });
  expect(status).toBe(2);
  expect(stderr).toMatch(/InputError: nowhere\.o: no such file\n +at /);
});

test.each(['run', 'emit', 'poke', 'listing'])('%s --help has an example', async (command) => {
  for (const args of [
    [command, '--help'],
    ['help', command],
  ]) {
    const { status, stdout, stderr } = await tramplab(args);
    expect([status, stderr]).toEqual([0, '']);
    expect(stdout).toMatch(/\nExamples?:\n.*tramplab/s);
  }
});

test('the examples of --help that need no files work as they stand', async () => {
  for (const command of ['emit', 'poke']) {
    const help = (await tramplab([command, '--help'])).stdout;
    const input = /echo '(.*?)' \| tr/s.exec(help)?.[1]?.replaceAll('\n', '') ?? '';
    const { status, stdout } = await tramplab([command], { input });
    expect([status, JSON.parse(stdout)]).toMatchObject([0, { id: 1 }]);
    expect(stdout).not.toContain('error');
  }
});

test('--help and --version', async () => {
  const help = await tramplab(['--help']);
  expect(help.status).toBe(0);
  for (const command of ['run', 'emit', 'poke', 'listing']) {
    expect(help.stdout).toMatch(new RegExp(`^  ${command} `, 'm'));
  }
  const { version } = JSON.parse(readFileSync('package.json', 'utf8')) as { version: string };
  expect(await tramplab(['--version'])).toEqual({ status: 0, stdout: `${version}\n`, stderr: '' });
});

describe('streams', () => {
  test('a reader that goes away is no failure', async () => {
    const child = spawn(process.execPath, [MAIN, 'run', DEMO, '--call', 'shave_yak(50)', '--trace'], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    child.stdout.once('data', () => child.stdout.destroy());
    const errors: Buffer[] = [];
    child.stderr?.on('data', (chunk: Buffer) => errors.push(chunk));
    const status = await new Promise((resolve) => child.on('close', resolve));
    expect([status, Buffer.concat(errors).toString()]).toEqual([0, '']);
  });

  test.skipIf(!existsSync('/dev/full'))('output that cannot be written is an error of one line', async () => {
    const child = spawn(process.execPath, [MAIN, 'run', DEMO, ...CALL], {
      stdio: ['ignore', openSync('/dev/full', 'w'), 'pipe'],
    });
    const errors: Buffer[] = [];
    child.stderr?.on('data', (chunk: Buffer) => errors.push(chunk));
    const status = await new Promise((resolve) => child.on('close', resolve));
    expect(Buffer.concat(errors).toString()).toBe('tramplab: standard output: cannot be written (ENOSPC)\n');
    expect(status).toBe(2);
  });

  test('no colour when the output is no terminal, whatever TERM says', async () => {
    const { stdout } = await tramplab(['run', DEMO, ...TRACED, ...CALL, '--listing'], {
      env: { TERM: 'xterm-256color', COLORTERM: 'truecolor' },
    });
    expect(stdout).not.toContain('\x1b');
  });
});
