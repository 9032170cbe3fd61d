/*
 * Images at addresses that somebody else chose: everything that a request names is put where it says, and
 * taken away again behind its last call.
 */

import {
  BpfProg,
  BpfTrampImage,
  HelperPair,
  PercpuRef,
  type ProgRef,
  type RevisionName,
  TrampFlag,
  type TrampolineRequest,
} from '../../jit/index.ts';
import { addrAdd, hex64, InputError, type Kaddr, kaddr } from '../../lib/index.ts';
import { originalStub, STUB_BYTES, stub } from './guest.ts';
import { canHoldData, type Place } from './place.ts';
import { helperStub, RETURN_THUNK } from './places.ts';
import { mapAll, type Wanted } from './ranges.ts';
import type { Seat, Stage } from './stage.ts';
import type { Remains } from './trial.ts';
import { hasWords } from './words.ts';

const INT3 = 0xcc;
/** Bytes of an image that is mapped for a request, whatever the image given for it takes. */
const ROOM = 8192;

/** The programs of a request: fentry, fmod_ret, fexit. */
export function programsIn({ fentry, fmodRet, fexit }: TrampolineRequest): readonly ProgRef[] {
  return [...fentry, ...fmodRet, ...fexit];
}

export class GivenPlaces {
  readonly #stage: Stage;
  readonly #revision: RevisionName;
  #request: TrampolineRequest | undefined;
  #image: Uint8Array | undefined;
  #placed: { readonly start: Kaddr; readonly sizeBytes: number }[] = [];

  /** @throws InputError for addresses that cannot be mapped, or that overlap */
  constructor(stage: Stage, revision: RevisionName, requests: readonly TrampolineRequest[]) {
    this.#stage = stage;
    this.#revision = revision;
    mapAll(
      stage.machine,
      requests.flatMap((request) => wantedBy(request, revision)),
    );
  }

  /** Units that a stage needs for some requests. */
  static units(requests: readonly TrampolineRequest[]): number {
    const most = Math.max(2, ...requests.map((request) => structsOf(request).length));
    return most + (most % 2);
  }

