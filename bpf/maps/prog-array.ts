/*
 * A prog array: programs that tail calls go to. Compiled indirect tail calls read max_entries and the pointers by
 * themselves; direct ones are patched when a slot changes, by whoever listens here.
 *
 * Kernel: kernel/bpf/arraymap.c, prog_array_map_ops
 */

import { addrAdd, Errno, type Kaddr, KernelError } from '../../lib/index.ts';
import type { BpfProg } from '../../tramp/index.ts';
import { ACCESS_FLAGS, BpfMap, demand, indexOf, keyOf, type MapHome, type MapSpec } from './map.ts';

const POINTER_BYTES = 8;

/** Told of a slot's program before and after it changes. Kernel: map_poke_run */
export type SlotListener = (slot: number, before: BpfProg | undefined, after: BpfProg | undefined) => void;

export class ProgArrayMap extends BpfMap {
  readonly listeners: Set<SlotListener> = new Set();
  readonly #slots: (BpfProg | undefined)[];
  /** What all programs in it must be. Kernel: array->owner */
  #owner: Pick<BpfProg, 'type' | 'jited'> | undefined;

  constructor(home: MapHome, spec: MapSpec) {
    demand(spec.keyBytes === 4 && spec.valueBytes === 4, spec, 'keys and values have 4 bytes each');
    demand(spec.maxEntries > 0, spec, 'no entries');
    demand((spec.flags & ~ACCESS_FLAGS) === 0, spec, `flags 0x${spec.flags.toString(16)}`);
    super(home, spec, spec.maxEntries * POINTER_BYTES);
    this.#slots = [];
  }

  at(slot: number): BpfProg | undefined {
    return this.#slots[slot];
  }

  /**
   * Whether a program may use it, as one that it holds or as one that calls out of it; the first decides.
   * Kernel: bpf_prog_array_compatible
   */
  takes({ type, jited }: Pick<BpfProg, 'type' | 'jited'>): boolean {
    this.#owner ??= { type, jited };
    return this.#owner.type === type && this.#owner.jited === jited;
  }

  /**
   * Puts a program into a slot, or takes it out.
   * @throws KernelError E2BIG, EINVAL for a program of another kind, ENOENT nothing to take out, EBUSY
   */
  set(slot: number, prog: BpfProg | undefined): void {
    const op = 'bpf_fd_array_map_update_elem';
    const { name, maxEntries } = this.spec;
    if (slot >= maxEntries)
      throw new KernelError('E2BIG', op, `${name} has ${maxEntries} slots, none is ${slot}`);
    if (prog !== undefined && !this.takes(prog)) {
      throw new KernelError('EINVAL', op, `${prog.name} is not like the programs that use ${name}`);
    }
    const before = this.#slots[slot];
    if (prog === undefined && before === undefined) {
      throw new KernelError('ENOENT', 'fd_array_map_delete_elem', `slot ${slot} of ${name} is empty`);
    }
    prog?.enterArray();
    prog?.get();
    this.#slots[slot] = prog;
    this.home.machine.memory.writeU64(this.#pointer(slot), prog?.address ?? 0n);
    for (const tell of this.listeners) tell(slot, before, prog);
    before?.leaveArray();
    before?.put();
  }

  #pointer(slot: number): Kaddr {
    return addrAdd(this.behind, slot * POINTER_BYTES);
  }

  override nextKey(key: Uint8Array | undefined): Uint8Array | number {
    const { maxEntries } = this.spec;
    const index = key === undefined ? maxEntries : indexOf(key);
    if (index >= maxEntries) return keyOf(0);
    return index === maxEntries - 1 ? -Errno.ENOENT : keyOf(index + 1);
  }

  /** Empties every slot. Kernel: bpf_fd_array_map_clear, when the last user's handle is closed */
  clear(): void {
    for (const [slot, prog] of this.#slots.entries()) if (prog !== undefined) this.set(slot, undefined);
  }
}
