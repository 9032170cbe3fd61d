/*
 * Runs image cases: many in one call of the guest, accepted by one comparison of the log where they do
 * exactly what the oracle says. A case that does not is run again alone, in a clean stage, and judged.
 */

import type { Fault } from '../../emu/index.ts';
import {
  insnAt,
  prepareTrampoline,
  type Revision,
  type RevisionName,
  RUNTIME_BUGS,
  type RuntimeBug,
  stepPath,
} from '../../jit/index.ts';
import { InputError } from '../../lib/index.ts';
import type { CaseOutcome, CaseRunner, RunnerOptions, Timing } from '../family.ts';
import type { Finding } from '../finding.ts';
import { type ImageCase, JUDGED_REVISIONS } from './case.ts';
import { cellsOf } from './cells.ts';
import { type EmittedImage, emit, requestOf } from './emission.ts';
import { Expectation } from './expectation.ts';
import { observe } from './observe.ts';
import { Oracle } from './oracle.ts';
import { MAX_PROGRAMS, Places } from './places.ts';
import { type Ended, type Ready, type Seat, Stage } from './stage.ts';
import { type Setting, stepsFor, tryAlone } from './trial.ts';

/** Cases in one call of the guest. */
const SEATS = 128;
/** Cases after which a stage is opened anew: Unicorn keeps what it has translated until it is closed. */
const CASES_PER_STAGE = 20_000;
const PAGE_BYTES = 4096;
const JMP_REL32 = 0xe9;
const JUMP_BYTES = 5;

/** Opens a runner. @throws InputError when the engine is not there */
export async function openImageRunner(options: RunnerOptions): Promise<CaseRunner<ImageCase>> {
  const runner = new ImageRunner(options);
  // so that a missing engine is known at once
  await runner.prepare(JUDGED_REVISIONS[0] as RevisionName);
  return runner;
}

/** A case on its way through a batch. */
interface Entry {
  readonly index: number;
  readonly one: ImageCase;
  findings: readonly Finding[];
  calls: number;
  emitted: EmittedImage | undefined;
  /** Where it is in its batch. */
  seat: Seat | undefined;
  observed: readonly string[] | undefined;
}

/** What belongs to one revision. */
interface Theatre {
  readonly stage: Stage;
  readonly places: Places;
  readonly oracle: Oracle;
  cases: number;
}

class ImageRunner implements CaseRunner<ImageCase> {
  readonly #options: RunnerOptions;
  readonly #theatres: Map<RevisionName, Theatre> = new Map();
  readonly #expectation = new Expectation();
  readonly #time = { emit: 0, patch: 0, run: 0, check: 0 };
  #mark = 0;

  constructor(options: RunnerOptions) {
    this.#options = options;
  }

