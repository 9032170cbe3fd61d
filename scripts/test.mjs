/**
 * `npm test`: set-up, then format and lint, types, and every test. Arguments go to vitest
 * (`npm test -- test/jit`). The last line is `N passed, N failed, N skipped`, the checks counted in.
 */

import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { compile, ROOT, runAsScript, SetupError, setUp } from './setup.mjs';

/**
 * Adds up vitest's JSON report.
 * A file that could not even be loaded has no tests of its own and counts as one failure; so does a run
 * that failed although every test passed, as an error outside any test makes it.
 * @param report undefined when vitest left none
 * @param ending how its process ended: `{ status, signal }`
 */
export function tally(report, ending, root) {
  const how = ending.signal ?? `status ${ending.status}`;
  if (report === undefined) {
    return { passed: 0, failures: [`vitest ended without a report (${how})`], skipped: [] };
  }
  const failures = [];
  const skipped = [];
  let passed = 0;
  for (const file of report.testResults) {
    const name = relative(root, file.name);
    let failedTests = 0;
    for (const test of file.assertionResults) {
      const title = `${name} > ${[...test.ancestorTitles, test.title].join(' > ')}`;
      if (test.status === 'passed') passed++;
      else if (test.status === 'failed') failures.push(title);
      else skipped.push(title);
      if (test.status === 'failed') failedTests++;
    }
    if (file.status === 'failed' && failedTests === 0) failures.push(`${name}: the file itself failed`);
  }
  if (ending.status !== 0 && failures.length === 0) {
    failures.push(
      passed + skipped.length === 0 ? 'no tests found' : `vitest failed outside the tests (${how})`,
    );
  }
  return { passed, failures, skipped };
}

function checkFormatAndLint() {
  const biome = join(ROOT, 'node_modules', '@biomejs', 'biome', 'bin', 'biome');
  return spawnSync(process.execPath, [biome, 'check', '.'], { cwd: ROOT, stdio: 'inherit' }).status === 0;
}

function runVitest(args) {
  const work = mkdtempSync(join(tmpdir(), 'tramplab-test-'));
  try {
    const report = join(work, 'report.json');
    const vitest = join(ROOT, 'node_modules', 'vitest', 'vitest.mjs');
    const reporters = ['--reporter=default', '--reporter=json', `--outputFile.json=${report}`];
    const ending = spawnSync(process.execPath, [vitest, 'run', ...reporters, ...args], {
      cwd: ROOT,
      stdio: 'inherit',
    });
    return tally(readReport(report), ending, ROOT);
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

function readReport(path) {
  try {
    return JSON.parse(readFileSync(path, 'utf8'));
  } catch {
    return undefined;
  }
}

/** Everything, as `{ passed, failures, skipped }`. */
function test(args) {
  try {
    setUp({ build: false });
  } catch (error) {
    if (!(error instanceof SetupError)) throw error;
    return { passed: 0, failures: [`set-up: ${error.message}`], skipped: [] };
  }
  const checks = [
    ['format and lint', checkFormatAndLint()],
    ['types', compile('.')],
  ];
  const tests = runVitest(args);
  const failedChecks = checks.filter(([, fine]) => !fine).map(([name]) => name);
  return {
    passed: tests.passed + checks.length - failedChecks.length,
    failures: [...failedChecks, ...tests.failures],
    skipped: tests.skipped,
  };
}

await runAsScript(import.meta.url, () => {
  const { passed, failures, skipped } = test(process.argv.slice(2));
  for (const title of skipped) console.log(`skipped: ${title}`);
  for (const title of failures) console.log(`failed: ${title}`);
  console.log(`${passed} passed, ${failures.length} failed, ${skipped.length} skipped`);
  if (failures.length > 0) process.exitCode = 1;
});
