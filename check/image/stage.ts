/*
 * A machine with the runtime of a revision and the guest code around images: cases are put into it, many
 * at a time, and called. What the images and the programs stand at is the business of whoever brings cases
 * (places.ts, given.ts).
 *
 *   batch:  CaseRecords ──▶ driver ──▶ image, image, image ...  ──▶ one log, one record after the other
 *
 * A case that faults ends the guest's run; the host goes on with the case behind it.
 */

import { createMachine, type EngineName, type Fault, type Machine, type Vcpu } from '../../emu/index.ts';
import {
  BpfProg,
  BpfProgStats,
  BpfTrampImage,
  BpfTrampRunCtx,
  PercpuRef,
  type RevisionName,
  type RuntimeBug,
} from '../../jit/index.ts';
import { addrAdd, alignUp, Bug, type Kaddr } from '../../lib/index.ts';
import { Kallsyms, RuntimeText, TextPoker } from '../../tramp/index.ts';
import {
  FAR_STACK_WORDS,
  type ImageCase,
  isCalledDirectly,
  movedOn,
  programsOf,
  STACK_ARG_WORDS,
  usesOtherLauncher,
} from './case.ts';
import type { Counters, Expectation, ExpectedCase } from './expectation.ts';
import { type Guest, guestCode } from './guest.ts';
import { CaseRecord, Control, FILL, OUTER_COOKIE, Script } from './log.ts';
import type { Callers, Place } from './place.ts';
import { JUDGED } from './revision.ts';
import { shapeOf } from './shape.ts';

/** Bytes of log: what a batch of the largest cases takes, and one case that does not end. */
const LOG_BYTES = 4 << 20;
const SCRIPT_BYTES = 1 << 20;
const PAGE_BYTES = 4096;
/** Room for the code of the driver, the launchers and the recorders, wherever in it they have to begin. */
const GUEST_BYTES = 0x2_0000;
/**
 * Where the return address into the traced function is: so little behind a multiple of this that less 5 bytes is
 * another one in its lower quarter.
 */
const RETURN_ALIGN = 0x1_0000;
const RETURN_OFFSET = 2;
/** Words of stack that the oracle follows: as many above the driver's rsp, and below it. */
const STACK_ABOVE = 4;
const STACK_BELOW = 196;
/** The stack: room for a multiple of STACK_ALIGN, and for the kernel's 16 KiB of frames below it. */
const STACK_ALIGN = 0x1_0000;
const FRAMES_BYTES = 0x4000;
export const STACK_BYTES: number = FRAMES_BYTES + STACK_ALIGN + PAGE_BYTES;
/** From the driver's rsp down to the saved rbp of an image: return addresses of driver and launcher, and rbp. */
const SAVED_RBP_BYTES = 3 * 8;
/** What Kernel: percpu_ref_init counts beside the reference of the owner. */
const PERCPU_COUNT_BIAS = 1n << 63n;

export interface StageOptions {
  readonly engine: EngineName;
  readonly revision: RevisionName;
  /** Mistakes of the functions that images call. */
  readonly bugs: ReadonlySet<RuntimeBug>;
  /** Cases in a batch. */
  readonly seats: number;
  /** Programs' counters, all seats together; an even number. */
  readonly units: number;
}

/** Where one case is in a stage. */
export interface Seat {
  readonly number: number;
  readonly place: Place;
  /** Its programs' counters begin with this one. */
  readonly firstUnit: number;
}

/** A case that is ready to be called. */
export interface Ready {
  readonly one: ImageCase;
  readonly seat: Seat;
  readonly expected: ExpectedCase;
}

/** How a case ended, and where its part of the log is, in words. */
export interface Ended {
  readonly from: number;
  readonly to: number;
  readonly fault: Fault | null;
}

/** Memory that nobody but its owner may write. */
interface Fixture {
  readonly what: string;
  readonly live: Uint8Array;
  readonly pristine: Uint8Array;
}

