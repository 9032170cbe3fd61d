/*
 * The memory of a machine: a file in memory that the host and the child both map. The slots (control-block.ts)
 * come first, then a block for each piece of guest memory.
 */

import { closeSync, ftruncateSync } from 'node:fs';
import koffi from 'koffi';
import type { HostBlock } from '../engine.ts';
import { NR_SLOTS, SLOT_BYTES } from './control-block.ts';
import { mapShared, memfdCreate, type Pointer, punchHole, unmapShared } from './host.ts';

const SLOTS_BYTES = NR_SLOTS * SLOT_BYTES;

/** A part of the file. */
interface Extent {
  /** Where in the file, and where the host has it. */
  readonly offset: number;
  readonly pointer: Pointer;
  readonly sizeBytes: number;
}

export class NativeBlock implements HostBlock {
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** Where in the file. */
  readonly offset: number;
  readonly lanes: number;
  usedBytes: number;

  constructor(bytes: Uint8Array<ArrayBuffer>, offset: number, lanes: number, usedBytes: number) {
    this.bytes = bytes;
    this.offset = offset;
    this.lanes = lanes;
    this.usedBytes = usedBytes;
  }
}

export class SharedMemory {
  readonly fd: number;
  /** The host's address of the slots. */
  readonly slots: Pointer;
  readonly slotsBuffer: ArrayBuffer;
  #end: number = SLOTS_BYTES;
  /** Offsets of what was given back, by size. */
  readonly #free: Map<number, number[]> = new Map();
  /** Memory goes when no view of it is left: views of a closed machine are harmless. */
  readonly #collected: FinalizationRegistry<Extent>;
  #open: boolean = true;

  /** @throws InputError when the host refuses */
  constructor() {
    this.#collected = new FinalizationRegistry((extent) => this.#giveBack(extent));
    this.fd = memfdCreate('tramplab-guest');
    ftruncateSync(this.fd, SLOTS_BYTES);
    this.slots = mapShared(this.fd, 0, SLOTS_BYTES);
    this.slotsBuffer = this.#view({ offset: 0, pointer: this.slots, sizeBytes: SLOTS_BYTES });
  }

  /** Zeroed memory, whole pages. @throws InputError when the host refuses */
  alloc(sizeBytes: number, lanes: number, usedBytes: number): NativeBlock {
    const offset = this.#free.get(sizeBytes)?.pop() ?? this.#grow(sizeBytes);
    const pointer = mapShared(this.fd, offset, sizeBytes);
    const buffer = this.#view({ offset, pointer, sizeBytes });
    return new NativeBlock(new Uint8Array(buffer), offset, lanes, usedBytes);
  }

  #grow(sizeBytes: number): number {
    const offset = this.#end;
    ftruncateSync(this.fd, offset + sizeBytes);
    this.#end += sizeBytes;
    return offset;
  }

  #view(extent: Extent): ArrayBuffer {
    const buffer = koffi.view(extent.pointer, extent.sizeBytes);
    this.#collected.register(buffer, extent);
    return buffer;
  }

  #giveBack({ offset, pointer, sizeBytes }: Extent): void {
    unmapShared(pointer, sizeBytes);
    if (!this.#open) return;
    punchHole(this.fd, offset, sizeBytes);
    const free = this.#free.get(sizeBytes) ?? [];
    free.push(offset);
    this.#free.set(sizeBytes, free);
  }

  close(): void {
    if (!this.#open) return;
    this.#open = false;
    closeSync(this.fd);
  }
}
