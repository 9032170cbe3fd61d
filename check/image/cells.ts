/*
 * Coverage cells: revision x flags x kinds of programs x number of arguments x width of one of them; from v6.1 on,
 * number of argument words x whether there is a struct among them.
 */

import type { RevisionName } from '../../jit/index.ts';
import { acceptedFlags, flagsOf, type ImageCase, JUDGED_REVISIONS, KINDS } from './case.ts';
import { countWords, hasWords, mostWords } from './words.ts';

const WIDTHS = [1, 2, 4, 8] as const;
const MAX_ARGS = 6;
const NO_CELLS: readonly string[] = [];

/** By revision, flags, kinds, number of arguments, width: the cell's name. */
type Names = ReadonlyMap<string, readonly (readonly (readonly string[])[])[]>;

const names: Names = new Map(
  JUDGED_REVISIONS.flatMap((revision) =>
    acceptedFlags(revision).map((flags) => [
      key(revision, flags),
      Array.from({ length: 1 << KINDS.length }, (_, kinds) =>
        Array.from(
          { length: 1 + (hasWords(revision) ? mostWords(revision) : MAX_ARGS) },
          (_unused, nrArgs) => {
            const present = KINDS.filter((_kind, i) => (kinds & (1 << i)) !== 0).join('+') || 'none';
            const what = `${revision} flags ${flags} programs ${present}`;
            if (hasWords(revision)) {
              return nrArgs < 2
                ? [`${what} words ${nrArgs}`]
                : [`${what} words ${nrArgs}`, `${what} words ${nrArgs} struct`];
            }
            if (nrArgs === 0) return [`${what} args 0`];
            return WIDTHS.map((width) => `${what} args ${nrArgs} width ${width}`);
          },
        ),
      ),
    ]),
  ),
);

function key(revision: RevisionName, flags: number): string {
  return `${revision} ${flags}`;
}

/** Every cell. */
export const IMAGE_CELLS: readonly string[] = [...names.values()].flat(3);

/** The cells that a case hits; none when its request is refused. */
export function cellsOf(one: ImageCase): readonly string[] {
  const kinds = KINDS.reduce((bits, kind, i) => (one[kind].length > 0 ? bits | (1 << i) : bits), 0);
  const words = hasWords(one.revision);
  const count = words ? countWords(one).all : one.args.length;
  const byWidth = names.get(key(one.revision, flagsOf(one)))?.[kinds]?.[count];
  if (byWidth === undefined) return NO_CELLS;
  if (words) return one.args.some(({ sizeBytes }) => sizeBytes > 8) ? byWidth.slice(-1) : byWidth.slice(0, 1);
  if (one.args.length === 0) return byWidth;
  return byWidth.filter((_, i) => one.args.some(({ sizeBytes }) => sizeBytes === WIDTHS[i]));
}
