import { expect, test } from 'vitest';
import { formatReport } from '../../lab/index.ts';
import { labWith } from './support.ts';

test('a lab tells what there is: symbols, programs, images, modules', async () => {
  const { lab, probes } = await labWith('demo.o');
  const attached = lab.attach('fexit', 'schedule_coffee', probes.program('coffee_exit'));
  lab.call('schedule_coffee', [1, 0, 300]);
  const report = lab.report();
  expect(report.programs.map(({ name }) => name)).toEqual(['coffee_exit']);
  expect(report.images.map(({ ksym }) => ksym)).toEqual([lab.trampolines()[0]?.ksym]);
  expect(formatReport(report)).toContain('coffee_exit');
  attached.detach();
  expect(lab.report().images).toEqual([]);
});

test('the safe lifetime is an option: an image keeps its programs', async () => {
  for (const programLifetime of ['kernel', 'held'] as const) {
    const { lab, probes } = await labWith('demo.o', { programLifetime });
    const { prog } = lab.attach('fentry', 'schedule_coffee', probes.program('coffee_entry'));
    expect(prog.references).toBe(programLifetime === 'held' ? 2 : 1);
  }
});
