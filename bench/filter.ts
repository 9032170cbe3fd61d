/*
 * What `tramplab emit` costs as a filter: 10,000 requests through one process, start-up included:
 * `npm run bench:filter`. The requests are the golden ones in turn. Nothing asserts a time.
 */

import { spawnSync } from 'node:child_process';
import { cpus } from 'node:os';
import { performance } from 'node:perf_hooks';
import { type ProgRef, REVISIONS } from '../jit/index.ts';
import { hex64 } from '../lib/index.ts';
import { trampolineVectors } from '../test/vectors.ts';

const REQUESTS = 10_000;
const ROUNDS = 5;

const progJson = ({ prog, bpfFunc, insnsi, sleepable, jited }: ProgRef): unknown => ({
  prog: hex64(prog),
  bpfFunc: hex64(bpfFunc),
  insnsi: hex64(insnsi),
  sleepable,
  jited,
});

const golden = REVISIONS.flatMap((revision) =>
  trampolineVectors(revision).map(({ request }) => ({
    revision,
    image: hex64(request.image),
    imageSize: request.imageSize,
    im: hex64(request.im),
    origCall: hex64(request.origCall),
    argSizes: request.argSizes,
    flags: request.flags,
    fentry: request.fentry.map(progJson),
    fmodRet: request.fmodRet.map(progJson),
    fexit: request.fexit.map(progJson),
    helpers: Object.fromEntries(
      Object.entries(request.helpers).map(([name, address]) => [name, hex64(address)]),
    ),
  })),
);
const input = Array.from({ length: REQUESTS }, (_, id) =>
  JSON.stringify({ id, ...golden[id % golden.length] }),
).join('\n');

const seconds: number[] = [];
for (let round = 0; round < ROUNDS; round++) {
  const start = performance.now();
  const { status, stdout } = spawnSync(process.execPath, ['dist/cli/main.js', 'emit'], {
    input,
    maxBuffer: 1 << 30,
  });
  seconds.push((performance.now() - start) / 1000);
  const answers = stdout.toString().trimEnd().split('\n').length;
  if (status !== 0 || answers !== REQUESTS) throw new RangeError(`status ${status}, ${answers} answers`);
}
seconds.sort((a, b) => a - b);
const [processor] = cpus();
console.log(`${processor?.model.trim()}, ${cpus().length} CPUs, node ${process.version}`);
console.log(
  `${REQUESTS} requests (${(input.length / 1e6).toFixed(1)} MB) through one process, ${ROUNDS} rounds: ` +
    `median ${seconds[ROUNDS >> 1]?.toFixed(2)} s, fastest ${seconds[0]?.toFixed(2)} s`,
);
