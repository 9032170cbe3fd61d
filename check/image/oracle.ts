/*
 * What a traced call has to do, by the rules alone: no byte of any image, and nothing of the emitters, is
 * looked at here. The stack is a real array of words with the frame as the kernel lays it out, so that what an
 * odd combination of flags does to a slot follows from where the slot lies. What the rules leave undefined
 * stays open.
 *
 * An image with another frame does not do exactly this, and need not: see judge.ts for what it must do.
 */

import { BpfProg, BpfTrampImage, PercpuRef, TrampFlag } from '../../jit/index.ts';
import { addrAdd, Bug, type Kaddr } from '../../lib/index.ts';
import { flagsOf, type ImageCase, type Kind, knownFlags, type ProgramCase, programsOf } from './case.ts';
import {
  type Counters,
  type Expectation,
  type Expected,
  type ExpectedCase,
  type ExpectedFault,
  OPEN,
} from './expectation.ts';
import {
  EventKind,
  FAULT_ADDRESS,
  FILL,
  FILLED_BYTES,
  NESTED_PUSHES,
  PREFIX_WORDS,
  RETURN_WORDS,
  recordWords,
  ScriptDeed,
} from './log.ts';
import { type Callers, canHoldData, type Place, type ProgramPlace } from './place.ts';
import type { Values } from './values.ts';

const { RESTORE_REGS, CALL_ORIG, SKIP_FRAME, IP_ARG, RET_FENTRY_RET } = TrampFlag;

/** The site's 5-byte call or nop. */
const SITE_BYTES = 5;
/** What each reading adds to the clock (tramp/runtime-text.ts), nanoseconds. */
export const CLOCK_TICK = 10n;

const FILL_HALF = Number(FILL & 0xffff_ffffn);
/** No program in particular. */
const NOBODY = -1;

/** The part of a frame that programs can see, in words. */
interface Frame {
  readonly args: number;
  /** From the saved rbp down to argument 0. */
  readonly ctx: number;
  readonly size: number;
}

/** Says what calls have to do, on one machine. */
export class Oracle {
  readonly #callers: Callers;
  readonly #stack: BigUint64Array;
  readonly #bytes: Uint8Array;
  readonly #halves: Uint32Array;

  // the case
  #one!: ImageCase;
  #values!: Values;
  #place!: Place;
  #into!: Expectation;
  #flags = 0;
  #frame!: Frame;
  #counters: Counters[] = [];

  // the call
  /** Indices in the stack. */
  #rsp = 0;
  #rbp = 0;
  #rbx = 0n;
  #rbpValue = 0n;
  #rcu = 0;
  #trace = 0;
  #migration = 0;
  #references = 0;
  #atomicReferences = 0n;
  #splats = 0;
  #clock = 0n;
  #top = 0;
  /** Whether anybody has written the slot of the result yet. */
  #hasResult = false;
  #inner = false;
  #owner = NOBODY;
  #calls = 0;
  #fault: ExpectedFault | undefined;

  constructor(callers: Callers) {
    this.#callers = callers;
    this.#stack = new BigUint64Array(callers.stack.length);
    this.#bytes = new Uint8Array(this.#stack.buffer);
    this.#halves = new Uint32Array(this.#stack.buffer);
  }

