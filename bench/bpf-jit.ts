/*
 * What compiling eBPF costs, in-process: `npm run bench:bpf-jit`. Per 100 instructions (slots) and pass, since the
 * number of passes is the program's; over all programs of the kernels' vectors that compile. Nothing asserts a time.
 */

import { cpus } from 'node:os';
import { performance } from 'node:perf_hooks';
import { type BpfJitRevisionName, compileBpf } from '../jit/index.ts';
import { type BpfJitVector, bpfJitVectors, VECTOR_REVISIONS } from '../test/jit/bpf/vectors.ts';

const ROUNDS = 15;
/** Rounds before any counts: the first ones measure the JavaScript engine's own compiler. */
const WARM_UP = 5;

interface Work {
  readonly revision: BpfJitRevisionName;
  readonly vectors: readonly BpfJitVector[];
  /** Instructions times passes, the extra pass included. */
  readonly steps: number;
}

function work(revision: (typeof VECTOR_REVISIONS)[number]): Work {
  const vectors = bpfJitVectors(revision).filter(({ expected }) => 'passes' in expected);
  let steps = 0;
  for (const { program, expected } of vectors) {
    const passes = 'passes' in expected ? expected.passes + (program.final === undefined ? 0 : 1) : 0;
    steps += program.insns.length * passes;
  }
  return { revision, vectors, steps };
}

/** Microseconds per 100 instructions and pass, of one round over all programs. */
function round({ revision, vectors, steps }: Work, provenance: boolean): number {
  const start = performance.now();
  for (const { program, config } of vectors) compileBpf(revision, program, config, { provenance });
  return ((performance.now() - start) * 1000 * 100) / steps;
}

const processor = cpus();
console.log(`${processor[0]?.model}, ${processor.length} CPUs, node ${process.version}`);
console.log(`microseconds per 100 instructions and pass; ${ROUNDS} rounds after ${WARM_UP} to warm up\n`);
console.log('  median    fastest    first   programs  instructions x passes');
for (const revision of VECTOR_REVISIONS) {
  for (const provenance of [false, true]) {
    const job = work(revision);
    const cold = round(job, provenance);
    for (let i = 1; i < WARM_UP; i++) round(job, provenance);
    const times = Array.from({ length: ROUNDS }, () => round(job, provenance)).sort((a, b) => a - b);
    const cells = [times[ROUNDS >> 1] ?? 0, times[0] ?? 0, cold].map((time) => time.toFixed(2).padStart(8));
    const name = provenance ? `${revision}, with provenance` : revision;
    console.log(`${cells.join('  ')}  ${String(job.vectors.length).padStart(8)}  ${job.steps}  ${name}`);
  }
}
