import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import process from 'node:process';
import { InputError, makeFolders } from '../lib/index.ts';
import type { Tool } from './parts.ts';

/*
 * One boot of a kernel under qemu, without KVM: the same instructions everywhere.
 */

export interface BootOptions {
  /** The kernel's file. */
  readonly image: string;
  readonly initrd: Uint8Array;
  /** qemu's name of a CPU; default `max`, with the kernel's mitigations off. */
  readonly cpu: string | undefined;
  /** Let the kernel choose its own addresses. */
  readonly kaslr: boolean;
  /** More words for the kernel's command line. */
  readonly append: string;
  /** Seconds after which the boot is given up. */
  readonly patience: number;
  /** Where files of the run are put while it lasts. */
  readonly folder: string;
  /** Told the guest's output so far, now and then. */
  readonly watch: (output: string) => void;
}

/** Port that the guest writes to. */
const DEBUG_PORT = '0xe9';
const MEMORY_MB = '768';
/** How often the output is looked at, ms. */
const WATCH_INTERVAL = 500;

/** Boots, waits for the end, and gives the guest's output. @throws InputError when qemu fails or time is up */
export async function boot(qemu: Tool, options: BootOptions): Promise<string> {
  makeFolders(options.folder);
  const work = mkdtempSync(join(options.folder, 'boot-'));
  const [initrd, output, console] = ['initrd', 'output', 'console'].map((name) => join(work, name)) as [
    string,
    string,
    string,
  ];
  const read = (file: string): string => {
    try {
      return readFileSync(file, 'latin1');
    } catch {
      return '';
    }
  };
  const watching = setInterval(() => options.watch(read(output)), WATCH_INTERVAL);
  try {
    writeFileSync(initrd, options.initrd);
    const args = [...qemu.args, ...machine(options), '-initrd', initrd];
    args.push('-serial', `file:${console}`, '-debugcon', `file:${output}`);
    const ended = await run(qemu, args, options.patience);
    if (ended.timedOut) {
      const last = lastOf(read(console));
      throw new InputError('qemu', undefined, `the kernel did not end within ${options.patience} s${last}`);
    }
    if (ended.status !== 0)
      throw new InputError('qemu', undefined, `ended with ${ended.status}: ${ended.said}`);
    const text = read(output);
    if (!text.includes('"at":"done"')) {
      throw new InputError('qemu', undefined, `the guest stopped before its end${lastOf(read(console))}`);
    }
    return text;
  } finally {
    clearInterval(watching);
    if (process.env['TRAMPLAB_DEBUG'] !== '1') rmSync(work, { recursive: true, force: true });
  }
}

function machine({ image, cpu, kaslr, append }: BootOptions): string[] {
  const words = ['console=ttyS0', 'panic=-1', 'loglevel=4', 'lsm=bpf', append];
  if (!kaslr) words.push('nokaslr');
  if (cpu === undefined) words.push('mitigations=off');
  return [
    ...['-nodefaults', '-no-user-config', '-M', 'pc', '-accel', 'tcg', '-m', MEMORY_MB, '-smp', '1'],
    ...['-display', 'none', '-no-reboot', '-cpu', cpu ?? 'max,la57=off', '-kernel', image],
    ...['-append', words.filter((word) => word !== '').join(' ')],
    ...['-global', `isa-debugcon.iobase=${DEBUG_PORT}`],
  ];
}

interface Ended {
  readonly status: string | number;
  readonly timedOut: boolean;
  readonly said: string;
}

function run(qemu: Tool, args: readonly string[], patience: number): Promise<Ended> {
  return new Promise((resolve) => {
    const child = spawn(qemu.command, args, {
      env: { ...process.env, ...qemu.env },
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    let said = '';
    let timedOut = false;
    const timer = setTimeout(() => {
      timedOut = true;
      child.kill('SIGKILL');
    }, 1000 * patience);
    const end = (status: string | number): void => {
      clearTimeout(timer);
      process.off('exit', stop);
      const complaints = said.split('\n').filter((line) => line !== '' && !line.includes('warning:'));
      resolve({ status, timedOut, said: complaints.at(-1) ?? 'it did not say why' });
    };
    // No qemu is left behind when the process ends early.
    const stop = (): void => {
      child.kill('SIGKILL');
    };
    process.on('exit', stop);
    child.stderr.on('data', (chunk: Buffer) => {
      said += chunk.toString('latin1');
    });
    child.on('error', (error) => end(error.message));
    child.on('close', (code, signal) => end(code ?? signal ?? 'an unknown status'));
  });
}

/** The last line of the kernel's log, for a message. */
function lastOf(log: string): string {
  const lines = log.split(/\r?\n/).filter((line) => line.trim() !== '');
  const panic = lines.find((line) => line.includes('Kernel panic') || line.includes('BUG:'));
  const line = panic ?? lines.at(-1);
  return line === undefined ? '; it said nothing' : `; its log: ${line.trim()}`;
}
