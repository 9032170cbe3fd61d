/*
 * Programs as the kernels' own JITs compile them (test/vectors/bpf-jit-*.json.gz), as requests to ours and what has
 * to come out. Nothing there was computed by us.
 */

import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { type BpfImage, type BpfJitConfig, type BpfProgram, decodeInsns } from '../../../jit/index.ts';
import { Bug, fromHex, type Kaddr, kaddr, toHex } from '../../../lib/index.ts';

export const VECTOR_REVISIONS = ['v5.15', 'v6.1', 'v6.12'] as const;
export type VectorRevision = (typeof VECTOR_REVISIONS)[number];

export interface BpfJitVector {
  readonly id: number;
  /** What it is about: `alu32_x_ADD`, `cascade`, ... */
  readonly group: string;
  readonly program: BpfProgram;
  readonly config: BpfJitConfig;
  readonly expected: Answer;
  /** As it stands in the file, with the configuration's fields in place of its name. */
  readonly line: Readonly<Record<string, unknown>>;
}

/** What comes out, in the file's form. Of a refusal only that it is one counts, and in which pass. */
export type Answer =
  | {
      readonly bytes: string;
      readonly addrs: readonly number[];
      readonly passes: number;
      readonly ex: readonly (readonly number[])[];
      readonly poke: readonly (readonly number[])[];
    }
  | { readonly failInPass: number };

/** A number, or an address as hex text. */
type Value = number | string;

interface VectorFile {
  readonly configs: Readonly<Record<string, Readonly<Record<string, Value>>>>;
  readonly vectors: readonly Entry[];
}

interface Entry {
  readonly id: number;
  readonly group: string;
  readonly cfg: string;
  readonly image: string;
  readonly insns: string;
  readonly final?: string;
  readonly is_func?: number;
  readonly sd?: number;
  readonly fidx?: number;
  readonly tcr?: number;
  readonly classic?: number;
  readonly nex?: number;
  readonly exb?: number;
  readonly excb?: number;
  readonly akern?: Value;
  readonly auser?: Value;
  readonly bytes?: string;
  readonly addrs?: readonly number[];
  readonly passes?: number;
  readonly ex?: readonly (readonly number[])[];
  readonly poke?: readonly (readonly number[])[];
  readonly fail?: string;
}

/** All vectors of a revision, in the file's order. */
export function bpfJitVectors(revision: VectorRevision): readonly BpfJitVector[] {
  const file = readGzipped(`bpf-jit-${revision}.json.gz`) as VectorFile;
  return file.vectors.map((entry) => {
    const values = defined(file.configs[entry.cfg], `configuration ${entry.cfg}`);
    return {
      id: entry.id,
      group: entry.group,
      program: programOf(entry),
      config: configOf(values),
      expected: answerOf(entry),
      line: requestLine(revision, entry, values),
    };
  });
}

/** What our compiler gave, in the vectors' form. */
export function asAnswer(image: BpfImage | { readonly fail: string; readonly bytes?: never }): Answer {
  if (image.bytes === undefined) return { failInPass: Number.parseInt(image.fail, 10) };
  return {
    bytes: toHex(image.bytes),
    addrs: image.addrs,
    passes: image.passes,
    ex: image.exTable.map(({ insn, fixup, handler }) => [insn, fixup, handler]),
    poke: image.pokes.map(({ bypass, target, adjOff }) => [bypass, target, adjOff]),
  };
}

function answerOf({ fail, bytes, addrs, passes, ex = [], poke = [] }: Entry): Answer {
  if (fail !== undefined) return { failInPass: Number.parseInt(fail, 10) };
  return { bytes: defined(bytes, 'bytes'), addrs: defined(addrs, 'addrs'), passes: passes ?? 0, ex, poke };
}

function programOf(entry: Entry): BpfProgram {
  return {
    insns: decodeInsns(hexBytes(entry.insns)),
    final: entry.is_func === 1 ? decodeInsns(hexBytes(defined(entry.final, 'final'))) : undefined,
    image: address(entry.image),
    stackDepth: entry.sd ?? 0,
    isSubprog: (entry.fidx ?? 0) !== 0,
    tailCallReachable: entry.tcr === 1,
    wasClassic: entry.classic === 1,
    numExentries: entry.nex ?? 0,
    exceptionBoundary: entry.exb === 1,
    exceptionCb: entry.excb === 1,
    arenaKernVmStart: address(entry.akern),
    arenaUserVmStart: address(entry.auser),
  };
}

function configOf(values: Readonly<Record<string, Value>>): BpfJitConfig {
  const at = (name: string): Kaddr => address(values[name]);
  const on = (name: string): boolean => values[name] === 1;
  return {
    callBase: at('base'),
    taskSizeMax: at('tsm'),
    thisCpuOff: Number(at('percpu')),
    exHandler: at('exhandler'),
    thunks: {
      indirectRcx: at('thunk_rcx'),
      itsRcx: at('its_rcx'),
      return: at('retthunk'),
      clearBhbLoop: at('bhbloop'),
    },
    ibt: on('ibt'),
    sls: on('sls'),
    retpoline: on('retpoline'),
    retpolineLfence: on('lfence'),
    its: on('its'),
    rethunk: on('rethunk'),
    bhbLoop: on('bhb'),
    bhbHw: on('ibhf'),
    hypervisor: on('hyper'),
    capSysAdmin: on('cap'),
    sse2: on('xmm2'),
    bmi2: on('bmi2'),
    cfi: values['cfi'] === 1 ? 'kcfi' : values['cfi'] === 2 ? 'fineibt' : 'off',
    cfiHash: Number(at('cfihash')),
    cfiSubprogHash: Number(at('cfisubhash')),
  };
}

/** The request without the answer. */
function requestLine(
  revision: VectorRevision,
  entry: Entry,
  config: Readonly<Record<string, Value>>,
): Readonly<Record<string, unknown>> {
  const { cfg, bytes, addrs, passes, ex, poke, fail, ...request } = entry;
  return { ...request, revision, config };
}

// The package's own root: the built benchmark reads the same files as the tests do.
const root = dirname(createRequire(import.meta.url).resolve('tramplab/package.json'));

function readGzipped(name: string): unknown {
  return JSON.parse(gunzipSync(readFileSync(join(root, 'test', 'vectors', name))).toString('utf8'));
}

const address = (value: Value = 0): Kaddr => kaddr(BigInt(value));

const hexBytes = (text: string): Uint8Array => defined(fromHex(text), `hex in ${text}`);

function defined<T>(value: T | undefined, what: string): T {
  if (value === undefined) throw new Bug(`the vectors lack ${what}`);
  return value;
}
