import { join } from 'node:path';
import process from 'node:process';
import { makeFolders } from '../lib/index.ts';
import { type Archive, parseArchives, parsePackages } from './debian.ts';
import { complaint, type Ran, runCommand } from './run-command.ts';
import { Unavailable } from './unavailable.ts';

/*
 * Debian's packages through apt, as the machine is set up for it: which mirrors there are, and whether what
 * they say is signed, is apt's business. Nothing is installed, and no root is needed.
 */

export class Apt {
  readonly #folder: string;
  #options: string[];

  /** @param folder for what apt keeps: its own lists are used as long as they will do */
  constructor(folder: string) {
    this.#folder = folder;
    const archives = this.#make('archives');
    // An archive of the system's own cache would not be named, as it needs no download.
    this.#options = ['-o', `Dir::Cache::archives=${archives}`];
    // As root apt would drop to a user who may not see this folder.
    if (process.getuid?.() === 0) this.#options.push('-o', 'APT::Sandbox::User=root');
  }

  /** Names of packages that start with a text. */
  async names(prefix: string): Promise<string[]> {
    const { stdout } = await this.#run('apt-cache', ['pkgnames', prefix]);
    return stdout.split('\n').filter((name) => name !== '');
  }

  /** Archives of packages. @throws Unavailable when apt does not know one */
  async archives(packages: readonly string[]): Promise<Archive[]> {
    const ran = await this.#run('apt-get', ['-qq', 'download', '--print-uris', ...packages]);
    const found = parseArchives(ran.stdout);
    if (ran.status === 0 && found.length === packages.length) return found;
    throw new Unavailable('apt-get', `does not know ${packages.join(', ')}: ${complaint(ran)}`);
  }

  /** Packages and all that they need and this machine does not have. @throws Unavailable */
  async withDependencies(packages: readonly string[]): Promise<string[]> {
    const args = ['install', '--print-uris', '-qq', '-y', '--no-install-recommends', ...packages];
    const ran = await this.#run('apt-get', args);
    if (ran.status !== 0) {
      throw new Unavailable('apt-get', `cannot tell what ${packages.join(', ')} needs: ${complaint(ran)}`);
    }
    return parsePackages(ran.stdout);
  }

  /** Downloads packages into a folder. @throws Unavailable */
  async download(names: readonly string[], folder: string): Promise<void> {
    const ran = await this.#run('apt-get', ['-qq', 'download', ...names], folder);
    if (ran.status !== 0) {
      throw new Unavailable(
        'apt-get',
        `cannot download ${names.join(', ')}: ${complaint(ran)}; is there a network?`,
      );
    }
  }

  /**
   * Fetches package lists into our own folder, for a machine that has none or old ones; what is installed is
   * still read from the system. @throws Unavailable
   */
  async update(): Promise<void> {
    this.#make('lists');
    this.#options.push('-o', `Dir::State::lists=${join(this.#folder, 'lists')}`);
    this.#options.push('-o', `Dir::Cache::pkgcache=`, '-o', `Dir::Cache::srcpkgcache=`);
    const ran = await this.#run('apt-get', ['-qq', '-o', 'APT::Update::Error-Mode=any', 'update']);
    if (ran.status !== 0) {
      throw new Unavailable('apt-get', `cannot fetch package lists: ${complaint(ran)}; is there a network?`);
    }
  }

  async #run(command: string, args: readonly string[], cwd?: string): Promise<Ran> {
    const ran = await runCommand(command, [...this.#options, ...args], cwd === undefined ? {} : { cwd });
    if (ran.missing) {
      throw new Unavailable(
        command,
        'is not here; what is to be fetched are Debian packages, so run this on Debian or Ubuntu',
      );
    }
    return ran;
  }

  /** A folder of ours with the part of it where apt keeps what is not whole yet. */
  #make(name: string): string {
    makeFolders(join(this.#folder, name, 'partial'));
    return join(this.#folder, name);
  }
}