  /** Appends what a case's log has to be, and the script that it needs. */
  expect(one: ImageCase, values: Values, place: Place, into: Expectation): ExpectedCase {
    const { revision, args, registers } = one;
    const start = into.length;
    const owner = into.owners.length;
    const script = into.scriptEntries;
    this.#one = one;
    this.#values = values;
    this.#place = place;
    this.#into = into;
    this.#flags = flagsOf(one) & knownFlags(revision);
    const ctx = args.length + (this.#keepsReturn ? 1 : 0);
    this.#frame = { args: args.length, ctx, size: ctx + (this.#has(IP_ARG) ? 1 : 0) };
    this.#counters = [];
    programsOf(one).forEach((prog, i) => {
      const { unit } = programAt(place, i);
      this.#counters[unit] ??= { active: 0, misses: 0, cnt: 0, nsecs: 0n, syncp: 0 };
      if (prog.running) (this.#counters[unit] as Counters).active = 1;
    });
    this.#rcu = 0;
    this.#trace = 0;
    this.#migration = 0;
    this.#references = 0;
    this.#atomicReferences = 0n;
    this.#splats = 0;
    this.#clock = values.clock;
    this.#inner = false;
    this.#owner = NOBODY;
    this.#calls = 0;
    this.#fault = undefined;
    this.#halves.fill(FILL_HALF);
    this.#top = this.#callers.top - registers.stackWords;
    this.#rsp = this.#top;
    const { saved } = values;
    this.#rbx = saved[0] as bigint;
    this.#rbpValue = saved[1] as bigint;

    const rax = this.#traced(values.args, this.#callers.driverReturn);
    if (this.#fault === undefined) this.#return(rax, saved);
    return {
      start,
      end: into.length,
      owner,
      script,
      fault: this.#fault,
      counters: this.#counters,
      atomicReferences: one.retired ? this.#atomicReferences : undefined,
      calls: this.#calls,
    };
  }

  #has(flag: number): boolean {
    return (this.#flags & flag) !== 0;
  }

  get #keepsReturn(): boolean {
    return this.#has(CALL_ORIG) || this.#has(RET_FENTRY_RET);
  }

  /** Somebody calls the traced function; what it returns in rax. */
  #traced(args: BigUint64Array, returnAddress: Kaddr): Expected {
    const { behind } = this.#callers;
    const { args: nrArgs, ctx, size } = this.#frame;
    this.#calls++;
    this.#push(returnAddress);
    this.#push(behind);
    this.#push(this.#rbpValue);
    const outer = this.#rbp;
    const outerHasResult = this.#hasResult;
    this.#hasResult = false;
    this.#rbp = this.#rsp;
    this.#rbpValue = this.#address(this.#rsp);
    this.#rsp -= size;
    this.#push(this.#rbx);

    if (this.#has(IP_ARG)) this.#store(-size, addrAdd(behind, -SITE_BYTES));
    this.#saveArgs(args);
    if (this.#has(CALL_ORIG)) this.#imCall('__bpf_tramp_enter');
    this.#invokeAll('fentry', this.#has(RET_FENTRY_RET));
    const spoken = this.#fmodRet();
    // Retired while the original ran: what comes next is the epilogue.
    const retired = this.#has(CALL_ORIG) && !spoken && this.#callOriginal();
    if (!retired) this.#invokeAll('fexit', false);
    const reloaded = this.#has(RESTORE_REGS) && !this.#has(CALL_ORIG);
    if (this.#has(CALL_ORIG)) this.#imCall('__bpf_tramp_exit');

    // A struct_ops image whose program was refused returns what the stack held.
    let rax: Expected = this.#keepsReturn && this.#hasResult ? this.#load(-1) : OPEN;
    this.#hasResult = outerHasResult;
    // Not what was pushed when fmod_ret without a slot of its own has overwritten it.
    this.#rbx = this.#load(-size - 1);
    this.#rbpValue = this.#load(0);
    this.#rsp = this.#rbp + 2;
    if (!this.#has(SKIP_FRAME)) rax = this.#body(reloaded ? ctx : undefined, nrArgs, rax);
    this.#rbp = outer;
    this.#rsp++;
    return rax;
  }

  /** Upper bytes of a slot stay as they were. */
  #saveArgs(args: BigUint64Array): void {
    const { ctx } = this.#frame;
    this.#one.args.forEach(({ sizeBytes }, i) => {
      const start = 8 * (this.#rbp - ctx + i);
      let value = args[i] as bigint;
      if (sizeBytes === 8) {
        this.#stack[start / 8] = value;
        return;
      }
      value = BigInt.asUintN(32, value);
      for (let byte = 0, bits = Number(value); byte < sizeBytes; byte++, bits >>>= 8) {
        this.#bytes[start + byte] = bits & 0xff;
      }
    });
  }

  /** An argument as it is reloaded: every width fills its register with zeros. Open when there is none. */
  #reloaded(index: number): Expected {
    const arg = this.#one.args[index];
    if (arg === undefined) return OPEN;
    const slot = this.#load(index - this.#frame.ctx);
    return arg.sizeBytes === 8 ? slot : BigInt.asUintN(8 * arg.sizeBytes, slot);
  }

  /** True when a program has spoken, so that the original is skipped. */
  #fmodRet(): boolean {
    const { fmodRet, fentry } = this.#one;
    if (fmodRet.length === 0) return false;
    // Without a result's slot this is the last argument's; without arguments, the function address's or
    // the saved rbx. The kernel's callers never ask for that; the images do it all the same.
    this.#storeResult(0n);
    for (let i = 0; i < fmodRet.length; i++) {
      this.#invoke(fmodRet[i] as ProgramCase, fentry.length + i, true);
      if (this.#load(-1) !== 0n) return true;
    }
    return false;
  }

  /** True when the image was retired meanwhile. */
  #callOriginal(): boolean {
    const { origCall } = this.#place;
    const { retired } = this.#one;
    if (this.#fault !== undefined) return retired;
    const who = this.#has(SKIP_FRAME) ? addrAdd(origCall, SITE_BYTES) : origCall;
    this.#callee(EventKind.original, who, this.#reloaded(0), this.#reloaded(1), this.#reloaded(2));
    for (let i = 3; i < 6; i++) this.#into.push(this.#reloaded(i));
    this.#into.push(OPEN);
    this.#storeResult(this.#values.original);
    return retired;
  }

  /** The image returns into the traced function. @param ctx where arguments were reloaded from, if they were */
  #body(ctx: number | undefined, nrArgs: number, rax: Expected): Expected {
    if (this.#fault !== undefined) return OPEN;
    const into = this.#into;
    const below = this.#rbp;
    const restored = (i: number): Expected => {
      if (ctx === undefined || i >= nrArgs) return OPEN;
      const { sizeBytes } = this.#one.args[i] as { sizeBytes: number };
      return BigInt.asUintN(8 * sizeBytes, this.#stack[below - ctx + i] as bigint);
    };
    into.reserve(recordWords(EventKind.body, 0));
    into.owners.push(NOBODY);
    into.pushHalves(EventKind.body, 0);
    into.push(this.#callers.behind);
    for (let i = 0; i < 3; i++) into.push(restored(i));
    into.push(this.#address(this.#rsp));
    into.push(this.#rbpValue);
    into.push(0n);
    into.push(0n);
    this.#depths();
    into.push(0n);
    for (let i = 3; i < 6; i++) into.push(restored(i));
    into.push(rax);
    return this.#values.body;
  }

  #invokeAll(kind: Exclude<Kind, 'fmodRet'>, keep: boolean): void {
    const { fentry, fmodRet } = this.#one;
    const first = kind === 'fentry' ? 0 : fentry.length + fmodRet.length;
    const programs = this.#one[kind];
    for (let i = 0; i < programs.length; i++) {
      this.#invoke(programs[i] as ProgramCase, first + i, keep);
    }
  }

  #invoke(prog: ProgramCase, index: number, keep: boolean): void {
    if (this.#fault !== undefined) return;
    const { sleepable } = prog;
    const place = programAt(this.#place, index);
    this.#owner = index;
    const counters = this.#counters[place.unit] as Counters;
    const enter = this.#helper(sleepable ? '__bpf_prog_enter_sleepable' : '__bpf_prog_enter');
    this.#callee(EventKind.value, enter, place.prog, OPEN, OPEN);
    if (!canHoldData(place.prog)) {
      this.#into.push(OPEN);
      this.#faultsAt(addrAdd(place.prog, BpfProg.active));
      return;
    }
    const runs = counters.active === 0;
    const start = runs ? this.#startTime() : 0n;
    this.#into.push(start);
    if (sleepable) {
      this.#trace++;
      if (this.#rcu > 0) this.#splats++;
    } else this.#rcu++;
    this.#migration++;
    counters.active++;
    this.#rbx = start;
    if (runs) {
      const reply = this.#run(prog, place);
      if (this.#fault !== undefined) return;
      if (keep) this.#storeResult(reply);
    } else {
      counters.misses++;
      counters.syncp += 2;
    }

    this.#owner = index;
    const exit = this.#helper(sleepable ? '__bpf_prog_exit_sleepable' : '__bpf_prog_exit');
    this.#callee(EventKind.nothing, exit, place.prog, start, OPEN);
    if (start > 1n) {
      counters.cnt++;
      counters.nsecs += this.#readClock() - start;
      counters.syncp += 2;
    }
    counters.active--;
    this.#migration--;
    if (sleepable) this.#trace--;
    else this.#rcu--;
    this.#owner = NOBODY;
  }

  /** The program itself; what it answers. */
  #run(prog: ProgramCase, place: ProgramPlace): bigint {
    const { ctx, args } = this.#frame;
    const into = this.#into;
    const nests = prog.calls && !this.#inner;
    const address = this.#address(this.#rbp - ctx);
    this.#callee(EventKind.program, place.bpfFunc, address, prog.jited ? OPEN : place.insnsi, OPEN);
    for (let word = -1; word <= args; word++) this.#pushWord(word - ctx);
    const reply = BigInt(prog.returns);
    const deeds =
      (prog.writes === null ? 0 : ScriptDeed.write) |
      (nests ? ScriptDeed.nest : 0) |
      (prog.faults ? ScriptDeed.fault : 0);
    const { word, value } = prog.writes ?? { word: 0, value: '0x0' };
    into.pushScript(deeds, reply, 8 * word, BigInt(value));
    if (prog.writes !== null) {
      this.#store(word - ctx, BigInt(value));
      this.#hasResult ||= word === args;
    }
    if (nests) this.#callAgain();
    if (prog.faults && this.#fault === undefined) this.#faultsAt(FAULT_ADDRESS as Kaddr);
    return reply;
  }

  /** A program calls the traced function. */
  #callAgain(): void {
    const into = this.#into;
    const rsp = this.#rsp;
    const start = this.#rbx;
    // its return address, and what it pushes
    this.#rsp -= 1 + NESTED_PUSHES;
    this.#stack.fill(FILL, this.#rsp - FILLED_BYTES / 8, this.#rsp);
    this.#inner = true;
    this.#owner = NOBODY;
    const rax = this.#traced(this.#values.inner, this.#callers.nestedReturn);
    this.#inner = false;
    if (this.#fault === undefined) {
      into.reserve(recordWords(EventKind.nested, 0));
      into.owners.push(NOBODY);
      into.pushHalves(EventKind.nested, 0);
      into.push(rax);
      into.push(this.#address(this.#rsp));
      into.push(this.#rbx ^ start);
    }
    this.#rsp = rsp;
    this.#rbx = start;
  }

  #startTime(): bigint {
    if (!this.#one.statistics) return 1n;
    const now = this.#readClock();
    // 0 would mean: do not run
    return now === 0n ? 1n : now;
  }

  #readClock(): bigint {
    const now = this.#clock;
    this.#clock = BigInt.asUintN(64, now + CLOCK_TICK);
    return now;
  }

  #imCall(name: '__bpf_tramp_enter' | '__bpf_tramp_exit'): void {
    if (this.#fault !== undefined) return;
    const { im } = this.#place;
    this.#callee(EventKind.nothing, this.#helper(name), im, OPEN, OPEN);
    if (!canHoldData(im)) {
      this.#faultsAt(addrAdd(im, BpfTrampImage.pcref + PercpuRef.percpuCountPtr));
      return;
    }
    const change = name === '__bpf_tramp_enter' ? 1 : -1;
    if (this.#one.retired) this.#atomicReferences += BigInt(change);
    else this.#references += change;
  }

  #faultsAt(address: Kaddr): void {
    const inside = BigInt.asUintN(64, BigInt.asIntN(48, address)) === address;
    this.#fault = { kind: inside ? 'read-unmapped' : 'general-protection', address };
  }

  #helper(name: string): Kaddr {
    const address = this.#place.helpers[name];
    if (address === undefined) throw new Bug(`nobody placed ${name}`);
    return address;
  }

  /** What every record of a callee begins with. */
  #callee(kind: EventKind, who: Kaddr, rdi: Expected, rsi: Expected, rdx: Expected): void {
    const into = this.#into;
    into.reserve(PREFIX_WORDS + 16);
    into.owners.push(this.#owner);
    into.pushHalves(kind, 0);
    into.push(who);
    into.push(rdi);
    into.push(rsi);
    into.push(rdx);
    // At the callee's first instruction the return address has just been pushed.
    into.push(this.#address(this.#rsp - 1));
    into.push(this.#rbpValue);
    this.#pushWord(0);
    this.#pushWord(1);
    this.#depths();
    into.push(0n);
  }

  #depths(): void {
    this.#into.pushHalves(this.#rcu, this.#trace);
    this.#into.pushHalves(this.#migration, 0);
    this.#into.pushHalves(this.#references, 0);
  }

  #return(rax: Expected, saved: BigUint64Array): void {
    const into = this.#into;
    into.reserve(RETURN_WORDS.length);
    into.owners.push(NOBODY);
    into.pushHalves(EventKind.return, 0);
    into.push(rax);
    into.push(this.#address(this.#top));
    into.push(this.#rbx);
    into.push(this.#rbpValue);
    for (let i = 2; i < saved.length; i++) into.push(saved[i] as bigint);
    into.push(0n);
    this.#depths();
    into.pushHalves(this.#splats, 0);
    into.push(this.#clock);
  }

  #push(value: bigint): void {
    this.#stack[--this.#rsp] = value;
  }

  /** A word of the frame, counted from the saved rbp. */
  #store(word: number, value: bigint): void {
    this.#stack[this.#rbp + word] = value;
  }

  #storeResult(value: bigint): void {
    this.#store(-1, value);
    this.#hasResult = true;
  }

  #load(word: number): bigint {
    return this.#stack[this.#rbp + word] as bigint;
  }

  /** Expects what a word of the frame holds. */
  #pushWord(word: number): void {
    const at = 2 * (this.#rbp + word);
    this.#into.pushHalves(this.#halves[at] as number, this.#halves[at + 1] as number);
  }

  #address(index: number): Kaddr {
    return this.#callers.stack[index] as Kaddr;
  }
}

function programAt(place: Place, index: number): ProgramPlace {
  const found = place.programs[index];
  if (found === undefined) throw new Bug(`no place for program ${index}`);
  return found;
}
