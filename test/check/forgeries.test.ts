/*
 * Images with one byte changed. `npm run forge` judges ten thousand of them; here are the first few hundred of
 * another seed, and what the program that explains the accepted ones must not explain.
 */

import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Forger, type Verdict } from './forgery/forge.ts';

const SEED = 4;
const COUNT = 300;

describe('one byte changed', () => {
  const verdicts: Verdict[] = [];
  let forger: Forger;

  beforeAll(async () => {
    forger = await Forger.open();
    for (let number = 0; number < COUNT; number++) verdicts.push(await forger.judge(SEED, number));
  });
  afterAll(() => forger.close());

  test('nearly every forgery is rejected', () => {
    const rejected = verdicts.filter(({ rule }) => rule !== null);
    expect(rejected.length).toBeGreaterThan(0.9 * COUNT);
    expect(new Set(rejected.map(({ rule }) => rule)).size).toBeGreaterThan(10);
  });

  test('what is accepted is shown to change nothing that anybody can see', () => {
    const accepted = verdicts.filter(({ rule }) => rule === null);
    expect(accepted.length).toBeGreaterThan(0);
    expect(accepted.filter(({ reason }) => reason === null)).toEqual([]);
  });

  test('nothing of the kind is shown of what is rejected', () => {
    expect(verdicts.filter(({ rule, reason }) => rule !== null && reason !== null)).toEqual([]);
  });

  test('the same number is the same forgery', async () => {
    expect(await forger.judge(SEED, 7)).toEqual(verdicts[7]);
  });
});

test('the recorded campaign left none unexplained', () => {
  const page = readFileSync(new URL('../../docs/forgeries.md', import.meta.url), 'utf8');
  expect(page).toContain('10000 forgeries:');
  expect(page).toContain('Of those accepted, 0 are unexplained');
  expect(page).toContain('It said so of 0 that were rejected.');
});
