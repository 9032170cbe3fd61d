import { existsSync, readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';

const text = readFileSync('docs/manager.md', 'utf8');
const rows = text
  .split('\n')
  .filter((line) => line.startsWith('| ') && !line.startsWith('| subject |'))
  .map((line) =>
    line
      .slice(1, -1)
      .split('|')
      .map((cell) => cell.trim()),
  );
const tokens = [...text.matchAll(/`([^`]+)`/g)].map(([, token]) => token ?? '');

/** Where a test is: with the manager's, or in another room's. */
const pathOf = (name: string): string | undefined =>
  [`test/tramp/${name}.test.ts`, `test/${name}.test.ts`].find((path) => existsSync(path));

describe('docs/manager.md', () => {
  test('every row has code and a test, or says why not', () => {
    expect(rows.length).toBeGreaterThan(45);
    const bare = rows.filter((cells) => {
      const [, , , code = '', tests = ''] = cells;
      return (
        cells.length !== 5 ||
        (!code.includes('not modelled: ') && !(code.includes('.ts#') && tests.includes(': ')))
      );
    });
    expect(bare).toEqual([]);
  });

  const code = [...new Set(tokens.filter((token) => /^[\w/.-]+\.ts#\w+$/.test(token)))];
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
});
