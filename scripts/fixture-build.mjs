// How fixtures are made with gcc, and how two builds of one are compared: for fixtures.mjs and
// bpf-fixtures.mjs.

import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

/** The compiler the committed objects were made with; another one makes other bytes. */
export const GCC_VERSION = '12.2';

/** As the kernel compiles itself, less what depends on its configuration, plus reproducibility. */
export const KERNEL = [
  ...['-O2', '-mcmodel=kernel', '-mno-red-zone', '-mgeneral-regs-only', '-fno-pic', '-ffreestanding'],
  ...['-fno-stack-protector', '-fcf-protection=none', '-fno-asynchronous-unwind-tables'],
  ...['-fno-optimize-sibling-calls', '-fno-ipa-icf', '-fno-ipa-ra', '-fno-ident', '-Wall', '-Werror'],
];
/** With trace sites, and a table that lists them. */
export const TRACED = ['-pg', '-mfentry', '-mrecord-mcount'];
export const BTF = ['-gbtf'];

/** Undefined when there is no gcc. */
export function gccVersion() {
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
export function buildWithGcc({ output, source, flags }, sources, folder) {
  const built = join(folder, output);
  const text = execFileSync('gcc', ['-E', '-P', source], { cwd: sources, encoding: 'utf8' });
  const input = `# 0 "${source}"\n# 0 ".//"\n# 1 "${source}"\n${text}`;
  const stdio = ['pipe', 'inherit', 'inherit'];
  execFileSync('gcc', [...flags, '-fpreprocessed', '-x', 'c', '-', '-o', built], {
    cwd: sources,
    input,
    stdio,
  });
  if (readFileSync(built).includes(sources.replace(/\/$/, ''))) {
    throw new Error(`${output} holds the path of this checkout`);
  }
  return built;
}

/** An object without its BTF, and the types of its BTF in an order of our own. */
export function comparable(file, folder) {
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
