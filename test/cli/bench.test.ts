import { readFileSync } from 'node:fs';
import { beforeAll, expect, test } from 'vitest';
import type { CostReport } from '../../cost/index.ts';
import { file, tramplab, tramplabJson } from './support.ts';

const COUNTS_ONLY = ['bench', '--revision', 'v5.15', '--mix', 'fexit, 6', '--no-times', '--no-harness'];

let report: CostReport;

beforeAll(async () => {
  report = (await tramplabJson(COUNTS_ONLY)) as unknown as CostReport;
});

/** A report with one count changed, in a file. */
function changedBy(difference: number): string {
  const copy = structuredClone(report);
  const mix = copy.revisions[0]?.mixes[0] as unknown as { traced: { loads: number } };
  mix.traced.loads += difference;
  return file(`by${difference}.json`, JSON.stringify(copy));
}

test('--json is the report, and nothing else', async () => {
  expect(report).toMatchObject({
    revisions: [{ revision: 'v5.15', mixes: [{ name: 'fexit, 6 arguments', bare: { instructions: 3 } }] }],
    native: { none: 'not asked for' },
    harness: null,
  });
});

test('a table for people, and one in markdown', async () => {
  const text = await tramplab(COUNTS_ONLY);
  expect(text.status).toBe(0);
  expect(text.stdout).toMatch(/^mix +image +instructions +bytes/m);
  const markdown = await tramplab([...COUNTS_ONLY, '--markdown']);
  expect(markdown.stdout).toContain('| mix | image | instructions |');
});

test('--html writes a page', async () => {
  const page = file('page.html', '');
  expect((await tramplab([...COUNTS_ONLY, '--html', page])).status).toBe(0);
  expect(readFileSync(page, 'utf8')).toMatch(/^<!doctype html>/);
});

test('--compare tells what changed; --fail-on-increase makes growth a finding', async () => {
  const same = await tramplab([...COUNTS_ONLY, '--compare', changedBy(0), '--fail-on-increase']);
  expect(same).toMatchObject({ status: 0, stdout: 'no count changed\n' });
  const grown = await tramplab([...COUNTS_ONLY, '--compare', changedBy(-1), '--fail-on-increase']);
  expect(grown.status).toBe(1);
  expect(grown.stdout).toMatch(/v5\.15 +fexit, 6 arguments +traced +loads +\d+ +\d+ +\+1/);
  expect((await tramplab([...COUNTS_ONLY, '--compare', changedBy(-1)])).status).toBe(0);
  expect((await tramplab([...COUNTS_ONLY, '--compare', changedBy(1), '--fail-on-increase'])).status).toBe(0);
});

test.each([
  [['--fail-on-increase'], '--fail-on-increase: needs --compare'],
  [['--json', '--markdown'], '--markdown: excludes --json'],
  [['--compare', 'no-such.json'], 'no-such.json: no such file'],
  [['--html', '/no/such/folder/x.html'], '/no/such/folder/x.html: cannot be written (ENOENT)'],
])('%j is refused in one line', async (options, message) => {
  const { status, stdout, stderr } = await tramplab([...COUNTS_ONLY, ...options]);
  expect({ status, stdout }).toEqual({ status: 2, stdout: '' });
  expect(stderr).toContain(message);
  expect(stderr.trimEnd().split('\n')).toHaveLength(1);
});

test('a mix that there is not is refused in one line', async () => {
  const { status, stderr } = await tramplab(['bench', '--mix', 'nothing', '--no-times', '--no-harness']);
  expect(status).toBe(2);
  expect(stderr).toContain('no mix has "nothing" in its name');
});
