/*
 * What a traced call has to do, by the rules alone: no byte of any image, and nothing of the emitters, is
 * looked at here. The stack is a real array of words with the frame as the kernel lays it out, so that what an
 * odd combination of flags does to a slot follows from where the slot lies. What the rules leave undefined
 * stays open.
 *
 * An image with another frame does not do exactly this, and need not: see judge.ts for what it must do.
 */

import { BpfProg, BpfTrampImage, HelperPair, PercpuRef, TrampFlag } from '../../jit/index.ts';
import { addrAdd, Bug, type Kaddr } from '../../lib/index.ts';
import {
  flagsOf,
  type ImageCase,
  isCalledDirectly,
  type Kind,
  knownFlags,
  movedOn,
  type ProgramCase,
  programsOf,
  STACK_ARG_WORDS,
  usesOtherLauncher,
} from './case.ts';
import {
  type Counters,
  type Expectation,
  type Expected,
  type ExpectedCase,
  type ExpectedFault,
  OPEN,
} from './expectation.ts';
import {
  CALL_DEPTH,
  CALL_DEPTH_SHIFT,
  EventKind,
  FAULT_ADDRESS,
  FILL,
  FILLED_BYTES,
  NESTED_PUSHES,
  OUTER_COOKIE,
  PREFIX_WORDS,
  RETURN_WORDS,
  recordWords,
  ScriptDeed,
} from './log.ts';
import { type Callers, canHoldData, type Place, type ProgramPlace } from './place.ts';
import { JUDGED } from './revision.ts';
import { shapeOf } from './shape.ts';
import { hasWords, type Word, wordsOf } from './words.ts';

const { RESTORE_REGS, CALL_ORIG, SKIP_FRAME, IP_ARG, RET_FENTRY_RET, ORIG_STACK, TAIL_CALL_CTX, INDIRECT } =
  TrampFlag;

/** The site's 5-byte call or nop. */
const SITE_BYTES = 5;
const ENDBR_BYTES = 4;
/** What each reading adds to the clock (tramp/runtime-text.ts), nanoseconds. */
export const CLOCK_TICK = 10n;

const FILL_HALF = Number(FILL & 0xffff_ffffn);
const NO_WRITE = { word: 0, value: 0n };
/** No program in particular. */
const NOBODY = -1;
/** More words than any record has behind its prefix. */
const RECORD_WORDS = 32;

/** What enter and exit do around a program. */
interface Pair {
  readonly suffix: string;
  readonly sleepable: boolean;
  /** Counts runs, and refuses a second one. */
  readonly recur: boolean;
  readonly timed: boolean;
}

const V5_NORMAL: Pair = { suffix: '', sleepable: false, recur: true, timed: true };
const V5_SLEEPABLE: Pair = { suffix: '_sleepable', sleepable: true, recur: true, timed: true };
const RECUR: Pair = { suffix: '_recur', sleepable: false, recur: true, timed: true };
const RECUR_SLEEPABLE: Pair = { suffix: '_sleepable_recur', sleepable: true, recur: true, timed: true };
const PLAIN: Pair = { suffix: '', sleepable: false, recur: false, timed: true };
const PLAIN_SLEEPABLE: Pair = { suffix: '_sleepable', sleepable: true, recur: false, timed: true };
const LSM_CGROUP: Pair = { suffix: '_lsm_cgroup', sleepable: false, recur: false, timed: false };

/**
 * A frame, in words. From the saved rbp down: the result, if any; the argument words; from v6.1 on, how many they are;
 * the function's address, where it is kept; rbx (v6.12); two words of run_ctx (v6.1); what the original is passed on
 * the stack (v6.12). Below it: what TAIL_CALL_CTX pushes; rbx, before v6.12.
 */
interface Frame {
  /** Argument words. */
  readonly args: number;
  /** From the saved rbp down to argument 0. */
  readonly ctx: number;
  /** From there down to these; 0 where there is none. */
  readonly ip: number;
  readonly rbx: number;
  readonly runCtx: number;
  readonly size: number;
}

