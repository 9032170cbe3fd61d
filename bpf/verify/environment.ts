import type { BpfJitRevisionName } from '../../jit/index.ts';
import type { Kaddr } from '../../lib/index.ts';
import type { Btf } from '../../obj/index.ts';
import type { BpfProgram } from '../model.ts';

/*
 * What a program is checked against: what its kernel has, where everything stands, what it is handed.
 * Whoever loads an object makes the maps and finds the addresses first.
 */

/** The part of a {@link BpfProgram} that is checked; programs that come from no object have this much too. */
export type BpfCode = Pick<BpfProgram, 'name' | 'insns' | 'subprogs' | 'references'>;

export interface BpfEnvironment {
  readonly revision: BpfJitRevisionName;
  readonly entry: BpfEntry;
  /** The program may sleep, and call what sleeps. */
  readonly sleepable: boolean;
  /** By the index that map references have. */
  readonly maps: readonly BpfMapPlace[];
  /** By the index that references to variables have. */
  readonly globals: readonly BpfGlobalPlace[];
  /** By the index that kernel symbols and functions have. */
  readonly externs: readonly BpfExternPlace[];
  /** Where a helper stands, by its number; undefined for one that is not there. */
  readonly helper: (id: number) => Kaddr | undefined;
  /** Address of __bpf_call_base: where the distances of calls are counted from. */
  readonly callBase: Kaddr;
  /** Offset of `cpu_number` within a CPU's area, for the revision that reads it in place of a call. */
  readonly cpuNumberOffset: number;
  /** Types of the object itself, for the prototypes of its global functions. */
  readonly objectBtf?: Btf | undefined;
  /** Types of the kernel, for what helpers return. */
  readonly kernelBtf?: Btf | undefined;
}

export interface BpfMapPlace {
  readonly name: string;
  /** BPF_MAP_TYPE_*. */
  readonly typeId: number;
  readonly keyBytes: number;
  readonly valueBytes: number;
  readonly maxEntries: number;
  /** Of its struct bpf_map. */
  readonly address: Kaddr;
  /** Of what an array or hash of maps holds. */
  readonly inner?: BpfMapPlace | undefined;
}

export interface BpfGlobalPlace {
  readonly name: string;
  /** Of the first variable. */
  readonly address: Kaddr;
  readonly sizeBytes: number;
  /** Programs may not write it, and it never changes: what is loaded from it is known. */
  readonly readOnly: boolean;
  /** The first bytes of it, as they are now; the rest is zero. Only looked at when `readOnly`. */
  readonly contents: Uint8Array;
}

export interface BpfExternPlace {
  readonly name: string;
  /** Undefined: the kernel has none of that name, and the reference is weak. */
  readonly address: Kaddr | undefined;
  /** In the types of the kernel: a function's BTF_KIND_FUNC, a variable's type. Undefined: untyped. */
  readonly type?: BpfTypeRef | undefined;
}

export interface BpfTypeRef {
  readonly btf: Btf;
  readonly id: number;
}

/** What one word that a program is handed means. */
export type BpfWord =
  | { readonly kind: 'scalar' }
  /** Points to a struct of the kernel's: loads through it may fault, and give 0. */
  | ({ readonly kind: 'struct-pointer' } & BpfTypeRef)
  /** Points to `sizeBytes` that the program may read and write. */
  | { readonly kind: 'memory'; readonly sizeBytes: number; readonly nullable: boolean }
  /** The caller's own context, handed on. */
  | { readonly kind: 'context' };

/** What r1 to r5 hold when the program begins, and what it may return. */
export type BpfEntry =
  | {
      /** r1 points to the arguments of a traced function, a word each. */
      readonly kind: 'trampoline';
      readonly attach: 'fentry' | 'fexit' | 'fmod_ret' | 'lsm';
      readonly args: readonly BpfWord[];
      /** The word behind the arguments, for fexit, fmod_ret and LSM programs; undefined: returns nothing. */
      readonly result: BpfWord | undefined;
      /** lsm: the hook answers yes or no. */
      readonly returnsBool?: boolean;
    }
  | {
      /** r1 to r5 are the arguments of a function: of a subprogram that is replaced. */
      readonly kind: 'function';
      readonly params: readonly BpfWord[];
    }
  | {
      /** r1 is somebody's context, of which nothing is known: its fields are read and written as they are. */
      readonly kind: 'opaque';
    };
