/*
 * What one worker of the fuzzer does in a second, and where the time goes: `npm run bench:fuzz -- --help`.
 * Runs in this process, with a worker's room for garbage, so that nothing but the work itself is measured; nothing
 * asserts a time.
 */

import { readFileSync } from 'node:fs';
import { cpus as processors } from 'node:os';
import process from 'node:process';
import { setImmediate } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { type FamilyName, type FuzzEngine, makePlan } from '../fuzz/index.ts';
import { Station } from '../fuzz/station.ts';
import { loadSubjects, TRIALS } from '../fuzz/subjects.ts';
import { addSpent, SPENT_NOTHING, type Spent } from '../fuzz/tally.ts';

const HELP = `npm run bench:fuzz -- [options]
  --cases N     cases for each engine (50000)
  --lines N     lines for each engine, each over an equal part of the cases (5)
  --engine E    unicorn, native or both, with commas between (unicorn,native)
  --family F    image or history (image)
  --seed N      (1)`;

const { values } = parseArgs({
  options: {
    help: { type: 'boolean', default: false },
    cases: { type: 'string', default: '50000' },
    lines: { type: 'string', default: '5' },
    engine: { type: 'string', default: 'unicorn,native' },
    family: { type: 'string', default: 'image' },
    seed: { type: 'string', default: '1' },
  },
});

/** Cases that a worker gets at a time. */
const BLOCK = 500;
/** Cases before the clock starts: the compiler of JavaScript has seen them all by then. */
const WARM_UP = 2000;

if (values.help) console.log(HELP);
else await bench();

async function bench(): Promise<void> {
  const { cases, lines, seed, engine: engines } = values;
  const family = values.family as FamilyName;
  console.log(
    `${processors()[0]?.model}, node ${process.version}, ${family} cases of seed ${seed}, one worker`,
  );
  for (const engine of engines.split(',') as FuzzEngine[]) {
    const plan = makePlan({ seed: Number(seed), family, engine });
    const station = new Station(await loadSubjects(TRIALS));
    const scale = family === 'history' ? 20 : 1;
    const block = BLOCK / scale;
    await station.range(plan, { from: 0, to: WARM_UP / scale });
    console.log(`\n${engine}\n     cases  cases/s   draw   emit  patch    run  check  other   RSS MiB`);
    const part = Math.ceil(Number(cases) / Number(lines));
    for (let line = 0; line < Number(lines); line++) {
      const start = performance.now();
      let spent = SPENT_NOTHING;
      let broken = 0;
      for (let from = line * part; from < (line + 1) * part; from += block) {
        const tally = await station.range(plan, { from, to: Math.min(from + block, (line + 1) * part) });
        spent = addSpent(spent, tally.spent);
        // As between a worker's tasks: memory that is garbage is given back in a turn of the event loop.
        await setImmediate();
        broken += tally.broken;
      }
      const seconds = (performance.now() - start) / 1000;
      console.log(lineText((line + 1) * part, part / seconds, seconds, spent, broken));
    }
    station.close();
  }
}

function lineText(cases: number, rate: number, seconds: number, spent: Spent, broken: number): string {
  const { draw, emit, patch, run, check } = spent;
  const parts = [draw, emit, patch, run, check].map((ns) => ns / 1e9 / seconds);
  const other = 1 - parts.reduce((sum, share) => sum + share, 0);
  const shares = [...parts, other].map((share) => `${Math.round(100 * share)} %`.padStart(7)).join('');
  const rss = (residentBytes(process.pid) / 2 ** 20).toFixed(0).padStart(9);
  const findings = broken === 0 ? '' : `  ${broken} findings`;
  return `${String(cases).padStart(10)}${rate.toFixed(0).padStart(9)}${shares}${rss}${findings}`;
}

/** Memory of a process and of those that it started; without /proc, of this one. */
function residentBytes(pid: number): number {
  try {
    const [, kib = '0'] = /^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8')) ?? [];
    const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').split(' ').filter(Boolean);
    return children.reduce((sum, child) => sum + residentBytes(Number(child)), 1024 * Number(kib));
  } catch {
    return pid === process.pid ? process.memoryUsage.rss() : 0;
  }
}
