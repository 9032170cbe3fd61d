import { createHash } from 'node:crypto';
import {
  createReadStream,
  existsSync,
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
import { InputError, makeFolders } from '../lib/index.ts';
import type { Archive } from './debian.ts';
import type { Progress } from './progress.ts';
import { complaint, runCommand } from './run-command.ts';
import { Unavailable } from './unavailable.ts';

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

/** Who puts packages into a folder: apt, or a test. @throws InputError */
export interface Downloader {
  download(packages: readonly string[], folder: string): Promise<void>;
  /** Learns anew which packages there are. */
  update(): Promise<void>;
}

export class Store {
  readonly folder: string;
  readonly #apt: Downloader;
  readonly #progress: Progress;

  constructor(folder: string, apt: Downloader, progress: Progress) {
    this.folder = folder;
    this.#apt = apt;
    this.#progress = progress;
  }

  /** The folder of a part, fetched when it is not there. @throws InputError */
  async part(plan: PartPlan): Promise<string> {
    const whole = join(this.folder, plan.name);
    if (existsSync(whole)) return whole;
    const files = await this.#files(plan);
    const unpacked = mkdtempSync(join(this.folder, 'unpacking-'));
    try {
      for (const [i, file] of files.entries()) {
        this.#progress.say(`${plan.name}: unpacking ${i + 1} of ${files.length}`);
        await unpack(file, unpacked, plan.only);
      }
      // Another run may have been as far a moment ago: its part is as good.
      if (!existsSync(whole)) renameSync(unpacked, whole);
    } finally {
      rmSync(unpacked, { recursive: true, force: true });
      this.#progress.done();
    }
    for (const file of files) rmSync(file, { force: true });
    return whole;
  }

  /** The archives of a part. Lists grow old: an archive that is there no more has a newer one in its place. */
  async #files(plan: PartPlan): Promise<string[]> {
    try {
      return await this.#fetch(plan.name, await this.#manifest(plan));
    } catch (error) {
      if (!(error instanceof Unavailable)) throw error;
      await this.#apt.update();
      rmSync(join(this.folder, `${plan.name}.json`), { force: true });
      return await this.#fetch(plan.name, await this.#manifest(plan));
    }
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
    makeFolders(this.folder);
    writeFileSync(`${path}.new`, `${JSON.stringify(found, null, 2)}\n`);
    renameSync(`${path}.new`, path);
    return found;
  }

  /** Downloads those archives that are not there and whole. */
  async #fetch(name: string, archives: readonly Archive[]): Promise<string[]> {
    const folder = join(this.folder, 'archives');
    makeFolders(folder);
    const path = ({ file }: Archive): string => join(folder, file);
    const missing: Archive[] = [];
    for (const archive of archives) {
      if (await isWhole(path(archive), archive)) continue;
      rmSync(path(archive), { force: true });
      missing.push(archive);
    }
    if (missing.length > 0) await this.#download(name, missing, folder);
    for (const archive of missing) {
      if (await isWhole(path(archive), archive)) continue;
      rmSync(path(archive), { force: true });
      const advice = `delete ${join(this.folder, `${name}.json`)} and run this again`;
      throw new InputError(archive.file, undefined, `came damaged, or there is a newer one; ${advice}`);
    }
    return archives.map(path);
  }

  async #download(name: string, archives: readonly Archive[], folder: string): Promise<void> {
    const all = archives.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
    const watch = setInterval(() => {
      const sizes = archives.map(
        ({ file }) => statSync(join(folder, file), { throwIfNoEntry: false })?.size ?? 0,
      );
      const done = sizes.reduce((sum, size) => sum + size, 0);
      this.#progress.say(`${name}: ${megabytes(done)} of ${megabytes(all)} MB`);
    }, 200);
    try {
      const names = archives.map((archive) => archive.package);
      await this.#apt.download(names, folder);
    } finally {
      clearInterval(watch);
    }
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
  if (ran.missing) throw new Unavailable('dpkg-deb', 'is not here; it unpacks Debian packages');
  if (ran.status !== 0) throw new InputError(file, undefined, `cannot be unpacked: ${complaint(ran)}`);
  if (only === undefined) return;
  // A kernel's modules are ten times as large as the kernel, and no guest loads one.
  for (const entry of readdirSync(folder)) {
    if (entry !== only) rmSync(join(folder, entry), { recursive: true, force: true });
  }
}
