import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, renameSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import process from 'node:process';
import { InputError, makeFolders } from '../lib/index.ts';
import { cpio } from './cpio.ts';
import type { Tool } from './parts.ts';
import { complaint, runCommand } from './run-command.ts';

/*
 * The guest's file system: our init program, compiled here, and the script that it runs.
 */

/** The package's own folder, wherever the built code is. */
export const ROOT: string = dirname(createRequire(import.meta.url).resolve('tramplab/package.json'));

const SOURCES = join(ROOT, 'conformance', 'guest');
const FLAGS = ['-D_GNU_SOURCE', '-static', '-O1', '-Wall', '-Wextra', '-Werror'];

/**
 * The init program, compiled once for each state of its sources.
 * @param folder where it is kept
 * @throws InputError with what the compiler says
 */
export async function compiledInit(gcc: Tool, folder: string): Promise<Uint8Array> {
  const files = readdirSync(SOURCES).sort();
  const hash = createHash('sha256').update(FLAGS.join(' '));
  for (const file of files) hash.update(readFileSync(join(SOURCES, file)));
  const built = join(folder, `init-${hash.digest('hex').slice(0, 16)}`);
  if (!existsSync(built)) {
    makeFolders(folder);
    const draft = `${built}.${process.pid}`;
    const sources = files.filter((file) => file.endsWith('.c')).map((file) => join(SOURCES, file));
    const args = [...gcc.args, ...FLAGS, '-o', draft, ...sources];
    const ran = await runCommand(gcc.command, args, { env: gcc.env });
    if (ran.status !== 0)
      throw new InputError(gcc.command, undefined, `cannot compile the guest: ${complaint(ran)}`);
    renameSync(draft, built);
  }
  return readFileSync(built);
}

/** What the kernel unpacks as its first file system. `/file` is there to be changed by system calls. */
export function initrd(init: Uint8Array, script: string): Uint8Array {
  return cpio([
    { name: 'proc' },
    { name: 'sys' },
    { name: 'cgroup' },
    { name: 'file', bytes: Buffer.from('a file\n') },
    { name: 'init', bytes: init, executable: true },
    { name: 'script', bytes: Buffer.from(script) },
  ]);
}
