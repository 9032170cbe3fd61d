import type { Finding } from '../check/index.ts';
import { InputError } from '../lib/index.ts';
import { Crew, type CrewOptions } from './crew.ts';
import { type FindingRecord, readRecord } from './record.ts';
import { loadSubjects, suspectsOf, TRIALS } from './subjects.ts';
import { tryCases } from './trial.ts';

export interface Replay {
  readonly record: FindingRecord;
  /** Whether the case broke the same rule again. */
  readonly reproduced: boolean;
  /** All that it broke, that rule first. */
  readonly findings: readonly Finding[];
}

/**
 * Runs a finding's case again, in a process of its own: the minimized one where there is one.
 * @throws InputError for a file that holds no finding that this version knows, or an engine that is not there
 */
export async function replay(file: string, options: Omit<CrewOptions, 'workers'> = {}): Promise<Replay> {
  const record = readRecord(file);
  const subjects = await loadSubjects(options.subjects ?? TRIALS);
  const { family, rule } = record;
  if (record.mutant !== null && !subjects.mutants.some(({ id }) => id === record.mutant)) {
    throw new InputError(file, undefined, `was found in the mutant ${record.mutant}, which there is not`);
  }
  const one = caseOf(file, () => subjects.families[family].parse(record.minimized ?? record.request));
  suspectsOf(subjects, record);
  const crew = new Crew({ ...options, workers: 1 });
  try {
    const [outcome] = await tryCases(crew, record, family, [one]);
    const findings = [...(outcome?.findings ?? [])].sort(
      (a, b) => Number(b.rule === rule) - Number(a.rule === rule),
    );
    return { record, reproduced: findings[0]?.rule === rule, findings };
  } finally {
    await crew.close();
  }
}

/** What parse() refuses, with the file's name. */
function caseOf(file: string, parse: () => unknown): unknown {
  try {
    return parse();
  } catch (error) {
    if (error instanceof InputError) throw new InputError(file, undefined, error.message);
    throw error;
  }
}
