/*
 * Where cases are run, in a worker process: runners that stay open from one task to the next.
 */

import type { CaseOutcome, CaseRunner } from '../check/index.ts';
import { openBoth } from './both.ts';
import { type Drawn, draw } from './draw.ts';
import { FAMILY_NAMES, type FamilyName, type Plan, type Range } from './plan.ts';
import { type Subjects, suspectsOf } from './subjects.ts';
import {
  addSpent,
  type CellIndex,
  indexCells,
  SPENT_NOTHING,
  type Spent,
  type Tally,
  Tallying,
} from './tally.ts';

/** What of a plan a runner depends on. */
export type Setting = Pick<Plan, 'engine' | 'mutant'>;

interface Ran {
  readonly outcomes: readonly CaseOutcome[];
  readonly spent: Spent;
}

export class Station {
  readonly #subjects: Subjects;
  readonly #index: CellIndex;
  /** Open runners, all of one setting. */
  readonly #open = new Map<FamilyName, CaseRunner<unknown>>();
  #setting = '';

  constructor(subjects: Subjects) {
    this.#subjects = subjects;
    this.#index = indexCells(subjects.families);
  }

  /** Makes the cases of a range and runs them. */
  async range(plan: Plan, { from, to }: Range): Promise<Tally> {
    const { families } = this.#subjects;
    const tallying = new Tallying(families, this.#index);
    const start = performance.now();
    const drawn: Drawn[] = [];
    for (let number = from; number < to; number++) drawn.push(draw(families, plan, number));
    let spent: Spent = { ...SPENT_NOTHING, draw: Math.round((performance.now() - start) * 1e6) };
    for (const family of FAMILY_NAMES) {
      const mine = drawn.filter((one) => one.family === family);
      if (mine.length === 0) continue;
      const ran = await this.#run(
        plan,
        family,
        mine.map(({ one }) => one),
      );
      mine.forEach(({ number }, i) => {
        tallying.add(number, family, ran.outcomes[i] as CaseOutcome);
      });
      spent = addSpent(spent, ran.spent);
    }
    return tallying.tally(spent);
  }

  /** Runs given cases. */
  async cases(
    setting: Setting,
    family: FamilyName,
    cases: readonly unknown[],
  ): Promise<readonly CaseOutcome[]> {
    return (await this.#run(setting, family, cases)).outcomes;
  }

  async #run(setting: Setting, family: FamilyName, cases: readonly unknown[]): Promise<Ran> {
    const runner = await this.#runner(setting, family);
    const before = { ...runner.timing };
    try {
      const outcomes = await runner.run(cases);
      const { timing } = runner;
      return {
        outcomes,
        spent: {
          draw: 0,
          emit: timing.emit - before.emit,
          patch: timing.patch - before.patch,
          run: timing.run - before.run,
          check: timing.check - before.check,
        },
      };
    } catch (error) {
      // Nobody knows what state it is in.
      this.#close(family);
      throw error;
    }
  }

  async #runner(setting: Setting, family: FamilyName): Promise<CaseRunner<unknown>> {
    const key = `${setting.engine} ${setting.mutant}`;
    if (key !== this.#setting) this.close();
    this.#setting = key;
    const open = this.#open.get(family);
    if (open !== undefined) return open;
    const subject = this.#subjects.families[family];
    const suspects = suspectsOf(this.#subjects, setting);
    const { engine } = setting;
    const runner =
      engine === 'both' ? await openBoth(subject, suspects) : await subject.open({ ...suspects, engine });
    this.#open.set(family, runner);
    return runner;
  }

  #close(family: FamilyName): void {
    this.#open.get(family)?.close();
    this.#open.delete(family);
  }

  close(): void {
    for (const family of FAMILY_NAMES) this.#close(family);
  }
}
