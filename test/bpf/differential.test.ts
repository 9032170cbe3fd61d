import { afterAll, beforeAll, expect, it } from 'vitest';
import { nativeMissing } from '../emu/machines.ts';
import { caseOf, compareCases, type Tally } from './differential/compare.ts';
import { World } from './differential/world.ts';

/* The long run is `npm run bpf:differential`. */

let world: World;

beforeAll(async () => {
  world = await World.open(nativeMissing === undefined ? ['unicorn', 'native'] : ['unicorn']);
});

afterAll(() => world.close());

const nothing = (): Tally => ({ cases: 0, made: 0, compiled: 0, functions: 0 });

it('compiled programs do what interpreted ones do, on every machine', () => {
  const tally = nothing();
  expect(compareCases(world, 1, 0, 384, tally)).toBeUndefined();
  expect(tally.cases).toBe(384);
});

it('a case is what its seed and number say', () => {
  expect(caseOf(7, 3)).toEqual(caseOf(7, 3));
  expect(caseOf(7, 3)).not.toEqual(caseOf(8, 3));
});
