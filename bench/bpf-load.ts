/*
 * What loading eBPF costs, step by step: `npm run bench:bpf-load`. Over all programs of the objects in
 * test/fixtures/bpf, on every revision that has their helpers. Nothing asserts a time.
 */

import { readdirSync, readFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { performance } from 'node:perf_hooks';
import { checkProgram, compileProgram, readBpfObject } from '../bpf/index.ts';
import { PLAIN_BPF_JIT_CONFIG } from '../jit/index.ts';
import { addrAdd, Bug, InputError, kaddr } from '../lib/index.ts';
import { type Btf, objectBtf, parseElf } from '../obj/index.ts';
import { CALL_BASE, loadable } from '../test/bpf/fixup-support.ts';

/** From the project's folder, where npm runs this. */
const FIXTURES = 'test/fixtures/bpf/';
const ROUNDS = 15;
/** Rounds before any counts: the first ones measure the JavaScript engine's own compiler. */
const WARM_UP = 3;
const REVISIONS = ['v5.15', 'v6.1', 'v6.12'] as const;
const STEPS = ['read the object', 'CO-RE, environment', 'check and rewrite', 'compile, twice'] as const;
const IMAGES = kaddr(0xffff_ffff_a000_0000n);

/** Milliseconds of each step of one round over all programs, and what went through. */
function round(target: Btf): { readonly ms: number[]; programs: number; slots: number } {
  const total = { ms: STEPS.map(() => 0), programs: 0, slots: 0 };
  const timed = <T>(step: number, what: () => T): T => {
    const start = performance.now();
    try {
      return what();
    } finally {
      total.ms[step] = (total.ms[step] ?? 0) + performance.now() - start;
    }
  };
  for (const { name, bytes } of objects) {
    const object = timed(0, () => readBpfObject(bytes, { file: name }));
    for (const revision of REVISIONS) {
      for (const program of object.programs) {
        const { code, env } = timed(1, () => loadable(object, program, revision, target));
        try {
          const checked = timed(2, () => checkProgram(code, env));
          let at = IMAGES;
          const place = (sizeBytes: number): typeof at => {
            const here = at;
            at = addrAdd(at, sizeBytes);
            return here;
          };
          timed(3, () => compileProgram(checked, { revision, config: CONFIG, place }));
        } catch (error) {
          // A kernel that does not have the helper.
          if (!(error instanceof InputError)) throw error;
          continue;
        }
        total.programs++;
        total.slots += code.insns.length;
      }
    }
  }
  return total;
}

const CONFIG = { ...PLAIN_BPF_JIT_CONFIG, callBase: CALL_BASE };
const bytesOf = (name: string): Uint8Array => new Uint8Array(readFileSync(FIXTURES + name));
const objects = readdirSync(FIXTURES)
  .filter((name) => name.endsWith('.bpf.o'))
  .map((name) => ({ name, bytes: bytesOf(name) }));
const target = objectBtf(parseElf(bytesOf('targets.o'), 'targets.o'));
if (target === undefined) throw new Bug('the target has no types');
const processor = cpus();
console.log(`${processor[0]?.model}, ${processor.length} CPUs, node ${process.version}`);
const first = round(target);
for (let i = 1; i < WARM_UP; i++) round(target);
const rounds = Array.from({ length: ROUNDS }, () => round(target));
console.log(
  `${first.programs} programs, ${first.slots} slots; ${ROUNDS} rounds after ${WARM_UP} to warm up\n`,
);
console.log('us a program: median   fastest     first');
for (const [step, name] of STEPS.entries()) {
  const times = rounds.map(({ ms }) => ms[step] ?? 0).sort((a, b) => a - b);
  const cells = [times[ROUNDS >> 1] ?? 0, times[0] ?? 0, first.ms[step] ?? 0];
  const text = cells.map((ms) => ((ms * 1000) / first.programs).toFixed(1).padStart(8)).join('  ');
  console.log(`            ${text}  ${name}`);
}
