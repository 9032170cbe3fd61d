import { once } from 'node:events';
import { fstatSync } from 'node:fs';
import process from 'node:process';
import { createInterface } from 'node:readline';
import { InputError } from '../lib/index.ts';
import { Exit } from './exit.ts';
import { Fields, isObject } from './fields.ts';

/** Answers are written in groups of so many: a write costs more than an answer. */
const GROUP = 256;

/**
 * A filter: one JSON object a line in, one answer a line out, in order. A line that cannot be used
 * gets `{"id":..,"error":".."}`, and the exit code at the end is 2; the other lines are still answered.
 */
export async function filterLines(answer: (request: Fields, id: unknown) => string): Promise<number> {
  // Reading a folder just ends, without a word.
  if (fstatSync(0).isDirectory())
    throw new InputError('standard input', undefined, 'is a folder; give lines');
  let exit: number = Exit.FINE;
  let number = 0;
  let pending: string[] = [];
  const flush = async (): Promise<void> => {
    if (pending.length === 0) return;
    const room = process.stdout.write(`${pending.join('\n')}\n`);
    pending = [];
    if (!room) await once(process.stdout, 'drain');
  };
  const lines = createInterface({ input: process.stdin, crlfDelay: Number.POSITIVE_INFINITY });
  for await (const text of lines) {
    number++;
    if (text.trim() === '') continue;
    let id: unknown = null;
    try {
      const request = parseLine(text);
      id = request.id();
      pending.push(answer(request, id));
    } catch (error) {
      if (!(error instanceof InputError)) throw error;
      exit = Exit.BAD_INPUT;
      pending.push(JSON.stringify({ id, error: `line ${number}: ${error.message}` }));
    }
    if (pending.length >= GROUP) await flush();
  }
  await flush();
  return exit;
}

function parseLine(text: string): Fields {
  let value: unknown;
  try {
    value = JSON.parse(text.replace(/^\ufeff/, ''));
  } catch {
    throw new InputError('request', undefined, 'not JSON; give one object a line');
  }
  if (!isObject(value)) throw new InputError('request', undefined, 'not an object; give one object a line');
  return new Fields(value);
}
