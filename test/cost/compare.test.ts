import { expect, test } from 'vitest';
import {
  type CostReport,
  compareReports,
  grew,
  markdownReport,
  measureReport,
  parseReport,
} from '../../cost/index.ts';
import { InputError } from '../../lib/index.ts';

const report = await measureReport({
  revisions: ['v5.15'],
  mixes: ({ name }) => name === 'fexit' || name === 'no program',
  times: false,
  harness: false,
});

/** The same report, with one number of the JSON changed. */
function changed(edit: (json: CostReport) => void): CostReport {
  const copy = structuredClone(report);
  edit(copy);
  return copy;
}

const mutable = (value: unknown): Record<string, number> => value as Record<string, number>;

test('a report compared with itself, by way of JSON, shows nothing', () => {
  expect(compareReports(parseReport(JSON.stringify(report), 'old.json'), report)).toEqual([]);
});

test('a count that grew is named by revision, mix, part and count', () => {
  const old = changed(({ revisions }) => {
    mutable(revisions[0]?.mixes[1]?.parts['tramp enter']?.called)['stores'] = 1;
  });
  const changes = compareReports(old, report);
  expect(changes).toMatchObject([
    { revision: 'v5.15', mix: 'fexit', part: 'tramp enter, called', count: 'stores', before: 1 },
  ]);
  expect(changes.every(grew)).toBe(true);
  expect(compareReports(report, old).some(grew)).toBe(false);
});

test('a part that is gone, and a part that is new', () => {
  const old = changed(({ revisions }) => {
    const parts = revisions[0]?.mixes[1]?.parts as Record<string, unknown>;
    parts['restore'] = parts['epilogue'];
    delete parts['epilogue'];
  });
  const changes = compareReports(old, report).filter(({ count }) => count === 'instructions');
  expect(changes).toMatchObject([
    { part: 'epilogue', before: undefined },
    { part: 'epilogue, called', before: undefined },
    { part: 'restore', after: undefined },
    { part: 'restore, called', after: undefined },
  ]);
});

test('mixes and revisions that one report does not cover are no change', () => {
  const fewer = changed((json) => {
    const [first] = json.revisions;
    if (first !== undefined) (first.mixes as unknown[]).pop();
  });
  expect(compareReports(report, fewer)).toEqual([]);
});

test.each(['', '[]', '{}', '{"revisions": 1}', '{"revisions": [{"revision": "v5.15", "mixes": [{}]}]}'])(
  'what is no report is refused: %s',
  (text) => {
    expect(() => parseReport(text, 'old.json')).toThrow(InputError);
    expect(() => parseReport(text, 'old.json')).toThrow(
      /^old\.json: is no .*give what bench --json printed$/,
    );
  },
);

test('markdown has a table per section, each row as wide as its head', () => {
  const sections = markdownReport(report).split('\n## ').slice(1);
  expect(sections.map((section) => section.split('\n')[0])).toEqual([
    'Costliest parts',
    'v5.15: over the bare call',
    'v5.15: instructions of each part',
  ]);
  for (const section of sections) {
    const rows = section.split('\n').filter((line) => line.startsWith('|'));
    expect(rows.length).toBeGreaterThan(2);
    expect(new Set(rows.map((row) => row.split('|').length)).size).toBe(1);
  }
});
