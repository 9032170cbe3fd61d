import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { boot } from '../../conformance/boot.ts';
import { InputError } from '../../lib/index.ts';

let folder = '';
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'tramplab-boot-'));
});
afterEach(() => rmSync(folder, { recursive: true }));

/** A boot under a program of ours in place of qemu: `$output` and `$console` are the files it shall write. */
function bootUnder(script: string): Promise<string> {
  const command = join(folder, 'qemu');
  const files =
    'for word; do case $word in file:*output) output=$(expr "$word" : "file:\\(.*\\)");; file:*console) console=$(expr "$word" : "file:\\(.*\\)");; esac; done';
  writeFileSync(command, `#!/bin/sh\n${files}\n${script}\n`, { mode: 0o755 });
  return boot(
    { command, args: [], env: {} },
    {
      image: 'vmlinuz',
      initrd: new Uint8Array(),
      cpu: undefined,
      kaslr: false,
      append: '',
      patience: 1,
      folder: join(folder, 'runs'),
      watch: () => undefined,
    },
  );
}

describe('a boot', () => {
  it('gives what the guest said, and leaves no file behind', async () => {
    expect(await bootUnder(`echo '{"at":"done"}' > $output`)).toBe('{"at":"done"}\n');
    expect(readdirSync(join(folder, 'runs'))).toEqual([]);
  });

  it('that hangs is ended, and its log quoted', async () => {
    const hanging = bootUnder('echo "[ 0.1] waiting for a device" > $console; exec sleep 60');
    await expect(hanging).rejects.toThrow(
      'qemu: the kernel did not end within 1 s; its log: [ 0.1] waiting for a device',
    );
  });

  it('that panics is told by the panic', async () => {
    const panicking = bootUnder(
      'printf "Kernel panic - not syncing: no init\\r\\nRebooting\\r\\n" > $console',
    );
    await expect(panicking).rejects.toThrow(
      'stopped before its end; its log: Kernel panic - not syncing: no init',
    );
  });

  it('under a qemu that fails says why, without its warnings', async () => {
    const failing = bootUnder('echo "qemu: no such CPU" >&2; echo "qemu: warning: slow" >&2; exit 1');
    await expect(failing).rejects.toThrow(InputError);
    await expect(failing).rejects.toThrow('qemu: ended with 1: qemu: no such CPU');
  });
});
