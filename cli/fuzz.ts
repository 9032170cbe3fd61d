import { randomInt } from 'node:crypto';
import { availableParallelism } from 'node:os';
import process from 'node:process';
import { type Command, Option } from 'commander';
import { JUDGED_REVISIONS } from '../check/index.ts';
import {
  type CampaignReport,
  type Coverage,
  FAMILY_CHOICES,
  type FamilyChoice,
  FUZZ_ENGINES,
  type FuzzEngine,
  hasCampaign,
  listMutants,
  makePlan,
  mergeCampaigns,
  type Plan,
  readJournal,
  runCampaign,
  type Shard,
  shardCases,
} from '../fuzz/index.ts';
import type { RevisionName } from '../jit/index.ts';
import { InputError } from '../lib/index.ts';
import { Exit } from './exit.ts';
import { findingText } from './finding-text.ts';
import { progressBar } from './progress-bar.ts';
import { positive } from './target-options.ts';

/** Cases when neither --cases nor --time says how many. */
const CASES = 10_000;

interface FuzzOptions {
  readonly cases?: string;
  readonly time?: string;
  readonly seed?: string;
  readonly shard?: string;
  readonly workers?: string;
  readonly revision?: RevisionName;
  readonly engine?: FuzzEngine;
  readonly family?: FamilyChoice;
  readonly mutant?: string;
  readonly out?: string;
  readonly resume?: boolean;
  readonly merge?: readonly string[];
  readonly json?: boolean;
}

/** `tramplab fuzz`: random cases under the judge. */
export function addFuzz(program: Command): Command {
  return program
    .command('fuzz')
    .summary('run random models, programs, arguments and histories under the checker')
    .description(
      'Case k of a seed is always the same case, whatever the workers, shards and interruptions. With --out a\n' +
        'campaign can be killed at any moment and goes on with --resume. docs/fuzzing.md shows it on clusters.',
    )
    .option('--cases <n>', `cases, over all shards (${CASES}; without end when --time is given alone)`)
    .option('--time <t>', 'begin nothing new after this time: 90s, 10m, 8h')
    .option('--seed <n>', 'seed, a whole number (a random one, which is printed)')
    .option('--shard <i/n>', 'run only part i of n, counted from 0')
    .option('--workers <n>', 'processes (one for each core)')
    .addOption(new Option('--revision <name>', 'one kernel revision (all)').choices(JUDGED_REVISIONS))
    .addOption(new Option('--engine <name>', 'both: compare Unicorn with the host CPU').choices(FUZZ_ENGINES))
    .addOption(new Option('--family <name>', 'one kind of cases').choices(FAMILY_CHOICES))
    .option('--mutant <id>', 'put a mutant on trial, see tramplab mutants --list')
    .option('--out <dir>', 'folder to keep the campaign in (findings alone, in findings/)')
    .option(
      '--resume',
      'go on with the campaign in --out, with its own options; begin it if it is not there and --seed is given',
    )
    .option('--merge <dir...>', 'run nothing: join the results of shards')
    .option('--json', 'one JSON document on standard output')
    .addHelpText(
      'after',
      `
Examples:
  tramplab fuzz --cases 100000 --seed 1 --out campaign
  tramplab fuzz --resume --out campaign
  tramplab fuzz --cases 100000 --seed 1 --shard 0/2 --out part0
  tramplab fuzz --merge part0 part1`,
    )
    .action(async (options: FuzzOptions) => {
      const report = options.merge === undefined ? await fuzz(options) : await merge(options, options.merge);
      console.log(options.json === true ? JSON.stringify(documentOf(report)) : reportText(report));
      process.exitCode = report.broken > 0 ? Exit.FINDING : Exit.FINE;
    });
}

async function fuzz(options: FuzzOptions): Promise<CampaignReport> {
  const { out, time } = options;
  const resume = options.resume === true && resumable(options);
  const seconds = time === undefined ? undefined : parseTime(time);
  const given = await givenPlan(options);
  const plan =
    resume && out !== undefined
      ? makePlan({ ...readJournal(out).plan, ...given })
      : makePlan({ seed: randomInt(2 ** 32), ...(seconds === undefined ? { cases: CASES } : {}), ...given });
  const bar = await progressBar(plan.cases === null ? (seconds ?? 0) : shardCases(plan));
  try {
    return await runCampaign({
      plan,
      resume,
      workers:
        options.workers === undefined ? availableParallelism() : positive('--workers', options.workers),
      ...(out === undefined ? { findings: 'findings' } : { out }),
      ...(seconds === undefined ? {} : { seconds }),
      onProgress: (progress) => {
        const { tally, hit, cells } = progress;
        const rate = Math.round(progress.sessionCases / progress.seconds);
        const counts = [
          `${tally.cases} cases`,
          findingsText(tally.broken),
          `${rate}/s`,
          `${hit} of ${cells} cells`,
        ];
        bar?.update(plan.cases === null ? progress.seconds : tally.cases, counts.join('  '));
      },
    });
  } finally {
    bar?.stop();
  }
}

/** Whether there is something to go on with. Where there is not, a campaign is begun, if it is said which. */
function resumable({ out, seed }: FuzzOptions): boolean {
  if (out === undefined) throw new InputError('--resume', undefined, 'needs --out, the folder to go on in');
  if (hasCampaign(out)) return true;
  if (seed !== undefined) return false;
  throw new InputError(out, undefined, 'holds no campaign to go on with; give --seed to begin one');
}

