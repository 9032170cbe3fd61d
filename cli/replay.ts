import process from 'node:process';
import type { Command } from 'commander';
import { type Replay, replay } from '../fuzz/index.ts';
import { Exit } from './exit.ts';
import { findingText } from './finding-text.ts';

/** `tramplab replay`: a finding of the fuzzer once more. */
export function addReplay(program: Command): Command {
  return program
    .command('replay')
    .summary("run a finding's case again")
    .description(
      'Runs the minimized case of a file that `tramplab fuzz` wrote, on the engine and with the mutant that it was\n' +
        'found with. Exit 1 when it breaks a rule again, 0 when it does not.',
    )
    .argument('<FILE>', 'the finding, a file in the folder findings/ of a campaign')
    .option('--json', 'one JSON document on standard output')
    .addHelpText(
      'after',
      `
Example:
  tramplab replay campaign/findings/callee-saved-1-4711.json`,
    )
    .action(async (file: string, options: { json?: boolean }) => {
      const result = await replay(file);
      console.log(options.json === true ? JSON.stringify(documentOf(result)) : replayText(result));
      process.exitCode = result.findings.length > 0 ? Exit.FINDING : Exit.FINE;
    });
}

function documentOf({ record, reproduced, findings }: Replay): unknown {
  const { id, rule, family, seed, engine, mutant, request, minimized } = record;
  return {
    id,
    rule,
    reproduced,
    findings,
    family,
    seed,
    case: record.case,
    engine,
    mutant,
    request,
    minimized,
  };
}

function replayText({ record, reproduced, findings }: Replay): string {
  const whom = record.mutant === null ? '' : `, mutant ${record.mutant}`;
  const what = `${record.family} case: ${record.about}; on ${record.engine}${whom}`;
  const verdict = reproduced
    ? 'reproduced'
    : `${record.rule} is not broken${findings.length > 0 ? ', but' : ''}`;
  return [what, verdict, ...findings.map((finding) => `\n${findingText(finding)}`)].join('\n');
}
