/* A machine on which every image of a revision's vectors can run at its own addresses. */

import { createMachine, type Fault, type Machine } from '../../../emu/index.ts';
import {
  BpfProg,
  BpfProgStats,
  BpfTrampImage,
  type ProgRef,
  TaskStruct,
  TrampFlag,
} from '../../../jit/index.ts';
import { addrAdd, Bug, type Kaddr, kaddr } from '../../../lib/index.ts';
import { Kernel, type ManagedRevision, PercpuRef } from '../../../tramp/index.ts';
import type { TrampolineVector } from '../../vectors.ts';
import { type Guest, guestCode, originalStub, stub } from './guest.ts';
import {
  CALLEE_SAVED,
  CALLER_BYTES,
  CTX_WORDS,
  EVENT_BYTES,
  EVENT_CTX,
  EVENT_REPLY,
  EventField,
  type EventWord,
  Frame,
} from './layout.ts';
import { mapAll, type Wanted } from './ranges.ts';
import { type Counters, canHoldData, type ExpectedCall, type Place, type Situation } from './simulate.ts';

const LOG_EVENTS = 4096;
/** Room for the code of the driver, the launcher and the recorders. */
const GUEST_BYTES = 4096;
const STUB_BYTES = 64;
/** What unused stack holds. */
const STACK_FILL = 0xa5;
const INT3 = 0xcc;
/** What each reading adds to the clock (tramp/kernel.ts), nanoseconds. */
export const CLOCK_TICK = 10n;
/** The longest image with its stubs takes a fifth of it. */
const STEPS = 50_000;

/** A vector that has an image. */
export interface GoldenImage extends TrampolineVector {
  readonly bytes: Uint8Array;
}

export interface ObservedEvent {
  readonly words: Readonly<Record<EventWord, bigint>>;
  readonly ctx: readonly bigint[];
}

/** What a call did. */
export interface Observed {
  readonly fault: Fault | null;
  readonly events: readonly ObservedEvent[];
  readonly rax: bigint;
  readonly saved: readonly bigint[];
  readonly rspBefore: bigint;
  readonly rspAfter: bigint;
  readonly flagsBefore: bigint;
  readonly flagsAfter: bigint;
  /** The stack after the call. */
  readonly stack: Uint8Array;
  readonly counters: ReadonlyMap<Kaddr, Counters>;
  /** References on the image, its owner's included, while the original ran and at the end; undefined when not looked at. */
  readonly referencesInside: bigint | undefined;
  readonly referencesAfter: bigint | undefined;
  /** Depths of the task: rcu_read_lock, rcu_read_lock_trace, migrate_disable. */
  readonly depths: readonly number[];
  readonly mightFaultSplats: number;
  readonly clock: bigint;
}

export class GoldenWorld {
  readonly #machine: Machine;
  readonly #kernel: Kernel;
  readonly #guest: Guest;
  readonly #frame: Kaddr;
  readonly #log: Kaddr;
  /** Per-CPU offsets by address of the struct bpf_prog. */
  readonly #progs = new Map<Kaddr, { readonly active: number; readonly stats: number }>();

