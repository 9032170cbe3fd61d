// npm run demo: set-up, then the main job on real input. A C function that gcc compiled with
// -pg -mfentry is traced by an fentry, an fmod_ret and an fexit program, also C compiled by gcc.

import { spawnSync } from 'node:child_process';
import process from 'node:process';
import { fileURLToPath } from 'node:url';

const at = (path) => fileURLToPath(new URL(`../${path}`, import.meta.url));

const RUN = [
  ...['run', 'test/fixtures/demo.o', '--listing'],
  ...['--attach', 'fentry:schedule_coffee=test/fixtures/probes.o:coffee_entry'],
  ...['--attach', 'fmod_ret:schedule_coffee=test/fixtures/probes.o:coffee_modify_return'],
  ...['--attach', 'fexit:schedule_coffee=test/fixtures/probes.o:coffee_exit'],
  ...['--call', 'schedule_coffee(2, 1, 300)', '--call', 'schedule_coffee(13, 0, 300)'],
  ...['--call', 'schedule_coffee(1, 0, 0)'],
];

const node = (args) => {
  const { status } = spawnSync(process.execPath, args, { cwd: at('.'), stdio: 'inherit' });
  if (status !== 0) process.exit(status ?? 1);
};

const quoted = (word) => (/^[\w./:=-]+$/.test(word) ? word : `'${word}'`);

node([at('scripts/setup.mjs')]);
console.log(`$ npx tramplab ${RUN.map(quoted).join(' ')}\n`);
node([at('dist/cli/main.js'), ...RUN]);