/** What of the plan is said on the command line. */
async function givenPlan(options: FuzzOptions): Promise<Partial<Plan>> {
  const { cases, seed, shard, revision, engine, family, mutant } = options;
  if (mutant !== undefined) await listMutants(undefined, [mutant], undefined, '--mutant');
  return {
    ...(cases === undefined ? {} : { cases: positive('--cases', cases) }),
    ...(seed === undefined ? {} : { seed: whole('--seed', seed) }),
    ...(shard === undefined ? {} : { shard: parseShard(shard) }),
    ...(revision === undefined ? {} : { revisions: [revision] }),
    ...(engine === undefined ? {} : { engine }),
    ...(family === undefined ? {} : { family }),
    ...(mutant === undefined ? {} : { mutant }),
  };
}

function merge(options: FuzzOptions, dirs: readonly string[]): Promise<CampaignReport> {
  const { json, merge: ours, out, ...others } = options;
  const [other] = Object.keys(others);
  if (other !== undefined)
    throw new InputError('--merge', undefined, `runs nothing, so it takes no --${other}`);
  return mergeCampaigns({ dirs, ...(out === undefined ? {} : { out }) });
}

/** Seconds of `90s`, `10m`, `8h`. */
function parseTime(text: string): number {
  const [, count, unit] = /^(\d+(?:\.\d+)?)([smh])$/.exec(text) ?? [];
  const seconds = Number(count) * ({ s: 1, m: 60, h: 3600 }[unit ?? ''] ?? Number.NaN);
  if (!(seconds > 0))
    throw new InputError('--time', undefined, `${text}: wanted a time such as 90s, 10m or 8h`);
  return seconds;
}

function parseShard(text: string): Shard {
  const [, index, of] = /^(\d+)\/(\d+)$/.exec(text) ?? [];
  if (index === undefined || of === undefined) {
    throw new InputError('--shard', undefined, `${text}: wanted i/n, as in 0/4`);
  }
  return { index: Number(index), of: Number(of) };
}

function whole(option: string, text: string): number {
  if (!/^\d+$/.test(text) || !Number.isSafeInteger(Number(text))) {
    throw new InputError(option, undefined, `${text} is no whole number from 0 to 2^53-1`);
  }
  return Number(text);
}

/** What --json prints. */
function documentOf({ shard, ...report }: CampaignReport): unknown {
  return { ...report, shard: `${shard.index}/${shard.of}` };
}

function reportText(report: CampaignReport): string {
  const { cases, calls, seconds, seed, digest, complete, planned, shard } = report;
  const whom = report.mutant === null ? '' : `, mutant ${report.mutant}`;
  const part = shard.of === 1 ? '' : `, shard ${shard.index}/${shard.of}`;
  const what = `seed ${seed}${part}, ${report.revisions.join(' and ')} on ${report.engine}${whom}`;
  const rate =
    seconds === 0
      ? ''
      : ` in ${seconds.toFixed(1)} s with ${workersText(report.workers)}: ${Math.round(report.casesPerSecond)} a second`;
  const lines = [
    what,
    `${cases} cases, ${calls} calls, ${findingsText(report.broken)}${rate}`,
    ...(complete || planned === null ? [] : [`not complete: ${cases} of ${planned} cases`]),
    ...Object.entries(report.coverage).map(([family, coverage]) => coverageText(family, coverage)),
    `digest ${digest}`,
  ];
  const rules = Object.entries(report.rules).map(
    ([rule, count]) => `  ${rule}: ${count === 1 ? '1 case' : `${count} cases`}`,
  );
  const findings = distinct(report.findings).map(([finding, ...same]) =>
    findingText(finding, [
      [
        'case',
        `${finding.about} (${finding.family} ${[finding, ...same].map((one) => one.case).join(', ')})`,
      ],
      ...(finding.file === null ? [] : [['again', `tramplab replay ${finding.file}`] as const]),
    ]),
  );
  const broken = findings.length === 0 ? [] : ['', 'broken rules', ...rules, '', findings.join('\n\n')];
  return [...lines, ...broken].join('\n');
}

type Found = CampaignReport['findings'][number];

/** Findings of one rule that are the same when they are small are shown once. */
function distinct(findings: readonly Found[]): readonly (readonly [Found, ...Found[]])[] {
  const groups = new Map<string, [Found, ...Found[]]>();
  for (const finding of findings) {
    const { rule, minimized, id } = finding;
    const key = `${rule} ${minimized === null ? id : JSON.stringify(minimized)}`;
    const group = groups.get(key);
    if (group === undefined) groups.set(key, [finding]);
    else group.push(finding);
  }
  return [...groups.values()];
}

function coverageText(family: string, { hit, all, missing }: Coverage): string {
  const some = missing.slice(0, 4).join(', ');
  const more = missing.length > 4 ? `, ... (all with --json)` : '';
  return `coverage: ${family} ${hit} of ${all} cells${missing.length === 0 ? '' : `; missing ${some}${more}`}`;
}

function findingsText(broken: number): string {
  return broken === 1 ? '1 finding' : `${broken} findings`;
}

function workersText(workers: number): string {
  return workers === 1 ? '1 worker' : `${workers} workers`;
}
