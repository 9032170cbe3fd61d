/*
 * A campaign, from the plan to the report:
 *
 *   open      the folder, if there is one, with what was done before
 *   run       the blocks that are left, as many at a time as there are workers; each is kept when it is done
 *   finish    the first cases that broke each rule made small, and written into files
 *   report
 */

import { join } from 'node:path';
import { Bug, InputError } from '../lib/index.ts';
import { Crew, type CrewOptions, Loss } from './crew.ts';
import { draw } from './draw.ts';
import { Journal } from './journal.ts';
import { blocksOf, differs, type Plan, rangeOf, shardCases } from './plan.ts';
import { type FindingRecord, findingsFolder, makeRecord, writeRecord } from './record.ts';
import { type CampaignReport, countCells, summarize } from './report.ts';
import { shrink } from './shrink.ts';
import { loadSubjects, type Subjects, suspectsOf, TRIALS } from './subjects.ts';
import { type Broken, joinTallies, type Tally } from './tally.ts';
import { tryRange } from './trial.ts';

export interface CampaignOptions extends CrewOptions {
  readonly plan: Plan;
  /** Folder that the campaign is kept in. Without it nothing is kept but findings. */
  readonly out?: string;
  /** Go on with the folder's campaign. */
  readonly resume?: boolean;
  /** Folder that gets the findings' files when there is no `out`. Without either none are written. */
  readonly findings?: string;
  /** No new block is begun after so many seconds. */
  readonly seconds?: number;
  readonly onProgress?: (progress: Progress) => void;
}

/** How far a campaign is, after each block. */
export interface Progress {
  readonly tally: Tally;
  /** Cases that this shard has; may be without end. */
  readonly cases: number;
  /** Coverage cells that were hit, of all. */
  readonly hit: number;
  readonly cells: number;
  /** Cases of this session, and seconds since its first. */
  readonly sessionCases: number;
  readonly seconds: number;
}

/** Runs a campaign. @throws InputError for what the user can mend: a folder, an engine */
export async function runCampaign(options: CampaignOptions): Promise<CampaignReport> {
  const { plan } = options;
  if (plan.cases === null && options.seconds === undefined) {
    throw new InputError('fuzz', undefined, 'would never end; give --cases or --time');
  }
  const subjects = await loadSubjects(options.subjects ?? TRIALS);
  suspectsOf(subjects, plan);
  const crew = new Crew(options);
  try {
    await tryEngine(crew, plan);
    const session = new Session(options, subjects, crew);
    try {
      await session.run();
      return await session.finish();
    } finally {
      session.close();
    }
  } finally {
    await crew.close();
  }
}

/** Opens the engine before anything is written. @throws InputError when it is not there */
async function tryEngine(crew: Crew, plan: Plan): Promise<void> {
  const loss = await crew.cases(plan, plan.family === 'history' ? 'history' : 'image', []);
  if (loss instanceof Loss) throw new Bug(`a worker cannot run anything: ${loss.detail}`);
}

class Session {
  readonly #options: CampaignOptions;
  readonly #plan: Plan;
  readonly #subjects: Subjects;
  readonly #crew: Crew;
  readonly #journal: Journal | undefined;
  readonly #done: Set<number>;
  #tally: Tally;
  #sessionCases = 0;
  readonly #start: number = performance.now();
  #seconds = 0;

  constructor(options: CampaignOptions, subjects: Subjects, crew: Crew) {
    this.#options = options;
    this.#plan = options.plan;
    this.#subjects = subjects;
    this.#crew = crew;
    const { out, resume = false, plan } = options;
    if (out === undefined) {
      this.#done = new Set();
      this.#tally = joinTallies(subjects.families, []);
    } else if (resume) {
      const { journal, blocks, plan: kept } = Journal.resume(out);
      this.#journal = journal;
      const other = differs(kept, plan);
      if (other !== undefined) throw new InputError(out, undefined, `the campaign there has ${other}`);
      this.#done = new Set(blocks.keys());
      this.#tally = joinTallies(subjects.families, blocks.values(), out);
    } else {
      this.#journal = Journal.begin(out, plan);
      this.#done = new Set();
      this.#tally = joinTallies(subjects.families, []);
    }
  }

  // -- running ------------------------------------------------------------------------------------

  /** Runs what is left, until the time is over. */
  async run(): Promise<void> {
    const blocks = this.#left();
    let failed = false;
    const work = async (): Promise<void> => {
      for (const block of blocks) {
        try {
          const range = rangeOf(this.#plan, block);
          const tally = await tryRange(this.#crew, this.#subjects.families, this.#plan, range);
          // Behind a line that could not be written whole there must be no other.
          if (failed) return;
          this.#keep(block, tally);
        } catch (error) {
          failed = true;
          throw error;
        }
      }
    };
    const all = await Promise.allSettled(Array.from({ length: this.#crew.workers }, work));
    for (const one of all) if (one.status === 'rejected') throw one.reason;
    this.#seconds = this.#elapsed;
  }

  *#left(): Generator<number> {
    const { seconds = Number.POSITIVE_INFINITY } = this.#options;
    for (const block of blocksOf(this.#plan)) {
      if (this.#done.has(block)) continue;
      if (this.#elapsed >= seconds) return;
      yield block;
    }
  }

  get #elapsed(): number {
    return (performance.now() - this.#start) / 1000;
  }

  #keep(block: number, tally: Tally): void {
    this.#journal?.append(block, tally);
    this.#done.add(block);
    this.#tally = joinTallies(this.#subjects.families, [this.#tally, tally]);
    this.#sessionCases += tally.cases;
    this.#options.onProgress?.({
      tally: this.#tally,
      cases: shardCases(this.#plan),
      ...countCells(this.#subjects.families, this.#plan, this.#tally),
      sessionCases: this.#sessionCases,
      seconds: this.#elapsed,
    });
  }

  // -- the end ------------------------------------------------------------------------------------

  async finish(): Promise<CampaignReport> {
    const { out, findings: folder = out === undefined ? undefined : findingsFolder(out) } = this.#options;
    const records = await this.#inParallel(this.#tally.firsts, (broken) => this.#minimized(broken));
    const findings = records.map((record) => {
      const file = folder === undefined ? null : join(folder, `${record.id}.json`);
      if (file !== null) writeRecord(file, record);
      return { ...record, file };
    });
    const { families } = this.#subjects;
    return {
      ...summarize(families, this.#plan, this.#tally),
      complete: this.#tally.cases === shardCases(this.#plan),
      findings,
      seconds: this.#seconds,
      casesPerSecond: this.#seconds === 0 ? 0 : this.#sessionCases / this.#seconds,
      workers: this.#crew.workers,
    };
  }

  async #minimized({ number, finding }: Broken): Promise<FindingRecord> {
    const { families } = this.#subjects;
    const drawn = draw(families, this.#plan, number);
    const small = await shrink(this.#crew, families, this.#plan, drawn.family, drawn.one, finding.rule);
    return makeRecord(families, this.#plan, drawn, small?.finding ?? finding, small?.one);
  }

  /** Results in the order of the things, as many at a time as there are workers. */
  async #inParallel<T, R>(things: readonly T[], operation: (thing: T) => Promise<R>): Promise<readonly R[]> {
    const results: R[] = [];
    const queue = things.entries();
    const work = async (): Promise<void> => {
      for (const [i, thing] of queue) results[i] = await operation(thing);
    };
    await Promise.all(Array.from({ length: this.#crew.workers }, work));
    return results;
  }

  close(): void {
    this.#journal?.close();
  }
}
