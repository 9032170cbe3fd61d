/** What the JIT is given, and what it gives back. */

import { type Kaddr, kaddr } from '../../lib/index.ts';
import type { Code } from '../x86/code.ts';
import type { BpfInsn } from './insn.ts';
import type { ByteRange } from './provenance.ts';

/**
 * One program, or one subprogram of a program, as the verifier leaves it. Kernel: struct bpf_prog and its aux.
 */
export interface BpfProgram {
  readonly insns: readonly BpfInsn[];
  /**
   * The instructions of the extra pass, when the program is split in functions: the first run does not
   * know yet where the others will stand. As many as `insns`, and each as long in bytes.
   */
  readonly final?: readonly BpfInsn[] | undefined;
  /** Where the image will stand. */
  readonly image: Kaddr;
  /** Bytes of stack, as the verifier counted them (not rounded). */
  readonly stackDepth: number;
  /** Any function of the program but the first. */
  readonly isSubprog: boolean;
  /** Whether a tail call can happen in it or below it. */
  readonly tailCallReachable: boolean;
  /** Converted from classic BPF. */
  readonly wasClassic: boolean;
  /** Entries of the exception table: how many loads the verifier expects to fault. */
  readonly numExentries: number;
  /** Whether an exception that is thrown below ends here (v6.12). */
  readonly exceptionBoundary?: boolean | undefined;
  /** Whether this is the function that handles exceptions (v6.12). */
  readonly exceptionCb?: boolean | undefined;
  /** Where the program's arena begins, in the kernel; 0 without one (v6.12). */
  readonly arenaKernVmStart?: Kaddr | undefined;
  /** Where it begins for the user (v6.12). */
  readonly arenaUserVmStart?: Kaddr | undefined;
}

/** What of the kernel's build, its addresses and its CPU decides bytes. A revision ignores what it does not know. */
export interface BpfJitConfig {
  /** Address of __bpf_call_base: a call's imm counts from there. */
  readonly callBase: Kaddr;
  /** End of the user's addresses: a probe load below it is not tried. */
  readonly taskSizeMax: bigint;
  /** Offset of this_cpu_off within a CPU's area. */
  readonly thisCpuOff: number;
  /** Address of the function that entries of the exception table name (v5.15). */
  readonly exHandler: Kaddr;
  readonly thunks: {
    /** __x86_indirect_thunk_array's entry of rcx. */
    readonly indirectRcx: Kaddr;
    /** The entry of rcx among the thunks against indirect target selection. */
    readonly itsRcx: Kaddr;
    readonly return: Kaddr;
    readonly clearBhbLoop: Kaddr;
  };

  /** Indirect branch tracking. */
  readonly ibt: boolean;
  /** Straight-line speculation is stopped: int3 behind ret, and behind an indirect jmp. */
  readonly sls: boolean;
  readonly retpoline: boolean;
  /** Retpolines are a fence and a jump. */
  readonly retpolineLfence: boolean;
  /** Indirect jumps through thunks against indirect target selection. */
  readonly its: boolean;
  /** Return by a thunk. */
  readonly rethunk: boolean;
  /** The branch history is cleared by a loop, before a classic program returns. */
  readonly bhbLoop: boolean;
  /** ... by an instruction. */
  readonly bhbHw: boolean;
  readonly hypervisor: boolean;
  /** Whoever loads the program has CAP_SYS_ADMIN. */
  readonly capSysAdmin: boolean;
  /** v6.12 takes it for granted. */
  readonly sse2: boolean;
  readonly bmi2: boolean;
  /** How indirect calls are checked (v6.12). */
  readonly cfi: 'off' | 'kcfi' | 'fineibt';
  readonly cfiHash: number;
  readonly cfiSubprogHash: number;
}

const NOWHERE = kaddr(0);

/** A CPU with SSE2 and four levels of page tables, a privileged loader, and nothing else. */
export const PLAIN_BPF_JIT_CONFIG: BpfJitConfig = {
  callBase: kaddr(0xffff_ffff_8120_0000n),
  taskSizeMax: 0x7fff_ffff_f000n,
  thisCpuOff: 0x1f5a8,
  exHandler: NOWHERE,
  thunks: { indirectRcx: NOWHERE, itsRcx: NOWHERE, return: NOWHERE, clearBhbLoop: NOWHERE },
  ibt: false,
  sls: false,
  retpoline: false,
  retpolineLfence: false,
  its: false,
  rethunk: false,
  bhbLoop: false,
  bhbHw: false,
  hypervisor: false,
  capSysAdmin: true,
  sse2: true,
  bmi2: false,
  cfi: 'off',
  cfiHash: 0,
  cfiSubprogHash: 0,
};

/** An entry of the exception table, apart from where it stands. Kernel: struct exception_table_entry */
export interface ExEntry {
  /** Offset of the instruction that may fault. */
  readonly insn: number;
  /** Bytes to skip, and in the second byte what becomes of the destination; see extable.ts. */
  readonly fixup: number;
  /** v5.15: from this field to the handler. From v6.1 on: the entry's type. */
  readonly handler: number;
}

/** Where a direct tail call is patched. Kernel: struct bpf_jit_poke_descriptor */
export interface PokeDescriptor {
  /** Which entry of the program's table it is, from 1. */
  readonly entry: number;
  /** Offset of the jump past the tail call. */
  readonly bypass: number;
  /** Offset of the jump into the other program; a nop while the map's slot is empty. */
  readonly target: number;
  /** What is added to the other program's address. */
  readonly adjOff: number;
}

/** A compiled program. */
export interface BpfImage {
  readonly bytes: Uint8Array;
  /**
   * Ends of the instructions, as offsets; the first is the prologue's. The first slot of a 64-bit immediate
   * has no end and keeps its starting value, as in the kernel.
   */
  readonly addrs: readonly number[];
  /** Passes of the first run, the one that writes included. */
  readonly passes: number;
  readonly exTable: readonly ExEntry[];
  readonly pokes: readonly PokeDescriptor[];
  /** Which instruction each byte belongs to, and steps and notes within; only when asked for. */
  readonly provenance: { readonly ranges: readonly ByteRange[]; readonly code: Code } | undefined;
}

/** The JIT refuses: the kernel falls back to its interpreter, or does not load the program. */
export interface RefusedProgram {
  /** The pass it was in, and why. */
  readonly fail: string;
  readonly bytes?: never;
}
