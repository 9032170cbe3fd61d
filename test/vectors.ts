/*
 * The kernels' own answers (test/vectors/*.json), as requests to our emitters and what has to come out.
 * Bytes, lengths and errnos were taken from the C functions themselves; nothing here was computed by us.
 */

import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import type {
  HelperPair,
  PokeRequest,
  PokeType,
  ProgRef,
  RevisionName,
  TrampolineConfig,
  TrampolineRequest,
} from '../jit/index.ts';
import { Bug, fromHex, type Kaddr, kaddr } from '../lib/index.ts';

/** One call of arch_prepare_bpf_trampoline. */
export interface TrampolineVector {
  readonly id: number;
  /** What the vector is about: `args`, `progs`, `far`, ... */
  readonly group: string;
  readonly request: TrampolineRequest;
  /** Length (v6.12: and 64 more), or a negative errno. */
  readonly ret: number;
  /** The image; undefined when refused. */
  readonly bytes: Uint8Array | undefined;
  readonly ipAfterCall: number | null;
  readonly ipEpilogue: number | null;
}

/** One call of bpf_arch_text_poke. */
export interface PokeVector {
  /** Position in the file. */
  readonly id: number;
  readonly group: string;
  readonly request: PokeRequest;
  /** Bytes from `request.ip` on, before and after. */
  readonly prior: Uint8Array;
  readonly ret: number;
  readonly after: Uint8Array;
}

/** The files' form: addresses as hex text. */
interface TrampolineFile {
  readonly defaults: { readonly image_size: number; readonly config?: ConfigEntry };
  readonly address_sets: Readonly<Record<string, AddressSet>>;
  readonly helper_index: readonly string[];
  readonly progs: Readonly<Record<string, ProgEntry>>;
  readonly vectors: readonly TrampolineEntry[];
}

/** ibt, rethunk, sls, orig_call starts with ENDBR. */
type ConfigEntry = readonly [0 | 1, 0 | 1, 0 | 1, 0 | 1];

interface AddressSet {
  readonly image: string;
  readonly im: string;
  readonly orig_call: string;
  readonly helpers: Readonly<Record<string, string>>;
}

interface ProgEntry {
  readonly prog: string;
  readonly bpf_func: string;
  readonly insnsi: string;
  readonly sleepable: boolean;
  readonly jited: boolean;
  readonly kind?: HelperPair;
  readonly cookie?: string;
}

interface TrampolineEntry {
  readonly id: number;
  readonly g: string;
  readonly set: string;
  readonly arg_size: readonly number[];
  readonly ret_size: number;
  readonly flags: number;
  readonly fentry: readonly string[];
  readonly fmod_ret: readonly string[];
  readonly fexit: readonly string[];
  readonly image?: string;
  readonly im?: string;
  readonly orig_call?: string;
  readonly image_size?: number;
  readonly helper_far?: readonly [index: number, address: string];
  readonly config?: ConfigEntry;
  readonly ret: number;
  readonly ip_after_call?: number | null;
  readonly ip_epilogue?: number | null;
  readonly hex?: string;
}

interface PokeFile {
  readonly vectors: readonly PokeEntry[];
}

interface PokeEntry {
  readonly g: string;
  readonly ip: string;
  readonly type: PokeType;
  readonly old_addr: string | null;
  readonly new_addr: string | null;
  readonly is_text: boolean;
  readonly ibt?: boolean;
  readonly prior: string;
  readonly ret: number;
  readonly after: string;
}

/** All trampoline vectors of a revision, in the file's order. */
export function trampolineVectors(revision: RevisionName): readonly TrampolineVector[] {
  const file = readJson(`trampolines-${revision}.json`) as TrampolineFile;
  const progs = new Map(Object.entries(file.progs).map(([key, entry]) => [key, progRef(key, entry)]));
  return file.vectors.map((entry) => ({
    id: entry.id,
    group: entry.g,
    request: trampolineRequest(file, progs, entry),
    ret: entry.ret,
    bytes: entry.hex === undefined ? undefined : hexBytes(entry.hex),
    ipAfterCall: entry.ip_after_call ?? null,
    ipEpilogue: entry.ip_epilogue ?? null,
  }));
}

