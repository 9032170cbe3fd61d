import { spawn } from 'node:child_process';
import {
  appendFileSync,
  existsSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { Random } from '../../check/index.ts';
import { type CampaignReport, makePlan, mergeCampaigns, readJournal } from '../../fuzz/index.ts';
import { campaign, folder, lasting, subjects } from './support.ts';

const RUN = fileURLToPath(new URL('./run-campaign.mjs', import.meta.url));
const WRONG = { wrong: { odd: 97 } };

interface KilledOptions {
  readonly out: string;
  readonly resume: boolean;
}

/** Runs a campaign in a process of its own, which is killed when its journal has so many bytes. Undefined: it was. */
function runUntil(options: KilledOptions, bytes: number): Promise<CampaignReport | undefined> {
  const child = spawn(process.execPath, [RUN, JSON.stringify(options)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const stdout: Buffer[] = [];
  child.stdout.on('data', (chunk: Buffer) => stdout.push(chunk));
  const journal = join(options.out, 'journal.jsonl');
  const watch = setInterval(() => {
    if ((statSync(journal, { throwIfNoEntry: false })?.size ?? 0) >= bytes) child.kill('SIGKILL');
  }, 1);
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (status) => {
      clearInterval(watch);
      const text = Buffer.concat(stdout).toString('utf8');
      resolve(status === 0 ? (JSON.parse(text) as CampaignReport) : undefined);
    });
  });
}

describe('a campaign that is killed', () => {
  test('and resumed at any moment is one that was not', async () => {
    const wrong = { odd: 97, slow: 0.2 };
    const plan = makePlan({ seed: 1, cases: 600, blockCases: 4 });
    const done = join(folder(), 'whole');
    const whole = await campaign(plan, { wrong, out: done });
    const { size } = statSync(join(done, 'journal.jsonl'));

    const out = join(folder(), 'killed');
    const options = { plan, workers: 2, subjects: subjects(wrong), out };
    const random = new Random(1, 0);
    const moments = Array.from({ length: 4 }, () => random.int(1, size)).sort((a, b) => a - b);
    let kept = 0;
    for (const [i, bytes] of moments.entries()) {
      expect(await runUntil({ ...options, resume: i > 0 }, bytes), 'it was killed').toBeUndefined();
      const { blocks } = readJournal(out);
      expect(blocks.size).toBeGreaterThanOrEqual(kept);
      kept = blocks.size;
    }
    expect(kept).toBeGreaterThan(0);
    const report = await runUntil({ ...options, resume: true }, Number.POSITIVE_INFINITY);
    expect(report && lasting(report)).toEqual(lasting(whole));
    expect(readdirSync(join(out, 'findings')).toSorted()).toEqual(
      readdirSync(join(done, 'findings')).toSorted(),
    );
  });

  test('has nothing left to do when it was done', async () => {
    const out = join(folder(), 'campaign');
    const first = await campaign({}, { ...WRONG, out });
    const before = readFileSync(join(out, 'journal.jsonl'), 'utf8');
    const again = await campaign({}, { ...WRONG, out, resume: true });
    expect(lasting(again)).toEqual(lasting(first));
    expect(readFileSync(join(out, 'journal.jsonl'), 'utf8')).toBe(before);
  });

  test('in the middle of a line does that block again', async () => {
    const out = join(folder(), 'campaign');
    const whole = await campaign({}, { ...WRONG, out });
    const journal = join(out, 'journal.jsonl');
    const size = statSync(journal).size;
    for (const cut of [1, 30, 3000]) {
      truncateSync(journal, size - cut);
      const { blocks } = readJournal(out);
      expect(blocks.size).toBeLessThan(20);
      expect(lasting(await campaign({}, { ...WRONG, out, resume: true }))).toEqual(lasting(whole));
    }
  });
});

