import process from 'node:process';
import { type Command, Option } from 'commander';
import {
  askKernel,
  type CombinationResult,
  type ConformanceReport,
  combinationsOf,
  KERNELS,
  type KernelName,
  SHORT,
  terminalProgress,
} from '../conformance/index.ts';
import { columns } from './columns.ts';
import { Exit } from './exit.ts';
import { stringify } from './fields.ts';
import { paint } from './paint.ts';
import { positive } from './target-options.ts';

interface KernelOptions {
  readonly kernel: KernelName;
  readonly cpu?: string;
  readonly kaslr?: boolean;
  readonly append?: string;
  readonly only?: string;
  readonly short?: boolean;
  readonly list?: boolean;
  readonly cache?: string;
  readonly timeout: string;
  readonly json?: boolean;
}

/** `tramplab conformance`: our word against others'. */
export function addConformance(program: Command): Command {
  const conformance = program
    .command('conformance')
    .summary('compare with what others make and see: a booted kernel')
    .description('Compares what we make and see with others.');
  conformance
    .command('kernel')
    .summary('a booted Debian kernel against our bytes and our run')
    .description(
      'Boots a kernel of Debian under qemu, attaches programs to its functions, and compares every image,\n' +
        'every trace site and everything that programs saw with our emitter and our lab. Kernel, qemu and, where\n' +
        'there is none, a compiler are fetched once, without root, into .cache/conformance. Exit 1: something differs.',
    )
    .addOption(new Option('--kernel <version>', 'which kernel').choices(KERNELS).default('6.1'))
    .option('--cpu <model>', "qemu's name of a CPU, with the kernel's mitigations on; default max, and off")
    .option('--kaslr', 'let the kernel choose its addresses')
    .option('--append <words>', "more words for the kernel's command line")
    .option('--only <names>', 'these combinations, separated by commas')
    .option('--short', 'ten combinations that have a bit of everything')
    .option('--list', 'name the combinations and ask no kernel')
    .option('--cache <folder>', 'where what is fetched is kept; default .cache/conformance in the package')
    .option('--timeout <seconds>', 'when a boot is given up', '300')
    .option('--json', 'one JSON document on standard output')
    .addHelpText(
      'after',
      `
Example:
  tramplab conformance kernel --kernel 6.12 --only 9-args-fexit,sleepable-and-not`,
    )
    .action(async (options: KernelOptions) => {
      process.exitCode = options.list === true ? list(options) : await run(options);
    });
  return conformance;
}

function list({ kernel, json }: KernelOptions): number {
  const names = combinationsOf(kernel).map(({ name }) => name);
  console.log(json === true ? stringify(names) : names.join('\n'));
  return Exit.FINE;
}

async function run(options: KernelOptions): Promise<number> {
  const { kernel, cpu, kaslr, append, cache } = options;
  const only = options.only?.split(',') ?? (options.short === true ? SHORT : undefined);
  const report = await askKernel({
    kernel,
    ...(cpu === undefined ? {} : { cpu }),
    ...(append === undefined ? {} : { append }),
    ...(cache === undefined ? {} : { cache }),
    ...(only === undefined ? {} : { only }),
    kaslr: kaslr === true,
    patience: positive('--timeout', options.timeout),
    progress: terminalProgress(),
  });
  console.log(options.json === true ? stringify(report) : page(report));
  return report.combinations.some(differs) ? Exit.FINDING : Exit.FINE;
}

const differs = ({ bytesEqual, valuesEqual }: CombinationResult): boolean =>
  !bytesEqual || valuesEqual === false;

/** For people: a row for each combination, then the sums. */
function page(report: ConformanceReport): string {
  const { combinations, release, cpu, kaslr, returns, bootSeconds } = report;
  const rows = combinations.map((result) => [
    result.name,
    result.bytesEqual ? 'equal' : 'DIFFER',
    valuesWord(result),
    result.length === null ? '-' : String(result.length),
    differs(result) ? (result.why ?? '') : '',
  ]);
  const [heading = '', ...lines] = columns([['combination', 'bytes', 'values', 'length', ''], ...rows], {
    right: [3],
  });
  const count = (wanted: (result: CombinationResult) => boolean): number =>
    combinations.filter(wanted).length;
  const images = combinations.reduce((sum, result) => sum + result.images, 0);
  const all = combinations.length;
  const setting = [`CPU ${cpu ?? 'max'}`, kaslr ? 'KASLR' : 'no KASLR', `returns by ${returns}`].join(', ');
  const values = count(({ valuesEqual }) => valuesEqual === true);
  const reasons = new Set(
    combinations.flatMap(({ valuesEqual, why }) => (valuesEqual === null ? [why ?? ''] : [])),
  );
  const unseen = [...reasons].map((why) => {
    const times = count((result) => result.valuesEqual === null && result.why === why);
    return `  not seen in ${times}: ${why}`;
  });
  return [
    paint('heading', `Linux ${release} (${setting}), booted in ${bootSeconds.toFixed(1)} s`),
    '',
    paint('heading', heading),
    ...lines,
    '',
    `bytes equal in ${count(({ bytesEqual }) => bytesEqual)} of ${all} combinations, ${images} images`,
    `values equal in ${values} of ${all}`,
    ...unseen,
  ].join('\n');
}

function valuesWord({ valuesEqual }: CombinationResult): string {
  if (valuesEqual === null) return 'not seen';
  return valuesEqual ? 'equal' : 'DIFFER';
}
