import type { Finding } from '../check/index.ts';
import { columns } from './columns.ts';
import { paint } from './paint.ts';

/** A broken rule for people: what, where, expected and seen, and whatever else there is to say. */
export function findingText(finding: Finding, more: readonly (readonly [string, string])[] = []): string {
  const { rule, detail, at, expected, seen, situation } = finding;
  const rows: (readonly [string, string | undefined])[] = [
    ['at', at === undefined ? undefined : placeText(at)],
    ['expected', expected],
    ['seen', seen],
    ['call', situation],
    ...more,
  ];
  const known = rows.filter((row): row is readonly [string, string] => row[1] !== undefined);
  return [`${paint('heading', rule)}  ${detail}`, ...columns(known).map((line) => `  ${line}`)].join('\n');
}

function placeText({ offset, instruction, step }: NonNullable<Finding['at']>): string {
  return `+0x${offset.toString(16)}  ${instruction}${step === undefined ? '' : `  (${step})`}`;
}
