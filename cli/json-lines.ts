import process from 'node:process';
import { createInterface } from 'node:readline';
import { hex64, InputError, type Kaddr, kaddr } from '../lib/index.ts';
import { Exit } from './exit.ts';

/** A JSON object from outside, nothing known of it yet. */
export type Json = Readonly<Record<string, unknown>>;

/**
 * A filter: one JSON object a line in, one answer a line out, in order. A line that cannot be used
 * gets `{"id":..,"error":".."}`, and the exit code at the end is 2; the other lines are still answered.
 */
export async function filterLines(answer: (request: Json) => string): Promise<number> {
  let exit: number = Exit.FINE;
  let number = 0;
  let pending: string[] = [];
  const flush = (): void => {
    if (pending.length > 0) process.stdout.write(`${pending.join('\n')}\n`);
    pending = [];
  };
  for await (const text of createInterface({ input: process.stdin, crlfDelay: Number.POSITIVE_INFINITY })) {
    number++;
    if (text.trim() === '') continue;
    let id: unknown = null;
    try {
      const request = parseLine(text);
      id = request['id'] ?? null;
      pending.push(answer(request));
    } catch (error) {
      if (!(error instanceof InputError)) throw error;
      exit = Exit.BAD_INPUT;
      pending.push(JSON.stringify({ id, error: `line ${number}: ${error.message}` }));
    }
    if (pending.length >= 256) flush();
  }
  flush();
  return exit;
}

function parseLine(text: string): Json {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw new InputError('request', undefined, 'not JSON; give one object a line');
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new InputError('request', undefined, 'not an object; give one object a line');
  }
  return value as Json;
}

// -- fields -------------------------------------------------------------------------------------

function bad(field: string, value: unknown, wanted: string): InputError {
  const shown = value === undefined ? 'missing' : (JSON.stringify(value) ?? String(value)).slice(0, 60);
  return new InputError(field, undefined, `${shown}; wanted ${wanted}`);
}

/** A 64-bit address as a hex string. @param otherwise what a missing field means; none makes it an error */
export function address(from: Json, field: string, otherwise?: Kaddr): Kaddr {
  const value = from[field];
  if (value === undefined && otherwise !== undefined) return otherwise;
  if (typeof value !== 'string' || !/^0x[0-9a-fA-F]{1,16}$/.test(value)) {
    throw bad(field, value, 'an address such as "0xffffffff81000000"');
  }
  return kaddr(BigInt(value));
}

/** As `address`; null and a missing field mean none. */
export function addressOrNull(from: Json, field: string): Kaddr | null {
  return from[field] === null || from[field] === undefined ? null : address(from, field);
}

export function integer(from: Json, field: string, otherwise?: number): number {
  const value = from[field];
  if (value === undefined && otherwise !== undefined) return otherwise;
  if (typeof value !== 'number' || !Number.isInteger(value) || value < 0 || value > 0x7fff_ffff) {
    throw bad(field, value, 'an integer from 0 to 2147483647');
  }
  return value;
}

export function boolean(from: Json, field: string, otherwise?: boolean): boolean {
  const value = from[field];
  if (value === undefined && otherwise !== undefined) return otherwise;
  if (typeof value !== 'boolean') throw bad(field, value, 'true or false');
  return value;
}

export function oneOf<T extends string>(from: Json, field: string, choices: readonly T[]): T {
  const value = from[field];
  const found = choices.find((choice) => choice === value);
  if (found === undefined) throw bad(field, value, choices.join(' or '));
  return found;
}

export function text(from: Json, field: string): string {
  const value = from[field];
  if (typeof value !== 'string') throw bad(field, value, 'a text');
  return value;
}

/** A missing list is empty. */
export function list(from: Json, field: string): readonly unknown[] {
  const value = from[field] ?? [];
  if (!Array.isArray(value)) throw bad(field, value, 'a list');
  return value;
}

/** A missing object is empty. */
export function object(value: unknown, field: string): Json {
  if (value === undefined) return {};
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw bad(field, value, 'an object');
  return value as Json;
}

/** One JSON document, 64-bit values as hex strings. */
export function stringify(document: unknown): string {
  return JSON.stringify(document, (_key, value: unknown) =>
    typeof value === 'bigint' ? hex64(value) : value,
  );
}
