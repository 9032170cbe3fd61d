/*
 * The counts of every mix, against a committed table, so that a change shows in review; and against a
 * second count of another kind: stepping, with the independent decoder saying what each instruction is.
 */

import { readFileSync, writeFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import {
  COLUMNS,
  COUNTS,
  type Counts,
  countMix,
  mixesOf,
  recordCall,
  Scene,
  Tally,
} from '../../cost/index.ts';
import { createMachine } from '../../emu/index.ts';
import { MANAGED_REVISIONS } from '../../tramp/index.ts';
import { stepped } from './stepped.ts';

const TABLE = new URL('./counts.json', import.meta.url);

/** One line per mix and part, numbers in the order of COUNTS. */
type Table = Record<string, Record<string, Record<string, number[]>>>;

const numbers = (counts: Counts): number[] => COUNTS.map((name) => counts[name]);

const plus = (one: readonly number[], other: readonly number[]): number[] =>
  one.map((value, i) => value + (other[i] as number));

describe.each(MANAGED_REVISIONS)('%s', (revision) => {
  test('every mix costs what the committed table says', async () => {
    const counted: Table[string] = {};
    for (const mix of mixesOf(revision)) {
      const { bare, traced, parts, imageBytes } = await countMix(revision, mix);
      const byPart = COLUMNS.flatMap((column) => {
        const part = parts[column];
        if (part === undefined) return [];
        return [
          [column, numbers(part.own)],
          [`${column}, called`, numbers(part.called)],
        ] as const;
      });
      counted[mix.name] = {
        'image bytes': [imageBytes],
        bare: numbers(bare),
        traced: numbers(traced),
        ...Object.fromEntries(byPart.filter(([, row]) => row[0] !== 0)),
      };
    }
    const table = JSON.parse(readFileSync(TABLE, 'utf8')) as Table;
    if (process.env['BLESS'] === '1') writeTable({ ...table, [revision]: counted });
    else expect(counted).toEqual(table[revision]);
  });

  test.each(mixesOf(revision))('$name: parts add up', async (mix) => {
    const { traced, parts } = await countMix(revision, mix);
    const rows = Object.values(parts).flatMap(({ own, called }) => [numbers(own), numbers(called)]);
    const sums = rows.reduce(plus, numbers(traced).fill(0));
    // Lines are shared between parts.
    const added = COUNTS.length - 2;
    expect(sums.slice(0, added)).toEqual(numbers(traced).slice(0, added));
  });

  test.each(mixesOf(revision))('$name: stepping with the decoder counts the same', async (mix) => {
    const recording = await Scene.create(await createMachine({ record: true }), revision, mix);
    const recorded = new Tally();
    for (const insn of recordCall(recording)) recorded.add(insn);
    recording.close();

    const scene = await Scene.create(await createMachine(), revision, mix);
    expect(stepped(scene)).toEqual(recorded.counts());
    scene.close();
  });
});

/** One row per line. */
function writeTable(table: Table): void {
  const text = JSON.stringify(table, null, 2).replaceAll(/\[[\d\s,-]+\]/g, (row) => {
    const numbers = row.slice(1, -1).split(',');
    return `[${numbers.map((number) => number.trim()).join(', ')}]`;
  });
  writeFileSync(TABLE, `${text}\n`);
}
