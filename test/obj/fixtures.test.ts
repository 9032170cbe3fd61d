import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import process from 'node:process';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';
import { FIXTURES, IMAGE, OBJECTS } from './support.ts';

const SCRIPT = fileURLToPath(new URL('../../scripts/fixtures.mjs', import.meta.url));

it('the committed objects are what gcc makes of the sources', (context) => {
  const { status, stdout, stderr } = spawnSync(process.execPath, [SCRIPT, '--check'], { encoding: 'utf8' });
  if (stdout.startsWith('skipped:')) return context.skip(stdout.trim());
  expect(stdout + stderr).toBe(`the same: ${OBJECTS.length + 1} fixtures\n`);
  expect(status).toBe(0);
});

it.each([...OBJECTS, IMAGE])('%s holds no absolute path', (name) => {
  const text = readFileSync(FIXTURES + name, 'latin1');
  expect(text.match(/\/[\w.-]+\/[\w./-]+/g)).toBeNull();
});
