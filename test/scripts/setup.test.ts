import { spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, it } from 'vitest';

interface Package {
  readonly version?: string;
  readonly integrity?: string;
  readonly optional?: boolean;
}
interface Lock {
  readonly packages: Readonly<Record<string, Package>>;
}
interface SetupScript {
  nodeIsRecent(version: string): boolean;
  isInstalled(lock: Lock, installed: Lock): boolean;
}

const root = fileURLToPath(new URL('../..', import.meta.url));
const script: SetupScript = await import(join(root, 'scripts', 'setup.mjs'));

it.each([
  ['18.20.4', false],
  ['20.18.9', false],
  ['20.19.0', true],
  ['20.20.2', true],
  ['22.0.0', true],
])('Node %s: %s', (version, recent) => {
  expect(script.nodeIsRecent(version)).toBe(recent);
});

describe('npm ci is due', () => {
  const one = { version: '1.0.0', integrity: 'sha512-aa' };
  const lock: Lock = {
    packages: {
      '': { version: '0.1.0' },
      'node_modules/one': one,
      'node_modules/for-windows': { version: '2.0.0', integrity: 'sha512-bb', optional: true },
    },
  };

  it.each([
    ['not: all there but a package for another platform', { 'node_modules/one': one }, true],
    ['when a package is missing', {}, false],
    ['when a version differs', { 'node_modules/one': { ...one, version: '1.0.1' } }, false],
    ['when the content differs', { 'node_modules/one': { ...one, integrity: 'sha512-cc' } }, false],
    ['when one is left over', { 'node_modules/one': one, 'node_modules/old': one }, false],
  ])('%s', (_, packages, installed) => {
    expect(script.isInstalled(lock, { packages })).toBe(installed);
  });
});

describe('as a process', () => {
  // As an installed package: the scripts and the dependencies, no lock file, no sources.
  const home = mkdtempSync(join(tmpdir(), 'tramplab-setup-'));
  cpSync(join(root, 'scripts'), join(home, 'scripts'), { recursive: true });
  symlinkSync(join(root, 'node_modules'), join(home, 'node_modules'));
  writeFileSync(join(home, 'package.json'), '{"type":"module"}');
  afterAll(() => rmSync(home, { recursive: true }));

  const setup = (env: Record<string, string>): { status: number | null; stdout: string; stderr: string } =>
    spawnSync(process.execPath, [join(home, 'scripts', 'setup.mjs')], {
      env: { ...process.env, ...env },
      encoding: 'utf8',
    });

  it('says nothing when nothing is to be done', () => {
    const own = join(root, '.cache', 'unicorn', 'libunicorn.so.2');
    const { TRAMPLAB_UNICORN: chosen } = process.env;
    const named = chosen || (existsSync(own) ? own : 'libunicorn.so.2');
    expect(setup({ TRAMPLAB_UNICORN: named })).toMatchObject({ status: 0, stdout: '', stderr: '' });
  });

  it.each([
    ['is not there', '/nowhere/libunicorn.so.2'],
    ['is not a library', join(root, 'package.json')],
    ['is another library', 'libm.so.6'],
  ])('refuses in one line a TRAMPLAB_UNICORN that %s', (_, named) => {
    const { status, stdout, stderr } = setup({ TRAMPLAB_UNICORN: named });
    expect([status, stdout]).toEqual([2, '']);
    expect(stderr).toMatch(/^setup: TRAMPLAB_UNICORN=[^\n]* cannot be used: [^\n]*\n$/);
  });
});
