/*
 * A finding as it is kept in a file and shown to people: what broke, the case that broke it as it came,
 * and the smallest case that still does. Enough for `tramplab replay` to see it again.
 */

import { join } from 'node:path';
import type { Finding } from '../check/index.ts';
import { asJson, InputError } from '../lib/index.ts';
import { readJson, writeWhole } from './files.ts';
import { FAMILY_NAMES, type FamilyName, FUZZ_ENGINES, type Plan } from './plan.ts';
import type { Setting } from './station.ts';
import type { Families } from './subjects.ts';

const FORMAT = 1;

/** The finding is that of the minimized case where there is one. */
export interface FindingRecord extends Finding, Setting {
  readonly format: number;
  /** Names its file: rule, seed and case. */
  readonly id: string;
  readonly seed: number;
  /** The case's number. */
  readonly case: number;
  readonly family: FamilyName;
  /** The case in a line; the minimized one's, where there is one. */
  readonly about: string;
  /** The case as it was drawn. */
  readonly request: unknown;
  /** The smallest case that breaks the same rule; null when the case breaks it only in company. */
  readonly minimized: unknown;
}

/** @param minimized the smallest case and its finding, where it was looked for and found */
export function makeRecord(
  families: Families,
  { seed, engine, mutant }: Plan,
  drawn: { readonly number: number; readonly family: FamilyName; readonly one: unknown },
  finding: Finding,
  minimized: unknown = null,
): FindingRecord {
  const { number, family, one } = drawn;
  return {
    format: FORMAT,
    id: findingId(finding.rule, seed, number),
    ...finding,
    seed,
    case: number,
    family,
    engine,
    mutant,
    about: families[family].describe(minimized ?? one),
    request: asJson(one),
    minimized: asJson(minimized),
  };
}

export function findingId(rule: string, seed: number, number: number): string {
  return `${rule}-${seed}-${number}`;
}

/** Where a campaign's folder keeps its findings. */
export function findingsFolder(dir: string): string {
  return join(dir, 'findings');
}

export function findingFile(dir: string, id: string): string {
  return join(findingsFolder(dir), `${id}.json`);
}

export function writeRecord(path: string, record: FindingRecord): void {
  writeWhole(path, `${JSON.stringify(record, null, 2)}\n`);
}

/** @throws InputError naming the file, unless it holds a finding */
export function readRecord(path: string): FindingRecord {
  const json = (readJson(path) ?? {}) as Partial<FindingRecord>;
  const { format, rule, detail, family, engine, mutant, request, minimized } = json;
  const isFinding =
    typeof rule === 'string' &&
    typeof detail === 'string' &&
    FAMILY_NAMES.some((name) => name === family) &&
    FUZZ_ENGINES.some((name) => name === engine) &&
    (mutant === null || typeof mutant === 'string') &&
    typeof request === 'object' &&
    typeof minimized === 'object';
  if (!isFinding) {
    throw new InputError(
      path,
      undefined,
      'is no finding; tramplab fuzz writes them into the folder findings/',
    );
  }
  if (format !== FORMAT) throw new InputError(path, undefined, 'was written by another version of tramplab');
  return json as FindingRecord;
}
