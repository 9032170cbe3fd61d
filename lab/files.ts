import { readFileSync, statSync } from 'node:fs';
import { InputError } from '../lib/index.ts';

/** What is wrong with a file, in words, by the system's error code. */
const REASONS: Readonly<Record<string, string>> = {
  ENOENT: 'no such file',
  EISDIR: 'is a folder; give a file',
};

/** A whole file. @throws InputError why it cannot be read */
export function readBytes(file: string): Uint8Array {
  if (file === '') throw new InputError('file', undefined, 'its name is empty');
  try {
    // Some devices never end.
    if (statSync(file).isCharacterDevice()) throw new InputError(file, undefined, 'is a device; give a file');
    return readFileSync(file);
  } catch (error) {
    if (error instanceof InputError) throw error;
    const code = error instanceof Error && 'code' in error ? String(error.code) : String(error);
    throw new InputError(file, undefined, REASONS[code] ?? `cannot be read (${code})`);
  }
}

/** As `readBytes`, as UTF-8 text. */
export function readText(file: string): string {
  return new TextDecoder().decode(readBytes(file));
}
