import { describe, expect, it } from 'vitest';
import { tramplab } from './support.ts';

describe('tramplab conformance kernel', () => {
  it('names its combinations without asking a kernel', async () => {
    const text = await tramplab(['conformance', 'kernel', '--kernel', '6.12', '--list']);
    expect(text).toMatchObject({ status: 0, stderr: '' });
    const names = text.stdout.trimEnd().split('\n');
    expect(names).toContain('9-args-fexit');
    const json = await tramplab(['conformance', 'kernel', '--kernel', '6.12', '--list', '--json']);
    expect(JSON.parse(json.stdout)).toEqual(names);
  });

  it.each([
    [['--only', '1-arg-fentry,nothing'], 'nothing is no combination of 6.1'],
    [['--only', '9-args-fexit'], '9-args-fexit is no combination of 6.1'],
    [['--kernel', '5.15'], "argument '5.15' is invalid"],
    [['--timeout', 'long'], 'long is no whole number'],
  ])('refuses %j in one line before anything is fetched', async (args, why) => {
    const { status, stdout, stderr } = await tramplab(['conformance', 'kernel', ...args]);
    expect(status).toBe(2);
    expect(stdout).toBe('');
    expect(stderr.trimEnd().split('\n')).toEqual([expect.stringContaining(why)]);
  });
});
