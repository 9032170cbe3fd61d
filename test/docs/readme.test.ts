import { spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';

const README = 'README.md';
const BLOCK = /(<!-- demo -->\n```\n)([\s\S]*?)(```\n<!-- \/demo -->)/;

/** `BLESS=1 npm test -- test/docs` rewrites the block; under CI it is refused. */
const bless = process.env['BLESS'] !== undefined && process.env['CI'] === undefined;

/** What `npm run demo` prints, up to its tables. */
function demo(): string {
  const { stdout, status } = spawnSync(process.execPath, ['scripts/demo.mjs'], { encoding: 'utf8' });
  expect(status).toBe(0);
  const start = stdout.indexOf('$ npx tramplab');
  return stdout.slice(start, stdout.indexOf('\nkind '));
}

describe('README', () => {
  test('shows a test that is one of ours, but for where it imports from', () => {
    const [, shown = ''] = /```ts\n([\s\S]*?)```/.exec(readFileSync(README, 'utf8')) ?? [];
    const body = (text: string): string => text.slice(text.indexOf('test('));
    expect(body(shown)).toBe(body(readFileSync('test/lab/ten-lines.test.ts', 'utf8')));
  });

  test('shows what the demo prints', () => {
    const printed = demo();
    const readme = readFileSync(README, 'utf8');
    if (bless)
      writeFileSync(
        README,
        readme.replace(BLOCK, (_all, open, _old, close) => open + printed + close),
      );
    expect(BLOCK.exec(readFileSync(README, 'utf8'))?.[2]).toBe(printed);
  });
});