  /** Puts an image and what it names into place; text that is there already stays. */
  seat(request: TrampolineRequest, image: Uint8Array, atomicReferences: boolean): Seat {
    const stage = this.#stage;
    if (this.#request !== request) {
      this.clear();
      this.#request = request;
      for (const [start, code] of this.#stubs(request)) this.#write(start, code);
    }
    if (this.#image === undefined || Buffer.compare(this.#image, image) !== 0)
      this.#write(request.image, image);
    this.#image = image;
    const programs = programsIn(request);
    const structs = structsOf(request);
    structs.forEach((prog, unit) => {
      if (canHoldData(prog)) stage.writeProg(prog, unit);
    });
    if (countsReferences(request)) stage.writeReferences(0, request.im, atomicReferences);
    const place: Place = {
      image: request.image,
      im: request.im,
      origCall: request.origCall,
      helpers: request.helpers,
      callDepth: kaddr(BigInt(stage.callDepth)),
      programs: programs.map(({ prog, bpfFunc, insnsi }) => ({
        prog,
        bpfFunc,
        insnsi,
        unit: structs.indexOf(prog),
      })),
    };
    return { number: 0, firstUnit: 0, place };
  }

  #stubs(request: TrampolineRequest): [Kaddr, Uint8Array][] {
    const { recorders } = this.#stage.guest;
    const stubs: [Kaddr, Uint8Array][] = [];
    for (const [name, at] of helpersOf(request, this.#revision))
      stubs.push([at, helperStub(this.#stage, name, at)]);
    for (const at of new Set(programsIn(request).map(({ bpfFunc }) => bpfFunc))) {
      stubs.push([at, stub(at, recorders.program)]);
    }
    if (namesOriginal(request, this.#revision)) {
      const { ibt, origCallStartsWithEndbr } = request.config ?? {};
      const endbr = ibt === true && origCallStartsWithEndbr === true;
      stubs.push([request.origCall, originalStub(request.origCall, recorders.original, endbr)]);
    }
    return stubs;
  }

  #write(start: Kaddr, code: Uint8Array): void {
    this.#stage.machine.patchText(start, code);
    this.#placed.push({ start, sizeBytes: code.length });
  }

  /** Whether an image's references can be counted in its struct: not where our own text is. */
  countsAtomically({ im }: TrampolineRequest): boolean {
    return this.#stage.machine.memory.regionAt(im)?.perms !== 'rx';
  }

  /** Takes away all text: what strays into it later is found out. */
  clear(): void {
    for (const { start, sizeBytes } of this.#placed) {
      this.#stage.machine.patchText(start, new Uint8Array(sizeBytes).fill(INT3));
    }
    this.#placed = [];
    this.#request = undefined;
    this.#image = undefined;
  }

  /** What a call left behind; puts it right. */
  remains(request: TrampolineRequest): Remains {
    const stage = this.#stage;
    const { memory } = stage.machine;
    stage.takeReferences(0);
    const counters = stage.takeStrayCounters() ? "another program's counters" : undefined;
    const damage = stage.takeDamage() ?? counters;
    const pcref = addrAdd(request.im, BpfTrampImage.pcref);
    if (!countsReferences(request)) return { references: { count: 0n, released: true }, damage };
    return {
      references: {
        count: BigInt.asIntN(64, memory.readU64(addrAdd(pcref, PercpuRef.count))),
        released: memory.readU64(addrAdd(pcref, PercpuRef.released)) === 1n,
      },
      damage,
    };
  }
}

/** Its program structs: several programs can share one. */
function structsOf(request: TrampolineRequest): readonly Kaddr[] {
  return [...new Set(programsIn(request).map(({ prog }) => prog))];
}

function callsOriginal({ flags }: TrampolineRequest): boolean {
  return (flags & TrampFlag.CALL_ORIG) !== 0;
}

/** Whether the original is called by its address. */
function namesOriginal(request: TrampolineRequest, revision: RevisionName): boolean {
  const byStack = hasWords(revision) && (request.flags & TrampFlag.ORIG_STACK) !== 0;
  return callsOriginal(request) && !byStack;
}

function countsReferences(request: TrampolineRequest): boolean {
  return callsOriginal(request) && canHoldData(request.im);
}

/** The enter and exit functions that an image with these programs calls, and where they are. */
function helpersOf(request: TrampolineRequest, revision: RevisionName): readonly [string, Kaddr][] {
  const names = new Set<string>();
  for (const prog of programsIn(request)) {
    const suffix = suffixOf(prog, revision);
    names.add(`__bpf_prog_enter${suffix}`).add(`__bpf_prog_exit${suffix}`);
  }
  if (hasWords(revision) && request.config?.rethunk === true) names.add(RETURN_THUNK);
  if (callsOriginal(request)) names.add('__bpf_tramp_enter').add('__bpf_tramp_exit');
  return [...names].map((name) => {
    const at = request.helpers[name];
    if (at === undefined) throw new InputError(`helpers.${name}`, undefined, 'missing; the image calls it');
    return [name, at];
  });
}

/** What the names of a program's enter and exit functions end in. */
function suffixOf({ sleepable, kind = HelperPair.RECUR }: ProgRef, revision: RevisionName): string {
  if (!hasWords(revision)) return sleepable ? '_sleepable' : '';
  if (kind === HelperPair.LSM_CGROUP) return '_lsm_cgroup';
  return `${sleepable ? '_sleepable' : ''}${kind === HelperPair.RECUR ? '_recur' : ''}`;
}

/** Everything that has to be mapped for one request. */
function wantedBy(request: TrampolineRequest, revision: RevisionName): Wanted[] {
  const text = (what: string, start: Kaddr, sizeBytes: number = STUB_BYTES): Wanted => ({
    what,
    start,
    sizeBytes,
    perms: 'rx',
  });
  const code = [
    text('image', request.image, ROOM),
    ...helpersOf(request, revision).map(([name, at]) => text(`helpers.${name}`, at)),
    ...[...new Set(programsIn(request).map(({ bpfFunc }) => bpfFunc))].map((at) => text('bpfFunc', at)),
    ...(namesOriginal(request, revision) ? [text('origCall', request.origCall)] : []),
  ];
  refuseOverlaps(code);
  const data = (what: string, start: Kaddr, sizeBytes: number): Wanted => ({
    what,
    start,
    sizeBytes,
    perms: 'rw',
  });
  return [
    ...code,
    ...programsIn(request)
      .filter(({ prog }) => canHoldData(prog))
      .map(({ prog }) => data('prog', kaddr(prog + BigInt(BpfProg.stats)), BpfProg.bpfFunc - BpfProg.stats)),
    ...(countsReferences(request) ? [data('im', request.im, BpfTrampImage.size)] : []),
  ];
}

function refuseOverlaps(code: readonly Wanted[]): void {
  const sorted = code.toSorted((a, b) => (a.start < b.start ? -1 : 1));
  sorted.forEach((one, i) => {
    const next = sorted[i + 1];
    // The page behind an image is its own only as far as the image goes, which is not known here.
    const size = one.what === 'image' ? STUB_BYTES : one.sizeBytes;
    if (next === undefined || addrAdd(one.start, size) <= next.start) return;
    throw new InputError(
      one.what,
      undefined,
      `${hex64(one.start)} is less than ${size} bytes before ${next.what} at ${hex64(next.start)}: give each a place of its own`,
    );
  });
}