  /**
   * Whether cases can be watched: not where a step is a trap of the host CPU and costs more than a hundred cases,
   * and not by those who compare engines, who want every case to go the same way.
   */
  get #watches(): boolean {
    return this.#options.engine !== 'native' && this.#options.observe !== true;
  }

  get timing(): Timing {
    return { ...this.#time };
  }

  async run(cases: readonly ImageCase[]): Promise<readonly CaseOutcome[]> {
    const entries = cases.map(
      (one, index): Entry => ({
        index,
        one,
        findings: [],
        calls: 0,
        emitted: undefined,
        seat: undefined,
        observed: undefined,
      }),
    );
    for (const revision of JUDGED_REVISIONS) {
      const mine = entries.filter(({ one }) => one.revision === revision);
      for (const statistics of [false, true]) {
        const alike = mine.filter(({ one }) => one.statistics === statistics);
        for (let from = 0; from < alike.length; from += SEATS) {
          const theatre = await this.prepare(revision);
          theatre.stage.runtime.statsEnabled = statistics;
          this.#batch(theatre, alike.slice(from, from + SEATS));
        }
      }
    }
    return entries.map(({ one, findings, calls, observed }) => {
      const outcome = { calls, findings, cells: cellsOf(one) };
      return observed === undefined ? outcome : { ...outcome, observed };
    });
  }

  /** The stage of a revision, opened when it is needed. */
  async prepare(revision: RevisionName): Promise<Theatre> {
    if (!JUDGED_REVISIONS.includes(revision)) {
      throw new InputError('revision', undefined, `images of ${revision} cannot be judged`);
    }
    const open = this.#theatres.get(revision);
    if (open !== undefined && open.cases < CASES_PER_STAGE) return open;
    open?.stage.close();
    this.#theatres.delete(revision);
    const { engine, bugs = [] } = this.#options;
    const stage = await Stage.open({
      engine,
      revision,
      bugs: new Set(bugs.filter((bug): bug is RuntimeBug & typeof bug => Object.hasOwn(RUNTIME_BUGS, bug))),
      seats: SEATS,
      units: SEATS * MAX_PROGRAMS,
    });
    const theatre = {
      stage,
      places: new Places(stage, SEATS),
      oracle: new Oracle(stage.callers),
      cases: 0,
    };
    this.#theatres.set(revision, theatre);
    return theatre;
  }

  close(): void {
    for (const { stage } of this.#theatres.values()) stage.close();
    this.#theatres.clear();
  }

  #spend(what: keyof Timing): void {
    const now = performance.now();
    this.#time[what] += (now - this.#mark) * 1e6;
    this.#mark = now;
  }

  #emitter(revision: RevisionName): Revision | RevisionName {
    return this.#options.emitters?.[revision] ?? revision;
  }

  #batch(theatre: Theatre, entries: readonly Entry[]): void {
    const { places } = theatre;
    theatre.cases += entries.length;
    this.#mark = performance.now();
    // One after the other from seat 0 on: those that are called together, then the watched ones.
    const together: Entry[] = [];
    const alone: Entry[] = [];
    for (const watched of [false, true]) {
      for (const entry of entries) {
        const { one } = entry;
        if ((one.watched && this.#watches) !== watched) continue;
        const seat = places.seat(together.length + alone.length, one);
        const emitted = emit(one, seat.place, this.#emitter(one.revision));
        if (emitted.image === undefined) {
          entry.findings = emitted.findings;
          continue;
        }
        entry.seat = seat;
        entry.emitted = emitted;
        (watched ? alone : together).push(entry);
      }
    }
    this.#spend('emit');
    alone.push(...this.#runTogether(theatre, together));
    for (const entry of alone) this.#runAlone(theatre, entry);
  }

  /** Runs cases in one go. Gives back those that did not do exactly what was expected. */
  #runTogether(theatre: Theatre, entries: readonly Entry[]): readonly Entry[] {
    if (entries.length === 0) return [];
    const { stage } = theatre;
    const expectation = this.#expectation;
    expectation.clear();
    const batch = entries.map((entry) => this.#seat(theatre, entry));
    stage.writeScripts(expectation, batch);
    this.#spend('check');
    const ended = stage.call(batch, stepsFor(expectation.length) + stepsFor(0) * batch.length);
    this.#spend('run');
    const { words, halves, open, length } = expectation;
    const { log, logHalves, cursor } = stage;
    for (const at of open) {
      halves[2 * at] = logHalves[2 * at] as number;
      halves[2 * at + 1] = logHalves[2 * at + 1] as number;
    }
    const whole = cursor === length && same(words, 0, log, 0, length);
    const suspects: Entry[] = [];
    batch.forEach((ready, i) => {
      const entry = entries[i] as Entry;
      const { from, to, fault } = ended[i] as Ended;
      const { expected } = ready;
      entry.calls = expected.calls;
      if (this.#options.observe === true) {
        const references = theatre.places.atomicReferences(i);
        const left = { counters: stage.readCounters(ready), references };
        entry.observed = observe(stage, ready, ended[i] as Ended, left);
      }
      let fine = stage.countersMatch(ready) && this.#faultMatches(ready, fault);
      const size = expected.end - expected.start;
      // Cases behind one that ended everything have not begun, and no log.
      fine &&= to - from === size;
      if (fine && !whole) {
        for (const at of openOf(open, expected.start, expected.end)) {
          words[at] = log[from + at - expected.start] as bigint;
        }
        fine = same(words, expected.start, log, from, size);
      }
      if (expected.atomicReferences !== undefined) {
        const { count, released } = theatre.places.atomicReferences(i);
        fine &&= count === expected.atomicReferences && released === (expected.fault === undefined);
        theatre.places.setReferences(i, false);
      }
      stage.takeReferences(i);
      if (!fine) suspects.push(entry);
    });
    // Whoever wrote what is nobody's is found out alone.
    if (this.#damage(theatre) !== undefined) suspects.splice(0, suspects.length, ...entries);
    this.#spend('check');
    return suspects;
  }

  #damage({ stage, places }: Theatre): string | undefined {
    const im = places.takeImDamage() ? 'a struct bpf_tramp_image' : undefined;
    const counters = stage.takeStrayCounters() ? "another program's counters" : undefined;
    return stage.takeDamage() ?? im ?? counters;
  }

  #faultMatches({ expected }: Ready, fault: Fault | null): boolean {
    if (expected.fault === undefined) return fault === null;
    return fault?.kind === expected.fault.kind && fault.address === expected.fault.address;
  }

  /** Puts a case into its seat. */
  #seat({ stage, places, oracle }: Theatre, entry: Entry): Ready {
    const { one } = entry;
    const seat = entry.seat as Seat;
    const { number } = seat;
    const { image, ipAfterCall, ipEpilogue } = entry.emitted as EmittedImage;
    places.write(number, one.placing.offset, one.retired ? retired(image, ipAfterCall, ipEpilogue) : image);
    if (one.retired) places.setReferences(number, true);
    this.#spend('patch');
    const expected = oracle.expect(one, seat.place, this.#expectation);
    const ready = { one, seat, expected };
    this.#spend('check');
    stage.prepare(ready);
    this.#spend('run');
    return ready;
  }

  #runAlone(theatre: Theatre, entry: Entry): void {
    const { stage, places } = theatre;
    const { one } = entry;
    const { number } = entry.seat as Seat;
    const { image, ipAfterCall, ipEpilogue } = entry.emitted as EmittedImage;
    const setting: Setting = {
      stage,
      expectation: this.#expectation,
      image: one.retired ? retired(image, ipAfterCall, ipEpilogue) : image,
      seat: () => {
        const ready = this.#seat(theatre, entry);
        entry.calls = ready.expected.calls;
        return ready;
      },
      clear: () => {
        const references = places.atomicReferences(number);
        if (one.retired) places.setReferences(number, false);
        stage.takeReferences(number);
        return { references, damage: this.#damage(theatre) };
      },
      stepAt: (offset) => this.#stepAt(entry, offset),
    };
    entry.findings = tryAlone(setting, { watched: one.watched && this.#watches, blamed: true }).findings;
    // Nearly all of it is stepping.
    this.#spend('run');
  }

  #stepAt({ one, seat }: Entry, offset: number): string | undefined {
    const request = requestOf(one, (seat as Seat).place, PAGE_BYTES);
    const prepared = prepareTrampoline(this.#emitter(one.revision), request, { provenance: true });
    const code = prepared.bytes === undefined ? undefined : prepared.code;
    const insn = code === undefined ? undefined : insnAt(code, offset);
    return insn === undefined ? undefined : stepPath(insn.step);
  }
}

/** An image as it is once nothing new shall enter it: ip_after_call jumps to ip_epilogue. */
export function retired(
  image: Uint8Array,
  ipAfterCall: number | null,
  ipEpilogue: number | null,
): Uint8Array {
  if (ipAfterCall === null || ipEpilogue === null) return image;
  // A copy, of a Buffer as well: its slice() would be the same memory.
  const bytes = new Uint8Array(image);
  bytes[ipAfterCall] = JMP_REL32;
  new DataView(bytes.buffer).setInt32(ipAfterCall + 1, ipEpilogue - ipAfterCall - JUMP_BYTES, true);
  return bytes;
}

function same(one: BigUint64Array, at: number, other: BigUint64Array, from: number, words: number): boolean {
  const bytes = (array: BigUint64Array, start: number): Uint8Array =>
    new Uint8Array(array.buffer, array.byteOffset + 8 * start, 8 * words);
  return Buffer.compare(bytes(one, at), bytes(other, from)) === 0;
}

/** Those of ascending numbers that lie in a range. */
function* openOf(open: readonly number[], start: number, end: number): Iterable<number> {
  for (const at of open) {
    if (at >= end) return;
    if (at >= start) yield at;
  }
}