/** All text-poke vectors of a revision, in the file's order. */
export function pokeVectors(revision: RevisionName): readonly PokeVector[] {
  const file = readJson(`text-poke-${revision}.json`) as PokeFile;
  return file.vectors.map((entry, id) => ({
    id,
    group: entry.g,
    request: {
      ip: address(entry.ip),
      type: entry.type,
      oldAddr: entry.old_addr === null ? null : address(entry.old_addr),
      newAddr: entry.new_addr === null ? null : address(entry.new_addr),
      isText: entry.is_text,
      ...(entry.ibt === undefined ? {} : { ibt: entry.ibt }),
    },
    prior: hexBytes(entry.prior),
    ret: entry.ret,
    after: hexBytes(entry.after),
  }));
}

function trampolineRequest(
  file: TrampolineFile,
  progs: ReadonlyMap<string, ProgRef>,
  entry: TrampolineEntry,
): TrampolineRequest {
  const set = defined(file.address_sets[entry.set], `address set ${entry.set}`);
  const helpers = Object.fromEntries(Object.entries(set.helpers).map(([name, at]) => [name, address(at)]));
  if (entry.helper_far !== undefined) {
    const [index, far] = entry.helper_far;
    helpers[defined(file.helper_index[index], `helper ${index}`)] = address(far);
    // from v6.1 on, the _recur function of the first four moves along
    const recur = index < 4 ? file.helper_index[index + 6] : undefined;
    if (recur !== undefined) helpers[recur] = address(far);
  }
  const refs = (keys: readonly string[]): ProgRef[] =>
    keys.map((key) => defined(progs.get(key), `program ${key}`));
  const config = entry.config ?? file.defaults.config;
  return {
    image: address(entry.image ?? set.image),
    imageSize: entry.image_size ?? file.defaults.image_size,
    im: address(entry.im ?? set.im),
    origCall: address(entry.orig_call ?? set.orig_call),
    argSizes: entry.arg_size,
    retSize: entry.ret_size,
    flags: entry.flags,
    fentry: refs(entry.fentry),
    fmodRet: refs(entry.fmod_ret),
    fexit: refs(entry.fexit),
    helpers,
    ...(config === undefined ? {} : { config: configOf(config) }),
  };
}

function configOf([ibt, rethunk, sls, endbr]: ConfigEntry): TrampolineConfig {
  return { ibt: ibt === 1, rethunk: rethunk === 1, sls: sls === 1, origCallStartsWithEndbr: endbr === 1 };
}

function progRef(name: string, entry: ProgEntry): ProgRef {
  return {
    prog: address(entry.prog),
    bpfFunc: address(entry.bpf_func),
    insnsi: address(entry.insnsi),
    sleepable: entry.sleepable,
    jited: entry.jited,
    ...(entry.kind === undefined ? {} : { kind: entry.kind }),
    ...(entry.cookie === undefined ? {} : { cookie: BigInt(entry.cookie) }),
    name,
  };
}

// The package's own root: the built benchmark reads the same files as the tests do.
const root = dirname(createRequire(import.meta.url).resolve('tramplab/package.json'));

function readJson(name: string): unknown {
  return JSON.parse(readFileSync(join(root, 'test', 'vectors', name), 'utf8'));
}

const address = (text: string): Kaddr => kaddr(BigInt(text));

const hexBytes = (text: string): Uint8Array => defined(fromHex(text), `hex in ${text}`);

function defined<T>(value: T | undefined, what: string): T {
  if (value === undefined) throw new Bug(`the vectors lack ${what}`);
  return value;
}
