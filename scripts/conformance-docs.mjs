// npm run conformance:docs: asks the kernels in every setting that docs/conformance.md tells of, and
// writes the page. Takes some minutes.

import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import process from 'node:process';
import { compile, ROOT, runAsScript, SetupError, setUp } from './setup.mjs';

const BOOTS = [
  { kernel: '6.1' },
  { kernel: '6.12' },
  { kernel: '6.1', kaslr: true },
  { kernel: '6.12', kaslr: true },
  { kernel: '6.1', cpu: 'EPYC' },
  { kernel: '6.1', cpu: 'Skylake-Server' },
  { kernel: '6.12', cpu: 'EPYC' },
  { kernel: '6.12', cpu: 'Skylake-Server', append: 'retbleed=stuff' },
];

await runAsScript(import.meta.url, async () => {
  setUp({ build: false });
  if (!compile('conformance')) throw new SetupError('the sources do not compile; see above', 1);
  const { askKernel, conformancePage, terminalProgress } = await import('../dist/conformance/index.js');
  const reports = [];
  for (const boot of BOOTS) {
    const report = await askKernel({ ...boot, progress: terminalProgress() });
    const different = report.combinations.filter((one) => !one.bytesEqual || one.valuesEqual === false);
    console.log(`${JSON.stringify(boot)}: ${report.combinations.length}, ${different.length} different`);
    for (const { name, why } of different) console.log(`  ${name}: ${why}`);
    if (different.length > 0) process.exitCode = 1;
    reports.push(report);
  }
  writeFileSync(join(ROOT, 'docs', 'conformance.md'), conformancePage(reports));
});
