import type { KernelName } from './combination.ts';

/*
 * What apt prints, read: archives with their checksums, names of kernels.
 */

/** An archive that a part is unpacked from. */
export interface Archive {
  readonly package: string;
  /** Its file's name. */
  readonly file: string;
  readonly sizeBytes: number;
  /** Lower-case hex. */
  readonly sha256: string;
}

/**
 * The archives in what `apt-get download --print-uris` prints: 'address' file size SHA256:checksum.
 * Lines of another form are passed over; apt prints what it is doing among them.
 */
export function parseArchives(text: string): Archive[] {
  const lines = text.matchAll(/^'[^']*' (\S+) (\d+) SHA256:([0-9a-f]{64})$/gm);
  return [...lines].map(([, file = '', size, sha256 = '']) => ({
    package: packageOf(file),
    file,
    sizeBytes: Number(size),
    sha256,
  }));
}

/** The names of packages in what `apt-get install --print-uris` prints: some lines come without a checksum. */
export function parsePackages(text: string): string[] {
  return [...text.matchAll(/^'[^']*' (\S+\.deb) \d+ /gm)].map(([, file = '']) => packageOf(file));
}

/** name_version_architecture.deb */
const packageOf = (file: string): string => file.slice(0, file.indexOf('_'));

/** Debian's kernels for virtual machines: the versions before the last part are of one upstream version. */
const KERNEL_PACKAGE: Readonly<Record<KernelName, RegExp>> = {
  '6.1': /^linux-image-6\.1\.[\d.]+-\d+-cloud-amd64$/,
  '6.12': /^linux-image-6\.12\.\d+(\+deb\d+(\+\d+)?)?-cloud-amd64$/,
};

/** The newest kernel package among names; undefined when there is none. */
export function newestKernel(names: readonly string[], kernel: KernelName): string | undefined {
  const found = names.filter((name) => KERNEL_PACKAGE[kernel].test(name));
  return found.sort(byNumbers).at(-1);
}

/** Orders names by the numbers in them, which count as numbers. */
function byNumbers(a: string, b: string): number {
  const [x, y] = [a, b].map((name) => (name.match(/\d+/g) ?? []).map(Number)) as [number[], number[]];
  for (let i = 0; i < Math.max(x.length, y.length); i++) {
    const difference = (x[i] ?? 0) - (y[i] ?? 0);
    if (difference !== 0) return difference;
  }
  return 0;
}
