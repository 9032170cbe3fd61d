/*
 * An interpreter of eBPF, all of ISA v4 and what the kernel's verifier turns it into: for programs that are
 * not compiled, and to hold the JIT against.
 *
 *   alu.ts       arithmetic            jump.ts     conditions
 *   atomic.ts    atomic operations     memory.ts   where loads and stores go
 *
 * Kernel: ___bpf_prog_run, kernel/bpf/core.c
 */

import {
  BPF_ADDR_PERCPU,
  BPF_ADDR_SPACE_CAST,
  BPF_ALU,
  BPF_ALU64,
  BPF_ATOMIC,
  BPF_CALL,
  BPF_DW,
  BPF_END,
  BPF_EXIT,
  BPF_IMM,
  BPF_JA,
  BPF_JMP,
  BPF_JMP32,
  BPF_LD,
  BPF_LDX,
  BPF_MEM,
  BPF_MEMSX,
  BPF_MOV,
  BPF_NEG,
  BPF_NOSPEC,
  BPF_PROBE_MEM,
  BPF_PROBE_MEMSX,
  BPF_PSEUDO_CALL,
  BPF_PSEUDO_FUNC,
  BPF_REG_FP,
  BPF_ST,
  BPF_STX,
  BPF_TAIL_CALL,
  BPF_TO_BE,
  BPF_X,
  type BpfInsn,
  bpfClass,
  bpfMode,
  bpfSize,
} from '../../jit/index.ts';
import { alu, byteSwap, type Width } from './alu.ts';
import { atomic } from './atomic.ts';
import { holds } from './jump.ts';
import { type BpfMemory, MemoryFault, SIZES } from './memory.ts';

/** What a program can reach besides its registers. */
export interface BpfWorld {
  readonly memory: BpfMemory;
  /** Calls a helper by the imm field of its call, with r1 to r5; gives r0. */
  readonly call: (helper: number, args: readonly bigint[]) => bigint;
  /** Where a program's tail call goes; undefined when the slot is empty, and the program goes on. */
  readonly tailCall?: (map: bigint, index: number) => readonly BpfInsn[] | undefined;
  /** Added to a per-CPU pointer by the per-CPU move. */
  readonly percpuBase?: bigint;
}

export interface InterpretOptions {
  /** r1 and r2: a context and what else the caller passes. */
  readonly args: readonly bigint[];
  /** Just above the stack of the outermost function: r10. */
  readonly stackTop: bigint;
  /** Bytes of stack of one function; frames of callees lie below one another. Default 512. */
  readonly frameBytes?: number;
  /** Instructions after which the program is given up; default 1,000,000. */
  readonly limit?: number;
}

/** How a program ended. */
export type Interpreted =
  | { readonly r0: bigint; readonly instructions: number }
  | {
      /** Why it did not end by itself, in words. */
      readonly error: string;
      /** The access that it ended with. */
      readonly fault?: MemoryFault;
      /** The slot at which. */
      readonly at: number;
      readonly instructions: number;
    };

/** Deepest nesting of functions. Kernel: MAX_CALL_FRAMES */
const MAX_FRAMES = 8;
/** Tail calls that one run may make. Kernel: MAX_TAIL_CALL_CNT */
const MAX_TAIL_CALLS = 33;
const FRAME_BYTES = 512;
const LIMIT = 1_000_000;
const U64 = 0xffff_ffff_ffff_ffffn;

/** Runs a program whose first instruction is `insns[entry]`. */
export function interpret(
  insns: readonly BpfInsn[],
  world: BpfWorld,
  options: InterpretOptions,
  entry = 0,
): Interpreted {
  return new Run(insns, world, options, entry).toTheEnd();
}

interface Frame {
  readonly returnTo: number;
  /** r6 to r10 of the caller. */
  readonly saved: readonly bigint[];
}

class Stopped extends Error {}

class Run {
  #insns: readonly BpfInsn[];
  readonly #world: BpfWorld;
  readonly #options: InterpretOptions;
  /** r0 to r10, and the register that the verifier's rewriting uses. */
  readonly #r: bigint[] = new Array<bigint>(12).fill(0n);
  #pc: number;
  #instructions = 0;
  #tailCalls = 0;
  readonly #frames: Frame[] = [];
  #r0: bigint | undefined;

  constructor(insns: readonly BpfInsn[], world: BpfWorld, options: InterpretOptions, entry: number) {
    this.#insns = insns;
    this.#world = world;
    this.#options = options;
    this.#pc = entry;
    options.args.forEach((value, i) => {
      this.#r[1 + i] = BigInt.asUintN(64, value);
    });
    this.#r[BPF_REG_FP] = options.stackTop;
  }

