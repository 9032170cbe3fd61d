// Builds the objects of test/fixtures/bpf from their C sources: the programs with clang, the target that
// they trace with gcc.
//
//   node scripts/bpf-fixtures.mjs           builds them all
//   node scripts/bpf-fixtures.mjs --check   builds elsewhere and compares with what is there, byte for byte
//                                           (the target as fixtures.mjs does it)
//
// Exit 0: built, the same, or not compared (said on the first line). 1: something differs.

import { execFileSync } from 'node:child_process';
import { copyFileSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import process from 'node:process';
import { fileURLToPath } from 'node:url';
import { BTF, buildWithGcc, comparable, GCC_VERSION, gccVersion, KERNEL, TRACED } from './fixture-build.mjs';

/** The compiler the committed objects were made with; another one makes other bytes. */
const CLANG_VERSION = '19';

const SOURCES = fileURLToPath(new URL('../test/fixtures/bpf/', import.meta.url));

/** As users compile: the debug information is for BTF, and dropped once that is made of it. */
const CLANG = [
  ...['--target=bpfel', '-O2', '-g', '-c', '-Wall', '-Werror', '-Wno-unused'],
  // No path of this machine among the file names.
  ...['-ffile-compilation-dir=.', '-fno-ident'],
];

/** Sources that are compiled for other versions of the instruction set than the usual third. */
const VERSIONS = { 'isa.bpf.c': ['v1', 'v2', 'v3', 'v4'] };

const TARGET = { output: 'targets.o', source: 'targets.c', flags: [...KERNEL, ...TRACED, ...BTF, '-c'] };

/** What is built how. */
const PROGRAMS = readdirSync(SOURCES)
  .filter((name) => name.endsWith('.bpf.c'))
  .sort()
  .flatMap((source) =>
    (VERSIONS[source] ?? ['']).map((version) => ({
      source,
      output: source.replace('.bpf.c', `${version && '-'}${version}.bpf.o`),
      cpu: version || 'v3',
    })),
  );

/** The name of a tool of the right version, or undefined. */
function llvmTool(name) {
  for (const candidate of [`${name}-${CLANG_VERSION}`, name]) {
    try {
      const text = execFileSync(candidate, ['--version'], { encoding: 'utf8', stdio: 'pipe' });
      if (new RegExp(`version ${CLANG_VERSION}\\.`).test(text)) return candidate;
    } catch {
      // The next one, or none.
    }
  }
  return undefined;
}

function buildProgram({ source, output, cpu }, { clang, strip }, folder) {
  const built = join(folder, output);
  execFileSync(clang, [...CLANG, `-mcpu=${cpu}`, source, '-o', built], { cwd: SOURCES, stdio: 'inherit' });
  execFileSync(strip, ['--strip-debug', built]);
  if (readFileSync(built).includes(SOURCES.replace(/\/$/, ''))) {
    throw new Error(`${output} holds the path of this checkout`);
  }
  return built;
}

function main() {
  const check = process.argv.includes('--check');
  const tools = { clang: llvmTool('clang'), strip: llvmTool('llvm-strip') };
  const gcc = gccVersion();
  const skip =
    tools.clang === undefined || tools.strip === undefined
      ? `clang ${CLANG_VERSION} with llvm-strip, and they are not here`
      : gcc?.startsWith(`${GCC_VERSION}.`)
        ? undefined
        : `gcc ${GCC_VERSION}, and ${gcc === undefined ? 'there is none' : `gcc is ${gcc}`} here`;
  if (skip !== undefined) {
    console.log(`skipped: the eBPF fixtures are made with ${skip}`);
    return check ? 0 : 1;
  }
  const folder = mkdtempSync(join(tmpdir(), 'tramplab-bpf-fixtures-'));
  let differing = 0;
  const settle = (output, built, read) => {
    const committed = join(SOURCES, output);
    if (!check) {
      copyFileSync(built, committed);
      console.log(`built ${output}`);
    } else if (read(built) !== read(committed)) {
      console.log(`differs: ${output} (rebuild with: node scripts/bpf-fixtures.mjs)`);
      differing++;
    }
  };
  try {
    const target = buildWithGcc(TARGET, SOURCES, folder);
    settle(TARGET.output, target, (file) => comparable(file, folder));
    for (const program of PROGRAMS) {
      const built = buildProgram(program, tools, folder);
      settle(program.output, built, (file) => readFileSync(file, 'latin1'));
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
  if (check && differing === 0) console.log(`the same: ${PROGRAMS.length + 1} eBPF fixtures`);
  return differing === 0 ? 0 : 1;
}

process.exitCode = main();
