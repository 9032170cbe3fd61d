/* What a page that maps the kernel's code to ours refers to: code as `file.ts#name`, tests as `file: title`. */

import { existsSync, readFileSync } from 'node:fs';
import { expect, test } from 'vitest';

/** Rows of a page's tables, cell by cell; those that begin with one of the heads are left out. */
export function rowsOf(text: string, heads: readonly string[]): string[][] {
  return text
    .split('\n')
    .filter((line) => line.startsWith('| ') && !heads.some((head) => line.startsWith(`| ${head} |`)))
    .map((line) =>
      line
        .slice(1, -1)
        .split('|')
        .map((cell) => cell.trim()),
    );
}

/** What stands in backquotes. */
export function tokensOf(text: string): string[] {
  return [...text.matchAll(/`([^`]+)`/g)].map(([, token]) => token ?? '');
}

/** Declares a test for each reference: that there is what it names. */
export function testReferences(tokens: readonly string[]): void {
  const code = [...new Set(tokens.filter((token) => /^[\w/.-]+\.ts#\w+$/.test(token)))];
  test('names code', () => expect(code.length).toBeGreaterThan(30));
  test.each(code)('%s exists', (token) => {
    const [file, name] = token.split('#');
    const path = file?.includes('/') ? file : `tramp/${file}`;
    expect(readFileSync(path as string, 'utf8')).toMatch(new RegExp(`\\b${name}\\b`));
  });

  const tests = [...new Set(tokens.filter((token) => /^[\w/-]+: /.test(token)))];
  test('names tests', () => expect(tests.length).toBeGreaterThan(50));
  test.each(tests)('%s', (token) => {
    const colon = token.indexOf(': ');
    const path = pathOf(token.slice(0, colon));
    expect(path).toBeDefined();
    // A title as it stands in the source, whichever quotes are around it.
    const source = readFileSync(path as string, 'utf8').replaceAll("\\'", "'");
    expect(source).toContain(token.slice(colon + 2));
  });
}

/** Where a test is: with the manager's, or in another room's. */
function pathOf(name: string): string | undefined {
  return [`test/tramp/${name}.test.ts`, `test/${name}.test.ts`].find((path) => existsSync(path));
}
