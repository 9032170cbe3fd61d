/* The log as records with names: for judging and for telling, not for the fast comparison. */

import {
  CALLEE_WORDS,
  type CalleeWord,
  EventKind,
  FUNCTION_WORDS,
  NESTED_WORDS,
  PROGRAM_WORDS,
  RETURN_WORDS,
  recordWords,
  type Shape,
  VALUE_WORDS,
} from './log.ts';

export type EventWord =
  | CalleeWord
  | (typeof FUNCTION_WORDS)[number]
  | (typeof VALUE_WORDS)[number]
  | (typeof NESTED_WORDS)[number]
  | (typeof RETURN_WORDS)[number]
  | (typeof PROGRAM_WORDS)[number]
  | `ctx[${number}]`
  | `stack[${number}]`;

/** One record of a log. */
export interface Event {
  readonly kind: EventKind;
  /** Its words by name, in their order. A word that the rules leave open is missing. */
  readonly words: ReadonlyMap<EventWord, bigint>;
  /** Where it begins, in words from the case's first. */
  readonly at: number;
}

const KINDS: ReadonlySet<number> = new Set(Object.values(EventKind));

function names(kind: EventKind, { ctxFrom, ctxWords, stackWords }: Shape): readonly EventWord[] {
  switch (kind) {
    case EventKind.return:
      return RETURN_WORDS;
    case EventKind.nested:
      return NESTED_WORDS;
    case EventKind.value:
      return [...CALLEE_WORDS, ...VALUE_WORDS];
    case EventKind.nothing:
      return CALLEE_WORDS;
    case EventKind.program:
      return [
        ...CALLEE_WORDS,
        ...PROGRAM_WORDS,
        ...Array.from({ length: ctxWords }, (_, i): EventWord => `ctx[${i + ctxFrom}]`),
      ];
    case EventKind.original:
    case EventKind.body:
      return [
        ...CALLEE_WORDS,
        ...FUNCTION_WORDS,
        ...Array.from({ length: stackWords }, (_, i): EventWord => `stack[${i}]`),
      ];
  }
}

/**
 * Reads records until one is cut off or of no kind.
 * @param open words that are left out, by their place in `words`
 */
export function readEvents(
  words: BigUint64Array,
  {
    from,
    to,
    shape,
    open,
  }: {
    readonly from: number;
    readonly to: number;
    readonly shape: Shape;
    readonly open?: ReadonlySet<number>;
  },
): readonly Event[] {
  const events: Event[] = [];
  for (let at = from; at < to; ) {
    const kind = Number(words[at]) as EventKind;
    if (!KINDS.has(kind)) break;
    const size = recordWords(kind, shape);
    if (at + size > to) break;
    const named = names(kind, shape).flatMap((name, i): [EventWord, bigint][] =>
      open?.has(at + i) === true ? [] : [[name, words[at + i] as bigint]],
    );
    events.push({ kind, words: new Map(named), at: at - from });
    at += size;
  }
  return events;
}
