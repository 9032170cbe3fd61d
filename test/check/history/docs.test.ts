/* The documents name every rule of histories and every mistake there is to switch on, and no others. */

import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { HISTORY_RULES, IMAGE_RULES } from '../../../check/index.ts';
import { EMITTER_MUTANTS } from '../../../jit/index.ts';
import { KERNEL_BUGS } from '../../../tramp/index.ts';

const read = (name: string): string =>
  readFileSync(new URL(`../../../docs/${name}`, import.meta.url), 'utf8');

/** What stands below a heading of the second level. */
function section(text: string, heading: string): string {
  const begun = text.slice(text.indexOf(`\n${heading}\n`) + 1);
  const end = begun.indexOf('\n## ');
  return end < 0 ? begun : begun.slice(0, end);
}

/** The first two cells of the rows that begin with a name in backquotes, below a heading. */
function rows(text: string, heading: string): Record<string, string> {
  const found = [...section(text, heading).matchAll(/^\| `([\w-]+)` \| (.*?) \|/gm)];
  return Object.fromEntries(found.map(([, name = '', what = '']) => [name, what]));
}

test('docs/histories.md has a row for each rule', () => {
  expect(rows(read('histories.md'), '## Rules')).toEqual(HISTORY_RULES);
});

test('docs/mutants.md has a row for each bug of the manager and the runtime', () => {
  expect(rows(read('mutants.md'), '## Manager and runtime')).toEqual(KERNEL_BUGS);
});

test('docs/mutants.md has a row for each mistake of the emitters: what, in which revisions, found by which rule', () => {
  const rule = Object.keys(IMAGE_RULES).join('|');
  const row = new RegExp(`^\\| \`(.*) \\| \`(?:${rule})\` \\| \\d+ \\|$`, 'gm');
  const found = [...section(read('mutants.md'), '## The emitters').matchAll(row)].map(([, cells]) => cells);
  expect(found).toEqual(
    EMITTER_MUTANTS.map(({ id, what, revisions }) => `${id}\` | ${what} | ${revisions?.join(', ') ?? 'all'}`),
  );
});