  toTheEnd(): Interpreted {
    const limit = this.#options.limit ?? LIMIT;
    let at = this.#pc;
    try {
      while (this.#r0 === undefined) {
        at = this.#pc;
        if (this.#instructions >= limit) throw new Stopped(`${limit} instructions and no end`);
        const insn = this.#insns[at];
        if (insn === undefined) throw new Stopped('ran out of the program');
        this.#instructions++;
        this.#pc++;
        this.#execute(insn);
      }
      return { r0: this.#r0, instructions: this.#instructions };
    } catch (error) {
      if (!(error instanceof Stopped) && !(error instanceof MemoryFault)) throw error;
      const fault = error instanceof MemoryFault ? { fault: error } : {};
      return { error: error.message, at, instructions: this.#instructions, ...fault };
    }
  }

  #execute(insn: BpfInsn): void {
    switch (bpfClass(insn.code)) {
      case BPF_ALU64:
        this.#alu(insn, 64);
        break;
      case BPF_ALU:
        this.#alu(insn, 32);
        break;
      case BPF_JMP:
        this.#jump(insn, 64);
        break;
      case BPF_JMP32:
        this.#jump(insn, 32);
        break;
      case BPF_LD:
        this.#loadImm64(insn);
        break;
      case BPF_LDX:
        this.#load(insn);
        break;
      case BPF_ST:
        this.#store(insn, BigInt(insn.imm));
        break;
      case BPF_STX:
        if (bpfMode(insn.code) === BPF_ATOMIC) this.#atomic(insn);
        else this.#store(insn, this.#get(insn.src));
        break;
    }
  }

  // -- arithmetic -------------------------------------------------------------------------------

  #alu(insn: BpfInsn, width: Width): void {
    const { code, dst, src, off, imm } = insn;
    const operation = code & 0xf0;
    const operand = (code & BPF_X) === 0 ? BigInt.asUintN(64, BigInt(imm)) : this.#get(src);
    switch (operation) {
      case BPF_MOV:
        this.#set(dst, this.#moved(insn, operand, width));
        return;
      case BPF_NEG:
        this.#set(dst, BigInt.asUintN(width, -this.#get(dst)));
        return;
      case BPF_END:
        this.#set(dst, this.#ordered(insn, width));
        return;
    }
    const result = alu(operation, this.#get(dst), operand, width, off === 1);
    if (result === undefined) unknown(insn);
    this.#set(dst, result);
  }

  /** MOV, and what its off field makes of it. */
  #moved({ code, off, imm }: BpfInsn, operand: bigint, width: Width): bigint {
    if (width === 64 && (code & BPF_X) !== 0) {
      if (off === BPF_ADDR_PERCPU) return operand + (this.#world.percpuBase ?? 0n);
      // Casts to the kernel's side only drop what is not kept of an arena's pointer.
      if (off === BPF_ADDR_SPACE_CAST && imm === 1) return BigInt.asUintN(32, operand);
    }
    return BigInt.asUintN(width, off === 0 ? operand : BigInt.asIntN(off, operand));
  }

  /** Byte order: to big, to little (which drops what is above), or swapped whatever the host's. */
  #ordered({ code, dst, imm }: BpfInsn, width: Width): bigint {
    const swaps = width === 64 || (code & BPF_TO_BE) !== 0;
    const value = this.#get(dst);
    return swaps ? byteSwap(value, imm) : BigInt.asUintN(imm, value);
  }

  // -- memory -----------------------------------------------------------------------------------

  #loadImm64(insn: BpfInsn): void {
    const next = this.#insns[this.#pc];
    if (insn.code !== (BPF_LD | BPF_IMM | BPF_DW) || next === undefined) unknown(insn);
    this.#pc++;
    // The address of a function of the program's own is the slot it starts at.
    if (insn.src === BPF_PSEUDO_FUNC) {
      this.#set(insn.dst, BigInt(this.#pc - 2 + insn.imm + 1));
      return;
    }
    const high = BigInt.asUintN(32, BigInt(next.imm));
    this.#set(insn.dst, (high << 32n) | BigInt.asUintN(32, BigInt(insn.imm)));
  }

