import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, expect } from 'vitest';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));

/** The built command. */
export const MAIN = join(ROOT, 'dist/cli/main.js');

if (!existsSync(MAIN)) throw new Error('the command is not built: npm run build');

export const DEMO = 'test/fixtures/demo.o';
export const PROBES = 'test/fixtures/probes.o';

/** The options that trace schedule_coffee by three programs. */
export const TRACED: readonly string[] = [
  ...['--attach', `fentry:schedule_coffee=${PROBES}:coffee_entry`],
  ...['--attach', `fmod_ret:schedule_coffee=${PROBES}:coffee_modify_return`],
  ...['--attach', `fexit:schedule_coffee=${PROBES}:coffee_exit`],
];

export interface Outcome {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface RunOptions {
  readonly input?: string;
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
  /** Arguments for node itself. */
  readonly node?: readonly string[];
}

/** Runs the command as users do: a process of its own, in the project's folder unless said otherwise. */
export function tramplab(args: readonly string[], options: RunOptions = {}): Promise<Outcome> {
  const child = spawn(process.execPath, [...(options.node ?? []), MAIN, ...args], {
    cwd: options.cwd ?? ROOT,
    env: { ...process.env, TRAMPLAB_DEBUG: '', ...options.env },
  });
  const stdout: Buffer[] = [];
  const stderr: Buffer[] = [];
  child.stdout.on('data', (chunk: Buffer) => stdout.push(chunk));
  child.stderr.on('data', (chunk: Buffer) => stderr.push(chunk));
  // A command that has ended does not read its input.
  child.stdin.on('error', () => undefined);
  child.stdin.end(options.input ?? '');
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (status) => {
      const text = (chunks: Buffer[]): string => Buffer.concat(chunks).toString('utf8');
      resolve({ status, stdout: text(stdout), stderr: text(stderr) });
    });
  });
}

/** Runs it with --json and gives the one document on its standard output. */
export async function tramplabJson(
  args: readonly string[],
  status = 0,
): Promise<Readonly<Record<string, unknown>>> {
  const outcome = await tramplab([...args, '--json']);
  expect(outcome, outcome.stderr).toMatchObject({ status, stderr: '' });
  expect(outcome.stdout.trimEnd()).not.toContain('\n');
  return JSON.parse(outcome.stdout) as Readonly<Record<string, unknown>>;
}

export function jsonLines(text: string): Readonly<Record<string, unknown>>[] {
  return text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as Readonly<Record<string, unknown>>);
}

const folder = mkdtempSync(join(tmpdir(), 'tramplab-cli-'));

afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Writes a file that is gone after the tests; gives its path. */
export function file(name: string, contents: string | Uint8Array): string {
  const path = join(folder, name);
  writeFileSync(path, contents);
  return path;
}
