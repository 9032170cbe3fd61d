/* A case from JSON: every field checked, so that what comes out is a case that could have been generated. */

import { HelperPair } from '../../jit/index.ts';
import { InputError } from '../../lib/index.ts';
import {
  FAR_STACK_WORDS,
  type ImageCase,
  JUDGED_REVISIONS,
  KINDS,
  PLAIN_CONFIG,
  type Placing,
  type ProgramCase,
  programsOf,
  STACK_ARG_WORDS,
  type ValueModel,
} from './case.ts';
import { MAX_PROGRAMS } from './places.ts';
import { countWords, hasWords } from './words.ts';

const ROOMS: readonly Placing['room'][] = ['page', 'exact', 'short', 'none'];
const FAR: readonly Placing['far'][] = ['nothing', 'helper', 'program', 'original'];
const MAX_OFFSET = 4095;

/** @throws InputError naming the field */
export function parseImageCase(json: unknown): ImageCase {
  const one = new Reader('case', json);
  const registers = one.object('registers');
  const returns = one.object('returns');
  const placing = one.object('placing');
  const revision = one.oneOf('revision', JUDGED_REVISIONS);
  const v6 = hasWords(revision);
  const config = one.raw('config') === undefined ? undefined : one.object('config');
  const found: ImageCase = {
    revision,
    config:
      config === undefined
        ? PLAIN_CONFIG
        : {
            ibt: config.boolean('ibt'),
            rethunk: config.boolean('rethunk'),
            sls: config.boolean('sls'),
            endbr: config.boolean('endbr'),
            callDepth: config.boolean('callDepth'),
          },
    args: one.objects('args').map((arg) => valueModel(arg, v6 ? 16 : 8)),
    ret: one.raw('ret') === null ? null : valueModel(one.object('ret'), 8),
    flags: one.raw('flags') === null ? null : one.integer('flags', 0x7fff_ffff),
    fentry: one.objects('fentry').map(program),
    fmodRet: one.objects('fmodRet').map(program),
    fexit: one.objects('fexit').map(program),
    placing: {
      offset: placing.integer('offset', MAX_OFFSET),
      low: placing.boolean('low'),
      room: placing.oneOf('room', ROOMS),
      far: placing.oneOf('far', FAR),
    },
    registers: {
      args: registers.words('args', 6),
      saved: registers.words('saved', 6),
      rax: registers.word('rax'),
      // What was written down before there were words on the stack has none.
      stack:
        registers.raw('stack') === undefined
          ? Array.from({ length: STACK_ARG_WORDS }, () => 0n)
          : registers.words('stack', STACK_ARG_WORDS),
      stackWords: registers.integer('stackWords', FAR_STACK_WORDS),
      garbage: registers.word('garbage'),
    },
    returns: { original: returns.word('original'), body: returns.word('body') },
    statistics: one.boolean('statistics'),
    clock: one.word('clock'),
    retired: one.boolean('retired'),
    watched: one.boolean('watched'),
  };
  if (programsOf(found).length > MAX_PROGRAMS) {
    throw new InputError('case', undefined, `more than ${MAX_PROGRAMS} programs`);
  }
  const words = countWords(found).all;
  for (const kind of KINDS) {
    found[kind].forEach(({ writes }, i) => {
      if (writes === null || writes.word <= words) return;
      throw new InputError(
        `case.${kind}[${i}].writes.word`,
        undefined,
        `is behind the ${words} words of the arguments and the result`,
      );
    });
  }
  return found;
}

/** @param most bytes: structs by value have up to 16, in any number */
function valueModel(reader: Reader, most: 8 | 16): ValueModel {
  const sizeBytes = reader.integer('sizeBytes', most);
  if (most === 16 && sizeBytes === 0) throw reader.bad('sizeBytes', 'an integer from 1 to 16');
  if (most === 8 && ![1, 2, 4, 8].includes(sizeBytes)) throw reader.bad('sizeBytes', '1, 2, 4 or 8');
  return { sizeBytes, signed: reader.boolean('signed') };
}

function program(reader: Reader): ProgramCase {
  const writes = reader.raw('writes') === null ? null : reader.object('writes');
  return {
    sleepable: reader.boolean('sleepable'),
    jited: reader.boolean('jited'),
    kind: reader.raw('kind') === undefined ? HelperPair.RECUR : pairOf(reader.integer('kind', 2)),
    cookie: reader.raw('cookie') === undefined ? 0n : reader.word('cookie'),
    wantsIp: reader.boolean('wantsIp'),
    running: reader.boolean('running'),
    returns: reader.word('returns'),
    writes: writes === null ? null : { word: writes.integer('word', 16), value: writes.word('value') },
    calls: reader.boolean('calls'),
    faults: reader.boolean('faults'),
  };
}

function pairOf(number: number): HelperPair {
  return Object.values(HelperPair).find((pair) => pair === number) ?? HelperPair.RECUR;
}

/** An object of the JSON, and where it is. */
class Reader {
  readonly #path: string;
  readonly #fields: Readonly<Record<string, unknown>>;

  constructor(path: string, json: unknown) {
    if (typeof json !== 'object' || json === null || Array.isArray(json)) {
      throw new InputError(path, undefined, 'must be an object');
    }
    this.#path = path;
    this.#fields = json as Readonly<Record<string, unknown>>;
  }

  bad(field: string, wanted: string): InputError {
    return new InputError(`${this.#path}.${field}`, undefined, `must be ${wanted}`);
  }

  raw(field: string): unknown {
    return Object.hasOwn(this.#fields, field) ? this.#fields[field] : undefined;
  }

  object(field: string): Reader {
    return new Reader(`${this.#path}.${field}`, this.raw(field));
  }

  objects(field: string): Reader[] {
    const list = this.raw(field);
    if (!Array.isArray(list)) throw this.bad(field, 'a list');
    return list.map((item: unknown, i) => new Reader(`${this.#path}.${field}[${i}]`, item));
  }

  boolean(field: string): boolean {
    const value = this.raw(field);
    if (typeof value !== 'boolean') throw this.bad(field, 'true or false');
    return value;
  }

  integer(field: string, most: number): number {
    const value = this.raw(field);
    if (typeof value !== 'number' || !Number.isInteger(value) || value < 0 || value > most) {
      throw this.bad(field, `an integer from 0 to ${most}`);
    }
    return value;
  }

  oneOf<T extends string>(field: string, choices: readonly T[]): T {
    const value = this.raw(field);
    const found = choices.find((choice) => choice === value);
    if (found === undefined) throw this.bad(field, choices.join(' or '));
    return found;
  }

  /** A 64-bit value. */
  word(field: string): bigint {
    return this.#word(field, this.raw(field));
  }

  words(field: string, count: number): bigint[] {
    const list = this.raw(field);
    if (!Array.isArray(list) || list.length !== count) throw this.bad(field, `a list of ${count}`);
    return list.map((value: unknown, i) => this.#word(`${field}[${i}]`, value));
  }

  #word(field: string, value: unknown): bigint {
    if (typeof value !== 'string' || !/^0x[0-9a-f]{1,16}$/i.test(value)) {
      throw this.bad(field, 'a 64-bit value such as "0x1f"');
    }
    return BigInt(value);
  }
}
