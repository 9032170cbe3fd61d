import { existsSync, readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { KERNEL_BUGS } from '../../../tramp/index.ts';

test('each bug in the table of docs/lifetimes.md exists, and its test switches it on', () => {
  const root = new URL('../../../', import.meta.url);
  const page = readFileSync(new URL('docs/lifetimes.md', root), 'utf8');
  const [table = ''] = page.slice(page.indexOf('| bug | shown by')).split('\n\n');
  const rows = table.split('\n').slice(2);
  expect(rows.length).toBeGreaterThan(20);
  for (const row of rows) {
    const [, bug = '', test = ''] = /^\| `?([\w-]+)`?(?: \([^|]*\))? \| (\S+) \|/.exec(row) ?? [];
    expect(Object.keys(KERNEL_BUGS), row).toContain(bug);
    const file = new URL(`test/tramp/${test}.test.ts`, root);
    expect(existsSync(file), file.pathname).toBe(true);
    expect(readFileSync(file, 'utf8')).toContain(bug);
  }
});
