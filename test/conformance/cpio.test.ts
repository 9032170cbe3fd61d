import { describe, expect, it } from 'vitest';
import { cpio } from '../../conformance/cpio.ts';

interface Entry {
  readonly name: string;
  readonly mode: number;
  readonly text: string;
}

/** Reads an archive as the kernel does: header of 110 characters, name, contents, each up to a multiple of 4. */
function unpack(archive: Uint8Array): Entry[] {
  const buffer = Buffer.from(archive);
  const entries: Entry[] = [];
  for (let at = 0; at < buffer.length; ) {
    const header = buffer.toString('latin1', at, at + 110);
    expect(header.slice(0, 6)).toBe('070701');
    const field = (index: number): number => Number.parseInt(header.slice(6 + 8 * index, 14 + 8 * index), 16);
    const nameAt = at + 110;
    const name = buffer.toString('latin1', nameAt, nameAt + field(11) - 1);
    expect(buffer[nameAt + field(11) - 1]).toBe(0);
    const contentsAt = Math.ceil((nameAt + field(11)) / 4) * 4;
    entries.push({
      name,
      mode: field(1),
      text: buffer.toString('latin1', contentsAt, contentsAt + field(6)),
    });
    at = Math.ceil((contentsAt + field(6)) / 4) * 4;
  }
  return entries;
}

describe('cpio', () => {
  it('packs folders, files and programs, and ends with the trailer', () => {
    const archive = cpio([
      { name: 'proc' },
      { name: 'file', bytes: Buffer.from('hello') },
      { name: 'init', bytes: Buffer.from('\u007fELF'), executable: true },
    ]);
    expect(archive.length % 4).toBe(0);
    expect(unpack(archive)).toEqual([
      { name: 'proc', mode: 0o40755, text: '' },
      { name: 'file', mode: 0o100644, text: 'hello' },
      { name: 'init', mode: 0o100755, text: '\u007fELF' },
      { name: 'TRAILER!!!', mode: 0, text: '' },
    ]);
  });

  it('keeps names and contents of every length apart', () => {
    for (let length = 0; length < 9; length++) {
      const name = 'n'.repeat(length + 1);
      const [entry] = unpack(cpio([{ name, bytes: Buffer.from('c'.repeat(length)) }]));
      expect(entry).toEqual({ name, mode: 0o100644, text: 'c'.repeat(length) });
    }
  });
});
