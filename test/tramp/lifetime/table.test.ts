import { existsSync, readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { KERNEL_BUGS } from '../../../tramp/index.ts';

test('each bug in the table of docs/lifetimes.md exists, and its test switches it on', () => {
  const root = new URL('../../../', import.meta.url);
  const text = readFileSync(new URL('docs/lifetimes.md', root), 'utf8');
  const rows = [...text.matchAll(/^\| `?([\w-]+)`?(?: \([^|]*\))? \| ((?:lifetime\/)?[\w-]+) \|/gm)];
  expect(rows.length).toBeGreaterThan(20);
  for (const [, bug = '', test = ''] of rows) {
    expect(Object.keys(KERNEL_BUGS), bug).toContain(bug);
    const file = new URL(`test/tramp/${test}.test.ts`, root);
    expect(existsSync(file), file.pathname).toBe(true);
    expect(readFileSync(file, 'utf8')).toContain(bug);
  }
});
