/**
 * `npm run setup`: everything a fresh checkout needs, each step only when it is due. Plain Node, because
 * nothing else is there at first. `npm test` and `npm run demo` begin with it.
 */

import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync, realpathSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { ensureLibunicorn, LibunicornError } from './libunicorn.mjs';

export const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));

const MIN_NODE = [20, 19];

/** A step that failed; `exitCode` 2 when the user has to change something first, 1 otherwise. */
export class SetupError extends Error {
  name = 'SetupError';

  constructor(message, exitCode) {
    super(message);
    this.exitCode = exitCode;
  }
}

/** Whether a Node version such as `20.19.0` will do. */
export function nodeIsRecent(version) {
  const [major = 0, minor = 0] = version.split('.').map(Number);
  return major > MIN_NODE[0] || (major === MIN_NODE[0] && minor >= MIN_NODE[1]);
}

/**
 * Whether what is installed is what the lock file asks for: `installed` is the record npm leaves in
 * node_modules at the end of a complete installation. Packages for other platforms may be absent.
 */
export function isInstalled(lock, installed) {
  const wanted = Object.entries(lock.packages).filter(([path]) => path !== '');
  const complete = wanted.every(([path, { version, integrity, optional }]) => {
    const found = installed.packages[path];
    return found === undefined
      ? optional === true
      : found.version === version && found.integrity === integrity;
  });
  return complete && Object.keys(installed.packages).every((path) => path in lock.packages);
}

/**
 * All of the set-up.
 * @param build false to leave compiling to the caller
 * @throws SetupError with one line that says what to do
 */
export function setUp({ build = true, say = (line) => console.log(`setup: ${line}`) } = {}) {
  if (!nodeIsRecent(process.versions.node)) {
    throw new SetupError(
      `Node ${MIN_NODE.join('.')} or newer is needed, this is ${process.versions.node}`,
      2,
    );
  }
  // An installed package has neither lock file nor sources: there only the library is missing.
  const checkout = existsSync(join(ROOT, 'package-lock.json'));
  if (checkout) installPackages(say);
  try {
    ensureLibunicorn(ROOT, say);
  } catch (error) {
    if (error instanceof LibunicornError) throw new SetupError(error.message, 2);
    // A checkout of another user, a full disk: the system's message names the path.
    if (typeof error.code === 'string') throw new SetupError(`libunicorn: ${error.message}`, 2);
    throw error;
  }
  if (checkout && build && !compile('cli')) throw new SetupError('the sources do not compile; see above', 1);
}

function installPackages(say) {
  const lock = readJson(join(ROOT, 'package-lock.json'));
  const installed = readJson(join(ROOT, 'node_modules', '.package-lock.json'));
  if (lock !== undefined && installed !== undefined && isInstalled(lock, installed)) return;
  say('npm ci');
  // No package here needs its install script: native parts come prebuilt, as optional dependencies.
  const args = ['ci', '--ignore-scripts', '--include=dev', '--include=optional', '--loglevel=error'];
  const npm = process.env.npm_execpath;
  const { status, error } = npm?.endsWith('.js')
    ? spawnSync(process.execPath, [npm, ...args], { cwd: ROOT, stdio: 'inherit' })
    : spawnSync('npm', args, { cwd: ROOT, stdio: 'inherit' });
  if (status !== 0) {
    throw new SetupError(`npm ci failed${error ? ` (${error.message})` : ''}; see above, then try again`, 1);
  }
}

function readJson(path) {
  try {
    return JSON.parse(readFileSync(path, 'utf8'));
  } catch {
    return undefined;
  }
}

/** Type check and build of what changed, errors on the terminal. @param project a folder with its own tsconfig.json */
export function compile(project) {
  const tsc = join(ROOT, 'node_modules', 'typescript', 'bin', 'tsc');
  return spawnSync(process.execPath, [tsc, '-b', project], { cwd: ROOT, stdio: 'inherit' }).status === 0;
}

/** Runs `main` when `url` is the script that Node was started with; a SetupError becomes a line and a status. */
export async function runAsScript(url, main) {
  if (process.argv[1] === undefined || realpathSync(process.argv[1]) !== fileURLToPath(url)) return;
  try {
    await main();
  } catch (error) {
    if (!(error instanceof SetupError)) throw error;
    console.error(`setup: ${error.message}`);
    process.exitCode = error.exitCode;
  }
}

await runAsScript(import.meta.url, () => setUp());
