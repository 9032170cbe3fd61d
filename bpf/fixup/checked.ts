import type { BpfInsn } from '../../jit/index.ts';

/** A program as the verifier leaves it: what the JIT and the interpreter take. */
export interface CheckedProgram {
  readonly name: string;
  /** `[0]` is the program; then its subprograms, in the order of the object. */
  readonly functions: readonly CheckedFunction[];
  /** The direct tail calls, by PokeDescriptor.entry - 1: a slot of a prog array that the JIT jumps to by itself. */
  readonly pokes: readonly { readonly map: number; readonly slot: number }[];
  /** The traced function's address must be kept below ctx. Kernel: prog->call_get_func_ip */
  readonly callsGetFuncIp: boolean;
  /** Indices of the maps and the variables that it refers to. */
  readonly maps: readonly number[];
  readonly globals: readonly number[];
  /** How many instructions the check went through, over all paths. */
  readonly processedInsns: number;
}

export interface CheckedFunction {
  readonly name: string;
  /** Index in the subprograms of the program that was checked. */
  readonly subprog: number;
  /**
   * Ready but for the addresses of functions: in calls with src PSEUDO_CALL and in ld_imm64 with src
   * PSEUDO_FUNC, imm is an index in {@link CheckedProgram.functions}.
   */
  readonly insns: readonly BpfInsn[];
  /** The instruction of the object that each comes from: an index in the whole program's. */
  readonly origins: readonly number[];
  /** Bytes of stack, not rounded. */
  readonly stackDepth: number;
  readonly tailCallReachable: boolean;
  /** Loads that may fault. */
  readonly numExentries: number;
}
