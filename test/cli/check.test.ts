import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { TrampFlag } from '../../jit/index.ts';
import { Bug, hex64, toHex } from '../../lib/index.ts';
import { trampolineVectors } from '../vectors.ts';
import { tramplab } from './support.ts';

const vector = trampolineVectors('v5.15').find(
  ({ request: { flags, argSizes }, bytes }) =>
    flags === (TrampFlag.CALL_ORIG | TrampFlag.SKIP_FRAME) && argSizes.length === 2 && bytes !== undefined,
);
if (vector?.bytes === undefined) throw new Bug('no such image among the vectors');
const { bytes, request, ret, ipAfterCall, ipEpilogue } = vector;

const words = trampolineVectors('v6.12').find(
  ({ request: { flags, argSizes }, bytes: there }) =>
    flags === (TrampFlag.CALL_ORIG | TrampFlag.SKIP_FRAME) && argSizes.length > 7 && there !== undefined,
);
const image = words?.bytes;
if (words === undefined || image === undefined) throw new Bug('no such image among the vectors of v6.12');

const folder = mkdtempSync(join(tmpdir(), 'tramplab-check-'));
afterAll(() => rmSync(folder, { recursive: true }));
const file = (name: string): string => join(folder, name);

const plainly = (_: string, value: unknown): unknown => (typeof value === 'bigint' ? hex64(value) : value);

const requestJson = (more: object = {}): string =>
  JSON.stringify({ revision: 'v5.15', ...request, ipAfterCall, ipEpilogue, ...more }, plainly);

beforeAll(() => {
  const pop = bytes.lastIndexOf(0x5b);
  writeFileSync(file('good.bin'), bytes);
  writeFileSync(file('good.hex'), `${toHex(bytes).replaceAll(/(.{32})/g, '$1\n')}\n`);
  // pop rbx, turned into a pop of rcx
  writeFileSync(file('bad.bin'), bytes.with(pop, 0x59));
  writeFileSync(file('page.bin'), Uint8Array.from([...bytes, ...Array<number>(64).fill(0xcc)]));
  writeFileSync(file('empty'), '');
  writeFileSync(file('request.json'), requestJson());
  writeFileSync(file('length.json'), requestJson({ ret }));
  writeFileSync(file('siteless.json'), requestJson({ ipAfterCall: undefined, ipEpilogue: undefined }));
  writeFileSync(file('one-site.json'), requestJson({ ipAfterCall: undefined }));
  writeFileSync(file('other-site.json'), requestJson({ ipEpilogue: undefined }));
  const hex = toHex(bytes).replaceAll(/(.{32})/g, '$1\r\n');
  writeFileSync(file('typo.hex'), `${hex.slice(0, 38)}o${hex.slice(39)}`);
  writeFileSync(file('short.hex'), `${hex.slice(0, 38)}${hex.slice(39)}`);
  writeFileSync(file('long.hex'), `${hex}f`);
  // int3 in place of leave, behind pop rbx; then the same behind a nop, where ours has its add.
  writeFileSync(file('int3.bin'), bytes.with(pop + 1, 0xcc));
  const tail = bytes.with(pop + 1, 0xcc).subarray(pop);
  writeFileSync(file('moved.bin'), Uint8Array.from([...bytes.subarray(0, pop), 0x90, ...tail]));
  writeFileSync(file('refused.json'), requestJson({ flags: 5 }));
  writeFileSync(
    file('v6.json'),
    requestJson({ revision: 'v6.12', config: { callDepth: { counter: '0x40' } } }),
  );
  writeFileSync(file('words.bin'), image);
  writeFileSync(
    file('words.json'),
    JSON.stringify({ revision: 'v6.12', ...words.request, ret: words.ret }, plainly),
  );
  writeFileSync(file('long.json'), requestJson({ ret: ret + 1 }));
  writeFileSync(file('list.json'), '[]');
});

const check = (image: string, requestName: string, ...more: string[]) =>
  tramplab(['check', file(image), '--request', file(requestName), ...more]);

