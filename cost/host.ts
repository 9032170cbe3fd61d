import { arch, cpus, platform, release } from 'node:os';
import process from 'node:process';

/** Where figures were measured. Counts do not depend on it, times do. */
export interface Host {
  readonly cpu: string;
  readonly cores: number;
  readonly system: string;
  readonly node: string;
  /** The emulator behind the counts. */
  readonly emulator: string;
}

export function describeHost(emulator: string): Host {
  const processors = cpus();
  return {
    cpu: processors[0]?.model.trim() ?? 'unknown',
    cores: processors.length,
    system: `${platform()} ${release()} ${arch()}`,
    node: process.version,
    emulator,
  };
}
