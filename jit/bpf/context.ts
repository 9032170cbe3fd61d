/** What the emitters of one pass share, and how a revision is made of them. */

import { EmitError } from '../../lib/index.ts';
import type { MovPtr } from '../kernel-encoding.ts';
import type { Assembler } from '../x86/assembler.ts';
import type { Reg } from '../x86/operand.ts';
import type { BpfInsn } from './insn.ts';
import type { BpfJitConfig, BpfProgram, PokeDescriptor } from './program.ts';

/** The JIT cannot or will not compile this program. */
export class JitRefusal extends EmitError {
  override readonly name: string = 'JitRefusal';
}

/** What a function has below rbp. */
export interface BpfFrame {
  /** Stack of the program: rbp - stackBytes up to rbp. A multiple of 8. */
  readonly stackBytes: number;
  /** Whether a tail call count (v6.12: and where it is counted) lies below that. */
  readonly tailCallReachable: boolean;
  /** Registers saved below that, in the order in which they are pushed. */
  readonly saved: readonly Reg[];
}

/** A load or store that may fault. */
export interface ExpectedFault {
  /** Offset of the instruction. */
  readonly insn: number;
  readonly fixup: number;
}

/** One pass over a program. Kernel: the arguments and locals of do_jit. */
export interface JitPass {
  readonly asm: Assembler;
  readonly rev: BpfJitRevision;
  readonly program: BpfProgram;
  readonly config: BpfJitConfig;
  /** The program's instructions, or those of the extra pass. */
  readonly insns: readonly BpfInsn[];
  readonly frame: BpfFrame;

  /**
   * End of each instruction: what this pass has come to already, and what the pass before said of the rest.
   * The first is the end of the prologue.
   */
  readonly addrs: Int32Array;
  /** Jumps that have become shorter keep their length by nops. */
  readonly padding: boolean;
  /** The image exists: addresses count, and lengths must not change any more. */
  readonly writing: boolean;

  /** Number of the instruction under way, from 1: its own end is `addrs[at]`. */
  at: number;
  /** Offset of the epilogue; undefined until the first exit. */
  cleanupAddr: number | undefined;
  /** Filled only when writing. */
  readonly faults: ExpectedFault[];
  readonly pokes: Map<number, PokeDescriptor>;
}

/** Emits something that every function has. */
export type JitPiece = (jit: JitPass) => void;

/** Emits what one eBPF instruction becomes. */
export type InsnEmitter = (jit: JitPass, insn: BpfInsn) => void;

/** Emitters by opcode. */
export type Opcodes = Readonly<Record<number, InsnEmitter>>;

/** How one kernel revision compiles. A later one is the earlier one with some parts replaced. */
export interface BpfJitRevision {
  /** What it compiles; any other opcode is refused. */
  readonly opcodes: Opcodes;
  readonly frame: (program: BpfProgram, insns: readonly BpfInsn[]) => BpfFrame;
  /** A 64-bit constant into a register, by the shortest form that the revision knows. */
  readonly movImm64: MovPtr;
  /** The longest distance forward that a short jump is taken for. Backward it is -128. */
  readonly shortJumpMax: number;

  // The prologue, in this order; between them stand the hook of trampolines and `sub rsp`.
  /** What stands where the function is called. */
  readonly entry: JitPiece;
  readonly zeroTailCallCount: JitPiece;
  readonly enterFrame: JitPiece;
  /** What stands where tail calls enter. */
  readonly tailCallEntry: JitPiece;
  readonly pushTailCallCount: JitPiece;
  /** Loads what lives in registers for the whole function. */
  readonly loadBases: JitPiece;

  // The epilogue, in this order; between them the saved registers come back.
  readonly bhbBarrier: JitPiece;
  readonly ret: JitPiece;

  /** From the function's address to where tail calls enter. */
  readonly tailCallOffset: (config: BpfJitConfig) => number;
  /** Offset from rbp of what is handed down in rax at a call where tail calls can be reached. */
  readonly tailCallSlot: (jit: JitPass) => number;
  /** `jmp rcx`, as the CPU's mitigations want it. */
  readonly jumpRcx: JitPiece;

  /** The last field of an entry of the exception table. @param field address of the field */
  readonly exHandler: (config: BpfJitConfig, field: bigint) => number;
}
