/*
 * Where images are put.
 *
 *   up to v6.1   a page each, written, then made read-only and executable
 *   v6.12        so many chunks of a pack that images and programs share:
 *
 *     pack, 2 MiB, executable     |  image 1  | image 2 |int3 |image 3|int3 ...
 *     chunks of 64 bytes           0 1 2 3 4 5 6 7 8 ...
 *
 *                An image is written elsewhere, and copied in. What is free is int3.
 */

import type { Machine } from '../emu/index.ts';
import { addrAdd, Bug, hex64, type Kaddr } from '../lib/index.ts';
import { type KernelBugs, NO_BUGS } from './bugs.ts';

/** Room of an image, bytes, where each has a page; the most that one may need where not. Kernel: PAGE_SIZE */
export const IMAGE_BYTES = 4096;

export interface ImageMemory {
  /** Takes room for an image, all int3. @throws KernelError ENOMEM */
  alloc(sizeBytes: number, name: string): Kaddr;
  free(image: Kaddr): void;
  /** What was freed last at an address in memory that others still use; undefined where nothing was. */
  freedAt(address: Kaddr): { readonly symbol: string; readonly offset: number } | undefined;
}

/** Kernel: bpf_jit_alloc_exec_page (v5), bpf_jit_alloc_exec (v6.1) */
export class PageMemory implements ImageMemory {
  readonly #machine: Machine;

  constructor(machine: Machine) {
    this.#machine = machine;
  }

  alloc(sizeBytes: number, name: string): Kaddr {
    return this.#machine.memory.allocText(sizeBytes, name);
  }

  free(image: Kaddr): void {
    this.#machine.memory.freeText(image);
  }

  /** A page that is freed tells it by itself. */
  freedAt(): undefined {
    return undefined;
  }
}

/** Kernel: BPF_PROG_PACK_SIZE on a machine with one memory node */
const PACK_BYTES = 2 << 20;
/** Kernel: BPF_PROG_CHUNK_SIZE */
export const CHUNK_BYTES = 64;
const CHUNKS = PACK_BYTES / CHUNK_BYTES;
const INT3 = 0xcc;

/** What lies in a chunk, or lay there. */
interface Piece {
  readonly name: string;
  readonly first: number;
  readonly chunks: number;
  readonly live: boolean;
}

/** Kernel: struct bpf_prog_pack */
class Pack {
  readonly start: Kaddr;
  /** By chunk. */
  readonly pieces: (Piece | undefined)[] = new Array<Piece | undefined>(CHUNKS);
  #live = 0;

  constructor(start: Kaddr) {
    this.start = start;
  }

  get empty(): boolean {
    return this.#live === 0;
  }

  /** The first place where so many chunks are free. Kernel: bitmap_find_next_zero_area */
  find(chunks: number): number | undefined {
    for (let first = 0, at = 0; first + chunks <= CHUNKS; first = at) {
      while (at < first + chunks && this.pieces[at]?.live !== true) at++;
      if (at === first + chunks) return first;
      at = (this.pieces[at] as Piece).first + (this.pieces[at] as Piece).chunks;
    }
    return undefined;
  }

  take(name: string, first: number, chunks: number): void {
    this.pieces.fill({ name, first, chunks, live: true }, first, first + chunks);
    this.#live++;
  }

  /** @returns what was there */
  give(first: number): Piece | undefined {
    const piece = this.pieces[first];
    if (piece?.live !== true || piece.first !== first) return undefined;
    this.pieces.fill({ ...piece, live: false }, first, first + piece.chunks);
    this.#live--;
    return piece;
  }
}

/**
 * Simplified: the first pack is there from the beginning and stays, as if a program of the kernel's own were in
 * it that takes no room.
 * Kernel: bpf_prog_pack_alloc, bpf_prog_pack_free, kernel/bpf/core.c
 */
export class PackMemory implements ImageMemory {
  readonly #machine: Machine;
  readonly #bugs: KernelBugs;
  #packs: readonly Pack[];

  constructor(machine: Machine, bugs: KernelBugs = NO_BUGS) {
    this.#machine = machine;
    this.#bugs = bugs;
    this.#packs = [this.#newPack()];
  }

  /** Packs there are. */
  get packs(): number {
    return this.#packs.length;
  }

  alloc(sizeBytes: number, name: string): Kaddr {
    const chunks = Math.ceil(sizeBytes / CHUNK_BYTES);
    for (const pack of this.#packs) {
      const first = pack.find(chunks);
      if (first !== undefined) return this.#take(pack, name, first, chunks);
    }
    const pack = this.#newPack();
    this.#packs = [...this.#packs, pack];
    return this.#take(pack, name, 0, chunks);
  }

  #newPack(): Pack {
    return new Pack(this.#machine.memory.allocText(PACK_BYTES, 'bpf_prog_pack'));
  }

  #take(pack: Pack, name: string, first: number, chunks: number): Kaddr {
    pack.take(name, first, chunks);
    return addrAdd(pack.start, first * CHUNK_BYTES);
  }

  free(image: Kaddr): void {
    if (this.#bugs.has('chunks-kept')) return;
    const pack = this.#packOf(image);
    const piece = pack?.give(Number(image - pack.start) / CHUNK_BYTES);
    if (pack === undefined || piece === undefined) throw new Bug(`no image starts at ${hex64(image)}`);
    this.#machine.patchText(image, new Uint8Array(piece.chunks * CHUNK_BYTES).fill(INT3));
    if (!pack.empty || pack === this.#packs[0]) return;
    this.#packs = this.#packs.filter((other) => other !== pack);
    this.#machine.memory.freeText(pack.start);
  }

  freedAt(address: Kaddr): { readonly symbol: string; readonly offset: number } | undefined {
    const pack = this.#packOf(address);
    if (pack === undefined) return undefined;
    const at = Number(address - pack.start);
    const piece = pack.pieces[Math.floor(at / CHUNK_BYTES)];
    if (piece === undefined || piece.live) return undefined;
    return { symbol: `${piece.name} (freed)`, offset: at - piece.first * CHUNK_BYTES };
  }

  #packOf(address: Kaddr): Pack | undefined {
    return this.#packs.find(({ start }) => address >= start && address - start < BigInt(PACK_BYTES));
  }
}
