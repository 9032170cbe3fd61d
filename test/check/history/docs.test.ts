/* The documents name every rule of histories and every bug there is to switch on, and no others. */

import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { HISTORY_RULES } from '../../../check/index.ts';
import { KERNEL_BUGS } from '../../../tramp/index.ts';

const read = (name: string): string =>
  readFileSync(new URL(`../../../docs/${name}`, import.meta.url), 'utf8');

/** The first two cells of the rows that begin with a name in backquotes, below a heading. */
function rows(text: string, heading: string): Record<string, string> {
  const section = text.slice(text.indexOf(heading));
  const found = [...section.matchAll(/^\| `([\w-]+)` \| (.*?) \|/gm)];
  return Object.fromEntries(found.map(([, name = '', what = '']) => [name, what]));
}

test('docs/histories.md has a row for each rule', () => {
  expect(rows(read('histories.md'), '## Rules')).toEqual(HISTORY_RULES);
});

test('docs/mutants.md has a row for each bug of the manager and the runtime', () => {
  expect(rows(read('mutants.md'), '## Manager and runtime')).toEqual(KERNEL_BUGS);
});
