// npm run selftests: fetches Debian's kernel source, compiles the kernel's own selftests of trampolines as they
// are, runs them in the lab on every revision, prints a table and writes docs/selftests.md. Nothing of the
// kernel's is kept in the project; what is fetched stays in .cache/selftests.
//
// Exit 0: all that can run passed. 1: something failed. 2: something is missing here; one line says what.

import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import process from 'node:process';
import { buildSelftest, buildTargets, findClang } from './selftests/build.mjs';
import { CASES } from './selftests/cases.mjs';
import { selftestsPage, selftestsTable } from './selftests/page.mjs';
import { runCase } from './selftests/run.mjs';
import { fetchSelftests } from './selftests/source.mjs';
import { compile, ROOT, runAsScript, SetupError, setUp } from './setup.mjs';

/** Whether this host lets the engine run. */
async function hasNative({ createLab }) {
  try {
    (await createLab({ engine: 'native' })).close();
    return true;
  } catch {
    return false;
  }
}

async function main() {
  setUp({ build: false });
  if (!compile('conformance')) throw new SetupError('the sources do not compile; see above', 1);
  const conformance = await import('../dist/conformance/index.js');
  const lab = await import('../dist/lab/index.js');
  const { MANAGED_REVISIONS: revisions, Scheduler } = await import('../dist/tramp/index.js');

  const clang = findClang();
  const cache = join(ROOT, '.cache', 'selftests');
  const source = await fetchSelftests(conformance, cache);
  const built = join(cache, 'built');
  mkdirSync(built, { recursive: true });
  const targets = buildTargets(built);
  const engines = (await hasNative(lab)) ? ['unicorn', 'native'] : ['unicorn'];
  const modes = engines.flatMap((engine) => [true, false].map((jited) => ({ engine, jited })));

  const rows = [];
  for (const one of CASES) {
    const object = buildSelftest(clang, source, one.name, built);
    rows.push({
      one,
      results: await runCase({ ...lab, Scheduler }, one, { object, targets, revisions, modes }),
    });
  }
  const report = { rows, revisions, engines, packages: source.packages, clang: clang.version };
  console.log(selftestsTable(report));
  writeFileSync(join(ROOT, 'docs', 'selftests.md'), selftestsPage(report));
  const failed = rows.some(({ results }) =>
    [...results.values()].some(({ outcome }) => outcome === 'failed'),
  );
  if (failed) process.exitCode = 1;
}

await runAsScript(import.meta.url, async () => {
  try {
    await main();
  } catch (error) {
    // What users can mend has one line; all else shows where it came from.
    if (error.name !== 'InputError' && error.name !== 'Unavailable' && error.name !== 'SetupError')
      throw error;
    console.error(`selftests: ${error.message}`);
    process.exitCode = error.exitCode ?? 2;
  }
});
