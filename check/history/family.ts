/*
 * Attach, detach and replace histories as cases for a campaign. Each case has a kernel of its own on a
 * machine that is used again and again: put back as it was, between two cases.
 */

import { createMachine, type Machine, type MachineOptions, type Snapshot } from '../../emu/index.ts';
import { InputError } from '../../lib/index.ts';
import type { CaseFamily, CaseOutcome, CaseRunner, RunnerOptions, Timing } from '../family.ts';
import { type HistoryCase, parseCase } from './case.ts';
import { cellsOf, HISTORY_CELLS } from './cells.ts';
import { drawCase } from './draw.ts';
import { Ledger } from './ledger.ts';
import { Log } from './log.ts';
import { type Played, play, type Stage } from './play.ts';
import { shrinkCase } from './shrink.ts';
import { World } from './world.ts';

/**
 * Unicorn keeps a little memory for each patch of text, so machines are not used for ever. All are closed at
 * the same time: what they had lies between each other in the process's heap, and comes back only as a whole.
 */
const CASES_PER_MACHINES = 250;

const NS_PER_MS = 1_000_000;

export const HISTORY_FAMILY: CaseFamily<HistoryCase> = {
  name: 'history',
  cells: HISTORY_CELLS,
  generate: drawCase,
  shrink: shrinkCase,
  describe: describeCase,
  parse: parseCase,
  open: async (options) => new HistoryRunner(options),
};

function describeCase({
  revision,
  preemption,
  cpus,
  functions,
  programs,
  tasks,
  operations,
}: HistoryCase): string {
  const count = (list: readonly unknown[], what: string): string =>
    `${list.length} ${what}${list.length === 1 ? '' : 's'}`;
  return [
    `${revision}${preemption ? '' : ', not preemptible'}, ${cpus} CPU${cpus === 1 ? '' : 's'}`,
    count(functions, 'function'),
    count(programs, 'program'),
    count(tasks, 'task'),
    count(operations, 'operation'),
  ].join(', ');
}

/** Plays one case on a machine of its own, and keeps its last events in words. */
export async function playCase(
  one: HistoryCase,
  options: RunnerOptions,
  keep: number = 400,
): Promise<Played> {
  const theatre = await Theatre.open({ engine: options.engine, cpus: one.cpus });
  try {
    return theatre.play(one, options, keep);
  } finally {
    theatre.close();
  }
}

/** Milliseconds. `emit`: kernel, functions and first programs are made; `run`: everything until the end. */
interface Spent {
  emit: number;
  patch: number;
  run: number;
  check: number;
}

const nothingSpent = (): Spent => ({ emit: 0, patch: 0, run: 0, check: 0 });

/** A machine that is put back as it was after each case. */
class Theatre {
  readonly #stage: Stage;
  readonly #start: Snapshot;
  readonly #spent: Spent;

  private constructor(machine: Machine, spent: Spent) {
    this.#spent = spent;
    const patchText = machine.patchText.bind(machine);
    machine.patchText = (address, bytes) => {
      const begun = performance.now();
      patchText(address, bytes);
      spent.patch += performance.now() - begun;
    };
    this.#stage = { machine, log: new Log(machine), ledger: new Ledger(machine) };
    this.#start = machine.snapshot();
  }

  static async open(options: MachineOptions, spent: Spent = nothingSpent()): Promise<Theatre> {
    return new Theatre(await createMachine(options), spent);
  }

  play(one: HistoryCase, { bugs = [], emitters }: RunnerOptions, keep: number): Played {
    const { machine, log } = this.#stage;
    const spent = this.#spent;
    const [begun, patched] = [performance.now(), spent.patch];
    let made = begun;
    let judging = 0;
    try {
      const world = new World(machine, log, one, { bugs, emitter: emitters?.[one.revision] });
      made = performance.now();
      const played = play(this.#stage, world, one, keep);
      judging = played.judging;
      return played;
    } finally {
      machine.restore(this.#start);
      spent.emit += made - begun;
      spent.check += judging;
      spent.run += performance.now() - made - judging - (spent.patch - patched);
    }
  }

  close(): void {
    this.#stage.machine.close();
  }
}

class HistoryRunner implements CaseRunner<HistoryCase> {
  readonly #options: RunnerOptions;
  /** By number of CPUs. */
  readonly #theatres = new Map<number, Theatre>();
  readonly #spent: Spent = nothingSpent();
  /** Cases that the open machines have played. */
  #played = 0;
  #closed = false;

  constructor(options: RunnerOptions) {
    this.#options = options;
  }

  get timing(): Timing {
    const { emit, patch, run, check } = this.#spent;
    return {
      emit: emit * NS_PER_MS,
      patch: patch * NS_PER_MS,
      run: run * NS_PER_MS,
      check: check * NS_PER_MS,
    };
  }

  async run(cases: readonly HistoryCase[]): Promise<readonly CaseOutcome[]> {
    const outcomes: CaseOutcome[] = [];
    for (const one of cases) outcomes.push(await this.#one(one));
    return outcomes;
  }

  async #one(one: HistoryCase): Promise<CaseOutcome> {
    if (this.#played === CASES_PER_MACHINES) this.#closeAll();
    this.#played++;
    const theatre = await this.#theatre(one.cpus);
    const { findings, calls, marks, observed } = theatre.play(one, this.#options, 0);
    const outcome: CaseOutcome = { calls, findings, cells: cellsOf(one, marks) };
    return this.#options.observe === true ? { ...outcome, observed: observed() ?? [] } : outcome;
  }

  async #theatre(cpus: number): Promise<Theatre> {
    if (this.#closed) throw new InputError('runner', undefined, 'the runner is closed');
    const there = this.#theatres.get(cpus);
    if (there !== undefined) return there;
    const { engine, observe } = this.#options;
    // engines are compared where all of them can be: an image's length can depend on the addresses in it
    const layout = observe === true ? ({ layout: 'user' } as const) : {};
    const theatre = await Theatre.open({ engine, cpus, ...layout }, this.#spent);
    this.#theatres.set(cpus, theatre);
    return theatre;
  }

  close(): void {
    this.#closed = true;
    this.#closeAll();
  }

  #closeAll(): void {
    for (const theatre of this.#theatres.values()) theatre.close();
    this.#theatres.clear();
    this.#played = 0;
  }
}
