import { createHash } from 'node:crypto';
import {
  createReadStream,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { InputError } from '../lib/index.ts';
import type { Apt } from './apt.ts';
import type { Archive } from './debian.ts';
import type { Progress } from './progress.ts';
import { lastLine, runCommand } from './run-command.ts';

/*
 * Parts fetched once and kept: a part is a folder, unpacked from one or more Debian archives.
 *
 *     NAME.json   what it is made of, with checksums: from then on no package list is asked again
 *     archives/   what is downloaded and not unpacked yet; an interrupted run goes on from there
 *     NAME/       the part, renamed to this when it is whole
 */

/** How a part is made. */
export interface PartPlan {
  readonly name: string;
  /** Names its archives, when they are not known yet. */
  readonly archives: () => Promise<readonly Archive[]>;
  /** Folders inside the archives that are wanted, such as `./boot`; all of them when left out. */
  readonly only?: string;
}

export class Store {
  readonly folder: string;
  readonly #apt: Apt;
  readonly #progress: Progress;

  constructor(folder: string, apt: Apt, progress: Progress) {
    this.folder = folder;
    this.#apt = apt;
    this.#progress = progress;
  }

  /** The folder of a part, fetched when it is not there. @throws InputError */
  async part(plan: PartPlan): Promise<string> {
    const whole = join(this.folder, plan.name);
    if (existsSync(whole)) return whole;
    const archives = await this.#manifest(plan);
    const files: string[] = [];
    for (const [i, archive] of archives.entries()) {
      files.push(await this.#fetch(archive, `${plan.name}: archive ${i + 1} of ${archives.length}`));
    }
    const unpacked = mkdtempSync(join(this.folder, 'unpacking-'));
    try {
      for (const [i, file] of files.entries()) {
        this.#progress.say(`${plan.name}: unpacking ${i + 1} of ${files.length}`);
        await unpack(file, unpacked, plan.only);
      }
      renameSync(unpacked, whole);
    } finally {
      rmSync(unpacked, { recursive: true, force: true });
      this.#progress.done();
    }
    for (const file of files) rmSync(file, { force: true });
    return whole;
  }

  /** What a part is made of, by its manifest. */
  manifestOf(name: string): readonly Archive[] {
    const path = join(this.folder, `${name}.json`);
    try {
      return JSON.parse(readFileSync(path, 'utf8')) as Archive[];
    } catch {
      throw new InputError(path, undefined, 'cannot be read; delete it and run this again');
    }
  }

  async #manifest({ name, archives }: PartPlan): Promise<readonly Archive[]> {
    const path = join(this.folder, `${name}.json`);
    if (existsSync(path)) return this.manifestOf(name);
    this.#progress.say(`${name}: reading package lists`);
    const found = await archives();
    mkdirSync(this.folder, { recursive: true });
    writeFileSync(`${path}.new`, `${JSON.stringify(found, null, 2)}\n`);
    renameSync(`${path}.new`, path);
    return found;
  }

  /** Downloads an archive unless it is there and whole. */
  async #fetch(archive: Archive, label: string): Promise<string> {
    const folder = join(this.folder, 'archives');
    const path = join(folder, archive.file);
    mkdirSync(folder, { recursive: true });
    if (await isWhole(path, archive)) return path;
    rmSync(path, { force: true });
    const watch = setInterval(() => {
      const done = statSync(path, { throwIfNoEntry: false })?.size ?? 0;
      this.#progress.say(`${label}: ${megabytes(done)} of ${megabytes(archive.sizeBytes)} MB`);
    }, 200);
    try {
      await this.#apt.download(archive.package, folder);
    } finally {
      clearInterval(watch);
    }
    if (await isWhole(path, archive)) return path;
    rmSync(path, { force: true });
    const manifest = `${label.slice(0, label.indexOf(':'))}.json`;
    throw new InputError(
      archive.file,
      undefined,
      `came damaged, or the archive holds a newer one; delete ${join(this.folder, manifest)} and run this again`,
    );
  }
}

const megabytes = (bytes: number): string => (bytes / 1e6).toFixed(1);

/** Whether a file has the size and the checksum of an archive. */
export async function isWhole(path: string, { sizeBytes, sha256 }: Archive): Promise<boolean> {
  if (statSync(path, { throwIfNoEntry: false })?.size !== sizeBytes) return false;
  const hash = createHash('sha256');
  await pipeline(createReadStream(path), hash);
  return hash.digest('hex') === sha256;
}

async function unpack(file: string, folder: string, only: string | undefined): Promise<void> {
  const ran = await runCommand('dpkg-deb', ['--extract', file, folder]);
  if (ran.missing) throw new InputError('dpkg-deb', undefined, 'is not here; it unpacks Debian packages');
  if (ran.status !== 0) throw new InputError(file, undefined, `cannot be unpacked: ${lastLine(ran)}`);
  if (only === undefined) return;
  // A kernel's modules are ten times as large as the kernel, and no guest loads one.
  for (const entry of readdirSync(folder)) {
    if (entry !== only) rmSync(join(folder, entry), { recursive: true, force: true });
  }
}
