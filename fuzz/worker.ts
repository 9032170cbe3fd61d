/*
 * The worker process: does a task and answers. What a task throws is an answer, too, and so is what
 * throws when the rest of this room is loaded; what kills the process is found out by the crew.
 */

import process from 'node:process';
import type { CaseOutcome } from '../check/index.ts';
import type { FamilyName, Plan, Range } from './plan.ts';
import type { Setting, Station } from './station.ts';
import type { Tally } from './tally.ts';

/** A range of a campaign to be run, or cases. */
export type Task =
  | { readonly kind: 'range'; readonly plan: Plan; readonly range: Range }
  | {
      readonly kind: 'cases';
      readonly setting: Setting;
      readonly family: FamilyName;
      readonly cases: readonly unknown[];
    };

/** A task, and the module (by URL) of what it is about. */
export interface Order {
  readonly subjects: string;
  readonly task: Task;
}

export type Answer =
  | { readonly done: Tally | readonly CaseOutcome[] }
  /** An InputError: no engine, say. */
  | { readonly input: string }
  /** Anything else that was thrown: its name and message. */
  | { readonly thrown: string };

/** Said when a task is begun: what loads before it does not count against its time limit. */
export const BEGUN = 'begun';

// When the campaign is killed, so is this.
process.once('disconnect', () => process.exit());

const stations = new Map<string, Promise<Station>>();

function stationOf(subjects: string): Promise<Station> {
  const station = stations.get(subjects) ?? open(subjects);
  stations.set(subjects, station);
  return station;
}

async function open(url: string): Promise<Station> {
  const { Station } = await import('./station.ts');
  const { loadSubjects } = await import('./subjects.ts');
  return new Station(await loadSubjects(url));
}

/** What the pool calls. Gives an Answer as JSON, so that one that is not plain data is an answer, too: thrown. */
export async function work({ subjects, task }: Order): Promise<string> {
  const json = (answer: Answer): string => JSON.stringify(answer);
  try {
    const station = await stationOf(subjects);
    process.send?.(BEGUN);
    if (task.kind === 'range') return json({ done: await station.range(task.plan, task.range) });
    return json({ done: await station.cases(task.setting, task.family, task.cases) });
  } catch (error) {
    if (!(error instanceof Error)) return json({ thrown: String(error) });
    return json(
      error.name === 'InputError' ? { input: error.message } : { thrown: `${error.name}: ${error.message}` },
    );
  }
}
