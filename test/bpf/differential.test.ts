import { afterAll, beforeAll, expect, it } from 'vitest';
import { BPF_ADD, BPF_ALU, BPF_SUB, BPF_X, bpfJitRevisions } from '../../jit/index.ts';
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

it('one wrong instruction of a compiler is found', () => {
  const right = bpfJitRevisions['v6.12'];
  const subtract = right.opcodes[BPF_ALU | BPF_SUB | BPF_X];
  if (subtract === undefined) throw new Error('no subtraction');
  world.jit = { ...right, opcodes: { ...right.opcodes, [BPF_ALU | BPF_ADD | BPF_X]: subtract } };
  const trouble = compareCases(world, 2, 0, 256, nothing());
  world.jit = undefined;
  expect(trouble).toMatch(/^seed 2, case \d+/);
});

it('a case is what its seed and number say', () => {
  expect(caseOf(7, 3)).toEqual(caseOf(7, 3));
  expect(caseOf(7, 3)).not.toEqual(caseOf(8, 3));
});
