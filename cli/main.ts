#!/usr/bin/env node
import { readFileSync } from 'node:fs';
import process from 'node:process';
import { Command, CommanderError } from 'commander';
import { InputError } from '../lib/index.ts';
import { Exit, report } from './exit.ts';

/** Each command is loaded when it is asked for: a filter must not wait for an emulator. */
const COMMANDS: Readonly<Record<string, () => Promise<(program: Command) => Command>>> = {
  run: async () => (await import('./run.ts')).addRun,
  emit: async () => (await import('./emit.ts')).addEmit,
  poke: async () => (await import('./poke.ts')).addPoke,
  listing: async () => (await import('./listing.ts')).addListing,
  check: async () => (await import('./check.ts')).addCheck,
  conformance: async () => (await import('./conformance.ts')).addConformance,
  bench: async () => (await import('./bench.ts')).addBench,
  jit: async () => (await import('./jit.ts')).addJit,
  'bpf-plugin': async () => (await import('./bpf-plugin.ts')).addBpfPlugin,
  fuzz: async () => (await import('./fuzz.ts')).addFuzz,
  replay: async () => (await import('./replay.ts')).addReplay,
  mutants: async () => (await import('./mutants.ts')).addMutants,
};

const { version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as {
  version: string;
};

// A reader that goes away (`| head`) is no failure of ours.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  process.exit(error.code === 'EPIPE' ? Exit.FINE : report(unwritable(error)));
});

// Errors are said once, by report().
const SILENT = { writeErr: () => undefined };

// What no command could catch, such as a line of input that is longer than any string can be.
process.on('uncaughtException', (error) => process.exit(report(error)));

const program = new Command('tramplab')
  .description(
    'A laboratory for Linux BPF trampolines on x86-64: emit, run, trace and inspect them without a kernel.',
  )
  .version(version)
  .showHelpAfterError(false)
  .configureOutput(SILENT)
  .exitOverride();

const wanted = process.argv[2] ?? '';
for (const [name, load] of Object.entries(COMMANDS)) {
  // Help, and the message about an unknown command, want them all.
  if (Object.hasOwn(COMMANDS, wanted) && wanted !== name) continue;
  (await load())(program).exitOverride().configureOutput(SILENT);
}

try {
  await program.parseAsync();
} catch (error) {
  if (error instanceof CommanderError && error.exitCode === 0) process.exitCode = Exit.FINE;
  else process.exitCode = report(error);
}

function unwritable(error: NodeJS.ErrnoException): InputError {
  return new InputError('standard output', undefined, `cannot be written (${error.code ?? error.message})`);
}