  private constructor(machine: Machine, kernel: Kernel, images: readonly GoldenImage[]) {
    this.#machine = machine;
    this.#kernel = kernel;
    const { memory } = machine;
    mapAll(memory, images.flatMap(wantedBy));
    this.#frame = memory.kmalloc(Frame.size, 'driver frame');
    this.#log = memory.vmalloc(LOG_EVENTS * EVENT_BYTES, 'event log');
    const origin = memory.allocKernelText(GUEST_BYTES, 'driver');
    this.#guest = guestCode(origin, this.#frame, machine.percpu.vars.currentTask);
    machine.patchText(origin, this.#guest.bytes);
    for (const { request } of images) for (const prog of progsOf(request)) this.#addProg(prog);
  }

  static async create(revision: ManagedRevision, images: readonly GoldenImage[]): Promise<GoldenWorld> {
    const machine = await createMachine();
    return new GoldenWorld(machine, new Kernel(machine, { revision }), images);
  }

  close(): void {
    this.#machine.close();
  }

  #addProg(prog: ProgRef): void {
    const { percpu } = this.#machine;
    this.#machine.patchText(prog.bpfFunc, stub(prog.bpfFunc, this.#guest.recorders.program));
    if (this.#progs.has(prog.prog) || !canHoldData(prog.prog)) return;
    const active = percpu.alloc(4, 4);
    const stats = percpu.alloc(BpfProgStats.size, BpfProgStats.align);
    this.#progs.set(prog.prog, { active, stats });
  }

  /** Writes a word; the vectors have a struct bpf_prog in kernel text. */
  #poke(address: Kaddr, value: bigint): void {
    const bytes = new Uint8Array(8);
    new DataView(bytes.buffer).setBigUint64(0, value, true);
    const { memory } = this.#machine;
    if (memory.regionAt(address)?.perms === 'rx') this.#machine.patchText(address, bytes);
    else memory.write(address, bytes);
  }

  /** The place of the next call. */
  place(): Place {
    const [cpu] = this.#machine.cpus;
    if (cpu === undefined) throw new Bug('a machine without a CPU');
    const { base, top } = cpu.stack;
    const stack = new Uint8Array(Number(top - base)).fill(STACK_FILL);
    return {
      stack,
      stackBase: base,
      // the return address of the driver, and what it keeps
      rsp: addrAdd(top, -8 - CALLER_BYTES),
      driverReturn: this.#guest.driverReturn,
      behind: this.#guest.behind,
      clockTick: CLOCK_TICK,
    };
  }

  /**
   * Runs an image once, as the driver calls it.
   * @param image the bytes to run, at their own address
   * @param expected gives the replies, event by event
   */
  run(image: GoldenImage, situation: Situation, expected: ExpectedCall, place: Place): Observed {
    const { request } = image;
    const callsOriginal = (request.flags & TrampFlag.CALL_ORIG) !== 0;
    const pcref =
      callsOriginal && canHoldData(request.im)
        ? new PercpuRef(
            this.#machine,
            this.#kernel.grace,
            addrAdd(request.im, BpfTrampImage.pcref),
            () => undefined,
          )
        : undefined;
    const placed = this.#placeText(image, callsOriginal);
    const splats = this.#kernel.mightFaultSplats(0);
    try {
      this.#setUp(image, situation, expected, place);
      const { fault, referencesInside } = this.#call(image, situation, pcref);
      const referencesAfter = pcref?.references();
      const mightFaultSplats = this.#kernel.mightFaultSplats(0) - splats;
      return this.#observe(image, { fault, referencesInside, referencesAfter, mightFaultSplats });
    } finally {
      // What is left behind traps: a later image that strays into it is found out.
      for (const { start, sizeBytes } of placed) {
        this.#machine.patchText(start, new Uint8Array(sizeBytes).fill(INT3));
      }
      pcref?.exit();
    }
  }

