// npm run conformance:short: ten combinations of a booted 6.1 kernel, for those who run many checks.
// Where a kernel or qemu cannot be had, that is said and nothing has failed; all else that goes wrong has.
//
// Exit 0: all equal, or skipped. 1: something differs, hangs or is broken.

import process from 'node:process';
import { compile, runAsScript, SetupError, setUp } from './setup.mjs';

await runAsScript(import.meta.url, async () => {
  setUp({ build: false });
  if (!compile('conformance')) throw new SetupError('the sources do not compile; see above', 1);
  const { askKernel, SHORT, terminalProgress, Unavailable } = await import('../dist/conformance/index.js');
  try {
    const { release, bootSeconds, combinations } = await askKernel({
      kernel: '6.1',
      only: SHORT,
      progress: terminalProgress(),
    });
    const different = combinations.filter((one) => !one.bytesEqual || one.valuesEqual === false);
    for (const { name, why } of different) console.log(`conformance: ${name} differs: ${why}`);
    const equal = `${combinations.length - different.length} of ${combinations.length} combinations equal`;
    console.log(`conformance: Linux ${release}, booted in ${bootSeconds.toFixed(1)} s: ${equal}`);
    if (different.length > 0) process.exitCode = 1;
  } catch (error) {
    if (error instanceof Unavailable) {
      console.log(`conformance: SKIPPED, no kernel was asked: ${error.message}`);
    } else {
      console.error(`conformance: ${error.message}`);
      process.exitCode = 1;
    }
  }
});
