import { existsSync, readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { KERNEL_BUGS } from '../../../tramp/index.ts';

test('docs/lifetimes.md has a row for each switchable bug, and its test switches it on', () => {
  const root = new URL('../../../', import.meta.url);
  const table = readFileSync(new URL('docs/lifetimes.md', root), 'utf8');
  for (const bug of Object.keys(KERNEL_BUGS)) {
    const row = new RegExp(`^\\| \`?${bug}\`? \\| (\\S+) \\|`, 'm').exec(table);
    expect(row, `a row for ${bug}`).not.toBeNull();
    const file = new URL(`test/tramp/${row?.[1]}.test.ts`, root);
    expect(existsSync(file), file.pathname).toBe(true);
    expect(readFileSync(file, 'utf8')).toContain(bug);
  }
});
