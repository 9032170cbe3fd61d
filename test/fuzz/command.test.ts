import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { JUDGED_REVISIONS } from '../../check/index.ts';
import { file, tramplab, tramplabJson } from '../cli/support.ts';
import { folder } from './support.ts';

/** A mistake of an emitter. */
const MUTANT = 'reg-rbx-not-saved';

describe('tramplab fuzz', () => {
  test('has nothing to find in our own parts, and says what it did', async () => {
    const report = await tramplabJson(['fuzz', '--cases', '700', '--seed', '5', '--out', folder()]);
    expect(report).toMatchObject({
      seed: 5,
      cases: 700,
      complete: true,
      findings: [],
      rules: {},
      shard: '0/1',
    });
    expect(report['calls']).toBeGreaterThan(700);
    expect(report['casesPerSecond']).toBeGreaterThan(0);
    const args = ['fuzz', '--cases', '100', '--seed', '5', '--family', 'image'];
    const outcome = await tramplab(args, { cwd: folder() });
    expect(outcome).toMatchObject({ status: 0, stderr: '' });
    expect(outcome.stdout).toContain(`seed 5, ${JUDGED_REVISIONS.join(' and ')} on unicorn\n100 cases, `);
    expect(outcome.stdout).toMatch(/^100 cases, \d+ calls, 0 findings in /m);
  });

  test('finds a mistake, and replay finds it again', async () => {
    const out = join(folder(), 'campaign');
    const args = ['--cases', '20', '--seed', '1', '--family', 'image', '--mutant', MUTANT, '--out', out];
    const report = (await tramplabJson(['fuzz', ...args], 1)) as unknown as {
      findings: { file: string; rule: string; minimized: object; request: object }[];
    };
    expect(report.findings.length).toBeGreaterThan(0);
    for (const finding of report.findings) {
      expect(Object.keys(finding)).toEqual(
        expect.arrayContaining(['id', 'rule', 'seed', 'case', 'request', 'minimized', 'detail']),
      );
      expect(JSON.stringify(finding.minimized).length).toBeLessThanOrEqual(
        JSON.stringify(finding.request).length,
      );
    }
    expect(readdirSync(join(out, 'findings')).length).toBe(report.findings.length);

    const { file: path, rule } = report.findings[0] ?? { file: '', rule: '' };
    expect(await tramplabJson(['replay', path], 1)).toMatchObject({ rule, reproduced: true });
    const outcome = await tramplab(['replay', path]);
    expect(outcome).toMatchObject({ status: 1, stderr: '' });
    expect(outcome.stdout).toContain(`reproduced\n\n${rule}  `);

    // What is done is not begun again by the line that began it.
    expect(await tramplabJson(['fuzz', ...args, '--resume'], 1)).toMatchObject({ findings: report.findings });
    const merged = await tramplabJson(['fuzz', '--merge', out], 1);
    expect(merged['findings']).toEqual(report.findings);
  });

  test.each([
    [['--seed', '-1'], '--seed: -1 is no whole number'],
    [['--time', '5'], '--time: 5: wanted a time such as 90s, 10m or 8h'],
    [['--shard', '4/4'], '--shard: shards of 4 are 0 to 3, not 4'],
    [['--revision', 'v4.4'], "option '--revision <name>' argument 'v4.4' is invalid"],
    [['--mutant', 'none'], '--mutant: there is no mutant none; tramplab mutants --list names them'],
    [['--resume'], '--resume: needs --out, the folder to go on in'],
    [
      ['--resume', '--out', '/nowhere'],
      '/nowhere: holds no campaign to go on with; give --seed to begin one',
    ],
    [['--merge', '/nowhere'], '/nowhere: holds no campaign'],
    [['--merge', '/nowhere', '--seed', '1'], '--merge: runs nothing, so it takes no --seed'],
  ])('%j is bad usage', async (args, message) => {
    const outcome = await tramplab(['fuzz', ...args]);
    expect(outcome.stderr).toContain(message);
    expect(outcome.stderr.trimEnd()).not.toContain('\n');
    expect(outcome).toMatchObject({ status: 2, stdout: '' });
  });

  test('an --out that cannot be written is told of', async () => {
    const path = file('a-file', 'x');
    const outcome = await tramplab(['fuzz', '--cases', '1', '--out', path]);
    expect(outcome).toMatchObject({ status: 2, stdout: '' });
    expect(outcome.stderr).toContain(`${path}: is there already, and is no folder`);
  });

  test.each([
    ['/proc/nowhere', '/proc/nowhere: cannot be made (ENOENT); name another folder'],
    ['/proc/nowhere/deep', '/proc/nowhere: cannot be made (ENOENT); name another folder'],
    ['/proc', '/proc/campaign.json: cannot be made there; name another folder'],
  ])('an --out where the file system takes no folders is told of: %s', async (out, message) => {
    const outcome = await tramplab(['fuzz', '--cases', '1', '--out', out]);
    expect(outcome).toMatchObject({ status: 2, stdout: '', stderr: `tramplab: ${message}\n` });
  });
});

test('tramplab replay wants a finding', async () => {
  const outcome = await tramplab(['replay', file('no-finding.json', '{}')]);
  expect(outcome).toMatchObject({ status: 2, stdout: '' });
  expect(outcome.stderr).toMatch(
    /no-finding\.json: is no finding; tramplab fuzz writes them into the folder findings\/\n$/,
  );
});

describe('tramplab mutants', () => {
  test('names them, each once', async () => {
    const { mutants } = (await tramplabJson(['mutants', '--list'])) as {
      mutants: { id: string; what: string }[];
    };
    expect(mutants.length).toBeGreaterThanOrEqual(60);
    expect(new Set(mutants.map(({ id }) => id)).size).toBe(mutants.length);
    for (const { what } of mutants) expect(what).toMatch(/^\S.*\S$/);
    const text = await tramplab(['mutants', '--list', '--only', 'L1,L3']);
    expect(text.stdout).toMatch(/^L1 {2,}a program .*\nL3 {2,}no percpu_ref.*\n$/);
  });

  test('names those of one revision', async () => {
    const listed = async (revision: string): Promise<string[]> => {
      const { mutants } = (await tramplabJson(['mutants', '--list', '--revision', revision])) as {
        mutants: { id: string }[];
      };
      return mutants.map(({ id }) => id);
    };
    const real = ['C1', 'C9', 'C10', 'C11', 'C15', 'L14', 'L15'];
    expect(await listed('v6.1')).toEqual(expect.arrayContaining([...real, 'C6-endbr']));
    expect(await listed('v6.12')).toEqual(expect.arrayContaining([...real, 'C6', 'C12', 'chunks-kept']));
    expect(await listed('v5.15')).not.toEqual(expect.arrayContaining(['L14']));
  });

  test('finds some of each sort', async () => {
    const ids = [MUTANT, 'active-left-up', 'L5'];
    const { mutants } = (await tramplabJson(['mutants', '--only', ids.join(',')])) as {
      mutants: { id: string; found: boolean; rule: string; cases: number }[];
    };
    expect(mutants.map(({ id }) => id).sort()).toEqual([...ids].sort());
    for (const mutant of mutants)
      expect(mutant).toMatchObject({ found: true, rule: expect.stringMatching(/^[a-z-]+$/) });
  });

  test('a mutant that there is not is bad usage', async () => {
    const outcome = await tramplab(['mutants', '--only', 'L1,none']);
    expect(outcome).toMatchObject({ status: 2, stdout: '' });
    expect(outcome.stderr).toBe(
      'tramplab: --only: there is no mutant none; tramplab mutants --list names them\n',
    );
  });
});