describe('tramplab check', () => {
  test.each(['good.bin', 'good.hex'])('an image that is right: %s', async (image) => {
    const { status, stdout, stderr } = await check(image, 'request.json');
    expect([status, stderr]).toEqual([0, '']);
    expect(stdout).toMatch(/^\d+ bytes at 0x[0-9a-f]+, v5\.15, flags 0x6: no rule is broken in \d+ calls\n$/);
  });

  test('a dump that goes on behind the image, with its length in the request', async () => {
    expect((await check('page.bin', 'length.json')).status).toBe(0);
  });

  test('an image that is wrong: the rule, the instruction, a call that shows it again', async () => {
    const { status, stdout } = await check('bad.bin', 'request.json', '--json');
    expect(status).toBe(1);
    const document = JSON.parse(stdout) as { findings: { case: unknown }[]; calls: number; length: number };
    expect(document).toMatchObject({ revision: 'v5.15', length: bytes.length, exact: false, unjudged: [] });
    expect(document.findings).toMatchObject([{ rule: 'callee-saved', at: { instruction: 'pop rcx' } }]);

    writeFileSync(file('call.json'), JSON.stringify(document.findings[0]?.case));
    const again = await check('bad.bin', 'request.json', '--call', file('call.json'), '--json');
    expect(again.status).toBe(1);
    expect(JSON.parse(again.stdout)).toMatchObject({ calls: 1, findings: [{ rule: 'callee-saved' }] });
    expect((await check('good.bin', 'request.json', '--call', file('call.json'))).status).toBe(0);
  });

  test('names a step of ours only where the image stands as ours does', async () => {
    const findings = async (name: string): Promise<unknown> => {
      const { stdout } = await check(name, 'request.json', '--json');
      return (JSON.parse(stdout) as { findings: unknown }).findings;
    };
    const pop = bytes.lastIndexOf(0x5b);
    expect(await findings('int3.bin')).toMatchObject([{ at: { offset: pop + 1, step: 'epilogue' } }]);
    const [moved] = (await findings('moved.bin')) as { at: object }[];
    expect(moved).toMatchObject({ rule: 'no-fault', at: { offset: pop + 2 } });
    expect(moved?.at).not.toHaveProperty('step');
  });

  test('for people: one block a rule', async () => {
    const { status, stdout } = await check('bad.bin', 'request.json');
    expect(status).toBe(1);
    expect(stdout).toContain('1 rule is broken');
    expect(stdout).toMatch(/\ncallee-saved {2}.*rbx\n/);
    expect(stdout).toContain('--call: {"revision":"v5.15"');
  });

  test('sites that nobody reported are looked for where ours are', async () => {
    const { stdout } = await check('good.bin', 'siteless.json', '--json');
    expect(JSON.parse(stdout)).toMatchObject({ findings: [], unjudged: [] });
    const shifted = await check('page.bin', 'siteless.json', '--json');
    expect(JSON.parse(shifted.stdout)).toMatchObject({
      unjudged: [expect.stringContaining('ipAfterCall') as string],
    });
  });

  test('counts the length of an image of v6.12 as its kernel does, which is 64 bytes too many', async () => {
    const { status, stdout } = await check('words.bin', 'words.json');
    expect([status, stdout.includes(`${image.length} bytes`)]).toEqual([0, true]);
  });

  test.each([
    ['empty', 'request.json', 'is empty'],
    ['missing', 'request.json', 'no such file'],
    ['good.bin', 'list.json', 'one JSON object'],
    ['good.bin', 'good.bin', 'not JSON'],
    ['good.bin', 'refused.json', 'refuses it (-EINVAL'],
    ['good.bin', 'v6.json', 'cannot be judged'],
    ['good.bin', 'long.json', 'give it whole'],
    ['good.bin', 'one-site.json', 'ipAfterCall: is missing beside ipEpilogue; give both'],
    ['good.bin', 'other-site.json', 'ipEpilogue: is missing beside ipAfterCall; give both'],
    ['typo.hex', 'request.json', "line 2, column 5: 'o' is no hex digit; correct it, or give raw bytes"],
    ['short.hex', 'request.json', 'line 2: has an odd number of hex digits'],
    ['long.hex', 'request.json', 'an odd number of hex digits'],
    ['request.json', 'request.json', "line 1, column 1: '{' is no hex digit"],
  ])('bad input gets one line: %s %s', async (image, requestName, message) => {
    const { status, stdout, stderr } = await check(image, requestName);
    expect([status, stdout]).toEqual([2, '']);
    expect(stderr).toMatch(/^tramplab: [^\n]+\n$/);
    expect(stderr).toContain(message);
  });
});
