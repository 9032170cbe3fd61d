import { type ErrnoName, KernelError } from '../lib/index.ts';

/** A place where the kernel can fail. */
export type FailPoint =
  | 'alloc-trampoline'
  | 'alloc-ops'
  | 'alloc-progs'
  | 'size'
  | 'alloc-im'
  | 'charge'
  | 'alloc-image'
  | 'percpu-ref'
  | 'emit'
  | 'protect'
  | 'filter'
  | 'register'
  | 'modify'
  | 'ftrace-hash'
  | 'unregister'
  | 'poke';

/**
 * The errno of each, in the order in which an attach meets them. Those that not every revision passes:
 * `alloc-ops` and `filter` (v6.1 on, where ftrace has the site), `size` and `protect` (v6.12).
 */
export const FAIL_POINTS: Readonly<Record<FailPoint, ErrnoName>> = {
  'alloc-trampoline': 'ENOMEM',
  'alloc-ops': 'ENOMEM',
  'alloc-progs': 'ENOMEM',
  size: 'EFAULT',
  'alloc-im': 'ENOMEM',
  charge: 'EPERM',
  'alloc-image': 'ENOMEM',
  'percpu-ref': 'ENOMEM',
  emit: 'EFAULT',
  protect: 'EINVAL',
  filter: 'ENOMEM',
  register: 'EBUSY',
  modify: 'ENODEV',
  'ftrace-hash': 'ENOMEM',
  unregister: 'ENODEV',
  poke: 'EBUSY',
};

/** Makes chosen places fail once. Kernel: fault injection, lib/fault-inject.c */
export class FailPoints {
  readonly #armed = new Map<FailPoint, number>();

  /** The `nth` time from now (1 is the next) that this place is passed, it fails. */
  arm(point: FailPoint, nth: number = 1): void {
    this.#armed.set(point, nth);
  }

  disarm(): void {
    this.#armed.clear();
  }

  /** @throws KernelError when this is the time */
  pass(point: FailPoint): void {
    const left = this.#armed.get(point);
    if (left === undefined) return;
    if (left > 1) {
      this.#armed.set(point, left - 1);
      return;
    }
    this.#armed.delete(point);
    throw new KernelError(FAIL_POINTS[point], point, 'injected failure');
  }
}