function frameOf(one: ImageCase, flags: number, words: readonly Word[]): Frame {
  const has = (flag: number): boolean => (flags & flag) !== 0;
  const v6 = hasWords(one.revision);
  const ctx = words.length + (has(CALL_ORIG) || has(RET_FENTRY_RET) ? 1 : 0);
  let size = v6 ? ctx + 1 : ctx;
  const ip = has(IP_ARG) ? ++size : 0;
  if (!v6) return { args: words.length, ctx, ip, rbx: size + 1, runCtx: 0, size };
  const inside = JUDGED[one.revision].rbxInFrame;
  const saved = inside ? ++size : 0;
  size += 2;
  const runCtx = size;
  const passed = has(CALL_ORIG) ? words.filter(({ stack }) => stack !== undefined).length : 0;
  // The push of rbp and two return addresses stand above: an odd number of words below them is on 16 bytes.
  if (passed > 0) size += passed + ((size + passed) % 2 === 0 ? 1 : 0);
  const tail = has(TAIL_CALL_CTX) ? 1 : 0;
  return { args: words.length, ctx, ip, rbx: inside ? saved : size + tail + 1, runCtx, size };
}

/** Says what calls have to do, on one machine. */
export class Oracle {
  readonly #callers: Callers;
  readonly #stack: BigUint64Array;
  readonly #bytes: Uint8Array;
  readonly #halves: Uint32Array;