describe("a campaign's folder", () => {
  test('is not begun twice', async () => {
    const out = folder();
    await campaign({ cases: 10 }, { out });
    await expect(campaign({ cases: 10 }, { out })).rejects.toThrow(
      `${out}: holds a campaign already; give --resume`,
    );
    await expect(campaign({ cases: 10, seed: 9 }, { out, resume: true })).rejects.toThrow(
      'has seed 1, not 9',
    );
    await expect(campaign({ cases: 20 }, { out, resume: true })).rejects.toThrow('has cases 10, not 20');
    await expect(campaign({}, { out: join(out, 'none'), resume: true })).rejects.toThrow('holds no campaign');
  });

  test('is told of when it is damaged, and left as it is', async () => {
    const out = folder();
    await campaign({ cases: 30 }, { out });
    const journal = join(out, 'journal.jsonl');
    const lines = readFileSync(journal, 'utf8');
    const resume = () => campaign({ cases: 30 }, { out, resume: true });
    const check = async (text: string, message: string): Promise<void> => {
      writeFileSync(journal, text);
      await expect(resume()).rejects.toThrow(message);
      expect(readFileSync(journal, 'utf8')).toBe(text);
      writeFileSync(journal, lines);
    };
    await check(
      lines.replace('"cases":10', '"cases":11'),
      'journal.jsonl line 1: does not match its checksum',
    );
    await check(`${lines}\n`, 'line 4: does not match its checksum');
    const other = folder();
    await campaign({ cases: 50 }, { out: other });
    await check(readFileSync(join(other, 'journal.jsonl'), 'utf8'), 'which is not of this campaign');
    // The same block twice, as two processes would write it, is the same block.
    appendFileSync(journal, lines);
    expect((await resume()).cases).toBe(30);

    writeFileSync(join(out, 'campaign.json'), '{');
    await expect(resume()).rejects.toThrow('campaign.json: is no JSON');
    writeFileSync(join(out, 'campaign.json'), '{"format":1,"plan":{"seed":1}}');
    await expect(resume()).rejects.toThrow('campaign.json: is no plan of a campaign');
    writeFileSync(join(out, 'campaign.json'), '{"format":7}');
    await expect(resume()).rejects.toThrow('written by another version');
  });

  test('that cannot be written to any more ends the campaign', async () => {
    const out = folder();
    symlinkSync('/dev/full', join(out, 'journal.jsonl'));
    await expect(campaign({}, { out, workers: 2 })).rejects.toThrow(
      'journal.jsonl: does not fit: no space left',
    );
  });

  test('is not made when there is no engine', async () => {
    const out = join(folder(), 'campaign');
    await expect(campaign({}, { out, subjects: subjects({ engineless: 1 }) })).rejects.toThrow(
      'no engine here',
    );
    expect(existsSync(out)).toBe(false);
  });
});

/** The text of each finding that a folder keeps. */
function findingFiles(dir: string): Readonly<Record<string, string>> {
  const files = join(dir, 'findings');
  const names = readdirSync(files).toSorted();
  return Object.fromEntries(names.map((name) => [name, readFileSync(join(files, name), 'utf8')]));
}

describe('shards', () => {
  test('join into the whole', async () => {
    const unsharded = folder();
    const whole = await campaign({}, { ...WRONG, out: unsharded });
    const dirs = [0, 1, 2].map(() => folder());
    for (const [index, out] of dirs.entries()) {
      const part = await campaign({ shard: { index, of: 3 } }, { ...WRONG, out });
      expect(part).toMatchObject({ complete: true, shard: { index, of: 3 } });
    }
    const merge = (folders: readonly string[], out?: string) =>
      mergeCampaigns({ dirs: folders, subjects: subjects(), ...(out === undefined ? {} : { out }) });
    const out = join(folder(), 'whole');
    expect(lasting(await merge(dirs.toReversed(), out))).toEqual(lasting(whole));
    expect(findingFiles(out)).toEqual(findingFiles(unsharded));
    // The same blocks twice count once, and the whole can be merged like a part.
    expect(lasting(await merge([out, ...dirs]))).toEqual(lasting(whole));
    expect(lasting(await campaign({}, { ...WRONG, out, resume: true }))).toEqual(lasting(whole));
    expect(await merge(dirs.slice(1))).toMatchObject({ complete: false, cases: 130 });
  });

  test('of other campaigns do not', async () => {
    const [one, two, three] = [folder(), folder(), folder()];
    await campaign({ cases: 20 }, { out: one });
    await campaign({ cases: 20, seed: 2 }, { out: two });
    await campaign({ cases: 20 }, { out: three, wrong: { odd: 3 } });
    const merge = (...dirs: string[]) => mergeCampaigns({ dirs, subjects: subjects() });
    await expect(merge(one, two)).rejects.toThrow(`${two}: is not of the campaign of ${one}: seed 2, not 1`);
    await expect(merge(one, three)).rejects.toThrow('has another result of block');
    await expect(merge(folder())).rejects.toThrow('holds no campaign');
  });
});
