/*
 * Runs the kill matrix of the emitters' mutants and writes its tables into docs/mutants.md, below the line that says
 * so: `npm run mutants:docs`. What stands above that line is written by hand.
 */

import { readFileSync, writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import process from 'node:process';
import { parseArgs } from 'node:util';
import { killMatrix, type MutantVerdict } from '../fuzz/index.ts';
import { EMITTER_MUTANT_KINDS, EMITTER_MUTANTS, type EmitterMutant } from '../jit/index.ts';

const HELP = `npm run mutants:docs -- [options]
  --workers N   processes (as many as there are CPUs)`;

const DOCUMENT = 'docs/mutants.md';
const LINE = '<!-- Below: written by `npm run mutants:docs`. -->';
/** The document says so. */
const SEED = 1;

const { values } = parseArgs({
  options: {
    help: { type: 'boolean', default: false },
    workers: { type: 'string', default: String(availableParallelism()) },
  },
});

function row({ id, what, revisions }: EmitterMutant, verdict: MutantVerdict | undefined): string {
  const foundBy = verdict?.found === true ? `\`${verdict.rule}\`` : 'NOT FOUND';
  return `| \`${id}\` | ${what} | ${revisions?.join(', ') ?? 'all'} | ${foundBy} | ${verdict?.cases ?? '-'} |`;
}

function tables(verdicts: readonly MutantVerdict[]): string {
  const byId = new Map(verdicts.map((verdict) => [verdict.id, verdict]));
  const found = verdicts.filter((verdict) => verdict.found).length;
  const kinds = Object.entries(EMITTER_MUTANT_KINDS).map(([title, mutants]) =>
    [
      `### ${title}`,
      '',
      '| id | mistake | revisions | found by | cases |',
      '|---|---|---|---|---|',
      ...mutants.map((mutant) => row(mutant, byId.get(mutant.id))),
    ].join('\n'),
  );
  return [`${found} of ${verdicts.length} found.`, ...kinds].join('\n\n');
}

if (values.help) {
  console.log(HELP);
} else {
  const verdicts = await killMatrix({
    seed: SEED,
    workers: Number(values.workers),
    only: EMITTER_MUTANTS.map(({ id }) => id),
    onVerdict: ({ id, found, cases }, done, all) =>
      console.log(`${done} of ${all}  ${id}: ${found ? 'found' : 'NOT FOUND'} after ${cases}`),
  });
  const [byHand = ''] = readFileSync(DOCUMENT, 'utf8').split(LINE);
  writeFileSync(DOCUMENT, `${byHand}${LINE}\n\n${tables(verdicts)}\n`);
  if (verdicts.some(({ found }) => !found)) process.exitCode = 1;
}
