#!/usr/bin/env node
import { readFileSync } from 'node:fs';
import process from 'node:process';
import { Command, CommanderError } from 'commander';
import { addEmit } from './emit.ts';
import { Exit, report } from './exit.ts';
import { addListing } from './listing.ts';
import { addPoke } from './poke.ts';
import { addRun } from './run.ts';

const { version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as {
  version: string;
};

// A reader that goes away (`| head`) is no failure of ours.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit(Exit.FINE);
  throw error;
});

const program = new Command('tramplab')
  .description(
    'A laboratory for Linux BPF trampolines on x86-64: emit, run, trace and inspect them without a kernel.',
  )
  .version(version)
  .showHelpAfterError(false)
  .configureOutput({ outputError: () => undefined })
  .exitOverride();

for (const add of [addRun, addEmit, addPoke, addListing]) {
  add(program)
    .exitOverride()
    .configureOutput({ outputError: () => undefined });
}

try {
  await program.parseAsync();
} catch (error) {
  if (error instanceof CommanderError && error.exitCode === 0) process.exitCode = Exit.FINE;
  else process.exitCode = report(error);
}
