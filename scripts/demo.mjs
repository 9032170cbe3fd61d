// npm run demo: set-up, then the main job on real input. A C function that gcc compiled with
// -pg -mfentry is traced by an fentry, an fmod_ret and an fexit program, also C compiled by gcc.

import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import process from 'node:process';
import { ROOT, runAsScript, setUp } from './setup.mjs';

const RUN = [
  ...['run', 'test/fixtures/demo.o', '--listing'],
  ...['--attach', 'fentry:schedule_coffee=test/fixtures/probes.o:coffee_entry'],
  ...['--attach', 'fmod_ret:schedule_coffee=test/fixtures/probes.o:coffee_modify_return'],
  ...['--attach', 'fexit:schedule_coffee=test/fixtures/probes.o:coffee_exit'],
  ...['--call', 'schedule_coffee(2, 1, 300)', '--call', 'schedule_coffee(13, 0, 300)'],
  ...['--call', 'schedule_coffee(1, 0, 0)'],
];

const quoted = (word) => (/^[\w./:=-]+$/.test(word) ? word : `'${word}'`);

await runAsScript(import.meta.url, () => {
  setUp();
  const lines = RUN.map(quoted)
    .join(' ')
    .replace(/ --(attach|call)/g, ' \\\n    --$1');
  console.log(`$ npx tramplab ${lines}\n`);
  const command = [join(ROOT, 'dist', 'cli', 'main.js'), ...RUN];
  process.exitCode = spawnSync(process.execPath, command, { cwd: ROOT, stdio: 'inherit' }).status ?? 1;
});
