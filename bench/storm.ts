/*
 * Storms over many seeds, or one large one: `npm run storm -- --help`.
 * The figures in docs/lifetimes.md come from here.
 */

import { cpus as processors } from 'node:os';
import { parseArgs } from 'node:util';
import { type StormOptions, type StormReport, storm } from '../test/tramp/storm.ts';
import { KERNEL_BUGS, type KernelBug, MANAGED_REVISIONS, managedRevision } from '../tramp/index.ts';

const HELP = `npm run storm -- [options]
  --seed N         first seed (1)
  --seeds N        number of seeds (1)
  --cpus N         vCPUs, 1 to 64 (4)
  --tasks N        tasks (two for each vCPU)
  --functions N    traced functions (6)
  --operations N   operations of the host: attach, detach, ... (60)
  --lifespan N     calls that a task makes on average before it exits (10)
  --reuse N        of 100 detached programs, how many are attached again (50)
  --host-weight N  how likely an operation is, where a vCPU's running on is 20 (1)
  --slice N        instructions that a vCPU runs at most without a break (24)
  --revision NAME  ${MANAGED_REVISIONS.join(', ')} (v5.15)
  --no-preemption  a kernel without CONFIG_PREEMPTION
  --kernel-lifetime  programs live as in the kernels, not until their images are gone
  --bug ID         switch a bug on: ${Object.keys(KERNEL_BUGS).join(', ')}
  --history N      events to print of the first storm that goes wrong (60)`;

const { values } = parseArgs({
  options: {
    help: { type: 'boolean', default: false },
    seed: { type: 'string', default: '1' },
    seeds: { type: 'string', default: '1' },
    cpus: { type: 'string', default: '4' },
    tasks: { type: 'string' },
    functions: { type: 'string', default: '6' },
    operations: { type: 'string', default: '60' },
    lifespan: { type: 'string', default: '10' },
    reuse: { type: 'string', default: '50' },
    'host-weight': { type: 'string', default: '1' },
    slice: { type: 'string', default: '24' },
    revision: { type: 'string', default: 'v5.15' },
    'no-preemption': { type: 'boolean', default: false },
    'kernel-lifetime': { type: 'boolean', default: false },
    bug: { type: 'string', multiple: true, default: [] },
    history: { type: 'string', default: '60' },
  },
});

/** What a storm counts, before anything has happened. */
const NOTHING = {
  events: 0,
  calls: 0n,
  runs: 0n,
  attached: 0,
  detached: 0,
  failed: 0,
  modulesLoaded: 0,
  patched: 0,
};

if (values.help) console.log(HELP);
else await campaign();

async function campaign(): Promise<void> {
  const shared: Omit<StormOptions, 'seed'> = {
    cpus: Number(values.cpus),
    ...(values.tasks === undefined ? {} : { tasks: Number(values.tasks) }),
    functions: Number(values.functions),
    operations: Number(values.operations),
    lifespan: Number(values.lifespan),
    reuse: Number(values.reuse),
    hostWeight: Number(values['host-weight']),
    slice: Number(values.slice),
    revision: managedRevision(values.revision),
    preemption: !values['no-preemption'],
    programLifetime: values['kernel-lifetime'] ? 'kernel' : 'held',
    bugs: values.bug as KernelBug[],
    keep: 0,
  };
  const first = Number(values.seed);
  const wrong: number[] = [];
  const sums = { ...NOTHING };
  const start = performance.now();
  for (let seed = first; seed < first + Number(values.seeds); seed++) {
    const report = await attempt({ ...shared, seed });
    if (report.problems.length > 0) wrong.push(seed);
    sums.events += report.events;
    sums.calls += report.calls;
    sums.runs += report.runs;
    sums.attached += report.attached;
    sums.detached += report.detached;
    sums.failed += report.failed;
    sums.modulesLoaded += report.modulesLoaded;
    sums.patched += report.patched;
  }
  const seconds = (performance.now() - start) / 1000;
  console.log(`${processors()[0]?.model}, node ${process.version}`);
  for (const [what, sum] of Object.entries(sums)) console.log(`${String(sum).padStart(12)}  ${what}`);
  console.log(
    `${seconds.toFixed(1).padStart(12)}  seconds, ${Math.round(sums.events / seconds)} events a second`,
  );
  console.log(`${String(wrong.length).padStart(12)}  of ${values.seeds} storms went wrong`);
  const [seed] = wrong;
  if (seed === undefined) return;
  process.exitCode = 1;
  const report = await attempt({ ...shared, seed, keep: Number(values.history) });
  console.log(`\nseed ${seed}\n${report.history}\n\n${report.problems.join('\n')}`);
}

/** What a storm throws, a broken invariant say, is what is wrong with it. */
async function attempt(options: StormOptions): Promise<StormReport> {
  try {
    return await storm(options);
  } catch (error) {
    if (!(error instanceof Error)) throw error;
    return { ...NOTHING, problems: [`${error.name}: ${error.message}`], history: '' };
  }
}
