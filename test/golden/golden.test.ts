/*
 * Golden listings: what an image looks like, to be read and to be seen in a diff. A listing alone would
 * show change and not truth, so every case names the kernel vector that it is, and the bytes are compared.
 *
 * `BLESS=1 npx vitest run test/golden` rewrites what stands below the header; under CI it is refused.
 */

import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { describe, expect, test } from 'vitest';
import {
  formatListing,
  HelperPair,
  listCode,
  type ProgRef,
  prepareTrampoline,
  REVISIONS,
  type RevisionName,
  TrampFlag,
  type TrampolineConfig,
  type TrampolineRequest,
} from '../../jit/index.ts';
import { Bug, errnoName, hex64, toHex } from '../../lib/index.ts';
import { type TrampolineVector, trampolineVectors } from '../vectors.ts';

const HERE = import.meta.dirname;
const FILES = readdirSync(HERE).filter((name) => name.endsWith('.golden'));
const bless = process.env['BLESS'] !== undefined;

/** A golden file: a title, the header's lines, and what is compared. */
interface Golden {
  readonly title: string;
  readonly header: string;
  readonly revision: RevisionName;
  readonly vector: number;
  readonly body: string;
}

function parse(name: string): Golden {
  const text = readFileSync(join(HERE, name), 'utf8');
  const at = text.indexOf('-- ');
  const [title = '', ...lines] = (at < 0 ? text : text.slice(0, at)).split('\n');
  const vector = /^vector: +(v\S+) (\d+)$/.exec(lines.find((line) => line.startsWith('vector:')) ?? '');
  const revision = REVISIONS.find((known) => known === vector?.[1]);
  if (revision === undefined) throw new Bug(`${name}: the header needs a line like 'vector: v5.15 952'`);
  return {
    title,
    header: lines.join('\n'),
    revision,
    vector: Number(vector?.[2]),
    body: at < 0 ? '' : text.slice(at),
  };
}

/** The header of a vector: everything that decides the bytes, but for addresses that are masked anyway. */
function describeRequest(revision: RevisionName, { id, request }: TrampolineVector): string {
  const flags = Object.entries(TrampFlag).filter(([, bit]) => (request.flags & bit) !== 0);
  const rows: readonly (readonly [string, string])[] = [
    ['vector', `${revision} ${id}`],
    ['arguments', request.argSizes.length === 0 ? 'none' : `${request.argSizes.join(' ')} bytes`],
    ['flags', flags.map(([name]) => name).join(' ') || '0'],
    ['fentry', programs(request.fentry)],
    ['fmod_ret', programs(request.fmodRet)],
    ['fexit', programs(request.fexit)],
    ['image', `${hex64(request.image)}, ${request.imageSize} bytes`],
    ['im', hex64(request.im)],
    ['orig_call', hex64(request.origCall)],
    ...built(request.config),
  ];
  return `${rows.map(([key, value]) => `${`${key}:`.padEnd(11)}${value}`).join('\n')}\n\n`;
}

/** What the kernel was built with, if there is something to tell. */
function built(config: TrampolineConfig = {}): (readonly [string, string])[] {
  const on = Object.entries(config).filter(([, value]) => value === true);
  return on.length === 0 ? [] : [['build', on.map(([name]) => name).join(' ')]];
}

function programs(list: readonly ProgRef[]): string {
  const one = ({ name, sleepable, jited, kind, cookie }: ProgRef): string =>
    [
      name,
      ...(sleepable ? ['sleepable'] : []),
      ...(jited ? [] : ['interpreted']),
      ...(kind === HelperPair.LSM_CGROUP ? ['lsm_cgroup'] : []),
      ...(kind === HelperPair.PLAIN ? ['plain'] : []),
      ...(cookie === undefined || cookie === 0n ? [] : [`cookie ${hex64(cookie)}`]),
    ].join(' ');
  return list.map(one).join(', ') || 'none';
}

function render(revision: RevisionName, request: TrampolineRequest): string {
  const result = prepareTrampoline(revision, request, { provenance: true });
  if (result.bytes === undefined) return `-- error ${errnoName(-result.ret)}\n${result.why}\n`;
  if (result.code === undefined) throw new Bug('no provenance');
  const offsets = [
    `${result.ret} bytes`,
    ...(result.ipAfterCall === null ? [] : [`ip_after_call +${result.ipAfterCall}`]),
    ...(result.ipEpilogue === null ? [] : [`ip_epilogue +${result.ipEpilogue}`]),
  ];
  const rows = listCode(result.code, request.image, { maskRelocs: true });
  return `-- listing, ${offsets.join(', ')}\n${formatListing(rows)}`;
}

describe.each(FILES)('%s', (name) => {
  const golden = parse(name);
  const vector = trampolineVectors(golden.revision).find(({ id }) => id === golden.vector);
  if (vector === undefined) throw new Bug(`${name}: ${golden.revision} has no vector ${golden.vector}`);

  test('is named for its revision and says what it shows', () => {
    expect(basename(name, '.golden').endsWith(`.${golden.revision}`)).toBe(true);
    expect(golden.title).toMatch(/^# .{20,}$/);
    expect(golden.header).toBe(describeRequest(golden.revision, vector));
  });

  test('is what the kernel made', () => {
    const result = prepareTrampoline(golden.revision, vector.request);
    expect(result.ret).toBe(vector.ret);
    expect(result.bytes && toHex(result.bytes)).toBe(vector.bytes && toHex(vector.bytes));
  });

  test('is what is listed', () => {
    const body = render(golden.revision, vector.request);
    if (bless) {
      expect(process.env['CI'], 'CI never blesses: run it on your own machine and look at the diff').not.toBe(
        'true',
      );
      writeFileSync(join(HERE, name), `${golden.title}\n${golden.header}${body}`);
      return;
    }
    expect(golden.body).toBe(body);
  });
});

test('the cases that shall be shown are there', () => {
  expect(FILES.length).toBeGreaterThanOrEqual(35);
});
