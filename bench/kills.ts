/*
 * Kills a campaign at random moments and resumes it each time, until it has been killed as often as was
 * asked for; then lets it end and compares it with one that was left alone: `npm run kills -- --help`.
 */

import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import process from 'node:process';
import { isDeepStrictEqual, parseArgs } from 'node:util';
import { Random } from '../check/index.ts';
import { readJournal } from '../fuzz/index.ts';

const HELP = `npm run kills -- [options] [-- options of tramplab fuzz]
  --kills N     (50)
  --seed N      of the moments (1)
  --from MS     a kill comes so long after the start at the earliest (300)
  --to MS       and at the latest (2500)`;

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    help: { type: 'boolean', default: false },
    kills: { type: 'string', default: '50' },
    seed: { type: 'string', default: '1' },
    from: { type: 'string', default: '300' },
    to: { type: 'string', default: '2500' },
  },
});

const MAIN = new URL('../cli/main.js', import.meta.url).pathname;

interface Ended {
  /** Undefined: it was killed. */
  readonly report: Record<string, unknown> | undefined;
}

/** Runs `tramplab fuzz`, and kills it after a time. */
function fuzz(args: readonly string[], killAfterMs?: number): Promise<Ended> {
  const child = spawn(process.execPath, [MAIN, 'fuzz', '--json', ...args], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const timer = killAfterMs === undefined ? undefined : setTimeout(() => child.kill('SIGKILL'), killAfterMs);
  const stdout: Buffer[] = [];
  child.stdout.on('data', (chunk: Buffer) => stdout.push(chunk));
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (status, signal) => {
      clearTimeout(timer);
      if (signal === 'SIGKILL') resolve({ report: undefined });
      else if (status === 2) reject(new RangeError('tramplab fuzz refused'));
      else resolve({ report: JSON.parse(Buffer.concat(stdout).toString('utf8')) as Record<string, unknown> });
    });
  });
}

/** What must be the same: all but times and where files lie. */
function lasting(report: Record<string, unknown>, out: string): unknown {
  const { seconds, casesPerSecond, spent, findings, ...rest } = report;
  const files = join(out, 'findings');
  const names = existsSync(files) ? readdirSync(files).sort() : [];
  return { ...rest, findings: names.map((name) => readFileSync(join(files, name), 'utf8')) };
}

async function campaign(): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'tramplab-kills-'));
  try {
    const left = join(folder, 'left-alone');
    const whole = (await fuzz([...positionals, '--out', left])).report ?? {};
    const { cases, calls, broken, digest } = whole;
    console.log(`left alone: ${cases} cases, ${calls} calls, ${broken} findings, digest ${digest}`);

    const out = join(folder, 'killed');
    const random = new Random(Number(values.seed), 0);
    const blocks: number[] = [];
    let report: Record<string, unknown> | undefined;
    while (report === undefined) {
      const begun = existsSync(join(out, 'campaign.json'));
      const wait =
        blocks.length < Number(values.kills) ? random.int(Number(values.from), Number(values.to)) : undefined;
      const args = begun ? ['--resume', '--out', out] : [...positionals, '--out', out];
      report = (await fuzz(args, wait)).report;
      if (report === undefined)
        blocks.push(existsSync(join(out, 'campaign.json')) ? readJournal(out).blocks.size : 0);
    }
    console.log(`killed ${blocks.length} times, with ${blocks.join(', ')} blocks done`);
    console.log(
      `in the end: ${report['cases']} cases, ${report['calls']} calls, ${report['broken']} findings, digest ${report['digest']}`,
    );
    const same = isDeepStrictEqual(lasting(report, out), lasting(whole, left));
    console.log(same ? 'the same, findings to the byte' : 'NOT the same');
    if (!same || blocks.length < Number(values.kills)) process.exitCode = 1;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

if (values.help) console.log(HELP);
else await campaign();
