import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { InputError } from '../lib/index.ts';
import type { Apt } from './apt.ts';
import type { KernelName } from './combination.ts';
import { type Archive, newestKernel } from './debian.ts';
import { complaint, runCommand } from './run-command.ts';
import type { Store } from './store.ts';
import { Unavailable } from './unavailable.ts';

/*
 * What a run needs from outside: a kernel, qemu, a C compiler. qemu and the compiler are taken from the
 * machine when they are there and work, and fetched otherwise.
 */

export interface KernelFiles {
  readonly image: string;
  /** Text of the .config that it was built with. */
  readonly buildConfig: string;
  /** As uname says it, `6.1.0-56-cloud-amd64`. */
  readonly release: string;
}

/** A program with what must be set for it to run. */
export interface Tool {
  readonly command: string;
  readonly args: readonly string[];
  readonly env: Readonly<Record<string, string>>;
}

/** @throws Unavailable when there is no such kernel to be had */
export async function kernelFiles(store: Store, apt: Apt, kernel: KernelName): Promise<KernelFiles> {
  const archives = (): Promise<Archive[]> =>
    withFreshLists(apt, async () => {
      const found = newestKernel(await apt.names(`linux-image-${kernel}.`), kernel);
      if (found !== undefined) return apt.archives([found]);
      throw new Unavailable(
        `linux-image-${kernel}`,
        "is in none of apt's sources; Debian 12 with its security updates has it",
      );
    });
  const boot = join(await store.part({ name: `kernel-${kernel}`, archives, only: 'boot' }), 'boot');
  const image = readdirSync(boot).find((file) => file.startsWith('vmlinuz-'));
  if (image === undefined)
    throw new InputError(boot, undefined, 'holds no kernel; delete it and run this again');
  const release = image.slice('vmlinuz-'.length);
  return {
    image: join(boot, image),
    buildConfig: readFileSync(join(boot, `config-${release}`), 'utf8'),
    release,
  };
}

const QEMU = 'qemu-system-x86_64';

/** @throws InputError when there is none, and none can be fetched that starts */
export async function qemu(store: Store, apt: Apt): Promise<Tool> {
  const own: Tool = { command: QEMU, args: [], env: {} };
  if (await answers(own)) return own;
  const root = await store.part({
    name: 'qemu',
    archives: () =>
      withFreshLists(apt, async () => apt.archives(await apt.withDependencies(['qemu-system-x86']))),
  });
  const share = join(root, 'usr', 'share');
  const fetched: Tool = {
    command: join(root, 'usr', 'bin', QEMU),
    args: ['-L', join(share, 'seabios'), '-L', join(share, 'qemu')],
    env: { LD_LIBRARY_PATH: libraries(root) },
  };
  return checked(fetched, root);
}

/** A C compiler that can link statically. @throws InputError */
export async function compiler(store: Store, apt: Apt): Promise<Tool> {
  const own: Tool = { command: 'gcc', args: [], env: {} };
  if ((await answers(own)) && (await canLinkStatically(own))) return own;
  const root = await store.part({
    name: 'gcc',
    archives: () =>
      withFreshLists(apt, async () => apt.archives(await apt.withDependencies(['gcc', 'libc6-dev']))),
  });
  const bin = join(root, 'usr', 'bin');
  const name = existsSync(bin)
    ? readdirSync(bin).find((file) => /^x86_64-linux-gnu-gcc-\d+$/.test(file))
    : undefined;
  if (name === undefined)
    throw new InputError(root, undefined, 'holds no compiler; delete it and run this again');
  const fetched: Tool = {
    command: join(bin, name),
    args: [`--sysroot=${root}`, `-B${bin}/`, `-B${join(root, 'usr/lib/x86_64-linux-gnu')}/`],
    env: { LD_LIBRARY_PATH: libraries(root) },
  };
  return checked(fetched, root);
}

/** Debian has shared libraries in two places that are one on an installed system. */
const libraries = (root: string): string =>
  ['usr/lib', 'lib'].map((folder) => join(root, folder, 'x86_64-linux-gnu')).join(':');

async function answers({ command, args, env }: Tool): Promise<boolean> {
  return (await runCommand(command, [...args, '--version'], { env })).status === 0;
}

async function canLinkStatically(tool: Tool): Promise<boolean> {
  const ran = await runCommand(tool.command, [...tool.args, '-static', '-print-file-name=libc.a'], {
    env: tool.env,
  });
  // The bare name comes back for a file that is not there.
  return ran.status === 0 && existsSync(ran.stdout.trim());
}

async function checked(tool: Tool, root: string): Promise<Tool> {
  const ran = await runCommand(tool.command, [...tool.args, '--version'], { env: tool.env });
  if (ran.status === 0) return tool;
  throw new InputError(
    tool.command,
    undefined,
    `does not start (${complaint(ran)}); delete ${root} and run this again`,
  );
}

/** Asks apt once more with lists of our own when the machine's will not do. */
async function withFreshLists<T>(apt: Apt, ask: () => Promise<T>): Promise<T> {
  try {
    return await ask();
  } catch (error) {
    if (!(error instanceof Unavailable)) throw error;
    await apt.update();
    return ask();
  }
}
