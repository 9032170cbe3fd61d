/*
 * Whether each call did what it owed. A call owes the image that stood at the entry when its first
 * instruction was executed:
 *
 *   fentry programs, fmod_ret programs until one is not 0, the function unless one was, fexit programs
 *
 * Two things are left open, and taken from the log. A program may be missed, when it was running already.
 * And of an image that was retired while the call was inside the function, the fexit programs are left out,
 * all of them: that is certain when the retiring was over before the function ended, and open when it was
 * not. Calls inside of calls are made by functions and programs; what stood at their entry is known but for
 * what was put there between the two entries of the log around it.
 */

import type { LogEntry } from './log.ts';
import { Note } from './log.ts';
import type {
  CallRecord,
  FunctionRecord,
  HistoryRecord,
  LoadedProgram,
  LoggedImage,
  Version,
} from './record.ts';

/** A program that an image called, or wanted to: its enter and exit lie between two entries of its task. */
export interface Offer {
  readonly program: LoadedProgram;
  readonly task: number;
  /** The call is inside of a program that runs in rcu_read_lock. */
  readonly inRcu: boolean;
  /** Lower half of the address of the function that is traced. */
  readonly ip: number;
  /** Entries of the task around it, or the call's beginning and end. */
  readonly after: number;
  readonly before: number;
  /** Its own entries; undefined when it was missed. */
  readonly run: { readonly at: number; readonly done: number; readonly entry: LogEntry } | undefined;
}

/** Why a call cannot be what it owed. */
export interface Mismatch {
  readonly call: CallRecord;
  readonly expected: string;
  readonly seen: string;
}

/** What a call that agrees came to. */
export interface Agreement {
  readonly offers: readonly Offer[];
  /** What it must return; undefined for a void function. */
  readonly result: bigint | undefined;
  /** Programs whose misses cannot be told: the call can be read in several ways. */
  readonly open: ReadonlySet<LoadedProgram>;
  /** Sleepable programs that were entered inside rcu_read_lock: at least, and at most. */
  readonly splats: readonly [number, number];
  /** What happened in it, for coverage. */
  readonly marks: ReadonlySet<CallMark>;
}

export type CallMark = 'nested' | 'missed' | 'answered' | 'replaced' | 'left-early' | 'traced' | 'untraced';

/** Ways to read a call that are looked at: more than one is rare. */
const MOST_READINGS = 32;

/**
 * Follows one call through the log. Where it can be read in several ways, the one with the fewest misses is
 * taken. @param entries those of its task while it lasted
 */
export function follow(
  record: HistoryRecord,
  call: CallRecord,
  entries: readonly Indexed[],
): Agreement | Mismatch {
  const follower = new Follower(record, call, entries);
  const readings: Reading[] = [];
  for (const reading of follower.readings()) {
    if (readings.push(reading) === MOST_READINGS) break;
  }
  const [best] = readings.sort((a, b) => a.misses - b.misses);
  if (best === undefined) return follower.mismatch();
  const isVoid = record.functions[call.fn]?.spec.isVoid === true;
  return {
    offers: offersOf(best),
    result: isVoid ? undefined : best.result,
    open: readings.length === 1 ? NONE : differentlyMissed(readings),
    splats: [Math.min(...readings.map(splatsOf)), Math.max(...readings.map(splatsOf))],
    marks: new Set(best.misses > 0 ? [...best.marks, 'missed'] : best.marks),
  };
}

/** An entry of one task, and its place in the log. */
export interface Indexed {
  readonly at: number;
  readonly entry: LogEntry;
}

/** How far a call has been read, in one way of reading it. */
interface Reading {
  /** The next entry of the task. */
  readonly next: number;
  /** What programs were offered so far, the last one first. */
  readonly offers: OfferList | undefined;
  readonly misses: number;
  readonly marks: readonly CallMark[];
  /** What the function just left returns. */
  readonly result: bigint;
}

interface OfferList {
  readonly offer: Offer;
  readonly before: OfferList | undefined;
}

const NONE: ReadonlySet<LoadedProgram> = new Set();

class Follower {
  readonly #record: HistoryRecord;
  readonly #call: CallRecord;
  readonly #entries: readonly Indexed[];
  /** The furthest place where something did not fit, and what was expected there. */
  #stuck = -1;
  #expected: string[] = [];

  constructor(record: HistoryRecord, call: CallRecord, entries: readonly Indexed[]) {
    this.#record = record;
    this.#call = call;
    this.#entries = entries;
  }

