import { Bug, InputError } from '../lib/index.ts';
import type { BpfProg } from './prog.ts';

/**
 * A map of programs that others end in by tail calls. While a program is in one it cannot be replaced by a
 * freplace program, and while it is replaced it cannot be put into one: a loop could come of it that nobody
 * counts.
 *
 * Kernel: BPF_MAP_TYPE_PROG_ARRAY, kernel/bpf/arraymap.c
 */
export class ProgArray {
  readonly #slots: (BpfProg | undefined)[];

  constructor(entries: number) {
    this.#slots = Array.from({ length: entries });
  }

  get(index: number): BpfProg | undefined {
    return this.#slots[index];
  }

  /**
   * Puts a program into a slot, in place of what is there.
   * @throws KernelError EBUSY while the program is replaced; InputError for a slot that there is not
   * Kernel: bpf_fd_array_map_update_elem
   */
  set(index: number, prog: BpfProg | undefined): void {
    if (!Number.isInteger(index) || index < 0 || index >= this.#slots.length) {
      throw new InputError('prog array', undefined, `no slot ${index}; there are ${this.#slots.length}`);
    }
    if (prog?.references === 0) throw new Bug(`program ${prog.name} is gone`);
    prog?.enterArray();
    prog?.get();
    const old = this.#slots[index];
    this.#slots[index] = prog;
    old?.leaveArray();
    old?.put();
  }

  /** Empties it. Kernel: bpf_fd_array_map_clear */
  clear(): void {
    for (const index of this.#slots.keys()) this.set(index, undefined);
  }
}