export class Stage {
  readonly machine: Machine;
  readonly guest: Guest;
  readonly callers: Callers;
  readonly runtime: RuntimeText;
  /** The log, word by word. */
  readonly log: BigUint64Array;
  /** The same memory in halves, lower half first. */
  readonly logHalves: Uint32Array;
  readonly #cpu: Vcpu;
  readonly #logAddress: Kaddr;
  readonly #controlAddress: Kaddr;
  readonly #control: BigUint64Array;
  readonly #recordsAddress: Kaddr;
  readonly #records: BigUint64Array;
  readonly #scriptsAddress: Kaddr;
  readonly #scripts: BigUint64Array;
  /** Per-CPU offsets: reference counters, one per seat; statistics and activity, one per unit. */
  readonly #references: number;
  readonly #stats: number;
  readonly #active: number;
  /** Per-CPU offset of the counter of calls. */
  readonly callDepth: number;
  /** Per-CPU offset of what counts returns through the thunk. */
  readonly thunks: number;
  readonly #counters: Uint32Array;
  readonly #wide: BigUint64Array;
  readonly #noCounters: Uint8Array;
  readonly #fixtures: Fixture[] = [];

  private constructor(machine: Machine, { revision, bugs, seats, units }: StageOptions) {
    const [cpu] = machine.cpus;
    if (cpu === undefined) throw new Bug('a machine without a CPU');
    const { memory, percpu } = machine;
    this.machine = machine;
    this.#cpu = cpu;
    this.runtime = new RuntimeText(
      machine,
      new Kallsyms(),
      new TextPoker(machine, () => undefined),
      revision,
      { bugs },
    );
    this.#logAddress = memory.vmalloc(LOG_BYTES, 'event log');
    this.log = words(memory.bytes(this.#logAddress, LOG_BYTES));
    this.logHalves = new Uint32Array(this.log.buffer, this.log.byteOffset, 2 * this.log.length);
    this.#controlAddress = memory.vmalloc(Control.size, 'driver control');
    this.#control = words(memory.bytes(this.#controlAddress, Control.size));
    this.#recordsAddress = memory.vmalloc(seats * CaseRecord.size, 'cases');
    this.#records = words(memory.bytes(this.#recordsAddress, seats * CaseRecord.size));
    this.#scriptsAddress = memory.vmalloc(SCRIPT_BYTES, 'scripts');
    this.#scripts = words(memory.bytes(this.#scriptsAddress, SCRIPT_BYTES));

    const runCtx = memory.vmalloc(BpfTrampRunCtx.size, "an outer program's run_ctx");
    memory.writeU64(addrAdd(runCtx, BpfTrampRunCtx.bpfCookie), OUTER_COOKIE);
    this.callDepth = percpu.alloc(8, 8);
    this.thunks = percpu.alloc(8, 8);
    const stack = memory.vmalloc(STACK_BYTES, 'stack of the driver');
    // Frames that are moved by FAR_STACK_WORDS lie on a round address.
    const round = alignUp(addrAdd(stack, FRAMES_BYTES), STACK_ALIGN);
    const rsp = addrAdd(round, SAVED_RBP_BYTES + 8 * (FAR_STACK_WORDS + STACK_ARG_WORDS));
    const room = memory.allocKernelText(GUEST_BYTES, 'driver');
    const surroundings = {
      control: this.#controlAddress,
      clock: this.runtime.clockAddress,
      currentTask: percpu.vars.currentTask,
      mightFaultSplats: this.runtime.splatsOffset,
      callDepth: JUDGED[revision].countsCalls ? this.callDepth : undefined,
      thunks: this.thunks,
      runCtx,
      stack: rsp,
      stackArgs: JUDGED[revision].stackWords,
    };
    const { behind } = guestCode(room, surroundings);
    const distance = Number(alignUp(behind, RETURN_ALIGN) - behind) + RETURN_OFFSET;
    this.guest = guestCode(addrAdd(room, distance), surroundings);
    machine.patchText(this.guest.start, this.guest.bytes);

    const statsBytes = BpfProgStats.size * units;
    const bytes = statsBytes + 8 * seats + 4 * units;
    this.#stats = percpu.alloc(bytes, BpfProgStats.align);
    this.#references = this.#stats + statsBytes;
    this.#active = this.#references + 8 * seats;
    const view = memory.bytes(percpu.address(this.#stats, 0), bytes & ~7);
    this.#wide = words(view);
    this.#counters = new Uint32Array(view.buffer, view.byteOffset, view.byteLength >> 2);
    this.#noCounters = new Uint8Array(view.byteLength);

    const bottom = addrAdd(rsp, -8 * STACK_BELOW);
    this.callers = {
      stack: Array.from({ length: STACK_BELOW + STACK_ABOVE }, (_, i) => addrAdd(bottom, 8 * i)),
      top: STACK_BELOW,
      driverReturn: this.guest.driverReturn,
      nestedReturn: this.guest.nestedReturn,
      behind: this.guest.behind,
      otherBehind: this.guest.otherBehind,
      runCtx,
    };
    const own = memory.bytes(rsp, STACK_BYTES - Number(rsp - stack));
    words(own).fill(FILL);
    this.addFixture("the caller's stack", own);
    this.addFixture("an outer program's run_ctx", memory.bytes(runCtx, BpfTrampRunCtx.size));
  }

  static async open(options: StageOptions): Promise<Stage> {
    // On the host's CPU, batches run at full speed; what is stepped is counted as ever.
    const machine = await createMachine({ engine: options.engine, counting: false, timeLimitMs: 1000 });
    try {
      return new Stage(machine, options);
    } catch (error) {
      machine.close();
      throw error;
    }
  }

  close(): void {
    this.machine.close();
  }

  /** Declares memory that must stay as it is now. */
  addFixture(what: string, live: Uint8Array): void {
    this.#fixtures.push({ what, live, pristine: live.slice() });
  }

  /** What of it was written all the same; puts it back. */
  takeDamage(): string | undefined {
    const damaged = this.#fixtures.filter(({ live, pristine }) => Buffer.compare(live, pristine) !== 0);
    for (const { live, pristine } of damaged) live.set(pristine);
    const [first] = damaged;
    return first?.what;
  }

  /** Per-CPU offset of a unit's recursion counter, and of its statistics: what a struct bpf_prog holds. */
  unit(number: number): { readonly active: number; readonly stats: number } {
    return { active: this.#active + 4 * number, stats: this.#stats + BpfProgStats.size * number };
  }

  /** The fields of a struct bpf_prog that the runtime reads. */
  writeProg(prog: Kaddr, unit: number): void {
    const { active, stats } = this.unit(unit);
    this.#poke(addrAdd(prog, BpfProg.active), BigInt(active));
    this.#poke(addrAdd(prog, BpfProg.stats), BigInt(stats));
  }

  /** A word of data; images that were given can have a struct in text. */
  #poke(address: Kaddr, value: bigint): void {
    const bytes = new Uint8Array(8);
    new DataView(bytes.buffer).setBigUint64(0, value, true);
    const { memory } = this.machine;
    if (memory.regionAt(address)?.perms === 'rx') this.machine.patchText(address, bytes);
    else memory.write(address, bytes);
  }

  /** The references on the image in a seat: counted on this CPU, or atomically with none left. */
  writeReferences(seat: number, im: Kaddr, atomic: boolean): void {
    const offset = this.#references + 8 * seat;
    const pcref = addrAdd(im, BpfTrampImage.pcref);
    const { ATOMIC, DEAD } = PercpuRef;
    this.#poke(addrAdd(pcref, PercpuRef.percpuCountPtr), BigInt(atomic ? offset | ATOMIC | DEAD : offset));
    this.#poke(addrAdd(pcref, PercpuRef.count), atomic ? 0n : PERCPU_COUNT_BIAS + 1n);
    this.#poke(addrAdd(pcref, PercpuRef.released), 0n);
  }

  /** Writes what a case needs beside text: its record, and its programs' counters. */
  prepare({ one, seat }: Ready): void {
    const { number, place } = seat;
    const { registers } = one;
    const at = (number * CaseRecord.size) / 8;
    const record = this.#records;
    record[at + CaseRecord.image / 8] = place.image;
    record[at + CaseRecord.references / 8] = BigInt(this.#references + 8 * number);
    record[at + CaseRecord.clock / 8] = one.clock;
    record[at + CaseRecord.rax / 8] = registers.rax;
    record[at + CaseRecord.garbage / 8] = registers.garbage;
    const { ctxFrom, ctxWords, stackWords } = shapeOf(one);
    record[at + CaseRecord.entry / 8] = isCalledDirectly(one) ? place.image : this.#launcher(one);
    record[at + CaseRecord.stackBytes / 8] = BigInt(8 * (one.registers.stackWords + STACK_ARG_WORDS));
    record[at + CaseRecord.ctxFrom / 8] = BigInt.asUintN(64, BigInt(8 * ctxFrom));
    record[at + CaseRecord.ctxWords / 8] = BigInt(ctxWords);
    record[at + CaseRecord.stackWords / 8] = BigInt(stackWords);
    record[at + CaseRecord.originalReply / 8] = one.returns.original;
    record[at + CaseRecord.bodyReply / 8] = one.returns.body;
    copy(registers.args, record, at + CaseRecord.args / 8);
    copy(movedOn(registers.args), record, at + CaseRecord.innerArgs / 8);
    copy(registers.stack, record, at + CaseRecord.stackArgs / 8);
    copy(movedOn(registers.stack), record, at + CaseRecord.innerStackArgs / 8);
    copy(registers.saved, record, at + CaseRecord.saved / 8);
    const programs = programsOf(one);
    for (let i = 0; i < programs.length; i++) {
      if (programs[i]?.running !== true) continue;
      this.#counters[this.#activeIndex(seat, place.programs[i]?.unit ?? 0)] = 1;
    }
  }

  #launcher(one: ImageCase): Kaddr {
    return usesOtherLauncher(one) ? this.guest.otherLauncher : this.guest.launcher;
  }

  #activeIndex({ firstUnit }: Seat, unit: number): number {
    return (this.#active - this.#stats) / 4 + firstUnit + unit;
  }

  /** Writes the scripts of a batch. */
  writeScripts({ script, scriptEntries }: Expectation, batch: readonly Ready[]): void {
    const used = (scriptEntries * Script.size) / 8;
    // An image that runs too many programs finds entries that do nothing.
    if (used + Script.size > this.#scripts.length) throw new Bug(`scripts of ${used} words`);
    this.#scripts.set(script.subarray(0, used));
    this.#scripts.fill(0n, used, used + Script.size);
    for (const { seat, expected } of batch) {
      const at = (seat.number * CaseRecord.size + CaseRecord.script) / 8;
      this.#records[at] = addrAdd(this.#scriptsAddress, expected.script * Script.size);
    }
  }

  /** Calls the cases of a batch, whose seats are numbered one after the other. */
  call(batch: readonly Ready[], steps: number): readonly Ended[] {
    const faults = new Map<number, { readonly fault: Fault; readonly to: number }>();
    this.#control[Control.cursor / 8] = this.#logAddress;
    for (let next = 0; next < batch.length; ) {
      const { number } = (batch[next] as Ready).seat;
      const record = addrAdd(this.#recordsAddress, number * CaseRecord.size);
      const left = batch.length - next;
      const { fault } = this.#cpu.call(this.guest.driver, [record, BigInt(left)], { steps });
      if (fault === null) break;
      const done = left - Number(this.#control[Control.left / 8]);
      faults.set(next + done, { fault, to: this.cursor });
      next += done + 1;
    }
    const starts = batch.map(({ seat }) => this.logStart(seat.number));
    return batch.map((_, i) => {
      const fault = faults.get(i);
      return {
        from: starts[i] as number,
        to: fault?.to ?? starts[i + 1] ?? this.cursor,
        fault: fault?.fault ?? null,
      };
    });
  }

  /** Sets one case's call up without executing anything: the vCPU to step. */
  begin({ seat }: Ready, steps: number): Vcpu {
    this.#control[Control.cursor / 8] = this.#logAddress;
    const record = addrAdd(this.#recordsAddress, seat.number * CaseRecord.size);
    this.#cpu.begin(this.guest.driver, [record, 1n], { steps });
    return this.#cpu;
  }

  /** Where the log stands, in words. */
  get cursor(): number {
    return Number((this.#control[Control.cursor / 8] as bigint) - this.#logAddress) / 8;
  }

  logStart(seat: number): number {
    const at = (seat * CaseRecord.size + CaseRecord.log) / 8;
    return Number((this.#records[at] as bigint) - this.#logAddress) / 8;
  }

  /** Whether a case's counters are as expected; leaves them at zero. */
  countersMatch({ seat, expected }: Ready): boolean {
    let match = true;
    const { counters } = expected;
    const have = this.#counters;
    for (let unit = 0; unit < counters.length; unit++) {
      const { active, misses, cnt, nsecs, syncp } = counters[unit] as Counters;
      const at = (BpfProgStats.size / 4) * (seat.firstUnit + unit);
      const activeAt = this.#activeIndex(seat, unit);
      match &&=
        have[activeAt] === active &&
        have[at + BpfProgStats.misses / 4] === misses &&
        have[at + BpfProgStats.misses / 4 + 1] === 0 &&
        have[at + BpfProgStats.cnt / 4] === cnt &&
        have[at + BpfProgStats.cnt / 4 + 1] === 0 &&
        have[at + BpfProgStats.syncp / 4] === syncp &&
        this.#wide[(at + BpfProgStats.nsecs / 4) / 2] === BigInt.asUintN(64, nsecs);
      have.fill(0, at, at + BpfProgStats.size / 4);
      have[activeAt] = 0;
    }
    return match;
  }

  /** A case's counters as they are. */
  readCounters(ready: Ready): Counters[] {
    const { firstUnit } = ready.seat;
    return ready.expected.counters.map((_, unit) => {
      const at = (BpfProgStats.size / 8) * (firstUnit + unit);
      const word = (field: number): bigint => this.#wide[at + field / 8] as bigint;
      return {
        active: this.#counters[this.#activeIndex(ready.seat, unit)] as number,
        misses: Number(word(BpfProgStats.misses)),
        cnt: Number(word(BpfProgStats.cnt)),
        nsecs: word(BpfProgStats.nsecs),
        syncp: Number(word(BpfProgStats.syncp)),
      };
    });
  }

  /** Reads a case's counters, and leaves them at zero. */
  takeCounters(ready: Ready): Counters[] {
    const found = this.readCounters(ready);
    this.countersMatch(ready);
    return found;
  }

  /** References on the image in a seat by this CPU; leaves none. */
  takeReferences(seat: number): bigint {
    const at = (this.#references - this.#stats) / 8 + seat;
    const found = this.#wide[at] as bigint;
    this.#wide[at] = 0n;
    return found;
  }

  /** Whether any counter is not zero that has not been taken; zeroes them. */
  takeStrayCounters(): boolean {
    const stray =
      Buffer.compare(
        new Uint8Array(this.#wide.buffer, this.#wide.byteOffset, this.#wide.byteLength),
        this.#noCounters,
      ) !== 0;
    if (stray) this.#wide.fill(0n);
    return stray;
  }
}

/** By hand: for an array of bigints BigUint64Array.set is slower. */
function copy(from: readonly bigint[], to: BigUint64Array, at: number): void {
  for (let i = 0; i < from.length; i++) to[at + i] = from[i] as bigint;
}

function words(bytes: Uint8Array): BigUint64Array {
  return new BigUint64Array(bytes.buffer, bytes.byteOffset, bytes.byteLength >> 3);
}
