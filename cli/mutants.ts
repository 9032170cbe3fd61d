import { availableParallelism } from 'node:os';
import process from 'node:process';
import { type Command, Option } from 'commander';
import { JUDGED_REVISIONS } from '../check/index.ts';
import {
  FUZZ_ENGINES,
  type FuzzEngine,
  killMatrix,
  listMutants,
  MUTANT_CASES,
  type MutantVerdict,
} from '../fuzz/index.ts';
import type { RevisionName } from '../jit/index.ts';
import { columns } from './columns.ts';
import { Exit } from './exit.ts';
import { progressBar } from './progress-bar.ts';
import { positive } from './target-options.ts';

interface MutantsOptions {
  readonly list?: boolean;
  readonly only?: string;
  readonly seed: string;
  readonly cases: string;
  readonly engine: FuzzEngine;
  readonly revision?: RevisionName;
  readonly workers?: string;
  readonly json?: boolean;
}

/** `tramplab mutants`: what the checker is worth. */
export function addMutants(program: Command): Command {
  return program
    .command('mutants')
    .summary('the kill matrix: which known mistakes does the checker find?')
    .description(
      'Puts one mistake at a time into the emitters, the runtime or the manager and runs cases until a rule is\n' +
        'broken. The checker is not told of it. Exit 1 when a mistake is not found.',
    )
    .option('--list', 'only name them')
    .option('--only <ids>', 'these alone, ids with commas between')
    .option('--seed <n>', 'seed of the cases, a whole number greater than 0', '1')
    .option('--cases <n>', 'cases that a mutant gets at most', String(MUTANT_CASES))
    .addOption(new Option('--engine <name>', 'CPU').choices(FUZZ_ENGINES).default('unicorn'))
    .addOption(
      new Option(
        '--revision <name>',
        'in one kernel revision (each mistake in all that can have it)',
      ).choices(JUDGED_REVISIONS),
    )
    .option('--workers <n>', 'processes (one for each core)')
    .option('--json', 'one JSON document on standard output')
    .addHelpText(
      'after',
      `
Examples:
  tramplab mutants --list
  tramplab mutants --only L1,L2
  tramplab mutants --revision v6.12`,
    )
    .action(async (options: MutantsOptions) => {
      process.exitCode = options.list === true ? await list(options) : await matrix(options);
    });
}

async function list({ only, json, revision }: MutantsOptions): Promise<number> {
  const mutants = await listMutants(undefined, idsOf(only), revision);
  const rows = mutants.map(({ id, what, families, revisions }) => ({ id, what, families, revisions }));
  if (json === true) console.log(JSON.stringify({ mutants: rows }));
  else for (const line of columns(rows.map(({ id, what }) => [id, what]))) console.log(line);
  return Exit.FINE;
}

async function matrix(options: MutantsOptions): Promise<number> {
  const { revision } = options;
  const only = idsOf(options.only);
  const { length } = await listMutants(undefined, only, revision);
  const bar = await progressBar(length);
  let missed = 0;
  let verdicts: readonly MutantVerdict[];
  try {
    verdicts = await killMatrix({
      seed: positive('--seed', options.seed),
      cases: positive('--cases', options.cases),
      engine: options.engine,
      workers:
        options.workers === undefined ? availableParallelism() : positive('--workers', options.workers),
      ...(only === undefined ? {} : { only }),
      ...(revision === undefined ? {} : { revision }),
      onVerdict: ({ id, found }, done) => {
        if (!found) missed++;
        bar?.update(done, `${done} of ${length} mutants, ${missed} not found  ${id}`);
      },
    });
  } finally {
    bar?.stop();
  }
  if (options.json === true) {
    const mutants = verdicts.map(({ finding, ...verdict }) => ({
      ...verdict,
      family: finding?.family ?? null,
      case: finding?.number ?? null,
      finding: finding?.finding ?? null,
    }));
    console.log(JSON.stringify({ seed: Number(options.seed), engine: options.engine, mutants }));
  } else {
    console.log(matrixText(verdicts));
  }
  return verdicts.every(({ found }) => found) ? Exit.FINE : Exit.FINDING;
}

function matrixText(verdicts: readonly MutantVerdict[]): string {
  const rows = verdicts.map(({ id, what, rule, cases }) => [id, rule ?? 'NOT FOUND', String(cases), what]);
  const found = verdicts.filter((verdict) => verdict.found).length;
  const table = columns([['mutant', 'found by', 'cases', 'mistake'], ...rows], { right: [2] });
  return [...table, '', `${found} of ${verdicts.length} found`].join('\n');
}

function idsOf(text: string | undefined): readonly string[] | undefined {
  return text?.split(',').map((id) => id.trim());
}
