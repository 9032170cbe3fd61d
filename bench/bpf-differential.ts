/*
 * Random eBPF programs, compiled and interpreted: `npm run bpf:differential -- --cases N --seed S`. Every case is
 * compiled by one of the three JITs in turn and run on Unicorn, on the host's CPU, and by the interpreter; result,
 * memory and map value must be equal. The first difference is printed with its program, and ends the run.
 */

import { performance } from 'node:perf_hooks';
import process from 'node:process';
import { parseArgs } from 'node:util';
import { compareCases, type Tally } from '../test/bpf/differential/compare.ts';
import { BATCH, World } from '../test/bpf/differential/world.ts';

const { values } = parseArgs({
  options: {
    cases: { type: 'string', default: '500000' },
    seed: { type: 'string', default: '1' },
    from: { type: 'string', default: '0' },
    /** Without the host's CPU, where that cannot be had. */
    unicorn: { type: 'boolean', default: false },
    /** Shifts by BMI2 (v6.12), which the host's CPU must have. */
    bmi2: { type: 'boolean', default: false },
  },
});

/** Cases between two lines of progress. */
const STEP = BATCH * 80;

const seed = Number(values.seed);
const from = Number(values.from);
const cases = Number(values.cases);
if (![seed, from, cases].every((one) => Number.isSafeInteger(one) && one >= 0)) {
  console.error('bpf:differential: --cases, --seed and --from are whole numbers');
  process.exit(2);
}
const tally: Tally = { cases: 0, made: 0, compiled: 0, functions: 0 };
const start = performance.now();
const end = from + cases;
let trouble: string | undefined;
for (let at = from; at < end && trouble === undefined; at += STEP) {
  // New machines for each step: libunicorn keeps what it has translated, 20 KB a case, and has room for a gigabyte.
  const world = await World.open(values.unicorn ? ['unicorn'] : ['unicorn', 'native'], values.bmi2);
  trouble = compareCases(world, seed, at, Math.min(at + STEP, end), tally);
  world.close();
  const perSecond = Math.round(tally.cases / ((performance.now() - start) / 1000));
  console.log(`${tally.cases} cases, ${tally.functions} functions, ${perSecond} a second`);
}
if (trouble === undefined) {
  const each = (sum: number): string => (sum / tally.cases).toFixed(1);
  console.log(`no difference; ${each(tally.made)} instructions a case, ${each(tally.compiled)} as compiled`);
} else {
  console.log(trouble);
  process.exitCode = 1;
}
