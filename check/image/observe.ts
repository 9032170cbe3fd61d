/*
 * Everything that a case did, one line each, with addresses by what they belong to: two engines that do the
 * same say the same, wherever their memory lies.
 */

import { hex64, type Kaddr } from '../../lib/index.ts';
import { type Event, readEvents } from './events.ts';
import type { Counters } from './expectation.ts';
import { EventKind } from './log.ts';
import { shapeOf } from './shape.ts';
import { type Ended, type Ready, STACK_BYTES, type Stage } from './stage.ts';

const PAGE = 4096n;

/** What a case left in memory. */
export interface Left {
  readonly counters: readonly Counters[];
  readonly references: { readonly count: bigint; readonly released: boolean };
}

/** The lines of one case. */
export function observe(stage: Stage, { one, seat }: Ready, ended: Ended, left: Left): readonly string[] {
  const name = namer(stage, seat.place);
  const events = readEvents(stage.log, { from: ended.from, to: ended.to, shape: shapeOf(one) });
  const fault = ended.fault === null ? [] : [`fault ${ended.fault.kind} at ${name(ended.fault.rip)}`];
  const counters = left.counters.map(
    ({ active, misses, cnt, nsecs, syncp }, unit) =>
      `program ${unit}: active=${active} misses=${misses} runs=${cnt} nsecs=${nsecs} sequence=${syncp}`,
  );
  const { count, released } = left.references;
  return [
    ...events.map((event) => line(event, name)),
    ...fault,
    ...counters,
    `references ${count} ${released}`,
  ];
}

function line({ kind, words }: Event, name: (value: bigint) => string): string {
  const what = Object.entries(EventKind).find(([, value]) => value === kind)?.[0] ?? '';
  const rest = [...words].filter(([word]) => word !== 'kind');
  return `${what} ${rest.map(([word, value]) => `${word}=${name(value)}`).join(' ')}`;
}

/** Tells what an address belongs to; a value that is no address of the case is shown as it is. */
function namer(stage: Stage, place: Ready['seat']['place']): (value: bigint) => string {
  const names = new Map<bigint, string>([
    [place.im, 'im'],
    [stage.callers.runCtx, 'outer run_ctx'],
  ]);
  for (const [helper, at] of Object.entries(place.helpers)) names.set(at, helper);
  place.programs.forEach(({ prog, bpfFunc, insnsi }, i) => {
    names.set(prog, `prog${i}`).set(bpfFunc, `bpfFunc${i}`).set(insnsi, `insnsi${i}`);
  });
  const { start, bytes } = stage.guest;
  // By its distance from the driver's rsp: how far below that the stack begins is the layout's affair.
  const rsp = stage.callers.stack[stage.callers.top] as Kaddr;
  const ranges: readonly (readonly [name: string, start: bigint, end: bigint])[] = [
    ['stack', rsp - BigInt(STACK_BYTES), rsp + PAGE],
    ['image', place.image, place.image + PAGE],
    ['original', place.origCall, place.origCall + 64n],
    ['guest', start, start + BigInt(bytes.length)],
  ];
  return (value) => {
    const exact = names.get(value as Kaddr);
    if (exact !== undefined) return exact;
    const range = ranges.find(([, from, to]) => value >= from && value < to);
    if (range === undefined) return hex64(value);
    // How far into an image depends on the addresses that it names: some take longer instructions.
    return range[0] === 'image' ? 'image' : `${range[0]}+${hex64(value - range[1])}`;
  };
}
