import { expect, test } from 'vitest';
import { killMatrix, listMutants } from '../../fuzz/index.ts';
import { campaign, SMALL, subjects } from './support.ts';

const OPTIONS = { ...SMALL, subjects: subjects(), seed: 1 };

test('a mistake is found, what is none is not', async () => {
  const said: string[] = [];
  const onVerdict = ({ id }: { id: string }): number => said.push(id);
  const [forgets, nothing] = await killMatrix({ ...OPTIONS, cases: 100, onVerdict });
  expect(forgets).toMatchObject({ id: 'forgets', found: true, rule: 'sum' });
  expect(nothing).toEqual({
    id: 'nothing',
    what: 'no mistake at all',
    found: false,
    rule: null,
    cases: 100,
    finding: null,
  });
  expect(said.toSorted()).toEqual(['forgets', 'nothing']);

  // It counts the cases up to the first that a campaign with the mutant finds.
  const { findings } = await campaign({ family: 'image', mutant: 'forgets' });
  expect(forgets?.cases).toBe((findings[0]?.case ?? 0) + 1);
});

test('a mistake that kills the engine is found at the case that does', async () => {
  const [verdict] = await killMatrix({ ...OPTIONS, subjects: subjects({ crash: 127 }), only: ['nothing'] });
  const { findings } = await campaign({ family: 'image' }, { wrong: { odd: 127 } });
  expect(verdict).toMatchObject({ found: true, rule: 'engine-crash', cases: (findings[0]?.case ?? 0) + 1 });
});

test('mutants are named', async () => {
  expect((await listMutants(subjects())).map(({ id }) => id)).toEqual(['forgets', 'nothing']);
  expect((await listMutants(subjects(), ['nothing'])).map(({ id }) => id)).toEqual(['nothing']);
  await expect(listMutants(subjects(), ['other'])).rejects.toThrow('there is no mutant other');
});

test('in one revision, those that are mistakes there', async () => {
  const inOne = await listMutants(subjects(), undefined, 'v5.13');
  expect(inOne.map(({ id, revisions }) => ({ id, revisions }))).toEqual([
    { id: 'forgets', revisions: ['v5.13'] },
  ]);
  const [forgets, none] = await killMatrix({ ...OPTIONS, cases: 100, revision: 'v5.13' });
  expect([forgets?.id, none]).toEqual(['forgets', undefined]);
});
