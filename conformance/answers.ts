import { fromHex, InputError, type Kaddr, kaddr } from '../lib/index.ts';
import type { CallResult } from './target.ts';

/*
 * What a guest said, line by line as JSON, put together by what it is about.
 */

/** Sizes of what a function takes and gives, bytes, as the kernel's own types tell. */
export interface KernelModel {
  readonly args: readonly { readonly size: number; readonly struct: boolean }[];
  readonly ret: number;
}

export interface Site {
  readonly address: Kaddr;
  readonly bytes: Uint8Array;
}

/** What stands behind a site, and what its immediates point to. */
export interface Dump {
  readonly address: Kaddr;
  readonly bytes: Uint8Array;
  readonly pointees: ReadonlyMap<Kaddr, Uint8Array>;
}

export interface ProgramInfo {
  readonly entry: Kaddr;
  readonly runs: bigint;
  readonly misses: bigint;
}

/** What was said between `begin` and `end`, by tag. */
export interface CombinationAnswers {
  readonly sites: Map<string, Site>;
  /** null: the site called nothing. */
  readonly images: Map<string, Dump | null>;
  readonly memory: Map<string, Site>;
  readonly records: Map<string, Uint8Array>;
  readonly calls: Map<string, CallResult>;
  /** 0 or a negative errno, by name of the link. */
  readonly links: Map<string, number>;
  readonly infos: Map<string, ProgramInfo>;
  /** A command that failed, with what the verifier said. */
  error: string | undefined;
  log: string | undefined;
}

/** All of a boot. */
export interface Answers {
  readonly symbols: Map<string, Kaddr>;
  /** By `struct.field`, bytes; what this kernel does not have is not there. */
  readonly offsets: Map<string, number>;
  readonly models: Map<string, KernelModel>;
  readonly memory: Map<string, Site>;
  readonly combinations: Map<string, CombinationAnswers>;
  /** Whether the guest came to its end. */
  readonly done: boolean;
  /** Why it gave up before. */
  readonly broken: string | undefined;
}

type Line = Readonly<Record<string, unknown>>;

/**
 * Reads a guest's output. What is cut off at its end, as when a boot hangs, is left out.
 * @param file for messages
 * @throws InputError naming a line that is none
 */
export function readAnswers(text: string, file = 'guest output'): Answers {
  const answers = {
    symbols: new Map<string, Kaddr>(),
    offsets: new Map<string, number>(),
    models: new Map<string, KernelModel>(),
    memory: new Map<string, Site>(),
    combinations: new Map<string, CombinationAnswers>(),
    done: false,
    broken: undefined as string | undefined,
  };
  let current: CombinationAnswers | undefined;
  const lines = text.split('\n');
  lines.pop();
  for (const [i, raw] of lines.entries()) {
    const line = parse(raw, file, i + 1);
    switch (line['at']) {
      case 'begin':
        current = nothingYet();
        answers.combinations.set(String(line['name']), current);
        break;
      case 'end':
        current = undefined;
        break;
      case 'done':
        return { ...answers, done: true };
      case 'broken':
        answers.broken = String(line['why']);
        break;
      case 'symbol':
        if (line['times'] === 1) answers.symbols.set(String(line['name']), address(line['address']));
        break;
      case 'offset':
        if (Number(line['offset']) >= 0) {
          answers.offsets.set(`${line['struct']}.${line['field']}`, Number(line['offset']));
        }
        break;
      case 'model':
        if (line['args'] !== null)
          answers.models.set(String(line['function']), line as unknown as KernelModel);
        break;
      default:
        if (current !== undefined) take(current, line);
        else if (line['at'] === 'memory') answers.memory.set(String(line['tag']), site(line));
    }
  }
  return answers;
}

function nothingYet(): CombinationAnswers {
  return {
    sites: new Map(),
    images: new Map(),
    memory: new Map(),
    records: new Map(),
    calls: new Map(),
    links: new Map(),
    infos: new Map(),
    error: undefined,
    log: undefined,
  };
}

function take(current: CombinationAnswers, line: Line): void {
  const tag = String(line['tag']);
  switch (line['at']) {
    case 'site':
      current.sites.set(tag, site(line));
      break;
    case 'image':
      current.images.set(tag, line['address'] === null ? null : dump(line));
      break;
    case 'memory':
      current.memory.set(tag, site(line));
      break;
    case 'record':
      current.records.set(tag, bytes(line['bytes']));
      break;
    case 'call':
      current.calls.set(tag, {
        result: Number(line['result']),
        ...(line['retval'] === undefined ? {} : { retval: Number(line['retval']) }),
      });
      break;
    case 'link':
      current.links.set(tag, Number(line['error']));
      break;
    case 'info':
      current.infos.set(tag, {
        entry: address(line['entry']),
        runs: BigInt(String(line['runs'])),
        misses: BigInt(String(line['misses'])),
      });
      break;
    case 'log':
      current.log = String(line['text']);
      break;
    case 'error':
      current.error = `${line['command']} ${line['name']}: errno ${-Number(line['error'])}`;
  }
}

function dump(line: Line): Dump {
  const pointees = line['pointees'] as readonly Line[];
  return {
    ...site(line),
    pointees: new Map(pointees.map((pointee) => [address(pointee['address']), bytes(pointee['bytes'])])),
  };
}

const site = (line: Line): Site => ({ address: address(line['address']), bytes: bytes(line['bytes']) });
const address = (value: unknown): Kaddr => kaddr(BigInt(String(value)));
const bytes = (value: unknown): Uint8Array => fromHex(String(value)) ?? new Uint8Array();

function parse(raw: string, file: string, number: number): Line {
  try {
    const line: unknown = JSON.parse(raw);
    if (typeof line === 'object' && line !== null) return line as Line;
  } catch {
    // said below, with the place
  }
  throw new InputError(file, `line ${number}`, 'is no answer of our init program');
}