  /** Every way to read the call as what it owed. */
  *readings(): Generator<Reading> {
    const { fn, version, args } = this.#call;
    const start: Reading = { next: 0, offers: undefined, misses: 0, marks: [], result: 0n };
    for (const end of this.#frame(fn, version, start, false, args[0] + args[1])) {
      if (end.next === this.#entries.length) yield end;
      else this.#tried(end.next, 'the return');
    }
  }

  mismatch(): Mismatch {
    const expected = [...new Set(this.#expected)].join(', or ');
    return { call: this.#call, expected, seen: this.#name(this.#stuck) };
  }

  /** A call of a function whose image is known. @param sum what the function itself returns */
  *#frame(fn: number, version: Version, start: Reading, inRcu: boolean, sum: bigint): Generator<Reading> {
    const { extension, image, ip } = version;
    const { name } = this.#function(fn);
    if (extension !== undefined) {
      const { id, name: by, returns } = extension;
      if (!this.#is(start.next, Note.run, id, `${by}, which replaces ${name}`)) return;
      if (!this.#is(start.next + 1, Note.done, id, `the end of ${by}`)) return;
      yield { ...mark(start, 'replaced'), next: start.next + 2, result: BigInt(returns) };
      return;
    }
    const marked = mark(start, image === undefined ? 'untraced' : 'traced');
    const entry = this.#programs(image?.progs.fentry ?? [], marked, inRcu, ip);
    for (const entered of entry) {
      for (const answered of this.#answers(image?.progs.fmod_ret ?? [], entered, inRcu, ip)) {
        if (answered.answer !== undefined) {
          // straight to the fexit programs, past the place where a retired image is left
          const exits = this.#programs(image?.progs.fexit ?? [], answered.reading, inRcu, ip);
          for (const end of exits) yield { ...end, result: answered.answer };
          continue;
        }
        for (const called of this.#original(fn, answered.reading, inRcu)) {
          for (const end of this.#exits(image, called, inRcu, ip)) yield { ...end, result: sum };
        }
      }
    }
  }

  /** Programs one after the other. */
  *#programs(
    programs: readonly LoadedProgram[],
    start: Reading,
    inRcu: boolean,
    ip: number,
    from: number = 0,
  ): Generator<Reading> {
    const program = programs[from];
    if (program === undefined) {
      yield start;
      return;
    }
    for (const { reading } of this.#offer(program, start, inRcu, ip)) {
      yield* this.#programs(programs, reading, inRcu, ip, from + 1);
    }
  }

  /** fmod_ret programs until one that is not 0, which answers for the function. */
  *#answers(
    programs: readonly LoadedProgram[],
    start: Reading,
    inRcu: boolean,
    ip: number,
    from: number = 0,
  ): Generator<{ readonly reading: Reading; readonly answer: bigint | undefined }> {
    const program = programs[from];
    if (program === undefined) {
      yield { reading: start, answer: undefined };
      return;
    }
    for (const { reading, ran } of this.#offer(program, start, inRcu, ip)) {
      if (ran && program.returns !== 0) {
        yield { reading: mark(reading, 'answered'), answer: BigInt(program.returns) };
      } else {
        yield* this.#answers(programs, reading, inRcu, ip, from + 1);
      }
    }
  }

  /** The function itself. */
  *#original(fn: number, start: Reading, inRcu: boolean): Generator<Reading> {
    const { spec, name } = this.#function(fn);
    if (!this.#is(start.next, Note.body, fn, `the body of ${name}`)) return;
    const inside = { ...start, next: start.next + 1 };
    const calls = spec.calls === null ? [inside] : this.#nested(spec.calls, inside, inRcu);
    for (const called of calls) {
      if (this.#is(called.next, Note.end, fn, `the end of ${name}`))
        yield { ...called, next: called.next + 1 };
    }
  }

  /** The fexit programs, unless the call jumps over them when it comes back from the original. */
  *#exits(image: LoggedImage | undefined, start: Reading, inRcu: boolean, ip: number): Generator<Reading> {
    const retired = image === undefined ? undefined : this.#record.retired.get(image);
    const exits = image?.progs.fexit ?? [];
    const jumps = retired !== undefined && image?.skipsExit === true;
    const must = jumps && retired.to <= this.#at(start.next - 1);
    const may = jumps && retired.from <= this.#at(start.next);
    if (!must) yield* this.#programs(exits, start, inRcu, ip);
    if (may) yield mark(start, 'left-early');
  }

  /** A program's turn: it runs, or it is missed. */
  *#offer(
    program: LoadedProgram,
    start: Reading,
    inRcu: boolean,
    ip: number,
  ): Generator<{ readonly reading: Reading; readonly ran: boolean }> {
    const { next } = start;
    const seen = this.#entries[next];
    const offer = { program, task: this.#call.taskId, inRcu, ip, after: this.#at(next - 1) };
    if (this.#is(next, Note.run, program.id, program.name) && seen !== undefined) {
      const { calls, sleepable } = program.spec;
      const inside = { ...start, next: next + 1 };
      const called = calls === null ? [inside] : this.#nested(calls, inside, inRcu || !sleepable);
      for (const end of called) {
        if (!this.#is(end.next, Note.done, program.id, `the end of ${program.name}`)) continue;
        const run = { at: seen.at, done: this.#at(end.next), entry: seen.entry };
        const made: Offer = { ...offer, before: this.#at(end.next + 1), run };
        const offers = { offer: made, before: end.offers };
        yield { reading: { ...end, next: end.next + 1, offers }, ran: true };
      }
    }
    const missed: Offer = { ...offer, before: this.#at(next), run: undefined };
    const offers = { offer: missed, before: start.offers };
    yield { reading: { ...start, offers, misses: start.misses + 1 }, ran: false };
  }

  /** A call made by a function or a program; its result is not seen. */
  *#nested(fn: number, start: Reading, inRcu: boolean): Generator<Reading> {
    for (const version of this.#standing(fn, this.#at(start.next - 1), this.#at(start.next))) {
      yield* this.#frame(fn, version, mark(start, 'nested'), inRcu, 0n);
    }
  }

  /** What may have stood at a function's entry at some time between two. */
  #standing(fn: number, after: number, before: number): readonly Version[] {
    const { versions } = this.#function(fn);
    return versions.filter(({ from }, i) => {
      const until = versions[i + 1]?.from ?? Number.POSITIVE_INFINITY;
      return from <= before && until > after;
    });
  }

  #is(next: number, note: Note, subject: number, what: string): boolean {
    const seen = this.#entries[next]?.entry;
    const fits = seen?.note === note && seen.subject === subject;
    if (!fits) this.#tried(next, what);
    return fits;
  }

  /** Notes what could have come here. */
  #tried(next: number, what: string): void {
    if (next < this.#stuck) return;
    if (next > this.#stuck) this.#expected = [];
    this.#stuck = next;
    this.#expected.push(what);
  }

  /** The time of the task's entry; before the first the call's beginning, behind the last its end. */
  #at(next: number): number {
    if (next < 0) return this.#call.from - 0.5;
    return this.#entries[next]?.at ?? this.#call.to;
  }

  #name(next: number): string {
    const seen = this.#entries[next]?.entry;
    if (seen === undefined) return 'the return';
    const { functions, programs } = this.#record;
    switch (seen.note) {
      case Note.body:
        return `the body of ${functions[seen.subject]?.name}`;
      case Note.end:
        return `the end of ${functions[seen.subject]?.name}`;
      case Note.run:
        return `${programs[seen.subject]?.name}`;
      case Note.done:
        return `the end of ${programs[seen.subject]?.name}`;
    }
  }

  #function(fn: number): FunctionRecord {
    return this.#record.functions[fn] as FunctionRecord;
  }
}

function mark(reading: Reading, what: CallMark): Reading {
  return reading.marks.includes(what) ? reading : { ...reading, marks: [...reading.marks, what] };
}

function offersOf({ offers }: Reading): Offer[] {
  const list: Offer[] = [];
  for (let one = offers; one !== undefined; one = one.before) list.push(one.offer);
  return list.reverse();
}

function splatsOf(reading: Reading): number {
  return offersOf(reading).filter(({ program, inRcu }) => inRcu && program.spec.sleepable).length;
}

/** Programs whose misses are not the same in all readings. */
function differentlyMissed(readings: readonly Reading[]): ReadonlySet<LoadedProgram> {
  const counts = readings.map((reading) => {
    const missed = new Map<LoadedProgram, number>();
    for (const { program, run } of offersOf(reading)) {
      if (run === undefined) missed.set(program, (missed.get(program) ?? 0) + 1);
    }
    return missed;
  });
  const all = new Set(counts.flatMap((missed) => [...missed.keys()]));
  return new Set([...all].filter((program) => new Set(counts.map((missed) => missed.get(program))).size > 1));
}
