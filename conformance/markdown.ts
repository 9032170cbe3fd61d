import type { CombinationResult, ConformanceReport } from './conformance.ts';

/*
 * docs/conformance.md: what kernels said, as tables.
 */

/** The page. @param reports one per boot; those of the plain setting give the columns of the long table */
export function conformancePage(reports: readonly ConformanceReport[]): string {
  const plain = reports.filter(({ cpu, kaslr, append }) => cpu === null && !kaslr && append === '');
  return [INTRODUCTION, settings(reports), METHOD, combinations(plain), LIMITS].join('\n');
}

const INTRODUCTION = `# Conformance: what real kernels say

Written by \`npm run conformance:docs\`, which asks them anew; do not edit.

Kernels of Debian, booted under qemu, had programs attached to their functions. For every combination of
programs and function their trampoline images, their trace sites and what the programs saw were compared
with what is made here: bytes with the emitter, values with a run of the same combination in the lab.
`;

const METHOD = `## How

- Addresses come from the dump, and what an address means from what stands there: a \`struct bpf_prog\` holds
  the entry of its code, a \`struct bpf_tramp_image\` the address of its image. Functions are found by the
  kernel's symbols, argument sizes and offsets of fields by its BTF, the build's choices by its
  configuration, the CPU's needs by \`boot_cpu_data\` and \`x86_return_thunk\`. From these the emitter makes the
  image that has to be the kernel's. No byte of an image is stored anywhere.
- An image's end is found by decoding the kernel's bytes. \`ip_after_call\`, \`ip_epilogue\`, the symbol's name
  and (6.12) the size that the kernel keeps of the image have to agree as well.
- A trace site has to hold what the text-poke rule makes of what it held at the look before.
- Programs write what they see into a map: the arguments of their context, the return value, the function's
  address, their cookie, the count of arguments, their turn. In the lab the same program is machine code.
  Pointers that only the kernel knows are passed to the lab's function as the kernel's programs saw them.
- Bits above a small argument are not compared: the ABI leaves them to the caller. Nor is the key that a
  recursing program points to.
`;

const LIMITS = `## What this does not show

- v5.13 and v5.15: no package of them is to be had. Their bytes are compared with the kernels' emitters run
  outside a kernel (\`test/vectors\`).
- CPUs: one, emulated by qemu without KVM. IBT, FineIBT and kCFI are not exercised.
- Images that share a site with livepatch (ORIG_STACK). Of struct_ops all images are compared, but one member is
  called: \`init\`, with one argument and no result.
`;

function settings(reports: readonly ConformanceReport[]): string {
  const head = [
    'kernel',
    'CPU',
    'addresses',
    'returns by',
    'combinations',
    'images',
    'bytes equal',
    'values equal',
  ];
  const rows = reports.map(({ release, cpu, kaslr, returns, callDepth, append, combinations: all }) => [
    `${release}${append === '' ? '' : `, \`${append}\``}`,
    cpu ?? 'max, mitigations off',
    kaslr ? 'random' : 'fixed',
    `${returns}${callDepth ? ', calls counted' : ''}`,
    String(all.length),
    String(all.reduce((sum, { images }) => sum + images, 0)),
    String(all.filter(({ bytesEqual }) => bytesEqual).length),
    valuesCell(all),
  ]);
  return `## Boots\n\n${table(head, rows)}`;
}

function valuesCell(all: readonly CombinationResult[]): string {
  const compared = all.filter(({ valuesEqual }) => valuesEqual !== null);
  const equal = compared.filter(({ valuesEqual }) => valuesEqual === true).length;
  return compared.length === all.length ? String(equal) : `${equal} of ${compared.length} compared`;
}

function combinations(plain: readonly ConformanceReport[]): string {
  const names = [...new Set(plain.flatMap((report) => report.combinations.map(({ name }) => name)))];
  const of = (report: ConformanceReport, name: string): CombinationResult | undefined =>
    report.combinations.find((result) => result.name === name);
  const rows = names.map((name) => {
    const results = plain.map((report) => of(report, name));
    const known = results.find((result) => result !== undefined);
    return [
      name,
      `\`${known?.function ?? ''}\``,
      shortened(known?.programs ?? []),
      ...results.map((result) => (result === undefined ? '' : verdict(result))),
    ];
  });
  const head = ['combination', 'function', 'programs', ...plain.map(({ kernel }) => kernel)];
  return `## Combinations

Length of the last image, in bytes; \`-\` where no image was made, as for refused programs; then what differs, if
anything does.

${table(head, rows)}`;
}

function verdict({ length, bytesEqual, valuesEqual, why }: CombinationResult): string {
  const size = length === null ? '-' : String(length);
  return bytesEqual && valuesEqual !== false ? size : `${size}, differs: ${why ?? ''}`;
}

/** `fentry, 3 fexit`. */
function shortened(programs: readonly string[]): string {
  const runs: { kind: string; times: number }[] = [];
  for (const kind of programs) {
    const last = runs.at(-1);
    if (last?.kind === kind) last.times++;
    else runs.push({ kind, times: 1 });
  }
  if (runs.length > MAX_RUNS) {
    const kinds = [...new Set(programs)].map(
      (kind) => `${programs.filter((other) => other === kind).length} ${kind}`,
    );
    return `${kinds.join(', ')}, in turn`;
  }
  return runs.map(({ kind, times }) => (times === 1 ? kind : `${times} ${kind}`)).join(', ');
}

const MAX_RUNS = 6;

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]): string => `| ${cells.join(' | ')} |`;
  return `${[line(head), line(head.map(() => '---')), ...rows.map(line)].join('\n')}\n`;
}
