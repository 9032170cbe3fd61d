import { readFileSync, writeFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { tramplab } from '../cli/support.ts';

const README = 'README.md';
const FOLDER = 'test/fixtures/bpf/';
const RUN = ['run', 'targets.o', '--bpf', 'rebates.bpf.o', '--call', 'sell(0, 5)', '--call', 'sell(1, 7)'];

/** `BLESS=1 npm test -- test/docs` rewrites the blocks; under CI it is refused. */
const bless = process.env['BLESS'] !== undefined && process.env['CI'] === undefined;

const block = (name: string): RegExp =>
  new RegExp(`(<!-- ${name} -->\n\`\`\`\\w*\n)([^]*?)(\`\`\`\n<!-- /${name} -->)`);

function shows(name: string, text: string): void {
  const readme = readFileSync(README, 'utf8');
  if (bless)
    writeFileSync(
      README,
      readme.replace(block(name), (_all, open, _old, close) => open + text + close),
    );
  expect(block(name).exec(readFileSync(README, 'utf8'))?.[2]).toBe(text);
}

test('the README shows a program in C, how it is compiled and run, and what comes of it', async () => {
  const source = readFileSync(`${FOLDER}rebates.bpf.c`, 'utf8');
  shows('bpf-source', source.slice(source.indexOf('#include')));
  const { status, stdout, stderr } = await tramplab(
    RUN.map((word) => (word.endsWith('.o') ? FOLDER + word : word)),
  );
  expect([status, stderr]).toEqual([0, '']);
  const quoted = RUN.map((word) => (word.includes('(') ? `'${word}'` : word)).join(' ');
  const commands = `$ clang --target=bpfel -O2 -g -c rebates.bpf.c\n$ npx tramplab ${quoted}\n`;
  shows('bpf-run', `${commands}\n${stdout}`);
});
