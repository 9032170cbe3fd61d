import process from 'node:process';
import type { Command } from 'commander';
import { type BpfImage, compileBpf, formatBpfListing, listBpf } from '../jit/index.ts';
import { hex64, toHex } from '../lib/index.ts';
import { stringify } from './fields.ts';
import { readJitRequest } from './jit-request.ts';
import { filterLines } from './json-lines.ts';
import { paint } from './paint.ts';

/** `tramplab jit`: the eBPF program JIT as a filter. */
export function addJit(program: Command): Command {
  return program
    .command('jit')
    .summary('compile eBPF programs: JSON lines in, JSON lines out')
    .description(
      'Reads one program a line from standard input and writes one answer a line, in order. An answer holds bytes\n' +
        '(hex), addrs (where each instruction ends), passes, ex (exception entries: offset, fixup, third field) and\n' +
        'poke (direct tail calls: bypass, target, adj_off); or fail, with the pass and the reason.\n\n' +
        'A request holds revision (v5.13, v5.15.0, v5.15, v6.1 or v6.12), insns (hex), image; as far as they are not\n' +
        '0: sd (stack depth), fidx (number of the subprogram), tcr (tail call reachable), classic, nex (exception\n' +
        'entries), is_func and final (the instructions of the extra pass), exb, excb, akern, auser; and config: base\n' +
        '(of __bpf_call_base), tsm (TASK_SIZE_MAX), percpu, exhandler, ibt, sls, retpoline, lfence, its, rethunk, bhb,\n' +
        'ibhf, hyper, cap, xmm2, bmi2, cfi, cfihash, cfisubhash, thunk_rcx, its_rcx, retthunk, bhbloop.',
    )
    .option('--json', 'JSON lines (the default); with --listing, the listing as JSON')
    .option('--listing', 'write listings instead: each eBPF instruction and what it became')
    .addHelpText(
      'after',
      `
Example:
  echo '{"id":1,"revision":"v6.12","image":"0xffffffffc0012340","insns":"b7000000010000009500000000000000",
  "config":{"base":"0xffffffff81200210"}}' | tr -d '\\n' | tramplab jit --listing`,
    )
    .action(async (options: { listing?: boolean; json?: boolean }) => {
      process.exitCode =
        options.listing === true ? await listPrograms(options.json === true) : await compilePrograms();
    });
}

function compilePrograms(): Promise<number> {
  return filterLines((fields, id) => {
    const { revision, program, config } = readJitRequest(fields);
    const image = compileBpf(revision, program, config);
    return JSON.stringify({ id, ...(image.bytes === undefined ? { fail: image.fail } : imageFields(image)) });
  });
}

function imageFields({ bytes, addrs, passes, exTable, pokes }: BpfImage): Record<string, unknown> {
  return {
    bytes: toHex(bytes),
    addrs,
    passes,
    ex: exTable.map(({ insn, fixup, handler }) => [insn, fixup, handler]),
    poke: pokes.map(({ bypass, target, adjOff }) => [bypass, target, adjOff]),
  };
}

function listPrograms(json: boolean): Promise<number> {
  return filterLines((fields, id) => {
    const { revision, program, config } = readJitRequest(fields);
    const image = compileBpf(revision, program, config, { provenance: true });
    const title = id === null ? 'program' : `program ${id}`;
    if (image.bytes === undefined) {
      return json
        ? JSON.stringify({ id, fail: image.fail })
        : `${title}: refused in pass ${image.fail.replace(' ', ': ')}\n`;
    }
    const listing = listBpf(program, image, config);
    if (json) return stringify({ id, ...imageFields(image), listing });
    const size = `${image.bytes.length} bytes at ${hex64(program.image)}, ${image.passes} passes`;
    return `${paint('heading', `${title}: ${size}`)}\n\n${formatBpfListing(listing, paint)}`;
  });
}
