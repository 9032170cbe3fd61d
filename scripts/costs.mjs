/*
 * Measures the standard set and writes it into docs/costs.md, below the line that says so. What stands above
 * that line is written by hand: `npm run costs`.
 */

import { spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import process from 'node:process';
import { fileURLToPath } from 'node:url';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const file = join(root, 'docs', 'costs.md');
const LINE = '<!-- Below: written by `npm run costs`. -->';

const { status, stdout } = spawnSync(process.execPath, ['dist/cli/main.js', 'bench', '--markdown'], {
  cwd: root,
  encoding: 'utf8',
  stdio: ['ignore', 'pipe', 'inherit'],
  maxBuffer: 1 << 26,
});
if (status !== 0) process.exit(status ?? 1);

const [byHand = ''] = readFileSync(file, 'utf8').split(LINE);
writeFileSync(file, `${byHand}${LINE}\n\n${stdout}`);
