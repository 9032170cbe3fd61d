import process from 'node:process';
import { type Command, Option } from 'commander';
import { InputError } from '../lib/index.ts';
import { Exit } from './exit.ts';
import { stringify } from './fields.ts';
import { listRequests } from './list-requests.ts';
import { imageListing } from './page.ts';
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
        if (options.attach !== undefined)
          throw new InputError('listing', undefined, '--attach needs a TARGET');
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
      for (const { function: fn } of listings) console.log(imageListing(lab, fn));
    }
    return Exit.FINE;
  } finally {
    lab.close();
  }
}
