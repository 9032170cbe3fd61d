/*
 * Images that somebody wrote by hand to get past the judge, and others that are right in ways of their own, which it
 * must not mind. They were assembled from text; evasions.json holds them with the requests that they answer.
 */

import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { ImageChecker, type ImageReport } from '../../check/index.ts';
import { Fields } from '../../cli/fields.ts';
import { readEmitRequest } from '../../cli/request.ts';
import { fromHex } from '../../lib/index.ts';

interface Written {
  readonly what: string;
  /** Which of the requests it answers. */
  readonly request: number;
  readonly bytes: string;
  readonly ipAfterCall?: number;
  readonly ipEpilogue?: number;
}

const { requests, wrong, right } = JSON.parse(
  readFileSync(new URL('./evasions.json', import.meta.url), 'utf8'),
) as {
  readonly requests: readonly Record<string, unknown>[];
  readonly wrong: readonly (Written & { readonly rule: string })[];
  readonly right: readonly Written[];
};

async function judged({ request: index, bytes, ipAfterCall, ipEpilogue }: Written): Promise<ImageReport> {
  const { revision, request } = readEmitRequest(new Fields(requests[index] ?? {}));
  const checker = await ImageChecker.open(revision, [request]);
  try {
    const image = fromHex(bytes) ?? new Uint8Array();
    return await checker.check({ request, bytes: image, ipAfterCall, ipEpilogue }, { quick: true });
  } finally {
    checker.close();
  }
}

describe('an image is rejected that', () => {
  test.each(wrong)('$what: $rule', async (image) => {
    expect((await judged(image)).findings.map(({ rule }) => rule)).toContain(image.rule);
  });
});

describe('an image is accepted with', () => {
  test.each(right)('$what', async (image) => {
    expect((await judged(image)).findings).toEqual([]);
  });
});
