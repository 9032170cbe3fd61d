/*
 * What one trampoline image costs to emit, in-process: `npm run bench:emit`.
 * The figures in the README come from here. Nothing asserts a time.
 */

import { cpus } from 'node:os';
import { Bench, type TaskResult } from 'tinybench';
import { prepareTrampoline, REVISIONS, type RevisionName, type TrampolineRequest } from '../jit/index.ts';
import { type TrampolineVector, trampolineVectors } from '../test/vectors.ts';

/** Images per sample: one image is far below what the clock can tell. */
const BATCH = 1000;
const TIME_MS = 1500;

interface Emission {
  readonly revision: RevisionName;
  readonly request: TrampolineRequest;
}

/** One fentry, one fmod_ret and one fexit program on a function of three arguments. */
function typical(vectors: readonly TrampolineVector[]): TrampolineRequest {
  const model = vectors[0] as TrampolineVector;
  const [fentry, fmodRet, fexit] = [...new Set(vectors.flatMap(({ request }) => request.fentry))].filter(
    (prog) => prog.jited && !prog.sleepable,
  );
  if (fentry === undefined || fmodRet === undefined || fexit === undefined) throw new RangeError('programs');
  return {
    ...model.request,
    argSizes: [8, 4, 8],
    flags: 6,
    fentry: [fentry],
    fmodRet: [fmodRet],
    fexit: [fexit],
  };
}

function emitInTurn(emissions: readonly Emission[], provenance: boolean): () => void {
  let next = 0;
  return () => {
    for (let i = 0; i < BATCH; i++) {
      const { revision, request } = emissions[next] as Emission;
      prepareTrampoline(revision, request, { provenance });
      next = (next + 1) % emissions.length;
    }
  };
}

const golden = REVISIONS.flatMap((revision) =>
  trampolineVectors(revision).map(({ request }): Emission => ({ revision, request })),
);
const single: Emission[] = [{ revision: 'v5.15', request: typical(trampolineVectors('v5.15')) }];

const bench = new Bench({ time: TIME_MS, warmupTime: 500 })
  .add('typical image', emitInTurn(single, false))
  .add('typical image, with provenance', emitInTurn(single, true))
  .add(`mean of ${golden.length} golden requests`, emitInTurn(golden, false))
  .add(`mean of ${golden.length} golden requests, with provenance`, emitInTurn(golden, true));
await bench.run();

const processor = cpus();
console.log(`${processor[0]?.model}, ${processor.length} CPUs, node ${process.version}`);
console.log(`microseconds per image; samples of ${BATCH} images for ${TIME_MS} ms each\n`);
console.log('   median      min..p99    samples');
for (const { name, result } of bench.tasks) console.log(`${row(result)}  ${name}`);

function row(result: TaskResult): string {
  if (result.state !== 'completed') return `   ${result.state}`;
  const { latency } = result;
  const microseconds = (batchMs: number): string => ((batchMs * 1000) / BATCH).toFixed(2);
  const spread = `${microseconds(latency.min)}..${microseconds(latency.p99)}`;
  return `${microseconds(latency.p50).padStart(9)}  ${spread.padStart(12)}  ${String(latency.samplesCount).padStart(9)}`;
}
