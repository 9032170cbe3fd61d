import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { InputError, makeFolders } from '../lib/index.ts';

/** Writes a file whole or not at all, whenever this process is killed; makes its folder. @throws InputError when it cannot */
export function writeWhole(path: string, text: string): void {
  const unfinished = `${path}.unfinished`;
  makeFolders(dirname(path));
  const write = (): void => {
    writeFileSync(unfinished, text);
    renameSync(unfinished, path);
  };
  // Its folder is there: what is missing is a file system that takes new files.
  attempt(path, write, 'cannot be made there; name another folder');
}

/** Text of a file. @throws InputError when it cannot be read */
export function readWhole(path: string): string {
  return attempt(path, () => readFileSync(path, 'utf8'));
}

/** What a JSON file holds. @throws InputError when it cannot be read or is no JSON */
export function readJson(path: string): unknown {
  const text = readWhole(path);
  try {
    return JSON.parse(text);
  } catch {
    throw new InputError(path, undefined, 'is no JSON');
  }
}

/** What the system refuses, as an InputError naming the file. @param missing what it means that there is no such file */
export function attempt<T>(path: string, operation: () => T, missing: string = 'is not there'): T {
  try {
    return operation();
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === undefined) throw error;
    throw new InputError(
      path,
      undefined,
      code === 'ENOENT' ? missing : (REFUSALS[code] ?? `cannot be used (${code})`),
    );
  }
}

const REFUSALS: Readonly<Record<string, string>> = {
  EACCES: 'may not be used by you',
  EISDIR: 'is a folder',
  ENOTDIR: 'is no folder',
  ENOSPC: 'does not fit: no space left',
  EROFS: 'cannot be written: the file system is read-only',
};
