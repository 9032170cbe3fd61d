import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { tramplab } from './support.ts';

/** r0 = 0x2a */
const ANSWER = 'b7000000 2a000000 95000000 00000000';
/** r0 = the eight bytes at r1, plus r2 */
const SUM = '79100000000000000f200000000000009500000000000000';
/** r0 = f(5), f(x) = x * x */
const SQUARE =
  'b7010000050000008510000001000000950000000000000 0bf100000000000002f000000000000009500000000000000';

const WAYS: readonly (readonly string[])[] = [[], ['--interpret', '--revision', 'v5.15']];

describe.each(WAYS.map((way) => [way.join(' ') || 'compiled', way] as const))('bpf-plugin, %s', (_, way) => {
  it('prints r0 in hex', async () => {
    const outcome = await tramplab(['bpf-plugin', ...way], { input: `${ANSWER}\n` });
    expect(outcome).toEqual({ status: 0, stdout: '2a\n', stderr: '' });
  });

  it('hands over the memory and its length', async () => {
    const args = ['bpf-plugin', '--program', SUM, '01 02 03 04 05 06 07 88', ...way];
    expect((await tramplab(args)).stdout).toBe('8807060504030209\n');
  });

  it('finds the functions that are called', async () => {
    expect((await tramplab(['bpf-plugin', '--program', SQUARE, ...way])).stdout).toBe('19\n');
  });
});

it('a program that is refused leaves the reason', async () => {
  const outcome = await tramplab(['bpf-plugin', '--program', '79100800000000009500000000000000', '00']);
  expect(outcome.status).not.toBe(0);
  expect(outcome.stdout).toBe('');
  expect(outcome.stderr).toMatch(
    /^tramplab: program instruction 0, .*8 bytes at offset 8 of a pointer to memory, which has 1\n$/,
  );
});

it.each([
  ['no hex', ['--program', 'xx'], /not hex/],
  ['half an instruction', ['--program', 'b700'], /2 bytes are no whole instructions/],
  ['memory that is no hex', ['--program', ANSWER, '0'], /the memory: is not hex/],
  ['a revision that is not there', ['--program', ANSWER, '--revision', 'v4'], /--revision: v4/],
  ['an engine that is not there', ['--program', ANSWER, '--engine', 'x'], /--engine: x/],
  ['an object that is none', ['--elf', '--program', ANSWER], /./],
] as const)('%s is bad input', async (_, args, message) => {
  const outcome = await tramplab(['bpf-plugin', ...args]);
  expect(outcome.status).toBe(2);
  expect(outcome.stderr).toMatch(message);
  expect(outcome.stderr.trimEnd()).not.toContain('\n');
});

it('runs the program of an object', async () => {
  const object = readFileSync(new URL('../fixtures/bpf/plain.bpf.o', import.meta.url)).toString('hex');
  for (const way of [[], ['--interpret']]) {
    const outcome = await tramplab(['bpf-plugin', '--elf', ...way], { input: object });
    expect(outcome).toEqual({ status: 0, stdout: '1\n', stderr: '' });
  }
});
