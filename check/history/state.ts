/*
 * The whole state of a guest's kernel as one value, to compare before and after.
 */

import { type KernelError, toHex } from '../../lib/index.ts';
import { introspect, type Kernel, type KernelReport } from '../../tramp/index.ts';
import type { GuestFunction } from './guest.ts';

export interface KernelState extends KernelReport {
  /** The five bytes at each function's entry, by name. */
  readonly sites: Readonly<Record<string, string>>;
  /** Where ftrace says that each function's site calls. */
  readonly directs: Readonly<Record<string, bigint | undefined>>;
  /** Code of each image as it stands in memory, by name and address: names alone are not unique from v6.1 on. */
  readonly code: Readonly<Record<string, string>>;
}

export function stateOf(kernel: Kernel, functions: readonly GuestFunction[]): KernelState {
  const loaded = functions.filter(({ module }) => kernel.modules.includes(module));
  return {
    ...introspect(kernel),
    sites: Object.fromEntries(loaded.map(({ name, addr }) => [name, siteBytes(kernel, addr)])),
    directs: Object.fromEntries(loaded.map(({ name, addr }) => [name, kernel.ftrace.direct(addr)])),
    code: Object.fromEntries(
      [...kernel.images].map((im) => [`${im.ksym.name} at ${im.image}`, toHex(im.bytes())]),
    ),
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

/** The parts of two states that differ, by name and in words; empty when they are the same. */
export function stateDifference(
  before: KernelState,
  after: KernelState,
  ignore: readonly (keyof KernelState)[] = [],
): string {
  return (Object.keys(before) as (keyof KernelState)[])
    .filter((part) => !ignore.includes(part))
    .flatMap((part) => {
      const [was, is] = [text(before[part]), text(after[part])];
      return was === is ? [] : [`${part}: ${is}, was ${was}`];
    })
    .join('; ');
}

function text(value: unknown): string {
  return JSON.stringify(value, (_, inner) => (typeof inner === 'bigint' ? `0x${inner.toString(16)}` : inner));
}
