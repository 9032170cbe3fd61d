/*
 * Worker processes. A guest can take its process down, or never come back, and that is a result: it comes
 * back as a Loss, and the next task gets a fresh process. Processes and not threads, because a crash in
 * native code takes all threads with it.
 */

import process from 'node:process';
import { Tinypool } from 'tinypool';
import type { CaseOutcome } from '../check/index.ts';
import { InputError } from '../lib/index.ts';
import type { FamilyName, Plan, Range } from './plan.ts';
import type { Setting } from './station.ts';
import { TRIALS } from './subjects.ts';
import type { Tally } from './tally.ts';
import type { Answer, Order, Task } from './worker.ts';

/** Cases die young: with room for them, the collector seldom runs in vain. */
const ROOMY = ['--max-semi-space-size=64'];
/** Memory that engines give back goes back to the system, not into gaps between blocks. */
const MEMORY = { MALLOC_MMAP_THRESHOLD_: '131072', MALLOC_TRIM_THRESHOLD_: '131072' };

/** The product's worker. */
const WORKER = new URL('./worker.js', import.meta.url);

/** A range of histories takes a second on a machine that does nothing else. */
const RANGE_MS = 120_000;
const CASE_MS = 20_000;
/** Time for a process to be there. */
const START_MS = 120_000;

export interface CrewOptions {
  /** Processes. */
  readonly workers: number;
  /** URL of the module of subjects. Default: the product's. */
  readonly subjects?: string;
  /** The built worker. Default: the product's. */
  readonly worker?: URL;
  /** Milliseconds after which a range, or a task of a few cases, counts as hung. */
  readonly limits?: { readonly range: number; readonly cases: number };
}

/** A task that gave no answer. */
export class Loss {
  /** `crashed`: the process died. `hung`: it was killed after the time limit. `threw`: an exception ended the task. */
  readonly how: 'crashed' | 'hung' | 'threw';
  readonly detail: string;

  constructor(how: Loss['how'], detail: string) {
    this.how = how;
    this.detail = detail;
  }
}

export class Crew {
  readonly workers: number;
  readonly #pool: Tinypool;
  readonly #subjects: string;
  readonly #limits: { readonly range: number; readonly cases: number };

  constructor({ workers, subjects = TRIALS, worker = WORKER, limits }: CrewOptions) {
    this.workers = workers;
    this.#subjects = subjects;
    this.#limits = limits ?? { range: RANGE_MS, cases: CASE_MS };
    this.#pool = new Tinypool({
      runtime: 'child_process',
      // Cases hold bigints.
      serialization: 'advanced',
      filename: worker.href,
      name: 'work',
      minThreads: workers,
      maxThreads: workers,
      env: { ...(process.env as Record<string, string>), ...MEMORY },
      execArgv: ROOMY,
    });
    // A process that dies while it has nothing to do is replaced, and nothing is lost.
    this.#pool.on('error', () => undefined);
  }

  /**
   * Runs a range of a campaign's cases.
   * @throws InputError for what the user can mend: no engine
   */
  async range(plan: Plan, range: Range): Promise<Tally | Loss> {
    const limit = range.to - range.from > 1 ? this.#limits.range : this.#limits.cases;
    return (await this.#do({ kind: 'range', plan, range }, limit)) as Tally | Loss;
  }

  /** Runs given cases. @throws InputError likewise */
  async cases(
    setting: Setting,
    family: FamilyName,
    cases: readonly unknown[],
  ): Promise<readonly CaseOutcome[] | Loss> {
    const task: Task = { kind: 'cases', setting, family, cases };
    return (await this.#do(task, this.#limits.cases)) as readonly CaseOutcome[] | Loss;
  }

  async #do(task: Task, limitMs: number): Promise<Tally | readonly CaseOutcome[] | Loss> {
    const order: Order = { subjects: this.#subjects, task };
    const limit = new AbortController();
    let timer = setTimeout(() => limit.abort(), START_MS);
    const begin = (): void => {
      clearTimeout(timer);
      timer = setTimeout(() => limit.abort(), limitMs);
    };
    try {
      // What a worker says that is no answer: that it has begun.
      const channel = { postMessage: begin };
      const json = (await this.#pool.run(order, { signal: limit.signal, channel })) as string;
      const answer = JSON.parse(json) as Answer;
      if ('input' in answer) throw new InputError('fuzz', undefined, answer.input);
      return 'thrown' in answer ? new Loss('threw', answer.thrown) : answer.done;
    } catch (error) {
      if (error instanceof InputError) throw error;
      if (limit.signal.aborted) return new Loss('hung', `no answer within ${limitMs / 1000} s`);
      return new Loss('crashed', 'the process that ran it died');
    } finally {
      clearTimeout(timer);
    }
  }

  async close(): Promise<void> {
    await this.#pool.destroy();
  }
}
