/* One case tried alone: called, judged, and called once more to find the instruction at fault. */

import type { Kaddr } from '../../lib/index.ts';
import type { Finding } from '../finding.ts';
import { blame, placeOf } from './blame.ts';
import type { Counters, Expectation } from './expectation.ts';
import { judge, type Verdict } from './judge.ts';
import type { Callers } from './place.ts';
import type { Ended, Ready, Stage } from './stage.ts';
import { type Stepped, stepThrough } from './step-through.ts';
import type { Violation } from './watch.ts';

/** Instructions that a case takes at most: several times what the guest code needs for its log. */
export function stepsFor(logWords: number): number {
  return 4000 + 40 * logWords;
}

/** More words than any record has. */
const RECORD_MOST = 64;

/** What a call left behind in its seat. */
export interface Remains {
  /** References by atomic counting, and whether the last one was put. */
  readonly references: { readonly count: bigint; readonly released: boolean };
  /** What was written that nobody may write. */
  readonly damage: string | undefined;
}

/** A case and where it is put. */
export interface Setting {
  readonly stage: Stage;
  readonly expectation: Expectation;
  /** The image as it is called. */
  readonly image: Uint8Array;
  /** What our emitter makes of the same request, where it is somebody else's image. */
  readonly ours?: Uint8Array;
  /** Puts everything in its place, afresh each time. */
  seat(): Ready;
  /** Puts everything back. */
  clear(ready: Ready): Remains;
  /** The emitter's step that made an instruction of the image. */
  stepAt(offset: number): string | undefined;
}

/** A case that was tried: everything there is to judge it by. */
export interface Tried extends Remains {
  readonly ready: Ready;
  readonly image: Uint8Array;
  /** The guest code around it. */
  readonly guest: { readonly start: Kaddr; readonly bytes: number };
  readonly callers: Callers;
  readonly expectation: Expectation;
  /** The log's words; what belongs to the case begins at `ended.from`. */
  readonly log: BigUint64Array;
  readonly ended: Ended;
  readonly counters: readonly Counters[];
  readonly violations: readonly Violation[];
}

/**
 * Calls and judges a case.
 * @param options.watched whether every instruction is looked at for what it writes
 * @param options.blamed whether to look for the instruction at fault: slow
 * @returns `exact`: the log is to the last word what the kernel's frame makes of it
 */
export function tryAlone(
  setting: Setting,
  { watched, blamed }: { readonly watched: boolean; readonly blamed: boolean },
): { readonly findings: readonly Finding[]; readonly exact: boolean } {
  const { image } = setting;
  const { tried } = call(setting, watched ? { keep: false } : undefined);
  const verdicts = judge(tried);
  const exact = verdicts.length === 0 && isExact(tried);
  if (!blamed || verdicts.every(({ hint }) => hint === undefined)) {
    return { findings: verdicts.map((verdict) => finding(verdict)), exact };
  }
  // What the image's own instruction did wrong is known already.
  const known = verdicts.every(({ hint }) => hint?.what === 'instruction');
  const again = call(setting, known ? undefined : { keep: true });
  const start = again.tried.ready.seat.place.image;
  const findings = verdicts.map((verdict) => {
    const { hint } = verdict;
    const offset = hint === undefined ? undefined : blame(hint, again.stepped, image, setting.ours);
    if (offset === undefined) return finding(verdict);
    return finding(verdict, placeOf(offset, image, start, setting.stepAt(offset)));
  });
  return { findings, exact };
}

function isExact({ ready, expectation, log, ended }: Tried): boolean {
  const { start, end } = ready.expected;
  const open = new Set(expectation.open);
  if (ended.to - ended.from !== end - start) return false;
  for (let i = 0; i < end - start; i++) {
    if (!open.has(start + i) && expectation.words[start + i] !== log[ended.from + i]) return false;
  }
  return true;
}

function finding({ hint: _, ...rest }: Verdict, at?: Finding['at']): Finding {
  return at === undefined ? rest : { ...rest, at };
}

function call(
  setting: Setting,
  stepping: { readonly keep: boolean } | undefined,
): { readonly tried: Tried; readonly stepped: Stepped | undefined } {
  const { stage, expectation, image } = setting;
  expectation.clear();
  const ready = setting.seat();
  stage.writeScripts(expectation, [ready]);
  // A record that is cut off must not be read on in what was there before.
  stage.log.fill(0n, 0, expectation.length + RECORD_MOST);
  const steps = stepsFor(expectation.length);
  const stepped =
    stepping === undefined ? undefined : stepThrough(stage, ready, image.length, { steps, ...stepping });
  const ended = stepped?.ended ?? (stage.call([ready], steps)[0] as Ended);
  const counters = stage.takeCounters(ready);
  const tried: Tried = {
    ready,
    image,
    guest: { start: stage.guest.start, bytes: stage.guest.bytes.length },
    callers: stage.callers,
    expectation,
    log: stage.log,
    ended,
    counters,
    violations: stepped?.violations ?? [],
    ...setting.clear(ready),
  };
  return { tried, stepped };
}
