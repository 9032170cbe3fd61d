// Builds the objects of test/fixtures from their C sources.
//
//   node scripts/fixtures.mjs           builds them all
//   node scripts/fixtures.mjs --check   builds elsewhere and compares with what is there
//
// Compared byte for byte, except .BTF: gcc orders its types by addresses in its own memory, anew in each
// run, so there the types are compared, in any order.
//
// Exit 0: built, the same, or not compared (said on the first line). 1: something differs.

import { copyFileSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import process from 'node:process';
import { fileURLToPath } from 'node:url';
import { BTF, buildWithGcc, comparable, GCC_VERSION, gccVersion, KERNEL, TRACED } from './fixture-build.mjs';

const SOURCES = fileURLToPath(new URL('../test/fixtures/', import.meta.url));

const IMAGE = [
  ...['-static', '-nostdlib', '-no-pie', '-Wl,-Ttext-segment=0xffffffff81000000', '-Wl,--build-id=none'],
  ...['-Wl,-z,separate-code', '-Wl,-z,max-page-size=4096', '-Wl,-z,noexecstack'],
];

/** What is built how. */
const FIXTURES = [
  { output: 'demo.o', source: 'demo.c', flags: [...KERNEL, ...TRACED, ...BTF, '-c'] },
  { output: 'wide.o', source: 'wide.c', flags: [...KERNEL, ...TRACED, ...BTF, '-c'] },
  { output: 'control.o', source: 'control.c', flags: [...KERNEL, ...TRACED, ...BTF, '-fcommon', '-c'] },
  { output: 'probes.o', source: 'probes.c', flags: [...KERNEL, ...BTF, '-c'] },
  // The same target without trace sites, without BTF, with nops in place of calls, and as an image.
  { output: 'demo-untraced.o', source: 'demo.c', flags: [...KERNEL, ...BTF, '-c'] },
  { output: 'demo-no-btf.o', source: 'demo.c', flags: [...KERNEL, ...TRACED, '-c'] },
  {
    output: 'demo-patchable.o',
    source: 'demo.c',
    flags: [...KERNEL, ...BTF, '-fpatchable-function-entry=5', '-c'],
  },
  // As -pg -mfentry alone leaves it: calls of __fentry__, but no table that lists them.
  { output: 'demo-no-table.o', source: 'demo.c', flags: [...KERNEL, '-pg', '-mfentry', ...BTF, '-c'] },
  {
    output: 'demo-pic.o',
    source: 'demo.c',
    flags: [...KERNEL, ...TRACED, ...BTF, '-mcmodel=small', '-fpic', '-c'],
  },
  { output: 'demo.image', source: 'image.c', flags: [...KERNEL, ...TRACED, ...BTF, ...IMAGE] },
];

function main() {
  const check = process.argv.includes('--check');
  const version = gccVersion();
  if (version === undefined || !version.startsWith(`${GCC_VERSION}.`)) {
    const have = version === undefined ? 'there is no gcc' : `gcc is ${version}`;
    console.log(`skipped: the fixtures are made with gcc ${GCC_VERSION} and ${have} here`);
    return check ? 0 : 1;
  }
  const folder = mkdtempSync(join(tmpdir(), 'tramplab-fixtures-'));
  let differing = 0;
  try {
    for (const fixture of FIXTURES) {
      const built = buildWithGcc(fixture, SOURCES, folder);
      const committed = join(SOURCES, fixture.output);
      if (!check) {
        copyFileSync(built, committed);
        console.log(`built ${fixture.output}`);
      } else if (comparable(built, folder) !== comparable(committed, folder)) {
        console.log(`differs: ${fixture.output} (rebuild with: node scripts/fixtures.mjs)`);
        differing++;
      }
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
  if (check && differing === 0) console.log(`the same: ${FIXTURES.length} fixtures`);
  return differing === 0 ? 0 : 1;
}

process.exitCode = main();
