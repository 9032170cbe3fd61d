/*
 * What a traced call has to do, by the rules alone: no byte of any image, and nothing of the emitters, is
 * looked at here. The stack is a real array of bytes, so that what an odd combination of flags does to
 * a slot follows from where the slot lies, and what the rules leave undefined stays undefined.
 */

import {
  BpfProg,
  BpfTrampImage,
  PercpuRef,
  type ProgRef,
  type TrampolineRequest,
} from '../../../jit/index.ts';
import { addrAdd, type Kaddr } from '../../../lib/index.ts';
import type { ManagedRevision } from '../../../tramp/index.ts';
import { ARGS, type CalleeSaved, CTX_FROM, CTX_WORDS, type EventWord } from './layout.ts';

/** The flags in numbers, as the rules give them. */
const RESTORE_REGS = 1;
const CALL_ORIG = 2;
const SKIP_FRAME = 4;
const IP_ARG = 8;
const RET_FENTRY_RET = 16;

/** The site's 5-byte call or nop. */
const SITE_BYTES = 5;

export type Role = 'fentry' | 'fmod_ret' | 'fexit' | 'original' | 'behind';

/** What is varied from call to call. */
export interface Situation {
  readonly args: readonly bigint[];
  readonly saved: Readonly<Record<CalleeSaved, bigint>>;
  /** What the n-th of a role answers. */
  readonly reply: (role: Role, index: number) => bigint;
  /** Programs (their structs) that run on this CPU already. */
  readonly active: ReadonlySet<Kaddr>;
  readonly statistics: boolean;
  /** What the clock shows at first. */
  readonly clock: bigint;
  /** Whether the image is retired while the original runs. */
  readonly retire: boolean;
}

/** Where the call happens. */
export interface Place {
  /** The stack before the call. */
  readonly stack: Uint8Array;
  readonly stackBase: Kaddr;
  /** rsp of the driver, before it calls the launcher. */
  readonly rsp: Kaddr;
  readonly driverReturn: Kaddr;
  readonly behind: Kaddr;
  readonly clockTick: bigint;
}

/** Somebody is called. A word that is not given is undefined by the rules. */
export interface ExpectedEvent {
  readonly what: string;
  readonly words: Readonly<Partial<Record<EventWord, bigint>>>;
  readonly ctx: readonly bigint[] | undefined;
  readonly reply: bigint;
}

/** Per-CPU counters of one program after the call. */
export interface Counters {
  active: bigint;
  misses: bigint;
  cnt: bigint;
  nsecs: bigint;
  /** u64_stats sequence: two steps per update. */
  syncp: bigint;
}

export interface ExpectedCall {
  readonly events: readonly ExpectedEvent[];
  /** What the driver gets in rax; undefined when the rules leave it open. */
  readonly rax: bigint | undefined;
  readonly saved: Readonly<Record<CalleeSaved, bigint>>;
  /** By address of the struct bpf_prog. */
  readonly counters: ReadonlyMap<Kaddr, Counters>;
  /** Where the last event's callee reads and nothing can ever be: nothing behind it is defined. */
  readonly faultAt: Kaddr | undefined;
  /** The lowest stack byte that image and callees may write. */
  readonly deepest: Kaddr;
  readonly clock: bigint;
}

/** Words that callees push below the image's rsp: two return addresses and one of sched_clock's. */
const CALLEE_WORDS = 3;

export function simulate(
  revision: ManagedRevision,
  request: TrampolineRequest,
  situation: Situation,
  place: Place,
): ExpectedCall {
  return new TracedCall(revision, request, situation, place).run();
}

class TracedCall {
  readonly #request: TrampolineRequest;
  readonly #situation: Situation;
  readonly #place: Place;
  readonly #flags: number;
  readonly #stack: Uint8Array;
  readonly #view: DataView;
  readonly #events: ExpectedEvent[] = [];
  readonly #counters = new Map<Kaddr, Counters>();
  readonly #depth = { rcu: 0n, trace: 0n, migration: 0n };
  readonly #seen = { fentry: 0, fmod_ret: 0, fexit: 0 };
  #rsp: Kaddr;
  #rbp: Kaddr;
  #clock: bigint;
  #faultAt: Kaddr | undefined;

  constructor(revision: ManagedRevision, request: TrampolineRequest, situation: Situation, place: Place) {
    this.#request = request;
    this.#situation = situation;
    this.#place = place;
    // v5.13 ignores what it does not know.
    this.#flags = revision === 'v5.13' ? request.flags & 7 : request.flags;
    this.#stack = place.stack.slice();
    this.#view = new DataView(this.#stack.buffer);
    this.#rsp = place.rsp;
    this.#rbp = place.rsp;
    this.#clock = situation.clock;
    for (const { prog } of [...request.fentry, ...request.fmodRet, ...request.fexit]) {
      const active = situation.active.has(prog) ? 1n : 0n;
      this.#counters.set(prog, { active, misses: 0n, cnt: 0n, nsecs: 0n, syncp: 0n });
    }
  }

