/*
 * Places of our own for cases: seats in a stage, made once, each with a page for its image, a struct
 * bpf_tramp_image and structs bpf_prog. Programs' code, the helpers and the original are shared.
 */

import { BpfProg, BpfTrampImage, type HelperAddresses, PercpuRef } from '../../jit/index.ts';
import { addrAdd, Bug, type Kaddr, kaddr } from '../../lib/index.ts';
import type { ImageCase, Placing } from './case.ts';
import { originalStub, STUB_BYTES, stub, thunkStub } from './guest.ts';
import type { Place, ProgramPlace } from './place.ts';
import type { Seat, Stage } from './stage.ts';

/** Programs of one case at most: 38 of two kinds. */
export const MAX_PROGRAMS = 76;

const PAGE = 4096;
const INT3 = 0xcc;
/** Where program structs are that lie below 4 GiB: free in every layout (emu/layout.ts). */
const LOW = kaddr(0x2000_0000);
/** A distance that no 32-bit displacement covers, from anywhere in a page. */
const FAR_BYTES = 0x8000_3000;

/** Where images return by, on kernels that are built so. */
export const RETURN_THUNK = 'x86_return_thunk';
/** More functions than images call, apart from programs. */
const MAX_FUNCTIONS = 16;

/** Stubs for the helpers that there are. */
export function helperStub(stage: Stage, name: string, at: Kaddr): Uint8Array {
  const { recorders } = stage.guest;
  if (name === RETURN_THUNK) return thunkStub(at, stage.thunks);
  const real = stage.runtime.helpers[name];
  if (real === undefined) throw new Bug(`the runtime has no ${name}`);
  return stub(at, name.startsWith('__bpf_prog_enter') ? recorders.value : recorders.nothing, real);
}

/** The functions that images of a revision call, apart from programs and the original. */
function functionsOf(stage: Stage): readonly string[] {
  const names = Object.keys(stage.runtime.helpers).filter((name) => /^__bpf_(prog|tramp)_/.test(name));
  return [...names, RETURN_THUNK];
}

interface Programs {
  readonly high: readonly ProgramPlace[];
  readonly low: readonly ProgramPlace[];
}

export class Places {
  readonly #stage: Stage;
  readonly #text: Kaddr;
  /** struct bpf_tramp_image, one per seat. */
  readonly #ims: Kaddr;
  readonly #imsMemory: Uint8Array;
  readonly #imsWords: BigUint64Array;
  /** The same with references counted per CPU, and atomically: as they are before a call. */
  readonly #imsPristine: Uint8Array;
  readonly #imsAtomic: Uint8Array;
  readonly #helpers: HelperAddresses;
  readonly #callDepth: Kaddr;
  /** The traced function; and one that begins with an ENDBR. */
  readonly #original: Kaddr;
  readonly #originalEndbr: Kaddr;
  readonly #programs: readonly Programs[];
  /** A page on its way to its seat. */
  readonly #page = new Uint8Array(PAGE);
  /** Bytes of each seat's page that are not int3. */
  readonly #used: { from: number; to: number }[];

  constructor(stage: Stage, seats: number) {
    this.#stage = stage;
    const { memory } = stage.machine;
    this.#text = memory.allocText(seats * PAGE, 'images');
    this.#used = Array.from({ length: seats }, () => ({ from: 0, to: 0 }));

    const stubs = memory.allocText((MAX_PROGRAMS + MAX_FUNCTIONS) * STUB_BYTES, 'stubs');
    let next = stubs;
    const place = (bytes: (at: Kaddr) => Uint8Array): Kaddr => {
      const at = next;
      stage.machine.patchText(at, bytes(at));
      next = addrAdd(next, STUB_BYTES);
      return at;
    };
    const { recorders } = stage.guest;
    const code = Array.from({ length: MAX_PROGRAMS }, () => place((at) => stub(at, recorders.program)));
    this.#helpers = Object.fromEntries(
      functionsOf(stage).map((name) => [name, place((at) => helperStub(stage, name, at))]),
    );
    this.#original = place((at) => originalStub(at, recorders.original, false));
    this.#originalEndbr = place((at) => originalStub(at, recorders.original, true));
    this.#callDepth = kaddr(BigInt(stage.callDepth));

