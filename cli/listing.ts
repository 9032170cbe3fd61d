import process from 'node:process';
import { type Command, Option } from 'commander';
import { formatListing, type ListingRow, listCode, prepareTrampoline } from '../jit/index.ts';
import { errnoName, hex64, InputError } from '../lib/index.ts';
import { Exit } from './exit.ts';
import { filterLines, type Json, stringify } from './json-lines.ts';
import { paint } from './paint.ts';
import { readEmitRequest } from './request.ts';
import { addTargetOptions, openLab, type TargetOptions } from './target-options.ts';

/** `tramplab listing`: the annotated disassembly of images. */
export function addListing(program: Command): Command {
  const command = program
    .command('listing')
    .summary('annotated disassembly of images, from requests or from a target')
    .description(
      'Without TARGET: reads requests as `tramplab emit` does. With TARGET: attaches what is asked for and lists\n' +
        'the image of every traced function.',
    )
    .argument('[TARGET]', 'ELF64 x86-64 object or static executable');
  return addTargetOptions(command)
    .addOption(new Option('--json', 'one JSON document (with TARGET) or JSON lines (from requests)'))
    .addHelpText(
      'after',
      `
Examples:
  tramplab listing demo.o --attach fentry:schedule_coffee=probes.o:coffee_entry
  tramplab listing < requests.jsonl`,
    )
    .action(async (target: string | undefined, options: TargetOptions & { json?: boolean }) => {
      const json = options.json === true;
      if (target === undefined && options.asm === undefined) {
        if (options.attach.length > 0) throw new InputError('listing', undefined, '--attach needs a TARGET');
        process.exitCode = await listRequests(json);
      } else {
        process.exitCode = await listTarget(target, options, json);
      }
    });
}

async function listTarget(
  target: string | undefined,
  options: TargetOptions,
  json: boolean,
): Promise<number> {
  const { lab } = await openLab(target, options);
  try {
    const trampolines = lab.trampolines();
    if (trampolines.length === 0)
      throw new InputError('listing', undefined, 'nothing is attached; give --attach');
    const listings = trampolines.map((info) => ({ ...info, rows: lab.listing(info.function) }));
    if (json) {
      const documents = listings.map(({ function: fn, ksym, image, length, rows }) => ({
        function: fn,
        ksym,
        image,
        length,
        listing: rows,
      }));
      console.log(stringify(documents));
    } else {
      for (const { ksym, function: fn, length, rows } of listings) {
        console.log(`${ksym}: ${fn}, ${length} bytes\n`);
        console.log(formatListing(rows, paint));
      }
    }
    return Exit.FINE;
  } finally {
    lab.close();
  }
}

/** Lists what `tramplab emit` would have emitted. */
export function listRequests(json: boolean): Promise<number> {
  return filterLines((line) => {
    const id = line['id'] ?? null;
    const result = listRequest(line);
    if (json) return stringify({ id, ...result });
    const title = `${id === null ? 'image' : `image ${String(id)}`}: `;
    if (result.listing === undefined) return `${title}${errnoName(-result.ret)} ${result.why}\n`;
    return `${title}${result.ret} bytes at ${hex64(result.listing[0]?.address ?? 0n)}\n\n${formatListing(result.listing, paint)}`;
  });
}

type Listed =
  | { readonly ret: number; readonly listing: readonly ListingRow[] }
  | { readonly ret: number; readonly listing?: never; readonly why: string };

function listRequest(line: Json): Listed {
  const { revision, request } = readEmitRequest(line);
  const result = prepareTrampoline(revision, request, { provenance: true });
  if (result.bytes === undefined || result.code === undefined) {
    return { ret: result.ret, why: 'why' in result ? result.why : '' };
  }
  return { ret: result.ret, listing: listCode(result.code, request.image) };
}
