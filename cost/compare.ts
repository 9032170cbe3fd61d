/* What changed between two reports, part by part. Only counts are compared: they are exact. */

import { InputError } from '../lib/index.ts';
import { COUNTS, type CountName, type Counts } from './counts.ts';
import type { CostReport, MixCost } from './report.ts';

export interface Change {
  readonly revision: string;
  readonly mix: string;
  /** A part of the traced call, `traced` or `bare`. */
  readonly part: string;
  readonly count: CountName | 'imageBytes';
  /** Undefined where the part, or the mix, is new or gone. */
  readonly before: number | undefined;
  readonly after: number | undefined;
}

/** Everything that differs, in the order of the newer report; what is gone comes last. */
export function compareReports(before: CostReport, after: CostReport): Change[] {
  const old = flatten(before);
  const now = flatten(after);
  const changed = [...now].flatMap(([key, entry]) => {
    const was = old.get(key)?.value;
    return was === entry.value ? [] : [{ ...entry.place, before: was, after: entry.value }];
  });
  // A report of fewer revisions or mixes says nothing about the others.
  const covered = new Set([...now.values()].map(({ place }) => `${place.revision}/${place.mix}`));
  const gone = [...old].flatMap(([key, { place, value }]) =>
    now.has(key) || !covered.has(`${place.revision}/${place.mix}`)
      ? []
      : [{ ...place, before: value, after: undefined }],
  );
  return [...changed, ...gone];
}

/** Whether a count of a mix that both reports have grew. */
export function grew({ before, after }: Change): boolean {
  return after !== undefined && after > (before ?? 0);
}

type Place = Omit<Change, 'before' | 'after'>;

function flatten({ revisions }: CostReport): Map<string, { place: Place; value: number }> {
  const flat = new Map<string, { place: Place; value: number }>();
  for (const { revision, mixes } of revisions) {
    for (const mix of mixes) {
      for (const [part, counts] of partsOf(mix)) {
        for (const count of COUNTS) {
          const place = { revision, mix: mix.name, part, count };
          flat.set(Object.values(place).join('/'), { place, value: counts[count] });
        }
      }
      const place = { revision, mix: mix.name, part: 'image', count: 'imageBytes' } as const;
      flat.set(Object.values(place).join('/'), { place, value: mix.imageBytes });
    }
  }
  return flat;
}

function partsOf({ bare, traced, parts }: MixCost): (readonly [string, Counts])[] {
  return [
    ['bare', bare],
    ['traced', traced],
    ...Object.entries(parts).flatMap(
      ([column, { own, called }]) =>
        [
          [column, own],
          [`${column}, called`, called],
        ] as const,
    ),
  ];
}

/** A report as `tramplab bench --json` printed it. @throws InputError when it is something else */
export function parseReport(text: string, file: string): CostReport {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new InputError(
      file,
      undefined,
      `is no JSON (${(error as Error).message}); give what bench --json printed`,
    );
  }
  if (!isReport(value)) {
    throw new InputError(file, undefined, 'is no cost report; give what bench --json printed');
  }
  return value;
}

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null;

const isCounts = (value: unknown): boolean =>
  isObject(value) && COUNTS.every((name) => typeof value[name] === 'number');

function isMix(value: unknown): boolean {
  return (
    isObject(value) &&
    typeof value['name'] === 'string' &&
    typeof value['imageBytes'] === 'number' &&
    isCounts(value['bare']) &&
    isCounts(value['traced']) &&
    isObject(value['parts']) &&
    Object.values(value['parts']).every(
      (part) => isObject(part) && isCounts(part['own']) && isCounts(part['called']),
    )
  );
}

function isReport(value: unknown): value is CostReport {
  if (!isObject(value) || !Array.isArray(value['revisions'])) return false;
  return value['revisions'].every(
    (revision: unknown) =>
      isObject(revision) &&
      typeof revision['revision'] === 'string' &&
      Array.isArray(revision['mixes']) &&
      revision['mixes'].every(isMix),
  );
}
