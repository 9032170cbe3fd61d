/*
 * What the log of a history that came to its end says: each call by itself (runs.ts), and what the calls
 * come to together.
 */

import type { Finding } from '../finding.ts';
import { mayNest } from './case.ts';
import { lowerHalf } from './log.ts';
import type { CallRecord, HistoryRecord, LoadedProgram, Span } from './record.ts';
import type { HistoryRule } from './rules.ts';
import { type CallMark, follow, type Indexed, type Offer, wrongCookie } from './runs.ts';

/** A broken rule of a history. */
export interface HistoryFinding extends Finding {
  readonly rule: HistoryRule;
}

export interface Judgement {
  readonly findings: readonly HistoryFinding[];
  /** What happened in calls, for coverage. */
  readonly marks: ReadonlySet<CallMark>;
}

/** Judges a history by what was recorded of it. */
export function judge(record: HistoryRecord): Judgement {
  const offers: Offer[] = [];
  const open = new Set<LoadedProgram>();
  let [least, most] = [0, 0];
  const marks = new Set<CallMark>();
  const byTask = entriesByTask(record);
  for (const call of record.calls) {
    const entries = (byTask.get(call.taskId) ?? []).filter(({ at }) => at >= call.from && at < call.to);
    const followed = follow(record, call, entries);
    if ('expected' in followed) {
      const { expected, seen } = followed;
      const detail = `${call.task} calls ${nameOf(record, call)}: ${seen} where ${expected} was due`;
      return { findings: [{ rule: 'runs-agree', detail, expected, seen }], marks };
    }
    for (const mark of followed.marks) marks.add(mark);
    if (followed.result !== undefined && followed.result !== call.result) {
      return { findings: [wrongResult(record, call, followed.result)], marks };
    }
    offers.push(...followed.offers);
    least += followed.splats[0];
    most += followed.splats[1];
    for (const program of followed.open) open.add(program);
  }
  const findings = [
    ...sections(record, offers),
    ...addresses(record, offers),
    ...cookies(record, offers),
    ...recursion(record, offers, open),
    ...counters(record, offers, open),
    ...splats(record, least, most),
  ];
  return { findings, marks };
}

function entriesByTask({ entries }: HistoryRecord): ReadonlyMap<number, Indexed[]> {
  const byTask = new Map<number, Indexed[]>();
  entries.forEach((entry, at) => {
    const list = byTask.get(entry.task);
    if (list === undefined) byTask.set(entry.task, [{ at, entry }]);
    else list.push({ at, entry });
  });
  return byTask;
}

function nameOf({ functions }: HistoryRecord, { fn, args }: CallRecord): string {
  return `${functions[fn]?.name}(${args.join(', ')})`;
}

function wrongResult(record: HistoryRecord, call: CallRecord, expected: bigint): HistoryFinding {
  return {
    rule: 'return-value',
    detail: `${call.task} calls ${nameOf(record, call)}`,
    expected: hex(expected),
    seen: hex(call.result),
  };
}

/** A program is in its section, and on its CPU until its end. */
function* sections({ entries }: HistoryRecord, offers: readonly Offer[]): Generator<HistoryFinding> {
  for (const { program, run } of offers) {
    if (run === undefined) continue;
    const { rcu, trace, migration, cpu } = run.entry;
    const { sleepable } = program.spec;
    const wrong =
      (sleepable ? trace : rcu) === 0
        ? `runs outside of rcu_read_lock${sleepable ? '_trace' : ''}`
        : migration === 0
          ? 'runs with migration enabled'
          : entries[run.done]?.cpu !== cpu
            ? `begins on CPU ${cpu} and ends on CPU ${entries[run.done]?.cpu}`
            : undefined;
    if (wrong === undefined) continue;
    yield { rule: 'read-side', detail: `${program.name} ${wrong}` };
    return;
  }
}

function* addresses(record: HistoryRecord, offers: readonly Offer[]): Generator<HistoryFinding> {
  if (!record.knowsIp) return;
  for (const { program, run, ip } of offers) {
    if (run === undefined || !program.spec.asksIp || ip === run.entry.ip) continue;
    yield {
      rule: 'func-ip',
      detail: `${program.name} asks for the address of the function that it traces`,
      expected: hex(ip),
      seen: hex(run.entry.ip),
    };
    return;
  }
}

