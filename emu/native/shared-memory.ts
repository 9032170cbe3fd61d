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

/** The file, and what of it can be used again. */
interface SharedFile {
  readonly fd: number;
  /** Offsets of what was given back, by size. */
  readonly free: Map<number, number[]>;
  open: boolean;
}

/** A part of the file. */
interface Extent {
  readonly file: SharedFile;
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

/**
 * Memory goes when no view of it is left: views of a closed machine are harmless. One registry for all
 * machines: one that belonged to a machine would be collected together with it, and forget what is left.
 */
const collected: FinalizationRegistry<Extent> = new FinalizationRegistry(giveBack);

function giveBack({ file, offset, pointer, sizeBytes }: Extent): void {
  unmapShared(pointer, sizeBytes);
  if (!file.open) return;
  punchHole(file.fd, offset, sizeBytes);
  const free = file.free.get(sizeBytes) ?? [];
  free.push(offset);
  file.free.set(sizeBytes, free);
}

export class SharedMemory {
  readonly fd: number;
  /** The host's address of the slots. */
  readonly slots: Pointer;
  readonly slotsBuffer: ArrayBuffer;
  #end: number = SLOTS_BYTES;
  readonly #file: SharedFile;

  /** @throws InputError when the host refuses */
  constructor() {
    this.fd = memfdCreate('tramplab-guest');
    this.#file = { fd: this.fd, free: new Map(), open: true };
    ftruncateSync(this.fd, SLOTS_BYTES);
    this.slots = mapShared(this.fd, 0, SLOTS_BYTES);
    this.slotsBuffer = this.#view(0, this.slots, SLOTS_BYTES);
  }

  /** Zeroed memory, whole pages. @throws InputError when the host refuses */
  alloc(sizeBytes: number, lanes: number, usedBytes: number): NativeBlock {
    const offset = this.#file.free.get(sizeBytes)?.pop() ?? this.#grow(sizeBytes);
    const pointer = mapShared(this.fd, offset, sizeBytes);
    const buffer = this.#view(offset, pointer, sizeBytes);
    return new NativeBlock(new Uint8Array(buffer), offset, lanes, usedBytes);
  }

  #grow(sizeBytes: number): number {
    const offset = this.#end;
    ftruncateSync(this.fd, offset + sizeBytes);
    this.#end += sizeBytes;
    return offset;
  }

  #view(offset: number, pointer: Pointer, sizeBytes: number): ArrayBuffer {
    const buffer = koffi.view(pointer, sizeBytes);
    collected.register(buffer, { file: this.#file, offset, pointer, sizeBytes });
    return buffer;
  }

  close(): void {
    if (!this.#file.open) return;
    this.#file.open = false;
    closeSync(this.fd);
  }
}