    const structBytes = seats * MAX_PROGRAMS * BpfProg.size;
    const high = memory.vmalloc(structBytes, 'program structs');
    const low = memory.map(LOW, Math.ceil(structBytes / PAGE) * PAGE, 'rw', 'low program structs').start;
    const structs = (base: Kaddr, seat: number): readonly ProgramPlace[] =>
      code.map((bpfFunc, unit) => {
        const prog = addrAdd(base, (seat * MAX_PROGRAMS + unit) * BpfProg.size);
        stage.writeProg(prog, seat * MAX_PROGRAMS + unit);
        return { prog, bpfFunc, insnsi: addrAdd(prog, BpfProg.insnsi), unit };
      });
    this.#programs = this.#used.map((_, seat) => ({ high: structs(high, seat), low: structs(low, seat) }));
    stage.addFixture('a struct bpf_prog', memory.bytes(high, structBytes));
    stage.addFixture('a struct bpf_prog', memory.bytes(low, structBytes));

    this.#ims = memory.vmalloc(seats * BpfTrampImage.size, 'image structs');
    this.#imsMemory = memory.bytes(this.#ims, seats * BpfTrampImage.size);
    this.#imsWords = new BigUint64Array(
      this.#imsMemory.buffer,
      this.#imsMemory.byteOffset,
      this.#imsMemory.byteLength / 8,
    );
    const counted = (atomic: boolean): Uint8Array => {
      for (let seat = 0; seat < seats; seat++) stage.writeReferences(seat, this.#im(seat), atomic);
      return this.#imsMemory.slice();
    };
    this.#imsAtomic = counted(true);
    this.#imsPristine = counted(false);
  }

  get seats(): number {
    return this.#used.length;
  }

  #im(seat: number): Kaddr {
    return addrAdd(this.#ims, seat * BpfTrampImage.size);
  }

  /** A place for a case; `far` moves out of reach what it says. */
  seat(number: number, { placing: { offset, low, far }, config: { ibt, endbr } }: ImageCase): Seat {
    const programs = this.#programs[number];
    if (programs === undefined) throw new Bug(`no seat ${number}`);
    const image = addrAdd(this.#text, number * PAGE + offset);
    const place: Place = {
      image,
      im: this.#im(number),
      // Only where it is stepped over: elsewhere the site is at the very start.
      origCall: ibt && endbr ? this.#originalEndbr : this.#original,
      callDepth: this.#callDepth,
      helpers: this.#helpers,
      programs: low ? programs.low : programs.high,
    };
    return { number, firstUnit: number * MAX_PROGRAMS, place: far === 'nothing' ? place : moved(place, far) };
  }

  /** Puts an image into its seat's page, with int3 around it. */
  write(seat: number, offset: number, bytes: Uint8Array): void {
    const used = this.#used[seat];
    if (used === undefined || offset + bytes.length > PAGE) throw new Bug(`no room in seat ${seat}`);
    const from = Math.min(used.from, offset);
    const to = Math.max(used.to, offset + bytes.length);
    const page = this.#page.fill(INT3, from, to);
    page.set(bytes, offset);
    this.#stage.machine.patchText(addrAdd(this.#text, seat * PAGE + from), page.subarray(from, to));
    used.from = offset;
    used.to = offset + bytes.length;
  }

  /** The references on a seat's image, to be counted atomically or per CPU. */
  setReferences(seat: number, atomic: boolean): void {
    const from = atomic ? this.#imsAtomic : this.#imsPristine;
    const start = seat * BpfTrampImage.size;
    this.#imsMemory.set(from.subarray(start, start + BpfTrampImage.size), start);
  }

  /** References on a seat's image that are counted atomically, and whether the last one was put. */
  atomicReferences(seat: number): { readonly count: bigint; readonly released: boolean } {
    const pcref = seat * BpfTrampImage.size + BpfTrampImage.pcref;
    return {
      count: BigInt.asIntN(64, this.#imsWords[(pcref + PercpuRef.count) / 8] as bigint),
      released: this.#imsWords[(pcref + PercpuRef.released) / 8] === 1n,
    };
  }

  /** Whether anybody wrote a struct of an image that is counted per CPU again; puts them back. */
  takeImDamage(): boolean {
    const damaged = Buffer.compare(this.#imsMemory, this.#imsPristine) !== 0;
    if (damaged) this.#imsMemory.set(this.#imsPristine);
    return damaged;
  }
}

/** With one thing further away than 2 GiB; nothing is there. */
function moved(place: Place, far: Placing['far']): Place {
  const away = addrAdd(place.image, -FAR_BYTES);
  switch (far) {
    case 'helper':
      return {
        ...place,
        helpers: Object.fromEntries(
          // Nobody looks whether the thunk is in reach.
          Object.entries(place.helpers).map(([name, at]) => [name, name === RETURN_THUNK ? at : away]),
        ),
      };
    case 'program':
      return { ...place, programs: place.programs.map((program) => ({ ...program, bpfFunc: away })) };
    case 'original':
      return { ...place, origCall: away };
    case 'nothing':
      return place;
  }
}
