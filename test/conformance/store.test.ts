import { createHash } from 'node:crypto';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Archive } from '../../conformance/debian.ts';
import { SILENT } from '../../conformance/progress.ts';
import { runCommand } from '../../conformance/run-command.ts';
import { isWhole, Store } from '../../conformance/store.ts';
import { Unavailable } from '../../conformance/unavailable.ts';
import { InputError } from '../../lib/index.ts';

let folder = '';
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'tramplab-store-'));
});
afterEach(() => rmSync(folder, { recursive: true }));

function archiveOf(name: string, bytes: Uint8Array): Archive {
  const sha256 = createHash('sha256').update(bytes).digest('hex');
  return { package: name, file: `${name}_1_all.deb`, sizeBytes: bytes.length, sha256 };
}

const update = async (): Promise<void> => undefined;

const hasDpkg = (await runCommand('dpkg-deb', ['--version'])).status === 0;

describe('an archive', () => {
  it('is whole only with the right size and checksum', async () => {
    const bytes = Buffer.from('an archive');
    const archive = archiveOf('a', bytes);
    const path = join(folder, archive.file);
    expect(await isWhole(path, archive)).toBe(false);
    writeFileSync(path, bytes);
    expect(await isWhole(path, archive)).toBe(true);
    writeFileSync(path, bytes.subarray(0, 5));
    expect(await isWhole(path, archive)).toBe(false);
    writeFileSync(path, 'an Archive');
    expect(await isWhole(path, archive)).toBe(false);
  });

  it('that comes damaged is said in one line, taken away, and asked for again', async () => {
    const bytes = Buffer.from('an archive');
    const archive = archiveOf('a', bytes);
    let asked = 0;
    const download = async (_: readonly string[], to: string): Promise<void> => {
      asked++;
      writeFileSync(join(to, archive.file), 'something else');
    };
    const store = new Store(folder, { download, update }, SILENT);
    const part = (): Promise<string> => store.part({ name: 'kernel', archives: async () => [archive] });
    await expect(part()).rejects.toThrow(InputError);
    await expect(part()).rejects.toThrow(
      /^a_1_all\.deb: came damaged, or there is a newer one; delete \S+kernel\.json/,
    );
    expect(asked).toBe(2);
    expect(existsSync(join(folder, 'archives', archive.file))).toBe(false);
    expect(existsSync(join(folder, 'kernel'))).toBe(false);
  });
});

describe.skipIf(!hasDpkg)('a part', () => {
  /** A package with two files in it. */
  async function built(name: string): Promise<Uint8Array> {
    const root = join(folder, `tree-${name}`);
    const made = await runCommand('sh', [
      '-c',
      `mkdir -p ${root}/DEBIAN ${root}/boot ${root}/lib && echo ${name} > ${root}/boot/${name} && echo x > ${root}/lib/${name} &&
       printf 'Package: ${name}\\nVersion: 1\\nArchitecture: all\\nMaintainer: nobody\\nDescription: test\\n' > ${root}/DEBIAN/control &&
       dpkg-deb --root-owner-group -b ${root} ${folder}/${name}.deb`,
    ]);
    expect(made.status, made.stderr).toBe(0);
    return readFileSync(join(folder, `${name}.deb`));
  }

  it('goes on with what an interrupted run left, and is fetched once', async () => {
    const contents = new Map([
      ['one', await built('one')],
      ['two', await built('two')],
    ]);
    const archives = [...contents].map(([name, bytes]) => archiveOf(name, bytes));
    const asked: string[][] = [];
    let broken = true;
    const download = async (names: readonly string[], to: string): Promise<void> => {
      asked.push([...names]);
      for (const name of names) {
        writeFileSync(join(to, `${name}_1_all.deb`), contents.get(name) ?? '');
        if (broken) throw new InputError('apt-get', undefined, 'the line is cut');
      }
    };
    const store = new Store(folder, { download, update }, SILENT);
    const part = (): Promise<string> =>
      store.part({ name: 'kernel', archives: async () => archives, only: 'boot' });
    await expect(part()).rejects.toThrow('the line is cut');
    broken = false;
    const root = await part();
    expect(readFileSync(join(root, 'boot', 'two'), 'utf8')).toBe('two\n');
    expect(existsSync(join(root, 'lib'))).toBe(false);
    await part();
    expect(asked).toEqual([['one', 'two'], ['two']]);
    expect(existsSync(join(folder, 'archives', 'one_1_all.deb'))).toBe(false);
  });

  it('is asked for anew when what the lists name is there no more', async () => {
    const bytes = await built('newer');
    let fresh = false;
    const downloader = {
      download: async (names: readonly string[], to: string): Promise<void> => {
        if (!fresh) throw new Unavailable('apt-get', `cannot download ${names.join()}`);
        for (const name of names) writeFileSync(join(to, `${name}_1_all.deb`), bytes);
      },
      update: async (): Promise<void> => {
        fresh = true;
      },
    };
    const archives = async (): Promise<Archive[]> => [archiveOf(fresh ? 'newer' : 'older', bytes)];
    const root = await new Store(folder, downloader, SILENT).part({ name: 'kernel', archives });
    expect(readFileSync(join(root, 'boot', 'newer'), 'utf8')).toBe('newer\n');
  });
});
