// What is fetched for the selftests: Debian's kernel source and libbpf's headers, through apt, without root,
// once. Both stay in the cache folder, which git does not see.

import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { SetupError } from '../setup.mjs';

const KERNEL_SOURCE = 'linux-source-6.1';
const LIBBPF = 'libbpf-dev';

/** Of a source tree of more than a gigabyte: the programs, and the headers of the kernel's interface. */
const WANTED = ['tools/testing/selftests/bpf/progs', 'tools/include/uapi', 'include/uapi/asm-generic'];

/**
 * @param conformance the room's module: it knows how packages are fetched
 * @returns folders of the programs and of headers, and which packages they are from
 */
export async function fetchSelftests({ Apt, Store, terminalProgress }, cache) {
  mkdirSync(cache, { recursive: true });
  const progress = terminalProgress();
  const apt = new Apt(join(cache, 'apt'));
  const store = new Store(cache, apt, progress);
  const name = `selftests-${KERNEL_SOURCE}`;
  const part = await store.part({
    name,
    archives: () => apt.archives([KERNEL_SOURCE, LIBBPF]),
    only: 'usr',
  });
  const source = join(cache, KERNEL_SOURCE);
  if (!existsSync(source)) {
    progress.say(`${KERNEL_SOURCE}: unpacking the selftests`);
    unpack(join(part, 'usr', 'src', `${KERNEL_SOURCE}.tar.xz`), source, cache);
    progress.done();
  }
  return {
    programs: join(source, WANTED[0]),
    headers: [
      join(source, 'tools', 'include', 'uapi'),
      join(source, 'include', 'uapi'),
      join(part, 'usr', 'include'),
    ],
    packages: store
      .manifestOf(name)
      .map(({ file }) => file.split('_').slice(0, 2).map(decodeURIComponent).join(' ')),
  };
}

/** Takes what is wanted out of the archive: all of it or nothing. */
function unpack(archive, folder, cache) {
  const unpacked = mkdtempSync(join(cache, 'unpacking-'));
  try {
    const members = WANTED.map((path) => `${KERNEL_SOURCE}/${path}`);
    const args = ['--extract', '--xz', '--strip-components=1', '-C', unpacked, '-f', archive, ...members];
    const { status, error, stderr } = spawnSync('tar', args, { encoding: 'utf8' });
    if (status !== 0) {
      const why = error?.code === 'ENOENT' ? 'tar is not here' : stderr.trim().split('\n')[0];
      throw new SetupError(`${archive} cannot be unpacked: ${why}; tar and xz are needed`, 2);
    }
    renameSync(unpacked, folder);
  } finally {
    rmSync(unpacked, { recursive: true, force: true });
  }
}
