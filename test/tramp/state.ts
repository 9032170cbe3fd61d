/*
 * The whole state of a guest's kernel as one value, to compare before and after; and the memory that
 * it has taken and not given back.
 */

import { vi } from 'vitest';
import { type KernelError, toHex } from '../../lib/index.ts';
import { introspect, type Kernel, type KernelReport } from '../../tramp/index.ts';
import type { GuestFunction } from './guest.ts';

export interface KernelState extends KernelReport {
  /** The five bytes at each function's entry, by name. */
  readonly sites: Readonly<Record<string, string>>;
  /** Where ftrace says that each function's site calls. */
  readonly directs: Readonly<Record<string, bigint | undefined>>;
  /** Code of each image as it stands in memory. */
  readonly code: Readonly<Record<string, string>>;
}

export function stateOf(kernel: Kernel, functions: readonly GuestFunction[]): KernelState {
  const loaded = functions.filter(({ module }) => kernel.modules.includes(module));
  return {
    ...introspect(kernel),
    sites: Object.fromEntries(loaded.map(({ name, addr }) => [name, siteBytes(kernel, addr)])),
    directs: Object.fromEntries(loaded.map(({ name, addr }) => [name, kernel.ftrace.direct(addr)])),
    code: Object.fromEntries([...kernel.images].map((im) => [im.ksym.name, toHex(im.bytes())])),
  };
}

export function siteBytes(kernel: Kernel, address: GuestFunction['addr']): string {
  return toHex(kernel.machine.memory.bytes(address, 5));
}

/** The error that an operation of the kernel ends with; undefined when it succeeds. */
export function errorOf(run: () => unknown): KernelError | undefined {
  try {
    run();
    return undefined;
  } catch (error) {
    if (!(error instanceof Error) || error.name !== 'KernelError') throw error;
    return error as KernelError;
  }
}

/** How many allocations of each kind are taken and not given back since the call. */
export function watchMemory({ machine }: Kernel): () => Readonly<Record<string, number>> {
  const { memory, percpu } = machine;
  const pairs = {
    kmalloc: [vi.spyOn(memory, 'kmalloc'), vi.spyOn(memory, 'kfree')],
    vmalloc: [vi.spyOn(memory, 'vmalloc'), vi.spyOn(memory, 'vfree')],
    text: [vi.spyOn(memory, 'allocText'), vi.spyOn(memory, 'freeText')],
    percpu: [vi.spyOn(percpu, 'alloc'), vi.spyOn(percpu, 'free')],
  } as const;
  return () =>
    Object.fromEntries(
      Object.entries(pairs).map(([kind, [taken, given]]) => [
        kind,
        taken.mock.results.filter(({ type }) => type === 'return').length - given.mock.results.length,
      ]),
    );
}
