import { expect, it } from 'vitest';

interface Report {
  readonly testResults: readonly {
    readonly name: string;
    readonly status: string;
    readonly assertionResults: readonly {
      readonly ancestorTitles: readonly string[];
      readonly title: string;
      readonly status: string;
    }[];
  }[];
}
interface TestScript {
  tally(
    report: Report | undefined,
    ending: { status: number | null; signal: string | null },
    root: string,
  ): { passed: number; failures: string[]; skipped: string[] };
}

const script: TestScript = await import(new URL('../../scripts/test.mjs', import.meta.url).href);

const ended = (status: number): { status: number; signal: null } => ({ status, signal: null });
const result = (
  title: string,
  status: string,
): Report['testResults'][number]['assertionResults'][number] => ({
  ancestorTitles: ['group'],
  title,
  status,
});
const file = (status: string, ...assertionResults: ReturnType<typeof result>[]): Report => ({
  testResults: [{ name: '/project/test/a.test.ts', status, assertionResults }],
});

it('names what failed and what was skipped', () => {
  const report = file('failed', result('a', 'passed'), result('b', 'failed'), result('c', 'skipped'));
  expect(script.tally(report, ended(1), '/project')).toEqual({
    passed: 1,
    failures: ['test/a.test.ts > group > b'],
    skipped: ['test/a.test.ts > group > c'],
  });
});

it('a file that cannot be loaded is a failure', () => {
  expect(script.tally(file('failed'), ended(1), '/project').failures).toEqual([
    'test/a.test.ts: the file itself failed',
  ]);
});

it('a run that failed with every test passed is a failure', () => {
  const { passed, failures } = script.tally(file('passed', result('a', 'passed')), ended(1), '/project');
  expect([passed, failures]).toEqual([1, ['vitest failed outside the tests (status 1)']]);
});

it('no report is a failure, and says how vitest ended', () => {
  expect(script.tally(undefined, { status: null, signal: 'SIGSEGV' }, '/project').failures).toEqual([
    'vitest ended without a report (SIGSEGV)',
  ]);
});

it('a filter that matches nothing is a failure', () => {
  expect(script.tally({ testResults: [] }, ended(1), '/project').failures).toEqual(['no tests found']);
});

it('all well is well', () => {
  expect(script.tally(file('passed', result('a', 'passed')), ended(0), '/project')).toEqual({
    passed: 1,
    failures: [],
    skipped: [],
  });
});
