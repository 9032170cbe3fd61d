import process from 'node:process';
import type { Command } from 'commander';
import { decidePoke, POKE_BYTES, REVISIONS } from '../jit/index.ts';
import { fromHex, InputError, toHex } from '../lib/index.ts';
import { address, addressOrNull, boolean, filterLines, type Json, oneOf, text } from './json-lines.ts';

/** `tramplab poke`: bpf_arch_text_poke as a filter. */
export function addPoke(program: Command): Command {
  return program
    .command('poke')
    .summary('decide text pokes: JSON lines in, JSON lines out')
    .description(
      'Reads one request a line from standard input and writes one answer a line, in order. An answer holds\n' +
        'ret (0 written, 1 nothing to do, or a negative errno) and after (the bytes from ip on, hex).',
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

function answer(json: Json): string {
  oneOf(json, 'revision', REVISIONS);
  const bytes = fromHex(text(json, 'prior'));
  if (bytes === undefined || bytes.length < POKE_BYTES) {
    throw new InputError('prior', undefined, `wanted the ${POKE_BYTES} or more bytes at ip, as hex`);
  }
  const { ret, write } = decidePoke(
    {
      ip: address(json, 'ip'),
      type: oneOf(json, 'type', ['CALL', 'JUMP']),
      oldAddr: addressOrNull(json, 'oldAddr'),
      newAddr: addressOrNull(json, 'newAddr'),
      isText: boolean(json, 'isText', true),
    },
    bytes,
  );
  if (write !== undefined) bytes.set(write);
  return JSON.stringify({ id: json['id'] ?? null, ret, after: toHex(bytes) });
}
