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
 *
 * A live patch has another function run in place of the function, unless the image calls the function itself.
 * A call that has come to ftrace's code, which a patched entry calls, takes the image that is due when that code
 * looks: at any time before the call's first entry of the log.
 */

import { mayNest, PATCH_ADDS } from './case.ts';
import type { LogEntry } from './log.ts';
import { lowerHalf, Note } from './log.ts';
import type {
  CallRecord,
  FunctionRecord,
  HistoryRecord,
  LoadedLink,
  LoadedProgram,
  Version,
  Way,
} from './record.ts';

/** A program that an image called, or wanted to: its enter and exit lie between two entries of its task. */
export interface Offer {
  readonly program: LoadedProgram;
  readonly task: number;
  /** The call is inside of a program that runs in rcu_read_lock. */
  readonly inRcu: boolean;
  /** Lower half of the address of the function that is traced. */
  readonly ip: number;
  /** That of the link by which it is called. */
  readonly cookie: bigint;
  /** Entries of the task around it, or the call's beginning and end. */
  readonly after: number;
  readonly before: number;
  /** Its own entries; undefined when it was missed. */
  readonly run: ProgramRun | undefined;
}

/** A run of a program: its first entry and its last, and where they are in the log. */
export interface ProgramRun {
  readonly at: number;
  readonly done: number;
  readonly entry: LogEntry;
  readonly end: LogEntry;
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

export type CallMark =
  | ('nested' | 'missed' | 'answered' | 'replaced' | 'left-early' | 'traced' | 'untraced')
  | ('patched' | 'past-patch');

/** Ways to read a call that are looked at: more than one is rare. */
const MOST_READINGS = 32;

/**
 * Follows one call through the log. Where it can be read in several ways, the one with the fewest misses is
 * taken, of those in which programs were told their cookies if there are any. @param entries those of its task while it lasted
 */
export function follow(
  record: HistoryRecord,
  call: CallRecord,
  entries: readonly Indexed[],
): Agreement | Mismatch {
  const follower = new Follower(record, call, entries);
  const told = record.v6 ? firstOf(follower.readings(true)) : [];
  const readings = told.length > 0 ? told : firstOf(follower.readings(false));
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

function firstOf(readings: Iterable<Reading>): Reading[] {
  const first: Reading[] = [];
  for (const reading of readings) if (first.push(reading) === MOST_READINGS) break;
  return first;
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

/** A call of a function: by whom, and from where. */
interface Frame {
  readonly fn: number;
  readonly way: Way;
  /** Lower half of the function's address. */
  readonly ip: number;
  readonly inRcu: boolean;
  /** Its second argument is that of a task's call. */
  readonly byTask: boolean;
  /** What the function itself returns. */
  readonly sum: bigint;
}

const NONE: ReadonlySet<LoadedProgram> = new Set();

class Follower {
  readonly #record: HistoryRecord;
  readonly #call: CallRecord;
  readonly #entries: readonly Indexed[];
  /** The furthest place where something did not fit, and what was expected there. */
  #stuck = -1;
  #expected: string[] = [];
  #heedsCookies = false;

  constructor(record: HistoryRecord, call: CallRecord, entries: readonly Indexed[]) {
    this.#record = record;
    this.#call = call;
    this.#entries = entries;
  }

  /** Every way to read the call as what it owed. @param heedsCookies and in which programs were told their cookies */
  *readings(heedsCookies: boolean): Generator<Reading> {
    this.#heedsCookies = heedsCookies;
    const { fn, args } = this.#call;
    const start: Reading = { next: 0, offers: undefined, misses: 0, marks: [], result: 0n };
    const sum = args[0] + args[1];
    for (const [way, ip] of this.#taken()) {
      for (const end of this.#frame({ fn, way, ip, inRcu: false, byTask: true, sum }, start)) {
        if (end.next === this.#entries.length) yield end;
        else this.#tried(end.next, 'the return');
      }
    }
  }

  mismatch(): Mismatch {
    const expected = [...new Set(this.#expected)].join(', or ');
    return { call: this.#call, expected, seen: this.#name(this.#stuck) };
  }

  /** The ways that the call may have gone: those of its version, and while it is in ftrace's code those that come. */
  *#taken(): Generator<readonly [Way, number]> {
    const { fn, version } = this.#call;
    const { versions } = this.#function(fn);
    let isPatched = false;
    for (const one of versions.slice(versions.indexOf(version))) {
      const { from, ways, ip } = one;
      if (one !== version && (!isPatched || from > this.#at(0))) return;
      for (const way of ways) if (way.patched || !isPatched) yield [way, ip];
      isPatched = ways.some(({ patched }) => patched);
    }
  }

  /** A call of a function whose image is known. */
  *#frame(frame: Frame, start: Reading): Generator<Reading> {
    const { extension, image } = frame.way;
    if (extension !== undefined) {
      const { id, name: by, returns } = extension;
      if (!this.#is(start.next, Note.run, id, `${by}, which replaces ${this.#function(frame.fn).name}`))
        return;
      if (!this.#is(start.next + 1, Note.done, id, `the end of ${by}`)) return;
      yield { ...mark(start, 'replaced'), next: start.next + 2, result: BigInt(returns) };
      return;
    }
    const marked = mark(start, image === undefined ? 'untraced' : 'traced');
    for (const entered of this.#programs(image?.links.fentry ?? [], marked, frame)) {
      for (const answered of this.#answers(image?.links.fmod_ret ?? [], entered, frame)) {
        if (answered.answer !== undefined) {
          // straight to the fexit programs, past the place where a retired image is left
          const exits = this.#programs(image?.links.fexit ?? [], answered.reading, frame);
          for (const end of exits) yield { ...end, result: answered.answer };
          continue;
        }
        for (const called of this.#original(frame, answered.reading)) {
          for (const end of this.#exits(frame, called)) yield { ...end, result: called.result };
        }
      }
    }
  }

  /** Programs one after the other. */
  *#programs(
    links: readonly LoadedLink[],
    start: Reading,
    frame: Frame,
    from: number = 0,
  ): Generator<Reading> {
    const link = links[from];
    if (link === undefined) {
      yield start;
      return;
    }
    for (const { reading } of this.#offer(link, start, frame)) {
      yield* this.#programs(links, reading, frame, from + 1);
    }
  }

  /** fmod_ret programs until one that is not 0, which answers for the function. */
  *#answers(
    links: readonly LoadedLink[],
    start: Reading,
    frame: Frame,
    from: number = 0,
  ): Generator<{ readonly reading: Reading; readonly answer: bigint | undefined }> {
    const link = links[from];
    if (link === undefined) {
      yield { reading: start, answer: undefined };
      return;
    }
    for (const { reading, ran } of this.#offer(link, start, frame)) {
      const { returns } = link.prog;
      if (ran && returns !== 0) {
        yield { reading: mark(reading, 'answered'), answer: BigInt(returns) };
      } else {
        yield* this.#answers(links, reading, frame, from + 1);
      }
    }
  }

  /** The function itself, or the one in its place. */
  *#original(frame: Frame, start: Reading): Generator<Reading> {
    const { image, patched } = frame.way;
    const itself = image?.callsFunction === true && !image.byStack;
    if (patched && !itself) {
      yield* this.#replacement(frame, mark(start, 'patched'));
      return;
    }
    const { fn, sum } = frame;
    const { spec, name } = this.#function(fn);
    if (!this.#is(start.next, Note.body, fn, `the body of ${name}`)) return;
    const inside = { ...(patched ? mark(start, 'past-patch') : start), next: start.next + 1 };
    const calls = spec.calls === null ? [inside] : this.#nested(spec.calls, inside, frame);
    for (const called of calls) {
      if (this.#is(called.next, Note.end, fn, `the end of ${name}`))
        yield { ...called, next: called.next + 1, result: sum };
    }
  }

  *#replacement({ fn, sum }: Frame, start: Reading): Generator<Reading> {
    const { name } = this.#function(fn);
    if (!this.#is(start.next, Note.patch, fn, `the function in place of ${name}`)) return;
    if (!this.#is(start.next + 1, Note.patchEnd, fn, `the end of the function in place of ${name}`)) return;
    yield { ...start, next: start.next + 2, result: sum + BigInt(PATCH_ADDS) };
  }

  /** The fexit programs, unless the call jumps over them when it comes back from the original. */
  *#exits(frame: Frame, start: Reading): Generator<Reading> {
    const { image } = frame.way;
    const retired = image === undefined ? undefined : this.#record.retired.get(image);
    const exits = image?.links.fexit ?? [];
    const jumps = retired !== undefined && image?.skipsExit === true;
    const must = jumps && retired.to <= this.#at(start.next - 1);
    const may = jumps && retired.from <= this.#at(start.next);
    if (!must) yield* this.#programs(exits, start, frame);
    if (may) yield mark(start, 'left-early');
  }

  /** A program's turn: it runs, or it is missed. */
  *#offer(
    { prog: program, cookie }: LoadedLink,
    start: Reading,
    frame: Frame,
  ): Generator<{ readonly reading: Reading; readonly ran: boolean }> {
    const { next } = start;
    const { inRcu, ip, byTask } = frame;
    const nests = mayNest(program.spec, this.#record.v6);
    const seen = this.#entries[next];
    const offer = { program, task: this.#call.taskId, inRcu, ip, cookie, after: this.#at(next - 1) };
    if (this.#is(next, Note.run, program.id, program.name) && seen !== undefined) {
      const { calls, sleepable } = program.spec;
      const inside = { ...start, next: next + 1 };
      const around = { inRcu: inRcu || !sleepable, byTask: false };
      const called = calls === null || (nests && !byTask) ? [inside] : this.#nested(calls, inside, around);
      for (const end of called) {
        if (!this.#is(end.next, Note.done, program.id, `the end of ${program.name}`)) continue;
        const last = this.#entries[end.next]?.entry ?? seen.entry;
        const run = { at: seen.at, done: this.#at(end.next), entry: seen.entry, end: last };
        const made: Offer = { ...offer, before: this.#at(end.next + 1), run };
        if (this.#heedsCookies && wrongCookie(made) !== undefined) continue;
        const offers = { offer: made, before: end.offers };
        yield { reading: { ...end, next: end.next + 1, offers }, ran: true };
      }
    }
    if (nests) return;
    const missed: Offer = { ...offer, before: this.#at(next), run: undefined };
    const offers = { offer: missed, before: start.offers };
    yield { reading: { ...start, offers, misses: start.misses + 1 }, ran: false };
  }

  /** A call made by a function or a program; its result is not seen. */
  *#nested(fn: number, start: Reading, around: Pick<Frame, 'inRcu' | 'byTask'>): Generator<Reading> {
    const { inRcu, byTask } = around;
    for (const { ways, ip } of this.#standing(fn, this.#at(start.next - 1), this.#at(start.next))) {
      for (const way of ways)
        yield* this.#frame({ fn, way, ip, inRcu, byTask, sum: 0n }, mark(start, 'nested'));
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
      case Note.patch:
        return `the function in place of ${functions[seen.subject]?.name}`;
      case Note.patchEnd:
        return `the end of the function in place of ${functions[seen.subject]?.name}`;
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

/** What a program that asks for its cookie was told, and when, if that is not the cookie of its link. */
export function wrongCookie({
  program,
  run,
  cookie,
}: Offer): { readonly when: string; readonly seen: number } | undefined {
  if (run === undefined || !program.spec.asksCookie) return undefined;
  const { entry, end } = run;
  if (entry.cookie !== lowerHalf(cookie)) return { when: 'at its beginning', seen: entry.cookie };
  return end.cookie === entry.cookie ? undefined : { when: 'at its end', seen: end.cookie };
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