  // the case
  #one!: ImageCase;
  #place!: Place;
  #into!: Expectation;
  #flags = 0;
  #frame!: Frame;
  #words: readonly Word[] = [];
  #stackWords = 0;
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
  /** current->bpf_ctx. */
  #runCtx = 0n;
  /** Calls that were counted since the last record. */
  #depth = 0n;
  #thunks = 0;
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
  expect(one: ImageCase, place: Place, into: Expectation): ExpectedCase {
    const { revision, registers } = one;
    const start = into.length;
    const owner = into.owners.length;
    const script = into.scriptEntries;
    this.#one = one;
    this.#place = place;
    this.#into = into;
    this.#flags = flagsOf(one) & knownFlags(revision);
    this.#words = wordsOf(one);
    this.#stackWords = shapeOf(one).stackWords;
    this.#frame = frameOf(one, this.#flags, this.#words);
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
    this.#clock = one.clock;
    this.#runCtx = this.#callers.runCtx;
    this.#depth = 0n;
    this.#thunks = 0;
    this.#inner = false;
    this.#owner = NOBODY;
    this.#calls = 0;
    this.#fault = undefined;
    this.#halves.fill(FILL_HALF);
    this.#top = this.#callers.top - registers.stackWords - STACK_ARG_WORDS;
    this.#rsp = this.#top;
    this.#lay(registers.stack);
    const { saved } = registers;
    this.#rbx = saved[0] as bigint;
    this.#rbpValue = saved[1] as bigint;

    const rax = this.#traced(registers.args, this.#callers.driverReturn);
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
  #traced(args: readonly bigint[], returnAddress: Kaddr): Expected {
    const behind = this.#behind;
    const { ctx, ip, rbx, size } = this.#frame;
    const direct = isCalledDirectly(this.#one);
    this.#calls++;
    this.#push(returnAddress);
    if (!direct) this.#push(behind);
    if (!this.#has(INDIRECT)) this.#countCall();
    this.#push(this.#rbpValue);
    const outer = this.#rbp;
    const outerHasResult = this.#hasResult;
    this.#hasResult = false;
    this.#rbp = this.#rsp;
    this.#rbpValue = this.#address(this.#rsp);
    this.#rsp -= size;
    if (this.#has(TAIL_CALL_CTX)) this.#push(this.#one.registers.rax);
    if (rbx > size) this.#rsp--;
    this.#store(-rbx, this.#rbx);

    if (hasWords(this.#one.revision)) {
      this.#store(-ctx - 1, BigInt(this.#words.length));
      if (ip > 0) this.#store(-ip, this.#place.origCall);
      this.#saveWords(args);
    } else {
      if (ip > 0) this.#store(-ip, addrAdd(behind, -SITE_BYTES));
      this.#saveArgs(args);
    }
    if (this.#has(CALL_ORIG)) this.#imCall('__bpf_tramp_enter');
    this.#invokeAll('fentry', this.#has(RET_FENTRY_RET));
    const spoken = this.#fmodRet();
    // Retired while the original ran: what comes next is the epilogue.
    const retired = this.#has(CALL_ORIG) && !spoken && this.#callOriginal();
    if (!retired) this.#invokeAll('fexit', false);
    const reloaded = this.#has(RESTORE_REGS) && !this.#has(CALL_ORIG);
    if (this.#has(CALL_ORIG)) this.#imCall('__bpf_tramp_exit');
    const tail = this.#has(CALL_ORIG) ? OPEN : this.#tailCount();

    // A struct_ops image whose program was refused returns what the stack held.
    let rax: Expected = tail;
    if (this.#keepsReturn) rax = this.#hasResult ? this.#load(-1) : OPEN;
    this.#hasResult = outerHasResult;
    // Not what was pushed when fmod_ret without a slot of its own has overwritten it.
    this.#rbx = this.#load(-rbx);
    this.#rbpValue = this.#load(0);
    this.#rsp = this.#rbp + 2;
    if (this.#one.config.rethunk && this.#fault === undefined) this.#thunks++;
    if (!direct) {
      if (!this.#has(SKIP_FRAME)) rax = this.#body(reloaded, rax);
      this.#rsp++;
    }
    this.#rbp = outer;
    return rax;
  }

  /** Upper bytes of a slot stay as they were. */
  #saveArgs(args: readonly bigint[]): void {
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

  /** From v6.1 on: words as they are, upper bytes and all. */
  #saveWords(args: readonly bigint[]): void {
    const { ctx } = this.#frame;
    this.#words.forEach(({ register, stack = 0 }, i) => {
      this.#store(i - ctx, register === undefined ? this.#fromCaller(stack) : (args[register] as bigint));
    });
    if (!this.#cleansGarbage) return;
    const only = this.#words.findIndex(({ stack }) => stack !== undefined);
    this.#store(only - ctx, BigInt.asUintN(32, this.#load(only - ctx)));
  }

  /** What the caller has on its stack for the function, where the image looks for it. */
  #fromCaller(index: number): bigint {
    return this.#load(3 + index);
  }

  /** A lone word on the stack has no upper half when the last argument, whichever it is, fits into the lower. */
  get #cleansGarbage(): boolean {
    return this.#stackWords === 1 && (this.#one.args.at(-1)?.sizeBytes ?? 0) <= 4;
  }

  /** What TAIL_CALL_CTX carries in rax. */
  #tailCount(): Expected {
    return this.#has(TAIL_CALL_CTX) ? this.#load(-this.#frame.size - 1) : OPEN;
  }

  /** What a register holds that its word is reloaded into; open when it has none. */
  #reloadedWord(register: number): Expected {
    const index = this.#words.findIndex((word) => word.register === register);
    return index < 0 ? OPEN : this.#load(index - this.#frame.ctx);
  }

  /** An argument as it is reloaded: every width fills its register with zeros. Open when there is none. */
  #reloaded(index: number): Expected {
    if (hasWords(this.#one.revision)) return this.#reloadedWord(index);
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
    const { retired, config } = this.#one;
    if (this.#fault !== undefined) return retired;
    this.#passStackWords();
    const rax = this.#tailCount();
    if (this.#has(ORIG_STACK)) {
      // Whatever the return address says comes next: here, the launcher behind its call.
      this.#function(this.#load(1), OPEN, (i) => this.#reloaded(i), rax);
      this.#storeResult(this.#one.returns.body);
      return retired;
    }
    const site = config.ibt && config.endbr ? ENDBR_BYTES + SITE_BYTES : SITE_BYTES;
    const who = this.#has(SKIP_FRAME) ? addrAdd(origCall, site) : origCall;
    this.#countCall();
    this.#callee(EventKind.original, who, this.#reloaded(0), this.#reloaded(1), this.#reloaded(2));
    for (let i = 3; i < 6; i++) this.#into.push(this.#reloaded(i));
    this.#into.push(rax);
    for (let i = 0; i < this.#stackWords; i++) this.#into.push(this.#stack[this.#rsp + i]);
    this.#storeResult(this.#one.returns.original);
    return retired;
  }

  /** The original's stack arguments, from its caller's frame and not from what programs see. */
  #passStackWords(): void {
    const { size } = this.#frame;
    for (let i = 0; i < this.#stackWords; i++) this.#store(i - size, this.#fromCaller(i));
    if (this.#stackWords > 0 && this.#cleansGarbage) {
      this.#store(-size, BigInt.asUintN(32, this.#load(-size)));
    }
  }

  /** The image returns into the traced function. @param reloaded whether arguments were put back into registers */
  #body(reloaded: boolean, rax: Expected): Expected {
    if (this.#fault !== undefined) return OPEN;
    const below = this.#rbp;
    const restored = (i: number): Expected => {
      if (!reloaded) return OPEN;
      const at = this.#words.findIndex(({ register }) => register === i);
      if (at < 0) return OPEN;
      const word = this.#stack[below - this.#frame.ctx + at] as bigint;
      if (hasWords(this.#one.revision)) return word;
      return BigInt.asUintN(8 * (this.#words[at] as Word).widthBytes, word);
    };
    this.#function(this.#behind, this.#stack[this.#rsp], restored, rax);
    return this.#one.returns.body;
  }

  /**
   * The traced function goes on behind its site.
   * @param returnAddress what rsp points at; open when the image itself calls
   */
  #function(
    who: bigint,
    returnAddress: Expected,
    register: (index: number) => Expected,
    rax: Expected,
  ): void {
    const into = this.#into;
    const called = returnAddress === OPEN;
    into.reserve(recordWords(EventKind.body) + STACK_ARG_WORDS);
    into.owners.push(NOBODY);
    into.pushHalves(EventKind.body, 0);
    into.push(who);
    for (let i = 0; i < 3; i++) into.push(register(i));
    into.push(this.#address(called ? this.#rsp - 1 : this.#rsp));
    into.push(this.#rbpValue);
    into.push(0n);
    into.push(returnAddress);
    this.#surroundings();
    for (let i = 3; i < 6; i++) into.push(register(i));
    into.push(rax);
    const first = called ? this.#rsp : this.#rsp + 1;
    for (let i = 0; i < this.#stackWords; i++) into.push(this.#stack[first + i]);
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
    const { suffix, sleepable, recur, timed } = this.#pairOf(prog);
    const place = programAt(this.#place, index);
    this.#owner = index;
    const counters = this.#counters[place.unit] as Counters;
    const v6 = hasWords(this.#one.revision);
    const { runCtx } = this.#frame;
    const runCtxAddress = v6 ? this.#address(this.#rbp - runCtx) : OPEN;
    if (v6) this.#store(-runCtx, prog.cookie);
    this.#countCall();
    this.#callee(EventKind.value, this.#helper(`__bpf_prog_enter${suffix}`), place.prog, runCtxAddress, OPEN);
    if (recur && !canHoldData(place.prog)) {
      this.#into.push(OPEN);
      this.#faultsAt(addrAdd(place.prog, BpfProg.active));
      return;
    }
    const runs = !recur || counters.active === 0;
    const start = runs ? this.#startTime(timed) : 0n;
    this.#into.push(start);
    if (sleepable) {
      this.#trace++;
      if (this.#rcu > 0) this.#splats++;
    } else this.#rcu++;
    this.#migration++;
    if (recur) counters.active++;
    if (runCtxAddress !== OPEN) {
      this.#store(1 - runCtx, this.#runCtx);
      this.#runCtx = runCtxAddress;
    }
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
    this.#countCall();
    const exit = this.#helper(`__bpf_prog_exit${suffix}`);
    this.#callee(EventKind.nothing, exit, place.prog, start, runCtxAddress);
    if (v6) this.#runCtx = this.#load(1 - runCtx);
    if (start > 1n) {
      if (!canHoldData(place.prog)) {
        this.#faultsAt(addrAdd(place.prog, BpfProg.stats));
        return;
      }
      counters.cnt++;
      counters.nsecs += this.#readClock() - start;
      counters.syncp += 2;
    }
    if (recur) counters.active--;
    this.#migration--;
    if (sleepable) this.#trace--;
    else this.#rcu--;
    this.#owner = NOBODY;
  }

  /** What stands around a program. Kernel: bpf_trampoline_enter, kernel/bpf/trampoline.c */
  #pairOf({ sleepable, kind }: ProgramCase): Pair {
    if (!hasWords(this.#one.revision)) return sleepable ? V5_SLEEPABLE : V5_NORMAL;
    if (kind === HelperPair.LSM_CGROUP) return LSM_CGROUP;
    if (kind === HelperPair.PLAIN) return sleepable ? PLAIN_SLEEPABLE : PLAIN;
    return sleepable ? RECUR_SLEEPABLE : RECUR;
  }

  /** The program itself; what it answers. */
  #run(prog: ProgramCase, place: ProgramPlace): bigint {
    const { ctx, args } = this.#frame;
    const into = this.#into;
    const nests = prog.calls && !this.#inner;
    const address = this.#address(this.#rbp - ctx);
    const v6 = hasWords(this.#one.revision);
    this.#countCall();
    this.#callee(EventKind.program, place.bpfFunc, address, prog.jited ? OPEN : place.insnsi, OPEN);
    into.push(v6 ? this.#load(-this.#frame.runCtx) : OUTER_COOKIE);
    for (let word = v6 ? -2 : -1; word <= args; word++) this.#pushWord(word - ctx);
    const reply = prog.returns;
    const deeds =
      (prog.writes === null ? 0 : ScriptDeed.write) |
      (nests ? ScriptDeed.nest : 0) |
      (prog.faults ? ScriptDeed.fault : 0);
    const { word, value } = prog.writes ?? NO_WRITE;
    into.pushScript(deeds, reply, 8 * word, value);
    if (prog.writes !== null) {
      this.#store(word - ctx, value);
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
    // its return address, what it pushes, and what the function is passed
    this.#rsp -= 1 + NESTED_PUSHES + STACK_ARG_WORDS;
    this.#lay(movedOn(this.#one.registers.stack));
    this.#stack.fill(FILL, this.#rsp - FILLED_BYTES / 8, this.#rsp);
    this.#inner = true;
    this.#owner = NOBODY;
    const rax = this.#traced(movedOn(this.#one.registers.args), this.#callers.nestedReturn);
    this.#inner = false;
    if (this.#fault === undefined) {
      into.reserve(recordWords(EventKind.nested));
      into.owners.push(NOBODY);
      into.pushHalves(EventKind.nested, 0);
      into.push(rax);
      into.push(this.#address(this.#rsp));
      into.push(this.#rbx ^ start);
    }
    this.#rsp = rsp;
    this.#rbx = start;
  }

  #startTime(timed: boolean): bigint {
    if (!this.#one.statistics || !timed) return 1n;
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
    this.#countCall();
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
    into.reserve(PREFIX_WORDS + RECORD_WORDS);
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
    this.#surroundings();
  }

  /** The task, the flags, and the counter of calls. */
  #surroundings(): void {
    this.#depths();
    this.#into.push(0n);
    this.#into.push(this.#runCtx);
    this.#callDepth();
  }

  #callDepth(): void {
    const counted = JUDGED[this.#one.revision].countsCalls;
    const moved = BigInt.asIntN(64, CALL_DEPTH) >> (CALL_DEPTH_SHIFT * this.#depth);
    this.#into.push(counted ? BigInt.asUintN(64, moved) : 0n);
    this.#depth = 0n;
  }

  /** A call of the image, or the one of the image itself, where calls are counted. */
  #countCall(): void {
    if (this.#one.config.callDepth && JUDGED[this.#one.revision].countsCalls) this.#depth++;
  }

  #depths(): void {
    this.#into.pushHalves(this.#rcu, this.#trace);
    this.#into.pushHalves(this.#migration, 0);
    this.#into.pushHalves(this.#references, 0);
  }

  #return(rax: Expected, saved: readonly bigint[]): void {
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
    into.push(this.#runCtx);
    this.#callDepth();
    into.pushHalves(this.#thunks, 0);
  }

  /** Lays words from rsp upwards. */
  #lay(words: readonly bigint[]): void {
    for (let i = 0; i < words.length; i++) this.#stack[this.#rsp + i] = words[i] as bigint;
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

  /** Return address into the traced function. */
  get #behind(): Kaddr {
    return usesOtherLauncher(this.#one) ? this.#callers.otherBehind : this.#callers.behind;
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
