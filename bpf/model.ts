import type { BpfInsn } from '../jit/index.ts';
import type { Btf } from '../obj/index.ts';

/*
 * What an eBPF object holds, as plain data: nothing of it has an address yet. It is what libbpf has
 * between bpf_object__open and bpf_object__load, and a step more: every program is whole, with the
 * subprograms that it calls behind it.
 *
 *   readBpfObject (object.ts)   bytes -> BpfObject
 *   relocateCore (core.ts)      BpfProgram + target BTF -> its instructions with CO-RE applied
 *   kconfigBytes (kconfig.ts)   the contents of `.kconfig` for one kernel
 *
 * What a loader then has to do: give each map and each `BpfGlobals` memory, resolve the externs, and
 * go through `references` of each program to put the addresses into `insns`.
 */

export interface BpfObject {
  /** As its user named it, for messages. */
  readonly file: string;
  /** The text of section `license`; empty without one. */
  readonly license: string;
  /** By section, then by place in it. */
  readonly programs: readonly BpfProgram[];
  /** The maps that `.maps` defines, in the order of its BTF. Inner maps are within their outer ones. */
  readonly maps: readonly BpfMapDef[];
  /** The sections of variables, by section; `.kconfig` last. */
  readonly globals: readonly BpfGlobals[];
  /** What the object expects the kernel to have: `__ksym`. (`__kconfig` are variables of `globals`.) */
  readonly externs: readonly BpfExtern[];
  /** Undefined when it was compiled without -g. */
  readonly btf: Btf | undefined;
  /** What was left out although it is in the object, one line each; nothing of it keeps a program from running. */
  readonly notes: readonly string[];
}

/** Where a program attaches through a trampoline; `plain`: nowhere by itself, others may attach to it. */
export type BpfProgramKind = 'fentry' | 'fexit' | 'fmod_ret' | 'lsm' | 'freplace' | 'plain';

export interface BpfProgram {
  /** Its function. */
  readonly name: string;
  /** As in the object, e.g. `fentry.s/do_unlinkat`, without the `?` of `autoload`. */
  readonly section: string;
  readonly kind: BpfProgramKind;
  /** Behind the section name's slash; undefined when nothing stands there. */
  readonly target: string | undefined;
  /**
   * The function that it attaches to: the target, for LSM hooks with the kernel's `bpf_lsm_` before it.
   * Undefined for plain programs.
   */
  readonly attachTo: string | undefined;
  /** The name before a colon in the target, `fentry/module:function`. */
  readonly targetModule: string | undefined;
  readonly sleepable: boolean;
  /** False for sections that begin with `?`: not loaded unless somebody asks. */
  readonly autoload: boolean;
  /** `TRACING` for BPF_PROG_TYPE_TRACING, and so on. */
  readonly programType: string;
  /** `TRACE_FENTRY` for BPF_TRACE_FENTRY, and so on; undefined when its type has none. */
  readonly attachType: string | undefined;
  /**
   * The program and behind it its subprograms, one element a slot (two for a 64-bit immediate). Slots
   * that wait for an address are marked in `src` as the kernel's loader expects them, see
   * {@link BpfReference}.
   */
  readonly insns: readonly BpfInsn[];
  /** The functions in `insns`; `[0]` is the program itself, the others in the order of their first use. */
  readonly subprogs: readonly BpfSubprog[];
  /** What `insns` refer to, by instruction. */
  readonly references: readonly BpfReference[];
  /** CO-RE relocations not yet applied, by instruction; see `relocateCore`. */
  readonly coreRelocs: readonly BpfCoreReloc[];
  /** By instruction: each holds until the next. Empty when compiled without -g. */
  readonly lineInfo: readonly BpfLineInfo[];
  /** By instruction, one for each subprogram that has a type. What the kernel's loader gets; `subprogs` says it too. */
  readonly funcInfo: readonly BpfFuncInfo[];
}

export interface BpfSubprog {
  /** Index of its first instruction in the program. */
  readonly start: number;
  /** Slots. */
  readonly length: number;
  readonly name: string;
  /** Verified by itself, against its prototype; a static one as part of its callers. */
  readonly global: boolean;
  /** Its BTF_KIND_FUNC in the object's BTF, when known. */
  readonly type: number | undefined;
}

/**
 * An instruction that needs something from outside itself. What stands in the slots:
 *
 *   map           ld_imm64, src PSEUDO_MAP_FD, imm: index in `maps`
 *   global        ld_imm64, src PSEUDO_MAP_VALUE, imm: index in `globals`, imm of the second slot: offset
 *   ksym          ld_imm64, src PSEUDO_BTF_ID (typed) or 0 (untyped), imm: 0
 *   kfunc-call    call, src PSEUDO_KFUNC_CALL, imm: index in `externs`
 *   subprog-call  call, src PSEUDO_CALL, imm: distance from the next instruction. Complete.
 *   subprog-addr  ld_imm64, src PSEUDO_FUNC, imm: distance from the next slot, as for a call. Complete.
 */
