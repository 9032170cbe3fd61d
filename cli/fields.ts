import { hex64, InputError, type Kaddr, kaddr } from '../lib/index.ts';

/** A JSON object from outside, nothing known of it yet. */
export type Json = Readonly<Record<string, unknown>>;

/** Reads a JSON object from outside field by field. Errors are InputErrors that name the field: `fentry[0].prog`. */
export class Fields {
  readonly #json: Json;
  /** What stands before a field's name in messages: empty, or `fentry[0].` */
  readonly #prefix: string;

  /** @param json checked to be an object */
  constructor(json: Json, prefix = '') {
    this.#json = json;
    this.#prefix = prefix;
  }

  /** What the field holds, unchecked. */
  raw(field: string): unknown {
    return Object.hasOwn(this.#json, field) ? this.#json[field] : undefined;
  }

  /** The request's id, to be echoed as it is: a text, null, or a number that is exact. */
  id(): string | number | null {
    const value = this.raw('id') ?? null;
    if (value === null || typeof value === 'string' || Number.isSafeInteger(value)) {
      return value as string | number | null;
    }
    throw this.#bad('id', value, 'a text or an integer that a double holds exactly');
  }

  /** The names there are. */
  names(): string[] {
    return Object.keys(this.#json);
  }

  /** A 64-bit address as a hex string. @param otherwise what a missing field means; none makes it an error */
  address(field: string, otherwise?: Kaddr): Kaddr {
    const value = this.raw(field);
    return value === undefined && otherwise !== undefined ? otherwise : this.#address(field, value);
  }

  /** As `address`; null and a missing field mean none. */
  addressOrNull(field: string): Kaddr | null {
    return (this.raw(field) ?? null) === null ? null : this.address(field);
  }

  /** As `address`; 0 and a missing field are address 0. */
  addressOrZero(field: string): Kaddr {
    const value = this.raw(field) ?? 0;
    return value === 0 ? kaddr(0) : this.address(field);
  }

  integer(field: string, otherwise?: number): number {
    const value = this.raw(field);
    if (value === undefined && otherwise !== undefined) return otherwise;
    if (typeof value !== 'number' || !Number.isInteger(value) || value < 0 || value > 0x7fff_ffff) {
      throw this.#bad(field, value, 'an integer from 0 to 2147483647');
    }
    return value;
  }

  /** A 32-bit number as a hex string. */
  word32(field: string): number {
    const value = this.address(field);
    if (value > 0xffff_ffffn) throw this.#bad(field, hex64(value), 'a number of 32 bits');
    return Number(value);
  }

  /** One of a few integers. */
  integerOf<T extends number>(field: string, choices: readonly T[], otherwise: T): T {
    const value = this.raw(field) ?? otherwise;
    const found = choices.find((choice) => choice === value);
    if (found === undefined) throw this.#bad(field, value, choices.join(' or '));
    return found;
  }

  /** A list of addresses; a missing one is empty. */
  addresses(field: string): Kaddr[] {
    return this.#list(field).map((value, i) => this.#address(`${field}[${i}]`, value));
  }

  /** A list of integers; a missing one is empty. */
  integers(field: string): number[] {
    return this.#list(field).map((value, i) => {
      if (typeof value === 'number' && Number.isInteger(value)) return value;
      throw this.#bad(`${field}[${i}]`, value, 'an integer');
    });
  }

  boolean(field: string, otherwise?: boolean): boolean {
    const value = this.raw(field);
    if (value === undefined && otherwise !== undefined) return otherwise;
    if (typeof value !== 'boolean') throw this.#bad(field, value, 'true or false');
    return value;
  }

  /** A switch as 0 and 1, or false and true; a missing one is off. */
  flag(field: string): boolean {
    const value = this.raw(field) ?? false;
    if (value === 0 || value === false) return false;
    if (value === 1 || value === true) return true;
    throw this.#bad(field, value, '0 or 1');
  }

  oneOf<T extends string>(field: string, choices: readonly T[]): T {
    const value = this.raw(field);
    const found = choices.find((choice) => choice === value);
    if (found === undefined) throw this.#bad(field, value, choices.join(' or '));
    return found;
  }

  text(field: string): string {
    const value = this.raw(field);
    if (typeof value !== 'string') throw this.#bad(field, value, 'a text');
    return value;
  }

  /** An object inside; a missing one is empty. */
  object(field: string): Fields {
    const value = this.raw(field) ?? {};
    if (!isObject(value)) throw this.#bad(field, value, 'an object');
    return new Fields(value, `${this.#prefix}${field}.`);
  }

  /** A list of objects; a missing one is empty. */
  objects(field: string): Fields[] {
    return this.#list(field).map((value, i) => {
      if (!isObject(value)) throw this.#bad(`${field}[${i}]`, value, 'an object');
      return new Fields(value, `${this.#prefix}${field}[${i}].`);
    });
  }

  #address(field: string, value: unknown): Kaddr {
    if (typeof value !== 'string' || !/^0x[0-9a-fA-F]{1,16}$/.test(value)) {
      throw this.#bad(field, value, 'an address such as "0xffffffff81000000"');
    }
    return kaddr(BigInt(value));
  }

  #list(field: string): readonly unknown[] {
    const value = this.raw(field) ?? [];
    if (!Array.isArray(value)) throw this.#bad(field, value, 'a list');
    return value;
  }

  #bad(field: string, value: unknown, wanted: string): InputError {
    const shown = value === undefined ? 'missing' : kindOf(value);
    return new InputError(`${this.#prefix}${field}`, undefined, `${shown}; wanted ${wanted}`);
  }
}

/** A value in messages; what holds other values is only named. */
function kindOf(value: unknown): string {
  if (Array.isArray(value)) return 'a list';
  return isObject(value) ? 'an object' : JSON.stringify(value).slice(0, 60);
}

export function isObject(value: unknown): value is Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** One JSON document, words as hex strings; a struct by value is longer than a word. */
export function stringify(document: unknown): string {
  const hex = (value: bigint): string => (value < 0n ? hex64(value) : `0x${value.toString(16)}`);
  return JSON.stringify(document, (_key, value: unknown) => (typeof value === 'bigint' ? hex(value) : value));
}
