/*
 * What a campaign's folder keeps, so that it can be killed at any moment and go on:
 *
 *   campaign.json    the plan; written whole, before anything else
 *   journal.jsonl    a line for each block that is done: checksum, block number, tally
 *   findings/        a file for each finding, made of the above at the end
 *
 * A line is appended with one write. A process killed in the middle of it leaves a line without an end,
 * which is taken away; its block is run again. So a block is in the journal whole, or not at all.
 * Kill means kill: this does not outlive a machine that loses power.
 */

import { createHash } from 'node:crypto';
import { closeSync, existsSync, openSync, truncateSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { InputError, makeFolders } from '../lib/index.ts';
import { attempt, readJson, readWhole, writeWhole } from './files.ts';
import { hasBlock, type Plan, parsePlan, rangeOf } from './plan.ts';
import type { Tally } from './tally.ts';

const FORMAT = 1;

/** What was found in a folder. */
export interface Kept {
  readonly plan: Plan;
  /** Finished blocks. */
  readonly blocks: ReadonlyMap<number, Tally>;
}

export class Journal {
  readonly #path: string;
  readonly #file: number;

  private constructor(path: string) {
    this.#path = path;
    this.#file = attempt(path, () => openSync(path, 'a'));
  }

  /** Begins a campaign's folder. @throws InputError when it has one already */
  static begin(dir: string, plan: Plan): Journal {
    if (hasCampaign(dir)) {
      throw new InputError(
        dir,
        undefined,
        'holds a campaign already; give --resume to go on, or another --out',
      );
    }
    makeFolders(dir);
    writeWhole(campaignFile(dir), `${JSON.stringify({ format: FORMAT, plan }, null, 2)}\n`);
    return new Journal(journalFile(dir));
  }

  /** Goes on where a folder's campaign was. @throws InputError when it is damaged; nothing is written then */
  static resume(dir: string): Kept & { readonly journal: Journal } {
    const { plan, blocks, wholeBytes } = read(dir);
    const path = journalFile(dir);
    if (existsSync(path)) attempt(path, () => truncateSync(path, wholeBytes));
    return { plan, blocks, journal: new Journal(path) };
  }

  /** Keeps a finished block. */
  append(block: number, tally: Tally): void {
    const json = JSON.stringify({ block, tally });
    const line = `${checksum(json)} ${json}\n`;
    attempt(this.#path, () => {
      // One write, unless the disk is full: then the rest fails with a reason.
      for (let rest = Buffer.from(line); rest.length > 0; ) rest = rest.subarray(writeSync(this.#file, rest));
    });
  }

  close(): void {
    closeSync(this.#file);
  }
}

/** Whether a campaign was begun in a folder. */
export function hasCampaign(dir: string): boolean {
  return existsSync(campaignFile(dir));
}

/** What a folder holds, which may be one that is being written. @throws InputError when it is damaged or none */
export function readJournal(dir: string): Kept {
  const { plan, blocks } = read(dir);
  return { plan, blocks };
}

function read(dir: string): Kept & { readonly wholeBytes: number } {
  const path = campaignFile(dir);
  if (!hasCampaign(dir))
    throw new InputError(dir, undefined, 'holds no campaign; was it the --out of a fuzz?');
  const { format, plan: json } = (readJson(path) ?? {}) as { format?: unknown; plan?: unknown };
  if (format !== FORMAT) throw new InputError(path, undefined, 'was written by another version of tramplab');
  const plan = parsePlan(json, path);
  return { plan, ...readBlocks(journalFile(dir), plan) };
}

function readBlocks(path: string, plan: Plan): { blocks: Map<number, Tally>; wholeBytes: number } {
  const blocks = new Map<number, Tally>();
  // Killed before the first block.
  if (!existsSync(path)) return { blocks, wholeBytes: 0 };
  const text = readWhole(path);
  const whole = text.slice(0, text.lastIndexOf('\n') + 1);
  for (const [i, line] of whole.split('\n').slice(0, -1).entries()) {
    const damaged = (how: string): InputError =>
      new InputError(path, `line ${i + 1}`, `${how}; the journal is damaged: begin anew in another folder`);
    const json = line.slice(line.indexOf(' ') + 1);
    if (line !== `${checksum(json)} ${json}`) throw damaged('does not match its checksum');
    const { block, tally } = JSON.parse(json) as { block: number; tally: Tally };
    if (!hasBlock(plan, block)) throw damaged(`has block ${block}, which is not of this campaign`);
    const { from, to } = rangeOf(plan, block);
    if (tally.cases !== to - from) throw damaged(`has ${tally.cases} cases in a block of ${to - from}`);
    const twin = blocks.get(block);
    // Twice the same is harmless: two processes went on with the same folder.
    if (twin !== undefined && twin.digest !== tally.digest)
      throw damaged(`has another result of block ${block}`);
    blocks.set(block, twin ?? tally);
  }
  return { blocks, wholeBytes: Buffer.byteLength(whole) };
}

function checksum(json: string): string {
  return createHash('sha256').update(json).digest('hex').slice(0, 16);
}

function campaignFile(dir: string): string {
  return join(dir, 'campaign.json');
}

function journalFile(dir: string): string {
  return join(dir, 'journal.jsonl');
}
