/**
 * libunicorn 2, the CPU emulator behind the default engine: found on this machine, or fetched from the
 * distribution's archive into `.cache/unicorn/` without root and without installing anything.
 */

import { spawnSync } from 'node:child_process';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  symlinkSync,
} from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';

const FILE = 'libunicorn.so.2';

/** The package's names in the archives of Debian and Ubuntu. */
const DEBIAN_PACKAGES = ['libunicorn2', 'libunicorn2t64'];

/** Where libraries live that the system's loader does not look for by itself. */
const FOLDERS = [
  '/usr/local/lib',
  '/usr/local/lib64',
  '/opt/homebrew/lib',
  '/opt/local/lib',
  '/usr/lib64',
  '/usr/lib',
];

/** Something that the user has to do; `message` says what. */
export class LibunicornError extends Error {
  name = 'LibunicornError';
}

/** The library inside the project, fetched or linked. */
export function ownLibrary(root) {
  return join(root, '.cache', 'unicorn', FILE);
}

/**
 * Where to look, in order. `named`: the user chose it, so nothing else will do; `link`: the engine would not
 * find it by itself, so it gets a link in the project.
 */
export function candidates({ root, env, platform }) {
  const named = env.TRAMPLAB_UNICORN;
  if (named) return [{ path: named, named: true, link: false }];
  const file = platform === 'darwin' ? 'libunicorn.2.dylib' : FILE;
  return [
    { path: ownLibrary(root), named: false, link: false },
    { path: file, named: false, link: false },
    ...FOLDERS.map((folder) => ({ path: join(folder, file), named: false, link: true })),
  ];
}

/** The command that installs libunicorn on a system, from its platform and the text of its os-release. */
export function installCommand(platform, osRelease) {
  if (platform === 'darwin') return 'brew install unicorn';
  const field = (name) =>
    new RegExp(`^${name}=["']?([^"'\n]*)`, 'm').exec(osRelease)?.[1]?.toLowerCase().split(/\s+/) ?? [];
  for (const id of [...field('ID'), ...field('ID_LIKE')]) {
    const command = INSTALL.get(id);
    if (command !== undefined) return command;
  }
  return undefined;
}

const INSTALL = new Map([
  ['debian', 'sudo apt-get install libunicorn2'],
  ['ubuntu', 'sudo apt-get install libunicorn2'],
  ['fedora', 'sudo dnf install unicorn'],
  ['rhel', 'sudo dnf install epel-release && sudo dnf install unicorn'],
  ['arch', 'sudo pacman -S unicorn'],
  ['alpine', 'sudo apk add unicorn'],
  ['opensuse', 'sudo zypper install libunicorn2'],
  ['suse', 'sudo zypper install libunicorn2'],
  ['void', 'sudo xbps-install unicorn'],
  ['gentoo', 'sudo emerge dev-util/unicorn'],
  ['nixos', 'nix-shell -p unicorn'],
]);

/** What to tell a user whose system has none and from whose archive none could be fetched. */
export function advice(platform, osRelease, why) {
  const command = installCommand(platform, osRelease);
  const install = command === undefined ? 'install Unicorn 2 (unicorn-engine.org)' : `run '${command}'`;
  return `libunicorn 2 is missing: ${why}; ${install}, or set TRAMPLAB_UNICORN to the path of ${FILE}`;
}

/** Version of the library at `path`, such as `2.0.1`. @throws when it cannot be loaded or is another thing. */
export function libraryVersion(root, path) {
  // koffi comes with `npm ci`, which may have run a moment ago: hence no import at the top.
  const koffi = createRequire(join(root, 'package.json'))('koffi');
  const version = koffi.load(path).func('uint32_t uc_version(void *major, void *minor)')(null, null);
  const [major, minor, patch] = [version >>> 24, (version >>> 16) & 0xff, (version >>> 8) & 0xff];
  if (major !== 2) throw new LibunicornError(`it is version ${major}.${minor}, and 2 is needed`);
  return `${major}.${minor}.${patch}`;
}

/** The first candidate that loads, or undefined. @throws LibunicornError when the named one does not. */
function find(root, env) {
  for (const { path, named, link } of candidates({ root, env, platform: process.platform })) {
    if (link && !existsSync(path)) continue;
    try {
      const found = { path, version: libraryVersion(root, path), link };
      if (link) linkOwn(root, path);
      return found;
    } catch (error) {
      if (named) throw new LibunicornError(`TRAMPLAB_UNICORN=${path} cannot be used: ${error.message}`);
    }
  }
  return undefined;
}