export type BpfReference = { readonly insn: number } & BpfReferent;

export type BpfReferent =
  | { readonly kind: 'map'; readonly map: number }
  | { readonly kind: 'global'; readonly global: number; readonly offset: number }
  | { readonly kind: 'ksym' | 'kfunc-call'; readonly extern: number }
  /** `subprog`: index in {@link BpfProgram.subprogs}. */
  | { readonly kind: 'subprog-call' | 'subprog-addr'; readonly subprog: number };

export interface BpfExtern {
  readonly name: string;
  readonly kind: 'function' | 'variable';
  /** May be absent: its address is then 0, and a call of it must not be reached. */
  readonly weak: boolean;
  /** Function: its BTF_KIND_FUNC. Variable: its type. Undefined for `extern const void name __ksym`. */
  readonly type: number | undefined;
}

/** A map as `.maps` describes it; sizes in bytes. What the kernel demands of them is checked when it is made. */
export interface BpfMapDef {
  readonly name: string;
  /** `HASH` for BPF_MAP_TYPE_HASH, and so on; decimal digits for a number without a name here. */
  readonly type: string;
  /** The number of BPF_MAP_TYPE_*. */
  readonly typeId: number;
  readonly keyBytes: number;
  readonly valueBytes: number;
  readonly maxEntries: number;
  /** BPF_F_*. */
  readonly flags: number;
  readonly extra: bigint;
  readonly numaNode: number | undefined;
  /** LIBBPF_PIN_BY_NAME. Simplified: there is no file system to pin it in. */
  readonly pinned: boolean;
  /** Types of the object's BTF; undefined when only a size was given. */
  readonly keyType: number | undefined;
  readonly valueType: number | undefined;
  /** Where in the value its `struct bpf_spin_lock` lies, if it has one. */
  readonly spinLockOffset: number | undefined;
  /** What each value of an array or hash of maps is made like. */
  readonly inner: BpfMapDef | undefined;
  /** What `.values` puts in, by slot. */
  readonly slots: readonly BpfMapSlot[];
}

/** One initial value: `index` in `maps`, or in `programs`. */
export interface BpfMapSlot {
  readonly slot: number;
  readonly kind: 'map' | 'program';
  readonly index: number;
}

/** A section of variables, which is the one value of an array map. */
export interface BpfGlobals {
  /** `.bss`, `.data.name`, ... */
  readonly section: string;
  readonly kind: 'data' | 'bss' | 'rodata' | 'kconfig';
  /** What libbpf calls the map: at most 15 characters, with the object's name for the plain sections. */
  readonly mapName: string;
  /** Programs may not write it (BPF_F_RDONLY_PROG), and it is frozen. */
  readonly readOnly: boolean;
  readonly sizeBytes: number;
  /** The first `contents.length` bytes; all others of `sizeBytes` are zero. */
  readonly contents: Uint8Array;
  /** By offset. Empty without BTF, and for strings and constants that the compiler made. */
  readonly variables: readonly BpfVariable[];
}

export interface BpfVariable {
  readonly name: string;
  readonly offset: number;
  readonly sizeBytes: number;
  /** In the object's BTF. */
  readonly type: number;
  readonly linkage: 'static' | 'global' | 'extern';
  /** Of `.kconfig`: whether it may be missing from the kernel's configuration. */
  readonly weak: boolean;
}

/** Kernel: struct bpf_line_info. */
export interface BpfLineInfo {
  readonly insn: number;
  readonly file: string;
  /** From 1. */
  readonly line: number;
  /** From 1; 0 when unknown. */
  readonly column: number;
  /** The source line, as it stands in the object. */
  readonly text: string;
}

/** Kernel: struct bpf_func_info. */
export interface BpfFuncInfo {
  readonly insn: number;
  /** BTF_KIND_FUNC of the object's BTF. */
  readonly type: number;
}

/** Kernel: enum bpf_core_relo_kind, by number. */
export const CORE_KINDS = [
  'field_byte_offset',
  'field_byte_size',
  'field_exists',
  'field_signed',
  'field_lshift_u64',
  'field_rshift_u64',
  'type_id_local',
  'type_id_target',
  'type_exists',
  'type_size',
  'enumval_exists',
  'enumval_value',
  'type_matches',
] as const;

export type CoreKind = (typeof CORE_KINDS)[number];

/** Kernel: struct bpf_core_relo. */
export interface BpfCoreReloc {
  readonly insn: number;
  /** In the object's BTF. */
  readonly type: number;
  /** How the field is reached, e.g. `0:1:2`: the indices of members and array elements. */
  readonly access: string;
  readonly kind: CoreKind;
}
