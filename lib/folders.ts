import { mkdirSync, statSync } from 'node:fs';
import { dirname } from 'node:path';
import { InputError } from './errors.ts';

/**
 * Makes a folder and those above it that are missing; one that is there stays as it is. One at a time, because
 * Node's own recursive mode tries for ever where a file system refuses new folders as missing ones: /proc does.
 * @throws InputError naming the folder that cannot be made
 */
export function makeFolders(path: string): void {
  const code = refusal(path);
  if (code === undefined) return;
  const parent = dirname(path);
  if (code === 'ENOENT' && parent !== path && !isThere(parent)) {
    makeFolders(parent);
    makeFolders(path);
    return;
  }
  const why = code === 'EEXIST' ? 'is there already, and is no folder' : `cannot be made (${code})`;
  throw new InputError(path, undefined, `${why}; name another folder`);
}

/** Makes one folder; gives the system's code where there is none afterwards. */
function refusal(path: string): string | undefined {
  try {
    mkdirSync(path);
    return undefined;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === undefined) throw error;
    return code === 'EEXIST' && statSync(path, { throwIfNoEntry: false })?.isDirectory() ? undefined : code;
  }
}

function isThere(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false }) !== undefined;
}
