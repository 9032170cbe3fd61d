/* Hardware counters of the process that runs guests, by `perf stat`, where there are any. */

import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { setTimeout } from 'node:timers/promises';

/** Per call, user mode only. */
export interface Counters {
  readonly cycles: number;
  readonly instructions: number;
  readonly branches: number;
  readonly branchMisses: number;
}

const EVENTS = ['cycles:u', 'instructions:u', 'branches:u', 'branch-misses:u'];
const ATTACHING_MS = 150;
const COUNTING_MS = 200;

/** How counters are read here; undefined where they cannot be. */
export function countersAvailable(): string | undefined {
  const { status, stderr } = spawnSync('perf', ['stat', '-x,', '-e', EVENTS.join(), 'true']);
  if (status !== 0) return undefined;
  return parse(stderr.toString()) === undefined ? undefined : `perf stat -e ${EVENTS.join()}`;
}

/**
 * Counts while `run`, which makes `calls` calls, is run again and again.
 * @returns null when perf counted nothing after all
 */
export async function perfStat(run: () => void, calls: number): Promise<Counters | null> {
  const children = childProcesses();
  run();
  const perf = spawn('perf', ['stat', '-x,', '-e', EVENTS.join(), '-p', children.join()], {
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  const output: Buffer[] = [];
  perf.stderr.on('data', (data: Buffer) => output.push(data));
  const closed = once(perf, 'close');
  await setTimeout(ATTACHING_MS);
  let runs = 0;
  for (const end = Date.now() + COUNTING_MS; Date.now() < end; runs++) run();
  perf.kill('SIGINT');
  await closed;
  const counted = parse(Buffer.concat(output).toString());
  if (counted === undefined) return null;
  const [cycles = 0, instructions = 0, branches = 0, branchMisses = 0] = counted.map(
    (count) => count / (runs * calls),
  );
  return { cycles, instructions, branches, branchMisses };
}

/** The counts in EVENTS' order; undefined when one of them is not supported. */
function parse(csv: string): number[] | undefined {
  const rows = csv.split('\n').map((line) => line.split(','));
  const counts = EVENTS.map((event) => Number(rows.find((row) => row[2] === event)?.[0]));
  return counts.every((count) => Number.isFinite(count) && count > 0) ? counts : undefined;
}

/** Processes that this one started. */
function childProcesses(): number[] {
  return readdirSync('/proc/self/task').flatMap((thread) =>
    readFileSync(`/proc/self/task/${thread}/children`, 'utf8')
      .split(' ')
      .filter((pid) => pid !== '')
      .map(Number),
  );
}
