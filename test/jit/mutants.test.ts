/* Each mutant is a mistake that shows in the bytes; whether a checker finds it is asked elsewhere. */

import { describe, expect, test } from 'vitest';
import {
  EMITTER_MUTANTS,
  type EmitterMutant,
  type Prepared,
  prepareTrampoline,
  REVISIONS,
  type Revision,
  type RevisionName,
  revisions,
} from '../../jit/index.ts';
import { kaddr } from '../../lib/index.ts';
import { trampolineVectors } from '../vectors.ts';

const NAMES = REVISIONS;

const applies = (mutant: EmitterMutant, name: RevisionName): boolean =>
  mutant.revisions?.includes(name) ?? true;

const same = (one: Prepared, other: Prepared): boolean =>
  one.ret === other.ret &&
  Buffer.compare(one.bytes ?? new Uint8Array(), other.bytes ?? new Uint8Array()) === 0 &&
  (one.bytes === undefined ||
    other.bytes === undefined ||
    (one.ipAfterCall === other.ipAfterCall && one.ipEpilogue === other.ipEpilogue));

test('mutants have names of their own', () => {
  const ids = EMITTER_MUTANTS.map(({ id }) => id);
  expect(ids.filter((id, i) => ids.indexOf(id) !== i)).toEqual([]);
  expect(ids.length).toBeGreaterThanOrEqual(60);
});

describe.each(NAMES)('%s', (name) => {
  // No vector counts calls.
  const counting = { callDepth: { counter: kaddr(0xffff_ffff_8200_0000n) } };
  const vectors = trampolineVectors(name).map(({ request }) => request);
  const requests = [
    ...vectors,
    ...vectors.slice(0, 20).map((request) => ({ ...request, config: { ...request.config, ...counting } })),
  ];
  const right = requests.map((request) => prepareTrampoline(name, request));
  const mutants = EMITTER_MUTANTS.filter((mutant) => applies(mutant, name));

  test.each(mutants)('$id changes some image, and leaves the emitter it was made from alone', ({ apply }) => {
    const mutant: Revision = apply(revisions[name]);
    const changed = requests.filter(
      (request, i) => !same(prepareTrampoline(mutant, request), right[i] as Prepared),
    );
    expect(changed.length).toBeGreaterThan(0);
    const [first] = changed;
    if (first === undefined) return;
    const i = requests.indexOf(first);
    expect(same(prepareTrampoline(name, first), right[i] as Prepared)).toBe(true);
  });

  test.each(mutants)('$id emits the same with provenance as without', ({ apply }) => {
    const mutant = apply(revisions[name]);
    for (const request of requests.slice(0, 40)) {
      const plain = prepareTrampoline(mutant, request);
      expect(same(prepareTrampoline(mutant, request, { provenance: true }), plain)).toBe(true);
    }
  });
});
