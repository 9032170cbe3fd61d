import process from 'node:process';
import type { Command } from 'commander';
import { decidePoke, POKE_BYTES, REVISIONS } from '../jit/index.ts';
import { fromHex, InputError, toHex } from '../lib/index.ts';
import type { Fields } from './fields.ts';
import { filterLines } from './json-lines.ts';

/** `tramplab poke`: bpf_arch_text_poke as a filter. */
export function addPoke(program: Command): Command {
  return program
    .command('poke')
    .summary('decide text pokes: JSON lines in, JSON lines out')
    .description(
      'Reads one request a line from standard input and writes one answer a line, in order. An answer holds\n' +
        'ret (0 written, 1 nothing to do, or a negative errno) and after (the bytes from ip on, hex). With ibt,\n' +
        'v6.1 and v6.12 step over an ENDBR at ip; prior then holds 9 bytes or more.',
    )
    .option('--json', 'JSON lines (the default; there is no other form)')
    .addHelpText(
      'after',
      `
Example:
  echo '{"id":1,"revision":"v5.15","ip":"0xffffffff81a2b3c0","type":"CALL","oldAddr":null,
  "newAddr":"0xffffffffa0201000","isText":true,"prior":"0f1f440000"}' | tr -d '\\n' | tramplab poke`,
    )
    .action(async () => {
      process.exitCode = await filterLines(answer);
    });
}

function answer(fields: Fields, id: unknown): string {
  const revision = fields.oneOf('revision', REVISIONS);
  const bytes = fromHex(fields.text('prior'));
  if (bytes === undefined || bytes.length < POKE_BYTES) {
    throw new InputError('prior', undefined, `wanted the ${POKE_BYTES} or more bytes at ip, as hex`);
  }
  const { ret, write, offset } = decidePoke(
    revision,
    {
      ip: fields.address('ip'),
      type: fields.oneOf('type', ['CALL', 'JUMP']),
      oldAddr: fields.addressOrNull('oldAddr'),
      newAddr: fields.addressOrNull('newAddr'),
      isText: fields.boolean('isText', true),
      ibt: fields.boolean('ibt', false),
    },
    bytes,
  );
  if (bytes.length < offset + POKE_BYTES) {
    const wanted = `wanted the ${offset + POKE_BYTES} or more bytes at ip`;
    throw new InputError('prior', undefined, `an ENDBR and too little behind it; ${wanted}`);
  }
  if (write !== undefined) bytes.set(write, offset);
  return JSON.stringify({ id, ret, after: toHex(bytes) });
}
