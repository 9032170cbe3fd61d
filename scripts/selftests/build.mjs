// The selftests with clang, their targets with gcc.

import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { BTF, buildWithGcc, gccVersion, KERNEL, TRACED } from '../fixture-build.mjs';
import { SetupError } from '../setup.mjs';

const HERE = fileURLToPath(new URL('.', import.meta.url));

/** -gbtf came with it. */
const OLDEST_GCC = 12;
/** Newest first; Debian's packages have the number in the name. */
const CLANGS = ['clang', ...Array.from({ length: 10 }, (_, i) => `clang-${22 - i}`)];

const CLANG = [
  ...['--target=bpfel', '-mcpu=v3', '-O2', '-g', '-c', '-D__TARGET_ARCH_x86'],
  // Headers of the compiler's own and those that are named, so that every machine makes the same.
  '-nostdlibinc',
  // They are the kernel's: what they are warned of is not ours to mend.
  '-w',
];

/** The clang that is used, and its first line about itself. @throws SetupError when there is none */
export function findClang() {
  for (const command of CLANGS) {
    const { status, stdout } = spawnSync(command, ['--version'], { encoding: 'utf8' });
    if (status !== 0) continue;
    const targets = spawnSync(command, ['--print-targets'], { encoding: 'utf8' });
    if (!/^\s*bpfel\b/m.test(targets.stdout)) continue;
    return { command, version: /version (\S+?)[\s(]/.exec(`${stdout} `)?.[1] ?? 'of no known version' };
  }
  throw new SetupError(
    'no clang that compiles for bpfel is here; install one, as with: sudo apt-get install clang',
    2,
  );
}

/** Compiles one selftest. @throws SetupError with the compiler's first error */
export function buildSelftest(clang, { programs, headers }, name, folder) {
  const built = join(folder, `${name}.bpf.o`);
  const include = [join(HERE, 'include'), ...headers].map((path) => `-I${path}`);
  const args = [...CLANG, ...include, join(programs, `${name}.c`), '-o', built];
  const { status, stderr } = spawnSync(clang.command, args, { encoding: 'utf8' });
  if (status === 0) return built;
  const error = stderr.split('\n').find((line) => / error: /.test(line)) ?? stderr.trim();
  throw new SetupError(`${name}.c does not compile: ${error}`, 1);
}

/** Compiles what the selftests trace. @throws SetupError when there is no gcc for it */
export function buildTargets(folder) {
  const version = gccVersion();
  if (version === undefined || Number.parseInt(version, 10) < OLDEST_GCC) {
    const found = version === undefined ? 'there is none' : `this is ${version}`;
    throw new SetupError(`gcc ${OLDEST_GCC} or newer is needed for what the selftests trace; ${found}`, 2);
  }
  const flags = [...KERNEL, ...TRACED, ...BTF, '-c'];
  return buildWithGcc({ output: 'targets.o', source: 'targets.c', flags }, HERE, folder);
}
