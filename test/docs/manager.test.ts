import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { rowsOf, testReferences, tokensOf } from './references.ts';

const text = readFileSync('docs/manager.md', 'utf8');
const rows = rowsOf(text, ['subject']);

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

  testReferences(tokensOf(text));
});
