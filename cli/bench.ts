import { accessSync, constants, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import process from 'node:process';
import { type Command, Option } from 'commander';
import {
  type Change,
  type CostReport,
  compareReports,
  grew,
  hostLines,
  htmlReport,
  markdownReport,
  measureReport,
  parseReport,
  type Table,
  tablesOf,
} from '../cost/index.ts';
import { readText } from '../lab/index.ts';
import { InputError } from '../lib/index.ts';
import { MANAGED_REVISIONS, type ManagedRevision } from '../tramp/index.ts';
import { columns } from './columns.ts';
import { Exit } from './exit.ts';
import { paint } from './paint.ts';
import { progressBar } from './progress-bar.ts';

/** Columns that prose takes at most. */
const PROSE_WIDTH = 110;

interface BenchOptions {
  readonly revision?: ManagedRevision;
  readonly mix?: string;
  readonly times: boolean;
  readonly harness: boolean;
  readonly json?: boolean;
  readonly markdown?: boolean;
  readonly html?: string;
  readonly compare?: string;
  readonly failOnIncrease?: boolean;
}

/** `tramplab bench`: what each part of a traced call costs. */
export function addBench(program: Command): Command {
  return program
    .command('bench')
    .summary('what each part of a traced call costs: exact counts, times on the host CPU')
    .description(
      'Counts are exact and the same on every machine; they come from the emulator. Times come from the host CPU,\n' +
        'where it can run the same bytes. docs/costs.md explains the standard result.',
    )
    .addOption(new Option('--revision <name>', 'one kernel revision (all)').choices(MANAGED_REVISIONS))
    .option('--mix <text>', 'only mixes whose name contains this')
    .option('--no-times', 'counts only')
    .option('--no-harness', 'leave out what the harness itself costs')
    .option('--json', 'one JSON document on standard output')
    .option('--markdown', 'tables in markdown')
    .option('--html <file>', 'write a page with charts, too')
    .option('--compare <old.json>', 'show which counts changed since an earlier --json')
    .option('--fail-on-increase', 'with --compare: exit 1 when a count grew')
    .addHelpText(
      'after',
      `
Examples:
  tramplab bench --html costs.html
  tramplab bench --revision v5.15 --no-times --no-harness --json > before.json
  tramplab bench --revision v5.15 --no-times --no-harness --compare before.json --fail-on-increase`,
    )
    .action(async (options: BenchOptions) => {
      process.exitCode = await bench(options);
    });
}

async function bench(options: BenchOptions): Promise<number> {
  if (options.json === true && options.markdown === true) {
    throw new InputError('--markdown', undefined, 'excludes --json; give one of them');
  }
  if (options.failOnIncrease === true && options.compare === undefined) {
    throw new InputError('--fail-on-increase', undefined, 'needs --compare');
  }
  if (options.html !== undefined) checkWritable(options.html);
  const old =
    options.compare === undefined ? undefined : parseReport(readText(options.compare), options.compare);
  const report = await measured(options);
  const changes = old === undefined ? undefined : compareReports(old, report);
  if (options.html !== undefined) writePage(options.html, htmlReport(report));

  if (options.json === true)
    console.log(JSON.stringify(changes === undefined ? report : { ...report, changes }));
  else if (options.markdown === true) process.stdout.write(markdownReport(report));
  else console.log(changes === undefined ? page(report) : changesText(changes));
  return options.failOnIncrease === true && changes?.some(grew) === true ? Exit.FINDING : Exit.FINE;
}

async function measured({ revision, mix, times, harness }: BenchOptions): Promise<CostReport> {
  const bar = await progressBar(1);
  try {
    const report = await measureReport({
      revisions: revision === undefined ? MANAGED_REVISIONS : [revision],
      ...(mix === undefined ? {} : { mixes: ({ name }) => name.includes(mix) }),
      times,
      harness,
      onProgress: (done, total, text) => bar?.update(done / total, text),
    });
    if (report.revisions.every(({ mixes }) => mixes.length === 0)) {
      throw new InputError(
        '--mix',
        undefined,
        `no mix has ${JSON.stringify(mix)} in its name; see bench without it`,
      );
    }
    return report;
  } finally {
    bar?.stop();
  }
}

/** Told before anything is measured: that takes a while. */
function checkWritable(file: string): void {
  orUnwritable(file, () => accessSync(dirname(file), constants.W_OK));
}

function writePage(file: string, page: string): void {
  orUnwritable(file, () => writeFileSync(file, page));
}

function orUnwritable(file: string, attempt: () => void): void {
  try {
    attempt();
  } catch (error) {
    throw new InputError(file, undefined, `cannot be written (${(error as NodeJS.ErrnoException).code})`);
  }
}

function page(report: CostReport): string {
  return [hostLines(report).join('\n'), ...tablesOf(report).map(tableText)].join('\n\n');
}

function tableText({ title, note, head, rows }: Table): string {
  const right = head.map((_, i) => i).slice(1);
  const [heading = '', ...lines] = columns([head, ...rows], { right });
  return [paint('heading', title), ...wrapped(note), '', paint('note', heading), ...lines].join('\n');
}

/** Prose in lines that a terminal holds. */
function wrapped(text: string): string[] {
  const lines: string[] = [];
  for (const word of text.split(' ')) {
    const last = lines.at(-1);
    if (last !== undefined && last.length + 1 + word.length <= PROSE_WIDTH)
      lines.splice(-1, 1, `${last} ${word}`);
    else lines.push(word);
  }
  return lines;
}

function changesText(changes: readonly Change[]): string {
  if (changes.length === 0) return 'no count changed';
  const rows = changes.map(({ revision, mix, part, count, before, after }) => [
    revision,
    mix,
    part,
    count,
    String(before ?? '-'),
    String(after ?? '-'),
    difference(before, after),
  ]);
  const head = ['revision', 'mix', 'part', 'count', 'before', 'after', 'change'];
  const [heading = '', ...lines] = columns([head, ...rows], { right: [4, 5, 6] });
  return [paint('heading', heading), ...lines].join('\n');
}

function difference(before: number | undefined, after: number | undefined): string {
  if (before === undefined) return 'new';
  if (after === undefined) return 'gone';
  return after > before ? `+${after - before}` : String(after - before);
}
