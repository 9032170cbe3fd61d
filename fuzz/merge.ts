import { existsSync } from 'node:fs';
import { InputError } from '../lib/index.ts';
import { draw } from './draw.ts';
import { Journal, readJournal } from './journal.ts';
import { differs, type Plan, shardCases } from './plan.ts';
import { type FindingRecord, findingFile, findingId, makeRecord, readRecord, writeRecord } from './record.ts';
import { type CampaignReport, summarize } from './report.ts';
import { loadSubjects, TRIALS } from './subjects.ts';
import { type Broken, joinTallies, type Tally } from './tally.ts';

export interface MergeOptions {
  /** Folders of one campaign's shards, finished or not, in any order; shards may overlap. */
  readonly dirs: readonly string[];
  /** Folder that gets the whole. Default: nothing is written. */
  readonly out?: string;
  /** URL of the module of subjects. Default: the product's. */
  readonly subjects?: string;
}

/**
 * Joins the results of shards: the report is that of one campaign that did all of their blocks.
 * @throws InputError when they are not of the same campaign, or contradict each other
 */
export async function mergeCampaigns({
  dirs,
  out,
  subjects = TRIALS,
}: MergeOptions): Promise<CampaignReport> {
  const { families } = await loadSubjects(subjects);
  const [first] = dirs;
  if (first === undefined) throw new InputError('--merge', undefined, 'needs the folder of a campaign');
  const kept = dirs.map((dir) => ({ dir, ...readJournal(dir) }));
  const plan: Plan = { ...(kept[0] as (typeof kept)[number]).plan, shard: { index: 0, of: 1 } };
  const blocks = new Map<number, Tally>();
  for (const { dir, plan: other, blocks: more } of kept) {
    const difference = differs(other, plan, ['shard']);
    if (difference !== undefined)
      throw new InputError(dir, undefined, `is not of the campaign of ${first}: ${difference}`);
    for (const [block, tally] of more) {
      const twin = blocks.get(block);
      if (twin !== undefined && twin.digest !== tally.digest) {
        throw new InputError(
          dir,
          undefined,
          `has another result of block ${block} than the folders before it`,
        );
      }
      blocks.set(block, twin ?? tally);
    }
  }
  const tally = joinTallies(families, blocks.values(), '--merge');
  const found = tally.firsts.map((broken) => ({ broken, file: fileOf(dirs, plan, broken) }));
  const findings = found.map(({ broken: { number, finding }, file }) => {
    const drawn = (): FindingRecord => makeRecord(families, plan, draw(families, plan, number), finding);
    return { record: file === undefined ? drawn() : readRecord(file), file: file ?? null };
  });
  return {
    ...summarize(families, plan, tally),
    complete: tally.cases === shardCases(plan),
    findings:
      out === undefined
        ? findings.map(({ record, file }) => ({ ...record, file }))
        : write(
            out,
            plan,
            blocks,
            findings.map(({ record }) => record),
          ),
    seconds: 0,
    casesPerSecond: 0,
    workers: 0,
  };
}

/** The file that a shard made of a finding; none where the shard was killed before its end. */
function fileOf(
  dirs: readonly string[],
  { seed }: Plan,
  { number, finding: { rule } }: Broken,
): string | undefined {
  return dirs.map((dir) => findingFile(dir, findingId(rule, seed, number))).find((file) => existsSync(file));
}

/** Writes the whole as the folder of a campaign. */
function write(
  out: string,
  plan: Plan,
  blocks: ReadonlyMap<number, Tally>,
  records: readonly FindingRecord[],
): readonly (FindingRecord & { readonly file: string })[] {
  const journal = Journal.begin(out, plan);
  try {
    for (const [block, tally] of blocks) journal.append(block, tally);
  } finally {
    journal.close();
  }
  return records.map((record) => {
    const file = findingFile(out, record.id);
    writeRecord(file, record);
    return { ...record, file };
  });
}