function linkOwn(root, path) {
  mkdirSync(join(root, '.cache', 'unicorn'), { recursive: true });
  rmSync(ownLibrary(root), { force: true });
  symlinkSync(path, ownLibrary(root));
}

/**
 * Makes sure of a loadable libunicorn.
 * @param say called with one line for a step that takes time or changes something
 * @throws LibunicornError with what to do
 */
export function ensureLibunicorn(root, say, env = process.env) {
  const found = find(root, env);
  if (found?.link) say(`libunicorn ${found.version}: linked to ${found.path}`);
  if (found !== undefined) return;
  const fail = (why) => {
    throw new LibunicornError(advice(process.platform, osRelease(), why));
  };
  if (!runs('apt-get') || !runs('dpkg')) fail('none is installed, and none can be fetched without apt-get');
  say('libunicorn: fetching it from the archive, into .cache/unicorn');
  const cache = join(root, '.cache');
  mkdirSync(join(cache, 'unicorn'), { recursive: true });
  const work = mkdtempSync(join(cache, 'unicorn-'));
  try {
    const fetched = fetchFromArchive(work);
    if (fetched.library === undefined) fail(`none is installed, and fetching it failed (${fetched.why})`);
    let version;
    try {
      version = libraryVersion(root, fetched.library);
    } catch (error) {
      fail(`the one fetched cannot be used (${error.message})`);
    }
    renameSync(fetched.library, ownLibrary(root));
    say(`libunicorn ${version}: ready in .cache/unicorn`);
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

/** Downloads and unpacks the Debian package below `work`: the library's path, or why there is none. */
function fetchFromArchive(work) {
  let result = downloadPackage(work, []);
  if (result !== 0) {
    // No package lists here, or a state folder of another user: keep lists and cache of our own.
    const own = privateState(work);
    const strict = ['-o', 'APT::Update::Error-Mode=any'];
    const update = run('apt-get', [...own, ...strict, '-qq', 'update'], work);
    if (update.status !== 0) return { why: `apt-get update: ${lastLine(update)}` };
    result = downloadPackage(work, own);
  }
  const archive = readdirSync(work).find((name) => name.endsWith('.deb'));
  if (result !== 0 || archive === undefined) return { why: `apt-get download: ${result}` };
  const unpack = run('dpkg', ['-x', archive, 'package'], work);
  if (unpack.status !== 0) return { why: `dpkg -x: ${lastLine(unpack)}` };
  const unpacked = findFile(join(work, 'package'), FILE);
  if (unpacked === undefined) return { why: `no ${FILE} in ${archive}` };
  const library = join(work, FILE);
  copyFileSync(realpathSync(unpacked), library);
  return { library };
}

/** 0, or the last complaint. */
function downloadPackage(work, options) {
  let complaint = '';
  for (const name of DEBIAN_PACKAGES) {
    const download = run('apt-get', [...options, '-qq', 'download', name], work);
    if (download.status === 0) return 0;
    complaint ||= lastLine(download);
  }
  return complaint;
}

/** apt options for lists and a cache below `work`; what is installed is still read from the system. */
function privateState(work) {
  const state = join(work, 'state');
  const cache = join(work, 'cache');
  mkdirSync(join(state, 'lists', 'partial'), { recursive: true });
  mkdirSync(join(cache, 'archives', 'partial'), { recursive: true });
  const settings = [`Dir::State=${state}`, `Dir::Cache=${cache}`, 'Dir::State::status=/var/lib/dpkg/status'];
  return settings.flatMap((setting) => ['-o', setting]);
}

function run(command, args, cwd) {
  // As root apt would drop to a user who may not see this folder.
  const sandbox = command === 'apt-get' && process.getuid?.() === 0 ? ['-o', 'APT::Sandbox::User=root'] : [];
  const env = { ...process.env, LC_ALL: 'C' };
  return spawnSync(command, [...sandbox, ...args], { cwd, env, encoding: 'utf8' });
}

function runs(command) {
  return spawnSync(command, ['--version'], { stdio: 'ignore' }).status === 0;
}

function lastLine({ stderr, stdout, error, status }) {
  const lines = `${stdout ?? ''}\n${stderr ?? ''}`.split('\n').filter((line) => line.trim() !== '');
  return error?.message ?? lines.at(-1) ?? `status ${status}`;
}

function findFile(folder, name) {
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    const found = entry.isDirectory() ? findFile(path, name) : entry.name === name ? path : undefined;
    if (found !== undefined) return found;
  }
  return undefined;
}

function osRelease() {
  try {
    return readFileSync('/etc/os-release', 'utf8');
  } catch {
    return '';
  }
}
