/*
 * Changes one random byte in each of many images that the kernels' own emitters made, and judges them:
 * `npm run forge -- --help`. docs/forgeries.md is written by `npm run forge -- --record`.
 *
 * A changed byte can kill the engine, and the process with it: the work is done by children, and a child
 * that dies or falls silent has met a forgery that is as good as rejected.
 */

import { type ChildProcess, fork } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { REASONS, type Reason } from '../test/check/forgery/equivalent.ts';
import { Forger, type Verdict } from '../test/check/forgery/forge.ts';

const HELP = `npm run forge -- [options]
  --seed N      decides images, bytes and values (1)
  --count N     forgeries (10000)
  --workers N   processes (as many as there are CPUs)
  --record      write docs/forgeries.md`;

const DOCUMENT = 'docs/forgeries.md';
/** Forgeries that a child gets at a time. */
const PORTION = 250;
/** A child that says nothing for so long is stuck. */
const SILENCE_MS = 300_000;
/** The rule of those that killed their process. */
const KILLED = 'engine-killed';

const { values } = parseArgs({
  options: {
    help: { type: 'boolean', default: false },
    seed: { type: 'string', default: '1' },
    count: { type: 'string', default: '10000' },
    workers: { type: 'string', default: String(availableParallelism()) },
    record: { type: 'boolean', default: false },
  },
});

interface Portion {
  readonly from: number;
  readonly to: number;
}

if (process.send !== undefined) await child(process.send.bind(process));
else if (values.help) console.log(HELP);
else await campaign();

/** Judges what it is sent, one message back for each. */
async function child(send: (message: Verdict) => void): Promise<void> {
  const forger = await Forger.open();
  let work: Promise<void> = Promise.resolve();
  process.on('message', (portion: Portion) => {
    work = work.then(async () => {
      for (let number = portion.from; number < portion.to; number++) {
        send(await forger.judge(Number(values.seed), number));
      }
    });
  });
}

async function campaign(): Promise<void> {
  const count = Number(values.count);
  const start = performance.now();
  const portions: Portion[] = [];
  for (let from = 0; from < count; from += PORTION)
    portions.push({ from, to: Math.min(count, from + PORTION) });
  const verdicts: Verdict[] = [];
  const workers = Array.from({ length: Number(values.workers) }, () => work(portions, verdicts));
  await Promise.all(workers);
  const seconds = (performance.now() - start) / 1000;
  const sorted = verdicts.toSorted((a, b) => a.number - b.number);
  const text = report(sorted);
  console.log(text);
  console.log(`${seconds.toFixed(1)} s`);
  if (values.record) writeFileSync(DOCUMENT, text);
  if (sorted.some(({ rule, reason }) => (rule === null) !== (reason !== null))) process.exitCode = 1;
}

/** Keeps one child at work until nothing is left. */
async function work(portions: Portion[], verdicts: Verdict[]): Promise<void> {
  let process_: ChildProcess | undefined;
  const died = new Set<number>();
  for (let portion = portions.shift(); portion !== undefined; portion = portions.shift()) {
    for (let next = portion.from; next < portion.to; ) {
      process_ ??= fork(fileURLToPath(import.meta.url), process.argv.slice(2), { silent: true });
      const done = await judged(process_, { from: next, to: portion.to }, verdicts);
      next = done;
      if (next >= portion.to) break;
      process_.kill('SIGKILL');
      process_ = undefined;
      // Once may be chance: a machine that was asleep.
      if (!died.has(next)) died.add(next);
      else verdicts.push(killer(next++));
    }
  }
  process_?.kill();
}

/** Has a child judge; gives back the first number that it did not manage. */
function judged(process_: ChildProcess, { from, to }: Portion, verdicts: Verdict[]): Promise<number> {
  return new Promise((resolve) => {
    let next = from;
    let timer = setTimeout(end, SILENCE_MS);
    function end(): void {
      clearTimeout(timer);
      process_.off('message', take).off('exit', end);
      resolve(next);
    }
    function take(verdict: Verdict): void {
      verdicts.push(verdict);
      next = verdict.number + 1;
      clearTimeout(timer);
      if (next >= to) end();
      else timer = setTimeout(end, SILENCE_MS);
    }
    process_.on('message', take).on('exit', end);
    process_.send({ from, to });
  });
}

function killer(number: number): Verdict {
  const nothing = { revision: 'v5.15', id: 0, offset: 0, before: '', after: '' } as const;
  return { number, ...nothing, rule: KILLED, reason: null };
}

function report(verdicts: readonly Verdict[]): string {
  const accepted = verdicts.filter(({ rule }) => rule === null);
  const unexplained = accepted.filter(({ reason }) => reason === null);
  const contradicted = verdicts.filter(({ rule, reason }) => rule !== null && reason !== null);
  const byRule = counted(verdicts.flatMap(({ rule }) => rule ?? []));
  const byReason = counted(accepted.map(({ reason }) => reason ?? 'unexplained'));
  return [
    '# Forged images',
    '',
    'One random byte is changed in images that the kernels’ own emitters made (`test/vectors`), and `check` judges',
    'the result by every situation that such an image can meet. The images themselves it accepts, all of them',
    '(`test/check/golden-images.test.ts`). Written by',
    `\`npm run forge -- --seed ${values.seed} --count ${values.count} --record\`.`,
    '',
    `${verdicts.length} forgeries: ${verdicts.length - accepted.length} rejected, ${accepted.length} accepted.`,
    `Of those accepted, ${unexplained.length} are unexplained: for all others a program (\`test/check/forgery\`) shows`,
    'that nobody can see the difference, without running them: it follows both images side by side on names in place',
    `of numbers. It said so of ${contradicted.length} that were rejected.`,
    '',
    '## Why accepted',
    '',
    '| reason | forgeries | in words |',
    '|---|---|---|',
    ...byReason.map(([reason, count]) => `| ${reason} | ${count} | ${REASONS[reason as Reason] ?? ''} |`),
    '',
    '## Rule that rejected first',
    '',
    '| rule | forgeries |',
    '|---|---|',
    ...byRule.map(([rule, count]) => `| \`${rule}\` | ${count} |`),
    '',
    '## Each accepted one',
    '',
    '| number | image | byte | was | is | reason |',
    '|---|---|---|---|---|---|',
    ...accepted.map(row),
    '',
  ].join('\n');
}

function row({ number, revision, id, offset, before, after, reason }: Verdict): string {
  const place = `${revision} ${id} | +0x${offset.toString(16)}`;
  return `| ${number} | ${place} | \`${before}\` | \`${after}\` | ${reason ?? 'unexplained'} |`;
}

function counted(items: readonly string[]): readonly (readonly [string, number])[] {
  const counts = new Map<string, number>();
  for (const item of items) counts.set(item, (counts.get(item) ?? 0) + 1);
  return [...counts].toSorted(([a, x], [b, y]) => y - x || (a < b ? -1 : 1));
}
