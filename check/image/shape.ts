import type { ImageCase } from './case.ts';
import type { Shape } from './log.ts';
import { countWords, hasWords } from './words.ts';

/** What a case's records show: its context from below the count, or the function's address, to the result. */
export function shapeOf(one: ImageCase): Shape {
  const { all, stack } = countWords(one);
  const below = hasWords(one.revision) ? 2 : 1;
  return { ctxFrom: -below, ctxWords: below + all + 1, stackWords: stack };
}
