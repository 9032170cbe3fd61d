/* Cases by seed and number, batch by batch, and what of them differs. */

import { interpretable } from '../../../bpf/index.ts';
import { Random } from '../../../check/random.ts';
import { disasmInsn } from '../../../jit/index.ts';
import { toHex } from '../../../lib/index.ts';
import { generate, MEMORY_BYTES, type Revision, VALUE_BYTES } from './generate.ts';
import { BATCH, type Case, type Compared, type Outcome, type World } from './world.ts';

export const REVISIONS: readonly Revision[] = ['v5.15', 'v6.1', 'v6.12'];

/** The case of a number: its revision goes round. */
export function caseOf(seed: number, number: number): Case {
  const random = new Random(seed, number);
  const revision = REVISIONS[number % REVISIONS.length] as Revision;
  const program = generate(random, revision);
  const data = Uint8Array.from({ length: MEMORY_BYTES + VALUE_BYTES }, () => random.int(0, 255));
  return { revision, program, data };
}

export interface Tally {
  cases: number;
  /** Instructions of the programs, as they were made and as they were compiled. */
  made: number;
  compiled: number;
  functions: number;
}

/**
 * Runs cases `from` to `to - 1`; stops at the first that differs.
 *
 * @returns what differs, in words with the program; undefined when nothing does
 */
export function compareCases(
  world: World,
  seed: number,
  from: number,
  to: number,
  tally: Tally,
): string | undefined {
  for (let start = from; start < to; start += BATCH) {
    const numbers = Array.from({ length: Math.min(BATCH, to - start) }, (_, i) => start + i);
    const cases = numbers.map((number) => caseOf(seed, number));
    const results = world.run(cases);
    for (const [i, result] of results.entries()) {
      const one = cases[i] as Case;
      const trouble = difference(one, result);
      if (trouble !== undefined) return `seed ${seed}, case ${numbers[i]}, ${one.revision}: ${trouble}`;
      tally.cases++;
      tally.made += one.program.insns.length;
      tally.compiled += result.checked.functions.reduce((sum, { insns }) => sum + insns.length, 0);
      tally.functions += result.checked.functions.length;
    }
  }
  return undefined;
}

function difference({ program }: Case, { checked, interpreted, ran }: Compared): string | undefined {
  const wanted = shown(interpreted);
  const wrong = ran.findIndex((outcome) => shown(outcome) !== wanted);
  if (wrong < 0) return undefined;
  const listing = (insns: typeof program.insns): string =>
    insns.map((one, i) => `${i}: ${disasmInsn(one, insns[i + 1])}`).join('\n');
  return [
    `machine ${wrong}: ${shown(ran[wrong] as Outcome)}`,
    `interpreted: ${wanted}`,
    listing(program.insns),
    'as compiled:',
    listing(interpretable(checked).insns),
  ].join('\n');
}

const shown = ({ r0, data }: Outcome): string => `r0 ${r0}, data ${toHex(data)}`;
