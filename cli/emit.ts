import process from 'node:process';
import type { Command } from 'commander';
import { prepareTrampoline } from '../jit/index.ts';
import { toHex } from '../lib/index.ts';
import { filterLines } from './json-lines.ts';
import { listRequests } from './list-requests.ts';
import { readEmitRequest } from './request.ts';

/** `tramplab emit`: the emitter as a filter. */
export function addEmit(program: Command): Command {
  return program
    .command('emit')
    .summary('emit trampoline images: JSON lines in, JSON lines out')
    .description(
      'Reads one request a line from standard input and writes one answer a line, in order. An answer holds\n' +
        'ret (the length, or a negative errno), ipAfterCall, ipEpilogue (offsets or null) and bytes (hex).\n' +
        'For v6.1 and v6.12 a program may have kind (0 recursion-checked, 1 cgroup LSM, 2 plain) and cookie, and\n' +
        'config says how the kernel was built: ibt, rethunk, sls, origCallStartsWithEndbr; cfi {scheme, hash,\n' +
        'callPadding} and callDepth {counter, thunks} for v6.12. There, ret counts 64 bytes more than the code has.',
    )
    .option('--json', 'JSON lines (the default; no other form unless --listing)')
    .option('--listing', 'write annotated listings instead')
    .addHelpText(
      'after',
      `
Example:
  echo '{"id":1,"revision":"v5.15","image":"0xffffffffa0201000","argSizes":[8,4],"flags":1,
  "fentry":[{"prog":"0xffffc900001d5000","bpfFunc":"0xffffffffa0003000"}],
  "helpers":{"__bpf_prog_enter":"0xffffffff811d5e10","__bpf_prog_exit":"0xffffffff811d5ea0"}}' | tr -d '\\n' | tramplab emit`,
    )
    .action(async (options: { listing?: boolean; json?: boolean }) => {
      process.exitCode =
        options.listing === true ? await listRequests(options.json === true) : await emitRequests();
    });
}

function emitRequests(): Promise<number> {
  return filterLines((fields, id) => {
    const { revision, request } = readEmitRequest(fields);
    const result = prepareTrampoline(revision, request);
    if (result.bytes === undefined) return JSON.stringify({ id, ret: result.ret });
    const { ret, ipAfterCall, ipEpilogue } = result;
    return JSON.stringify({ id, ret, ipAfterCall, ipEpilogue, bytes: toHex(result.bytes) });
  });
}
