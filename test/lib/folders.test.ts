import { mkdtempSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { InputError, makeFolders } from '../../lib/index.ts';

const root = mkdtempSync(join(tmpdir(), 'tramplab-folders-'));
afterAll(() => rmSync(root, { recursive: true, force: true }));

describe('makeFolders', () => {
  test('makes what is missing, and leaves what is there', () => {
    const deep = join(root, 'a', 'b', 'c');
    makeFolders(deep);
    writeFileSync(join(deep, 'file'), 'kept');
    makeFolders(deep);
    makeFolders(`${deep}/../d/`);
    expect(statSync(join(root, 'a', 'b', 'd')).isDirectory()).toBe(true);
    expect(statSync(join(deep, 'file')).size).toBe(4);
  });

  test('takes a link to a folder for one', () => {
    const link = join(root, 'link');
    symlinkSync(root, link);
    makeFolders(join(link, 'behind'));
    expect(statSync(join(root, 'behind')).isDirectory()).toBe(true);
  });

  const file = join(root, 'file');
  writeFileSync(file, '');
  const nowhere = join(root, 'nowhere');
  symlinkSync(join(root, 'gone'), nowhere);

  test.each([
    ['a file', file, `${file}: is there already, and is no folder; name another folder`],
    ['a link to nothing', nowhere, `${nowhere}: is there already, and is no folder; name another folder`],
    ['below a file', join(file, 'x'), `${file}/x: cannot be made (ENOTDIR); name another folder`],
    ['/proc', '/proc/x/y', '/proc/x: cannot be made (ENOENT); name another folder'],
    ['no name', '', ': cannot be made (ENOENT); name another folder'],
  ])('refuses what cannot be one: %s', (_, path, message) => {
    expect(() => makeFolders(path)).toThrow(InputError);
    expect(() => makeFolders(path)).toThrow(message);
  });
});