/** What is called inside of a program, however deep, leaves its cookie alone. */
function* cookies({ v6 }: HistoryRecord, offers: readonly Offer[]): Generator<HistoryFinding> {
  if (!v6) return;
  for (const offer of offers) {
    const wrong = wrongCookie(offer);
    if (wrong === undefined) continue;
    const { when, seen } = wrong;
    const detail = `${offer.program.name} asks for its cookie ${when}`;
    yield { rule: 'cookie', detail, expected: hex(lowerHalf(offer.cookie)), seen: hex(seen) };
    return;
  }
}

/** Who runs on a CPU keeps others out there, and nobody else does; but for those that may nest. */
function* recursion(
  { v6 }: HistoryRecord,
  offers: readonly Offer[],
  open: ReadonlySet<LoadedProgram>,
): Generator<HistoryFinding> {
  for (const [program, own] of byProgram(offers)) {
    if (mayNest(program.spec, v6)) continue;
    for (const one of own) {
      const { run } = one;
      if (run === undefined) {
        const busy = own.some(
          (other) => other !== one && other.after < one.before && one.after < other.before,
        );
        if (busy || open.has(program)) continue;
        yield { rule: 'recursion', detail: `${program.name} is refused, and runs nowhere` };
        return;
      }
      const inside = own.some(
        ({ run: other }) =>
          other !== undefined &&
          other.at < run.at &&
          run.at < other.done &&
          other.entry.cpu === run.entry.cpu,
      );
      if (!inside) continue;
      yield {
        rule: 'recursion',
        detail: `${program.name} runs on CPU ${run.entry.cpu}, where it runs already`,
      };
      return;
    }
  }
}

function byProgram(offers: readonly Offer[]): ReadonlyMap<LoadedProgram, readonly Offer[]> {
  const own = new Map<LoadedProgram, Offer[]>();
  for (const offer of offers) {
    const list = own.get(offer.program);
    if (list === undefined) own.set(offer.program, [offer]);
    else list.push(offer);
  }
  return own;
}

function* counters(
  record: HistoryRecord,
  offers: readonly Offer[],
  open: ReadonlySet<LoadedProgram>,
): Generator<HistoryFinding> {
  const wrong = (detail: string): HistoryFinding => ({ rule: 'counters-add-up', detail });
  const own = byProgram(offers);
  for (const { program, misses, runs, active, odd } of record.counts) {
    const { name } = program;
    const all = own.get(program) ?? [];
    const up = active.findIndex((depth) => depth !== 0);
    if (up >= 0) yield wrong(`${name} is left active ${(active[up] ?? 0) | 0} on CPU ${up}`);
    if (odd.length > 0) yield wrong(`the sequence of the statistics of ${name} is left odd on CPU ${odd[0]}`);
    const missed = all.filter(({ run }) => run === undefined).length;
    if (misses !== missed && !open.has(program)) {
      yield wrong(`${name} was refused ${missed} times and counts ${misses} misses`);
    }
    const [least, most] = counted(record, all);
    if (runs < least - record.zeroClocks || runs > most) {
      yield wrong(`${name} counts ${runs} runs; with statistics on there were ${least} to ${most}`);
    }
  }
}

/** How many runs statistics must, and may, have counted. */
function counted({ switches }: HistoryRecord, offers: readonly Offer[]): [number, number] {
  let [least, most] = [0, 0];
  for (const { run, after, before } of offers) {
    if (run === undefined) continue;
    if (alwaysOn(switches, after, before)) least++;
    if (onceOn(switches, after, run.at) && onceOn(switches, run.done, before)) most++;
  }
  return [least, most];
}

/** Whether statistics were on all the time between two entries. */
function alwaysOn(switches: readonly Span[], after: number, before: number): boolean {
  for (let on = 0; on < switches.length; on += 2) {
    const off = switches[on + 1]?.from ?? Number.POSITIVE_INFINITY;
    if ((switches[on] as Span).to <= after && before < off) return true;
  }
  return false;
}

/** Whether they may have been on some time between two entries. */
function onceOn(switches: readonly Span[], after: number, before: number): boolean {
  for (let on = 0; on < switches.length; on += 2) {
    const off = switches[on + 1]?.to ?? Number.POSITIVE_INFINITY;
    if ((switches[on] as Span).from <= before && after < off) return true;
  }
  return false;
}

function* splats({ splats: seen }: HistoryRecord, least: number, most: number): Generator<HistoryFinding> {
  if (least <= seen && seen <= most) return;
  yield {
    rule: 'splats',
    detail: 'sleepable programs are entered inside rcu_read_lock',
    expected: least === most ? `${least} splats` : `${least} to ${most} splats`,
    seen: `${seen}`,
  };
}

function hex(value: bigint | number): string {
  return `0x${value.toString(16)}`;
}
