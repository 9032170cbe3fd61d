import { describe, expect, it } from 'vitest';
import { newestKernel, parseArchives, parsePackages } from '../../conformance/debian.ts';

const SUM = '08e5b3f761379f17a6051731cafa03e97686049e2cc1b8bdccc5a910646e2d8e';

describe('what apt prints', () => {
  it('is read as archives', () => {
    const text = [
      'Reading package lists...',
      `'http://mirror/pool/s/seabios_1.16.2-1_all.deb' seabios_1.16.2-1_all.deb 162656 SHA256:${SUM}`,
      `'http://mirror/pool/q/qemu%2b1_amd64.deb' qemu-system-common_1%3a7.2+dfsg-7_amd64.deb 2189244 SHA256:${SUM}`,
      '',
    ].join('\n');
    expect(parseArchives(text)).toEqual([
      { package: 'seabios', file: 'seabios_1.16.2-1_all.deb', sizeBytes: 162656, sha256: SUM },
      {
        package: 'qemu-system-common',
        file: 'qemu-system-common_1%3a7.2+dfsg-7_amd64.deb',
        sizeBytes: 2189244,
        sha256: SUM,
      },
    ]);
  });

  it('gives no archive without a checksum that can be trusted', () => {
    expect(
      parseArchives("'http://m/a_1_all.deb' a_1_all.deb 5 MD5Sum:32c7c6938327d4e6b942a0071cc13a51\n"),
    ).toEqual([]);
    expect(parseArchives(`'http://m/a_1_all.deb' a_1_all.deb 5 SHA256:${SUM.slice(1)}\n`)).toEqual([]);
  });

  it('is read as names of packages, whatever the checksum, also without', () => {
    const text = `'http://m/a' libaio1_0.3.113-4_amd64.deb 13360 MD5Sum:00ff\n'http://m/b' libfdt1_1_amd64.deb 1 SHA256:${SUM}\n'http://m/c' libpng16-16_1.6_amd64.deb 277048 \n`;
    expect(parsePackages(text)).toEqual(['libaio1', 'libfdt1', 'libpng16-16']);
  });
});

describe('the newest kernel', () => {
  it('is found by numbers, not by letters', () => {
    const names = [
      'linux-image-6.1.0-9-cloud-amd64',
      'linux-image-6.1.0-56-cloud-amd64',
      'linux-image-6.1.0-7-cloud-amd64',
    ];
    expect(newestKernel(names, '6.1')).toBe('linux-image-6.1.0-56-cloud-amd64');
  });

  it('has its distribution in its name in one release and not in another', () => {
    const names = ['linux-image-6.12.9-cloud-amd64', 'linux-image-6.12.117+deb12-cloud-amd64'];
    expect(newestKernel(names, '6.12')).toBe('linux-image-6.12.117+deb12-cloud-amd64');
  });

  it('is a signed image and nothing beside it', () => {
    const names = [
      'linux-image-6.12-cloud-amd64',
      'linux-image-6.12.117+deb12-cloud-amd64-dbg',
      'linux-image-6.12.117+deb12-cloud-amd64-unsigned',
      'linux-image-6.12.117+deb12-amd64',
      'linux-image-6.1.0-56-amd64',
      'linux-image-6.1.0-56-rt-amd64',
    ];
    expect(newestKernel(names, '6.12')).toBeUndefined();
    expect(newestKernel(names, '6.1')).toBeUndefined();
  });
});
