/*
 * Images with one byte changed. `npm run forge` judges ten thousand of them; here are the first few hundred of
 * another seed, and what the program that explains the accepted ones must not explain.
 */

import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Forger, type Verdict } from './forgery/forge.ts';

const SEED = 4;
const COUNT = 300;

/** Forgeries that the judge did not reject once, by seed and number. */
const GOT_PAST: readonly [string, number, number, string, string][] = [
  [
    'a stack in a struct, above which nothing is',
    1,
    3233,
    'mov rsp, 0xffffc900001f5000',
    'writes-outside-frame',
  ],
  ['a frame above its caller’s', 2, 1286, 'sub rsp, 0xffffffffffffffc6', 'writes-outside-frame'],
  ['a frame reckoned on the lowest byte', 3, 210, 'sub spl, 0x10', 'writes-outside-frame'],
  ['a frame where a bit is clear', 3, 3186, 'xor rsp, 0x20', 'writes-outside-frame'],
  ['a frame reckoned on 16 bits', 5, 8213, 'sub sp, 0x20', 'writes-outside-frame'],
  ['the start time of the program before', 3, 5856, 'xchg rbx, rax', 'skipped-runs-nothing'],
  ['the saved rbp below rsp', 9, 2126, 'pop r11', 'callee-saved'],
  ['a start time whose lowest 16 bits are zero', 9, 8748, 'test ax, ax', 'program-runs'],
  ['a zero flag that the original leaves', 12, 4796, 'loope 0xffffffffa02010f0', 'no-fault'],
  ['an argument that is zero', 10, 1699, 'jrcxz 0xffffffffa0200ff8', 'call-target'],
];

/** Forgeries that were explained once, and that the judge rejects. */
const EXPLAINED: readonly [string, number, number, string, string][] = [
  ['a port', 1, 7724, 'out dx, eax', 'foreign-state'],
  ['another port', 2, 5873, 'in al, dx', 'foreign-state'],
  ['a halt', 1, 8511, 'hlt', 'foreign-state'],
  ['a store far above the stack', 2, 8808, 'mov [rbp+0x558948f0], ecx', 'writes-outside-frame'],
  ['a return address that is returned past', 1, 5120, 'xor [rbp+8], al', 'writes-outside-frame'],
  ['an rsp that is nowhere for one instruction', 7, 4059, 'xchg esp, eax', 'writes-outside-frame'],
  ['half a leave', 4, 4331, 'data16 leave', 'call-target'],
  ['a result that a program has written', 1, 3635, 'add [rbp-8], rax', 'fmod-ret-chain'],
];

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

  test.each([...GOT_PAST, ...EXPLAINED])('%s', async (_, seed, number, after, rule) => {
    expect(await forger.judge(seed, number)).toMatchObject({ after, rule, reason: null });
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