  /** The image, and stubs at the addresses that it calls apart from programs. */
  #placeText({ request, bytes }: GoldenImage, callsOriginal: boolean): readonly Wanted[] {
    const { recorders } = this.#guest;
    const parts: [Kaddr, Uint8Array][] = [[request.image, bytes]];
    for (const name of calledKernelFunctions(request)) {
      const at = request.helpers[name] as Kaddr;
      const returns = name.startsWith('__bpf_prog_enter') ? recorders.value : recorders.nothing;
      parts.push([at, stub(at, returns, this.#kernel.helpers[name] as Kaddr)]);
    }
    if (callsOriginal) parts.push([request.origCall, originalStub(request.origCall, recorders.original)]);
    for (const [start, code] of parts) this.#machine.patchText(start, code);
    return parts.map(([start, code]) => ({ start, sizeBytes: code.length, perms: 'rx' }));
  }

  #setUp({ request }: GoldenImage, situation: Situation, { events }: ExpectedCall, place: Place): void {
    const { memory, percpu } = this.#machine;
    memory.bytes(place.stackBase, place.stack.length).set(place.stack);
    const word = (offset: number, value: bigint): void =>
      memory.writeU64(addrAdd(this.#frame, offset), value);
    word(Frame.cursor, this.#log);
    word(Frame.image, request.image);
    situation.args.forEach((value, i) => {
      word(Frame.args + 8 * i, value);
    });
    CALLEE_SAVED.forEach((name, i) => {
      word(Frame.saved + 8 * i, situation.saved[name]);
    });
    memory.bytes(this.#log, Math.min(LOG_EVENTS, events.length + 8) * EVENT_BYTES).fill(0);
    events.forEach(({ reply }, i) => {
      memory.writeU64(this.#record(i, EVENT_REPLY), reply);
    });
    this.#kernel.clock = situation.clock;
    const task = this.#machine.current(0);
    memory.bytes(task, TaskStruct.size).fill(0);
    for (const { prog } of progsOf(request)) {
      const counters = this.#progs.get(prog);
      if (counters === undefined) continue;
      // Each time: two of the vectors' structs overlap.
      this.#poke(addrAdd(prog, BpfProg.active), BigInt(counters.active));
      this.#poke(addrAdd(prog, BpfProg.stats), BigInt(counters.stats));
      memory.writeU32(percpu.address(counters.active, 0), situation.active.has(prog) ? 1 : 0);
      memory.bytes(percpu.address(counters.stats, 0), BpfProgStats.size).fill(0);
    }
    if (this.#kernel.statsEnabled !== situation.statistics) this.#kernel.statsEnabled = situation.statistics;
  }

  #call(
    { request, bytes, ipAfterCall, ipEpilogue }: GoldenImage,
    { retire }: Situation,
    pcref: PercpuRef | undefined,
  ): { fault: Fault | null; referencesInside: bigint | undefined } {
    const [cpu] = this.#machine.cpus;
    if (cpu === undefined) throw new Bug('a machine without a CPU');
    if (!retire || ipAfterCall === null || ipEpilogue === null) {
      const { fault } = cpu.call(this.#guest.driver, [], { steps: STEPS });
      return { fault, referencesInside: undefined };
    }
    // Retired while the original runs: the call comes back into a patched image.
    cpu.begin(this.#guest.driver, [], { steps: STEPS });
    const first = cpu.run({ stopAt: this.#guest.recorders.original });
    if (first.reason !== 'stop') {
      cpu.abort();
      return { fault: first.fault, referencesInside: undefined };
    }
    const referencesInside = pcref?.references();
    if (bytes[ipAfterCall] !== 0x0f) throw new Bug('no nop at ip_after_call');
    const jump = new Uint8Array(5);
    jump[0] = 0xe9;
    new DataView(jump.buffer).setInt32(1, ipEpilogue - ipAfterCall - jump.length, true);
    this.#machine.patchText(addrAdd(request.image, ipAfterCall), jump);
    const { fault } = cpu.run();
    cpu.abort();
    return { fault, referencesInside };
  }

  #observe(
    { request }: GoldenImage,
    seen: Pick<Observed, 'fault' | 'referencesInside' | 'referencesAfter' | 'mightFaultSplats'>,
  ): Observed {
    const { memory, cpus } = this.#machine;
    const word = (offset: number): bigint => memory.readU64(addrAdd(this.#frame, offset));
    const { base, top } = (cpus[0] as (typeof cpus)[number]).stack;
    const logged = Number(word(Frame.cursor) - this.#log) / EVENT_BYTES;
    const task = this.#machine.current(0);
    return {
      ...seen,
      events: Array.from({ length: logged }, (_, i) => this.#event(i)),
      rax: word(Frame.raxAfter),
      saved: CALLEE_SAVED.map((_, i) => word(Frame.savedAfter + 8 * i)),
      rspBefore: word(Frame.rspBefore),
      rspAfter: word(Frame.rspAfter),
      flagsBefore: word(Frame.flagsBefore),
      flagsAfter: word(Frame.flagsAfter),
      stack: memory.bytes(base, Number(top - base)),
      counters: this.#counters(request),
      depths: [TaskStruct.rcuReadLockNesting, TaskStruct.trcReaderNesting, TaskStruct.migrationDisabled].map(
        (field) => memory.readU32(addrAdd(task, field)),
      ),
      clock: this.#kernel.clock,
    };
  }

  #event(index: number): ObservedEvent {
    const { memory } = this.#machine;
    const words = Object.entries(EventField).map(([name, offset]) => [
      name,
      memory.readU64(this.#record(index, offset)),
    ]);
    return {
      words: Object.fromEntries(words) as Record<EventWord, bigint>,
      ctx: Array.from({ length: CTX_WORDS }, (_, i) =>
        memory.readU64(this.#record(index, EVENT_CTX + 8 * i)),
      ),
    };
  }

  #counters(request: GoldenImage['request']): ReadonlyMap<Kaddr, Counters> {
    const { memory, percpu } = this.#machine;
    const found = new Map<Kaddr, Counters>();
    for (const { prog } of progsOf(request)) {
      const counters = this.#progs.get(prog);
      if (counters === undefined) continue;
      const stats = percpu.address(counters.stats, 0);
      found.set(prog, {
        active: BigInt(memory.readU32(percpu.address(counters.active, 0))),
        misses: memory.readU64(addrAdd(stats, BpfProgStats.misses)),
        cnt: memory.readU64(addrAdd(stats, BpfProgStats.cnt)),
        nsecs: memory.readU64(addrAdd(stats, BpfProgStats.nsecs)),
        syncp: BigInt(memory.readU32(addrAdd(stats, BpfProgStats.syncp))),
      });
    }
    return found;
  }

  #record(index: number, offset: number): Kaddr {
    return addrAdd(this.#log, index * EVENT_BYTES + offset);
  }
}

function progsOf({ fentry, fmodRet, fexit }: GoldenImage['request']): readonly ProgRef[] {
  return [...fentry, ...fmodRet, ...fexit];
}

/** The enter and exit functions that an image with these programs calls. */
function calledKernelFunctions(request: GoldenImage['request']): readonly string[] {
  const names = new Set<string>();
  for (const { sleepable } of progsOf(request)) {
    const suffix = sleepable ? '_sleepable' : '';
    names.add(`__bpf_prog_enter${suffix}`).add(`__bpf_prog_exit${suffix}`);
  }
  if ((request.flags & TrampFlag.CALL_ORIG) !== 0) names.add('__bpf_tramp_enter').add('__bpf_tramp_exit');
  return [...names];
}

/** Everything that has to be mapped for one image. */
function wantedBy({ request, bytes }: GoldenImage): Wanted[] {
  const text = (start: Kaddr, sizeBytes: number): Wanted => ({ start, sizeBytes, perms: 'rx' });
  const data = (start: Kaddr, sizeBytes: number): Wanted => ({ start, sizeBytes, perms: 'rw' });
  const progs = progsOf(request);
  const wanted = [
    text(request.image, bytes.length),
    ...calledKernelFunctions(request).map((name) => text(request.helpers[name] as Kaddr, STUB_BYTES)),
    ...progs.map(({ bpfFunc }) => text(bpfFunc, STUB_BYTES)),
    ...progs
      .filter(({ prog }) => canHoldData(prog))
      .map(({ prog }) => data(kaddr(prog + BigInt(BpfProg.stats)), BpfProg.bpfFunc - BpfProg.stats)),
  ];
  if ((request.flags & TrampFlag.CALL_ORIG) !== 0) {
    wanted.push(text(request.origCall, STUB_BYTES));
    if (canHoldData(request.im)) wanted.push(data(request.im, BpfTrampImage.size));
  }
  return wanted;
}