  #has(flag: number): boolean {
    return (this.#flags & flag) !== 0;
  }

  get #keepsReturn(): boolean {
    return this.#has(CALL_ORIG) || this.#has(RET_FENTRY_RET);
  }

  get #ctxBytes(): number {
    return 8 * this.#request.argSizes.length + (this.#keepsReturn ? 8 : 0);
  }

  get #frameBytes(): number {
    return this.#ctxBytes + (this.#has(IP_ARG) ? 8 : 0);
  }

  run(): ExpectedCall {
    const { saved } = this.#situation;
    this.#push(this.#place.driverReturn);
    this.#push(this.#place.behind);
    this.#push(saved.rbp);
    this.#rbp = this.#rsp;
    this.#rsp = addrAdd(this.#rsp, -this.#frameBytes);
    this.#push(saved.rbx);

    const { fentry, fmodRet, fexit } = this.#request;
    if (this.#has(IP_ARG)) {
      this.#store(-this.#frameBytes, this.#load(addrAdd(this.#rbp, 8)) - BigInt(SITE_BYTES));
    }
    this.#saveArgs();
    if (this.#has(CALL_ORIG)) this.#imCall('__bpf_tramp_enter');
    for (const prog of fentry) this.#invoke('fentry', prog, this.#has(RET_FENTRY_RET));
    const modified = fmodRet.length > 0 && this.#fmodRet();
    const retired = this.#has(CALL_ORIG) && !modified && this.#callOriginal();
    if (!retired) {
      for (const prog of fexit) this.#invoke('fexit', prog, false);
    }
    // With CALL_ORIG the exit function comes between the reload and the return, and may overwrite them all.
    const restored = this.#has(RESTORE_REGS) && !this.#has(CALL_ORIG) ? this.#reloads() : undefined;
    if (this.#has(CALL_ORIG)) this.#imCall('__bpf_tramp_exit');
    return this.#leave(restored);
  }

  /** Upper bytes of a slot stay as they were. */
  #saveArgs(): void {
    this.#request.argSizes.forEach((size, i) => {
      const start = Number(this.#rbp - this.#place.stackBase) - this.#ctxBytes + 8 * i;
      for (let byte = 0; byte < size; byte++) {
        this.#stack[start + byte] = Number(((this.#situation.args[i] as bigint) >> BigInt(8 * byte)) & 0xffn);
      }
    });
  }

  /** Arguments as they are reloaded: every width fills its register with zeros. */
  #reloads(): Partial<Record<EventWord, bigint>> {
    return Object.fromEntries(
      this.#request.argSizes.map((size, i) => {
        const slot = this.#load(addrAdd(this.#rbp, 8 * i - this.#ctxBytes));
        return [ARGS[i], BigInt.asUintN(8 * size, slot)];
      }),
    );
  }

  /** True when a program has spoken, so that the original is skipped. */
  #fmodRet(): boolean {
    // Without a return value slot, this is the last argument's; without arguments, the function address's
    // or the saved rbx. The kernel's callers never ask for that; the images do it all the same.
    this.#store(-8, 0n);
    for (const prog of this.#request.fmodRet) {
      this.#invoke('fmod_ret', prog, true);
      if (this.#load(addrAdd(this.#rbp, -8)) !== 0n) return true;
    }
    return false;
  }

  /** True when the image was retired meanwhile: what comes next is its epilogue. */
  #callOriginal(): boolean {
    const { origCall } = this.#request;
    const who = this.#has(SKIP_FRAME) ? addrAdd(origCall, SITE_BYTES) : origCall;
    const reply = this.#situation.reply('original', 0);
    this.#event('original', { who, ...this.#reloads() }, reply);
    this.#store(-8, reply);
    return this.#situation.retire;
  }

  #invoke(role: 'fentry' | 'fmod_ret' | 'fexit', prog: ProgRef, keep: boolean): void {
    if (this.#faultAt !== undefined) return;
    const index = this.#seen[role]++;
    const helpers = this.#request.helpers;
    const suffix = prog.sleepable ? '_sleepable' : '';
    const enter = `__bpf_prog_enter${suffix}`;
    const counters = this.#counters.get(prog.prog) as Counters;
    const reader = prog.sleepable ? 'trace' : 'rcu';

    const called = { who: helpers[enter] as Kaddr, rdi: prog.prog };
    if (!canHoldData(prog.prog)) {
      this.#event(enter, called);
      this.#faultAt ??= addrAdd(prog.prog, BpfProg.active);
      return;
    }
    const runs = counters.active === 0n;
    const start = runs ? this.#startTime() : 0n;
    this.#event(enter, { ...called, result: start });
    this.#depth[reader]++;
    this.#depth.migration++;
    counters.active++;
    if (runs) {
      const ctx = addrAdd(this.#rbp, -this.#ctxBytes);
      const insnsi = prog.jited ? {} : { rsi: prog.insnsi };
      const reply = this.#situation.reply(role, index);
      const words = { who: prog.bpfFunc, rdi: ctx, ...insnsi };
      this.#event(`${role} ${prog.name}`, words, reply, this.#ctx(ctx));
      if (keep) this.#store(-8, reply);
    } else {
      counters.misses++;
      counters.syncp += 2n;
    }

    const exit = `__bpf_prog_exit${suffix}`;
    this.#event(exit, { who: helpers[exit] as Kaddr, rdi: prog.prog, rsi: start });
    if (start > 1n) {
      counters.cnt++;
      counters.nsecs += this.#readClock() - start;
      counters.syncp += 2n;
    }
    counters.active--;
    this.#depth.migration--;
    this.#depth[reader]--;
  }

  #startTime(): bigint {
    return this.#situation.statistics ? this.#readClock() : 1n;
  }

  #readClock(): bigint {
    const now = this.#clock;
    this.#clock += this.#place.clockTick;
    return now;
  }

  #imCall(name: string): void {
    const { im, helpers } = this.#request;
    this.#event(name, { who: helpers[name] as Kaddr, rdi: im });
    if (!canHoldData(im)) this.#faultAt ??= addrAdd(im, BpfTrampImage.pcref + PercpuRef.percpuCountPtr);
  }

  #ctx(ctx: Kaddr): bigint[] {
    return Array.from({ length: CTX_WORDS }, (_, i) => this.#load(addrAdd(ctx, 8 * (CTX_FROM + i))));
  }

  #leave(restored: Partial<Record<EventWord, bigint>> | undefined): ExpectedCall {
    const deepest = addrAdd(this.#rsp, -8 * CALLEE_WORDS);
    let rax = this.#keepsReturn ? this.#load(addrAdd(this.#rbp, -8)) : undefined;
    // Not what was pushed when fmod_ret without a slot of its own has overwritten it.
    const rbx = this.#load(addrAdd(this.#rbp, -this.#frameBytes - 8));
    if (!this.#has(SKIP_FRAME) && this.#faultAt === undefined) {
      const reply = this.#situation.reply('behind', 0);
      const value = rax === undefined ? {} : { rax };
      this.#event('behind', { who: this.#place.behind, ...restored, ...value, rsp: this.#at(16) }, reply);
      rax = reply;
    }
    return {
      events: this.#events,
      rax,
      saved: { ...this.#situation.saved, rbx },
      counters: this.#counters,
      faultAt: this.#faultAt,
      deepest,
      clock: this.#clock,
    };
  }

  /** An address relative to rbp. */
  #at(offset: number): Kaddr {
    return addrAdd(this.#rbp, offset);
  }

  #event(
    what: string,
    words: Partial<Record<EventWord, bigint>>,
    reply = 0n,
    ctx: readonly bigint[] | undefined = undefined,
  ): void {
    if (this.#faultAt !== undefined) return;
    // At the callee's first instruction the return address has just been pushed.
    const rsp = addrAdd(this.#rsp, -8);
    this.#events.push({ what, words: { rsp, ...this.#depth, ...words }, ctx, reply });
  }

  #push(value: bigint): void {
    this.#rsp = addrAdd(this.#rsp, -8);
    this.#view.setBigUint64(Number(this.#rsp - this.#place.stackBase), BigInt.asUintN(64, value), true);
  }

  #store(rbpOffset: number, value: bigint): void {
    const at = Number(this.#at(rbpOffset) - this.#place.stackBase);
    this.#view.setBigUint64(at, BigInt.asUintN(64, value), true);
  }

  #load(address: Kaddr): bigint {
    return this.#view.getBigUint64(Number(address - this.#place.stackBase), true);
  }
}

/** Whether a struct can be at an address: not at null, and only where x86 has addresses at all. */
export function canHoldData(address: Kaddr): boolean {
  return address >= 4096n && isCanonical(address);
}

/** 48 bits, sign-extended. */
export function isCanonical(address: Kaddr): boolean {
  return BigInt.asUintN(64, BigInt.asIntN(48, address)) === address;
}
