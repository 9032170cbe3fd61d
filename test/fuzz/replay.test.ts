import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { replay } from '../../fuzz/index.ts';
import { campaign, folder, subjects, WORKER } from './support.ts';

test('a finding is seen again, alone', async () => {
  const out = folder();
  const { findings } = await campaign({}, { wrong: { odd: 97 }, out });
  const file = findings.find(({ rule }) => rule === 'alone')?.file ?? '';
  const again = (wrong: Record<string, number>) =>
    replay(file, { worker: WORKER, subjects: subjects(wrong) });

  const seen = await again({ odd: 97 });
  expect(seen).toMatchObject({ reproduced: true, record: { rule: 'alone', seed: 1 } });
  expect(seen.findings.map(({ rule }) => rule)).toEqual(['alone', 'no-multiple']);
  expect(await again({})).toMatchObject({ reproduced: false, findings: [] });

  const crashing = await again({ crash: 97 });
  expect(crashing).toMatchObject({ reproduced: false, findings: [{ rule: 'engine-crash' }] });
});

test('what is no finding is told of', async () => {
  const dir = folder();
  const out = join(dir, 'campaign');
  const { findings } = await campaign({ cases: 20 }, { wrong: { odd: 7 }, out });
  const whole = JSON.parse(readFileSync(findings[0]?.file ?? '', 'utf8')) as Record<string, unknown>;
  const file = join(dir, 'finding.json');
  const attempt = (json: unknown) => {
    writeFileSync(file, typeof json === 'string' ? json : JSON.stringify(json));
    return expect(replay(file, { worker: WORKER, subjects: subjects() })).rejects;
  };
  await attempt('{').toThrow('finding.json: is no JSON');
  await attempt(null).toThrow('is no finding');
  await attempt({ ...whole, rule: undefined }).toThrow('is no finding');
  await attempt({ ...whole, format: 9 }).toThrow('another version');
  await attempt({ ...whole, mutant: 'gone' }).toThrow('the mutant gone, which there is not');
  await attempt({ ...whole, minimized: { terms: 'none' } }).toThrow('terms: wanted numbers');
  await expect(replay(join(dir, 'none.json'))).rejects.toThrow('none.json: is not there');
});
