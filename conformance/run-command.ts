import { spawn } from 'node:child_process';

/** How a command ended, and what it printed. */
export interface Ran {
  /** Exit code; null when it was ended by a signal or never started. */
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
  /** It could not be started, as when it is not there. */
  readonly missing: boolean;
}

export interface RunOptions {
  readonly cwd?: string;
  readonly env?: Readonly<Record<string, string>>;
}

/** Runs a command to its end, in the C locale; whatever happens is in the answer. */
export function runCommand(command: string, args: readonly string[], options: RunOptions = {}): Promise<Ran> {
  return new Promise((resolve) => {
    const child = spawn(command, args, {
      ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
      env: { ...process.env, ...options.env, LC_ALL: 'C' },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let stdout = '';
    let stderr = '';
    child.stdout.on('data', (chunk: Buffer) => {
      stdout += chunk.toString('latin1');
    });
    child.stderr.on('data', (chunk: Buffer) => {
      stderr += chunk.toString('latin1');
    });
    child.on('error', () => resolve({ status: null, stdout, stderr, missing: true }));
    child.on('close', (status) => resolve({ status, stdout, stderr, missing: false }));
  });
}

/** What a command complained of, for messages: its first error, else the last thing that it said. */
export function complaint({ stdout, stderr, status }: Ran): string {
  const lines = `${stdout}\n${stderr}`.split('\n').filter((line) => line.trim() !== '');
  const error = lines.find((line) => /\berror:|^E: /.test(line)) ?? lines.at(-1);
  return error?.trim() ?? `it ended with status ${status}`;
}
