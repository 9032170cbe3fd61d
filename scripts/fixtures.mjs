// Builds the objects of test/fixtures from their C sources.
//
//   node scripts/fixtures.mjs           builds them all
//   node scripts/fixtures.mjs --check   builds elsewhere and compares with what is there
//
// Compared byte for byte, except .BTF: gcc orders its types by addresses in its own memory, anew in each
// run, so there the types are compared, in any order.
//
// Exit 0: built, the same, or not compared (said on the first line). 1: something differs.

import { execFileSync } from 'node:child_process';
import { copyFileSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import process from 'node:process';
import { fileURLToPath } from 'node:url';

/** The compiler the committed objects were made with; another one makes other bytes. */
const GCC_VERSION = '12.2';

const SOURCES = fileURLToPath(new URL('../test/fixtures/', import.meta.url));

/** As the kernel compiles itself, less what depends on its configuration, plus reproducibility. */
const KERNEL = [
  ...['-O2', '-mcmodel=kernel', '-mno-red-zone', '-mgeneral-regs-only', '-fno-pic', '-ffreestanding'],
  ...['-fno-stack-protector', '-fcf-protection=none', '-fno-asynchronous-unwind-tables'],
  ...['-fno-optimize-sibling-calls', '-fno-ipa-icf', '-fno-ipa-ra', '-fno-ident', '-Wall', '-Werror'],
];
const TRACED = ['-pg', '-mfentry', '-mrecord-mcount'];
const BTF = ['-gbtf'];
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

function gccVersion() {
  try {
    return execFileSync('gcc', ['-dumpfullversion'], { encoding: 'utf8' }).trim();
  } catch {
    return undefined;
  }
}

/**
 * Compiles one fixture into a folder. gcc writes the absolute path of its source into BTF, whatever
 * -ffile-prefix-map says, unless preprocessed text tells it another working directory: hence two steps.
 */
function build({ output, source, flags }, folder) {
  const built = join(folder, output);
  const text = execFileSync('gcc', ['-E', '-P', source], { cwd: SOURCES, encoding: 'utf8' });
  const input = `# 0 "${source}"\n# 0 ".//"\n# 1 "${source}"\n${text}`;
  const stdio = ['pipe', 'inherit', 'inherit'];
  execFileSync('gcc', [...flags, '-fpreprocessed', '-x', 'c', '-', '-o', built], {
    cwd: SOURCES,
    input,
    stdio,
  });
  if (readFileSync(built).includes(SOURCES.replace(/\/$/, ''))) {
    throw new Error(`${output} holds the path of this checkout`);
  }
  return built;
}

/** An object without its BTF, and the types of its BTF in an order of our own. */
function comparable(file, folder) {
  const rest = join(folder, 'rest');
  const btf = join(folder, 'btf');
  execFileSync('objcopy', ['--remove-section=.BTF', file, rest]);
  execFileSync('objcopy', ['-O', 'binary', '-j', '.BTF', '--set-section-flags', '.BTF=alloc', file, btf]);
  return JSON.stringify([readFileSync(rest).toString('hex'), btfTypes(readFileSync(btf))]);
}

/** Each type of a BTF section as text, sorted. A type names others by their names, so no number is in it. */
function btfTypes(bytes) {
  if (bytes.length === 0) return [];
  const word = (at) => bytes.readUInt32LE(at);
  const header = word(4);
  const strings = bytes.subarray(header + word(16));
  const name = (at) => strings.toString('latin1', at, strings.indexOf(0, at));

  // Words after the three that all kinds have: once, or for each of vlen items. n is a name, t a type.
  const tails = { 1: 'x', 3: 'ttx', 14: 'x', 17: 'x' };
  const items = { 4: 'ntx', 5: 'ntx', 6: 'nx', 13: 'nt', 15: 'txx', 19: 'nxx' };
  const references = [2, 8, 9, 10, 11, 12, 13, 14, 17, 18];
  const types = [{ kind: 0 }];
  for (let at = header + word(8), end = at + word(12); at < end; ) {
    const kind = (word(at + 4) >>> 24) & 31;
    const layout = (tails[kind] ?? '') + (items[kind] ?? '').repeat(word(at + 4) & 0xffff);
    const fields = [
      ['n', word(at)],
      ['x', word(at + 4)],
      [references.includes(kind) ? 't' : 'x', word(at + 8)],
    ];
    at += 12;
    for (const field of layout) {
      fields.push([field, word(at)]);
      at += 4;
    }
    types.push({ kind, name: name(fields[0][1]), fields });
  }
  const short = (type) => (type.kind === 0 ? 'void' : type.name ? `${type.kind} ${type.name}` : long(type));
  const long = ({ fields }) =>
    `(${fields.map(([f, value]) => (f === 'n' ? name(value) : f === 't' ? short(types[value]) : value)).join(' ')})`;
  return types.slice(1).map(long).sort();
}

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
      const built = build(fixture, folder);
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
