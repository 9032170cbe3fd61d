import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { loadUnicornJs } from '../../emu/unicorn-js/package.ts';

const given = process.env['TRAMPLAB_UNICORN'];
let folder: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'tramplab-'));
});

afterEach(() => {
  delete process.env['TRAMPLAB_UNICORN_JS'];
  if (given === undefined) delete process.env['TRAMPLAB_UNICORN'];
  else process.env['TRAMPLAB_UNICORN'] = given;
  rmSync(folder, { recursive: true });
});

test.each([
  ['that does not exist', undefined],
  ['that is no library', 'not an ELF file'],
])('TRAMPLAB_UNICORN names a file %s: one clear line', async (_, content) => {
  const file = join(folder, 'libunicorn.so.2');
  if (content !== undefined) writeFileSync(file, content);
  process.env['TRAMPLAB_UNICORN'] = file;
  // The library is loaded once per instance of the module.
  vi.resetModules();
  const { loadUnicorn } = await import('../../emu/unicorn/library.ts');
  expect(loadUnicorn).toThrow(/^TRAMPLAB_UNICORN: .*libunicorn\.so\.2 cannot be loaded: [^\n]+$/);
  if (given === undefined) delete process.env['TRAMPLAB_UNICORN'];
  else process.env['TRAMPLAB_UNICORN'] = given;
  expect(loadUnicorn().version).toMatch(/^2\./);
});

test('TRAMPLAB_UNICORN_JS names a file that cannot be used: one clear line', async () => {
  process.env['TRAMPLAB_UNICORN_JS'] = join(folder, 'missing.mjs');
  await expect(loadUnicornJs()).rejects.toThrow(/^unicorn\.js: .*missing\.mjs cannot be loaded: install/);
  const empty = join(folder, 'empty.mjs');
  writeFileSync(empty, 'export const nothing = 0;');
  process.env['TRAMPLAB_UNICORN_JS'] = empty;
  await expect(loadUnicornJs()).rejects.toThrow(/exports no MUnicorn/);
});

test('TRAMPLAB_UNICORN_JS names a factory: it is taken, in each form bundlers export it', async () => {
  const forms = ['export default f;', 'export const MUnicorn = f;', 'export default { MUnicorn: f };'];
  for (const [i, form] of forms.entries()) {
    const file = join(folder, `factory${i}.mjs`);
    writeFileSync(file, `const f = async () => ({ Unicorn: class {} });\n${form}`);
    process.env['TRAMPLAB_UNICORN_JS'] = file;
    const factory = await loadUnicornJs();
    expect(typeof (await factory()).Unicorn).toBe('function');
  }
});