  #load(insn: BpfInsn): void {
    const { code, dst, src, off } = insn;
    const size = SIZES[bpfSize(code)] as number;
    const mode = bpfMode(code);
    const extends_ = mode === BPF_MEMSX || mode === BPF_PROBE_MEMSX;
    const probes = mode === BPF_PROBE_MEM || mode === BPF_PROBE_MEMSX;
    if (mode !== BPF_MEM && !extends_ && !probes) unknown(insn);
    const value = this.#read(this.#get(src) + BigInt(off), size, probes);
    this.#set(dst, extends_ ? BigInt.asUintN(64, BigInt.asIntN(8 * size, value)) : value);
  }

  /** A probe load of what is not there gives 0. */
  #read(address: bigint, size: number, probes: boolean): bigint {
    try {
      return this.#world.memory.read(address & U64, size);
    } catch (error) {
      if (probes && error instanceof MemoryFault) return 0n;
      throw error;
    }
  }

  #store(insn: BpfInsn, value: bigint): void {
    const { code, dst, off } = insn;
    if (code === (BPF_ST | BPF_NOSPEC)) return;
    if (bpfMode(code) !== BPF_MEM) unknown(insn);
    const size = SIZES[bpfSize(code)] as number;
    this.#world.memory.write((this.#get(dst) + BigInt(off)) & U64, size, BigInt.asUintN(8 * size, value));
  }

  #atomic(insn: BpfInsn): void {
    const { code, dst, src, off, imm } = insn;
    const size = SIZES[bpfSize(code)] as number;
    if (size < 4) unknown(insn);
    const cut = (value: bigint): bigint => BigInt.asUintN(8 * size, value);
    const address = (this.#get(dst) + BigInt(off)) & U64;
    const { memory } = this.#world;
    const old = memory.read(address, size);
    const outcome = atomic(imm, old, cut(this.#get(src)), cut(this.#get(0)));
    if (outcome === undefined) unknown(insn);
    memory.write(address, size, cut(outcome.stored));
    if (outcome.fetched === 'src') this.#set(src, old);
    if (outcome.fetched === 'r0') this.#set(0, old);
  }

  // -- jumps and calls --------------------------------------------------------------------------

  #jump(insn: BpfInsn, width: Width): void {
    const { code, dst, src, off, imm } = insn;
    const condition = code & 0xf0;
    switch (condition) {
      case BPF_JA:
        this.#pc += width === 32 ? imm : off;
        return;
      case BPF_CALL:
      case BPF_EXIT:
      case BPF_TAIL_CALL:
        if (width === 32) unknown(insn);
        if (condition === BPF_CALL) this.#call(insn);
        else if (condition === BPF_EXIT) this.#exit();
        else this.#tailCall();
        return;
    }
    const operand = (code & BPF_X) === 0 ? BigInt(imm) : this.#get(src);
    const taken = holds(condition, this.#get(dst), operand, width);
    if (taken === undefined) unknown(insn);
    if (taken) this.#pc += off;
  }

  #call({ src, imm }: BpfInsn): void {
    const args = this.#r.slice(1, 6);
    if (src !== BPF_PSEUDO_CALL) {
      this.#set(0, BigInt.asUintN(64, this.#world.call(imm, args)));
      return;
    }
    if (this.#frames.length + 1 >= MAX_FRAMES) throw new Stopped(`more than ${MAX_FRAMES} functions deep`);
    this.#frames.push({ returnTo: this.#pc, saved: this.#r.slice(6, 11) });
    this.#r[BPF_REG_FP] = this.#get(BPF_REG_FP) - BigInt(this.#options.frameBytes ?? FRAME_BYTES);
    this.#pc += imm;
  }

  #exit(): void {
    const frame = this.#frames.pop();
    if (frame === undefined) {
      this.#r0 = this.#get(0);
      return;
    }
    frame.saved.forEach((value, i) => {
      this.#r[6 + i] = value;
    });
    this.#pc = frame.returnTo;
  }

  /** Goes on in another program with r1; where there is none, behind the call. */
  #tailCall(): void {
    const { tailCall } = this.#world;
    const index = Number(BigInt.asUintN(32, this.#get(3)));
    if (tailCall === undefined || this.#tailCalls >= MAX_TAIL_CALLS) return;
    const next = tailCall(this.#get(2), index);
    if (next === undefined) return;
    this.#tailCalls++;
    this.#insns = next;
    this.#pc = 0;
  }

  #get(register: number): bigint {
    const value = this.#r[register];
    if (value === undefined) throw new Stopped(`r${register} does not exist`);
    return value;
  }

  #set(register: number, value: bigint): void {
    if (register === BPF_REG_FP || register >= this.#r.length) {
      throw new Stopped(`r${register} cannot be written`);
    }
    this.#r[register] = BigInt.asUintN(64, value);
  }
}

function unknown({ code }: BpfInsn): never {
  throw new Stopped(`opcode 0x${code.toString(16).padStart(2, '0')} is unknown`);
}
