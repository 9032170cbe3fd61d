import type { Kaddr } from '../lib/index.ts';

/** What a trampoline image is asked to do. Kernel: BPF_TRAMP_F_*, include/linux/bpf.h. */
export const TrampFlag = {
  /** Reload the argument registers before returning into the traced function. */
  RESTORE_REGS: 1,
  /** Call the traced function from the image. */
  CALL_ORIG: 2,
  /** Return to the caller of the traced function, past its own entry. */
  SKIP_FRAME: 4,
  /** Keep the traced function's address below the arguments. */
  IP_ARG: 8,
  /** Return what the fentry program returned (struct_ops). */
  RET_FENTRY_RET: 16,
  /** Call what the return address on the stack says, not the traced function (v6.1). */
  ORIG_STACK: 32,
  /** An IPMODIFY user shares the site (v6.1); no emitter looks at it. */
  SHARE_IPMODIFY: 64,
  /** rax carries the tail call count into the traced program (v6.1). */
  TAIL_CALL_CTX: 128,
  /** Reached by an indirect call: a struct_ops member (v6.12). */
  INDIRECT: 256,
} as const;

/** Which enter and exit functions stand around a program (v6.1): bpf_trampoline_enter, bpf_trampoline_exit. */
export const HelperPair = {
  /** A program that must not run twice on one CPU. */
  RECUR: 0,
  LSM_CGROUP: 1,
  PLAIN: 2,
} as const;
export type HelperPair = (typeof HelperPair)[keyof typeof HelperPair];

/** One attached program, as the emitter sees it. */
export interface ProgRef {
  /** Address of its struct bpf_prog: first argument of the enter and exit functions. */
  readonly prog: Kaddr;
  /** Address of its code. */
  readonly bpfFunc: Kaddr;
  /** Address of its eBPF instructions, handed to the interpreter when not jited. */
  readonly insnsi: Kaddr;
  readonly sleepable: boolean;
  readonly jited: boolean;
  /** Decides its enter and exit functions from v6.1 on, together with `sleepable`. Default RECUR. */
  readonly kind?: HelperPair;
  /** What bpf_get_attach_cookie answers it, 64 bits, from v6.1 on. Default 0. */
  readonly cookie?: bigint;
  /** Name for listings. */
  readonly name?: string;
}

/** How the kernel was built and on which CPU it runs, as far as images show it; nothing before v6.1. Default: no. */
export interface TrampolineConfig {
  /** CONFIG_X86_KERNEL_IBT: indirect branches must land on an ENDBR. */
  readonly ibt?: boolean;
  /** Returns go through x86_return_thunk. */
  readonly rethunk?: boolean;
  /** CONFIG_SLS: an int3 behind every return. */
  readonly sls?: boolean;
  /** The 4 bytes at `origCall` are an ENDBR (see `isEndbr`). */
  readonly origCallStartsWithEndbr?: boolean;
  /** v6.12: how indirect calls are checked. */
  readonly cfi?: CfiConfig;
  /** v6.12: calls are counted against return stack underflow (Skylake). */
  readonly callDepth?: CallDepthConfig;
}

export interface CfiConfig {
  /** CONFIG_FINEIBT, which needs `ibt`, or CONFIG_CFI_CLANG alone. */
  readonly scheme: 'fineibt' | 'kcfi';
  /** Hash of the type of `origCall`, 32 bits. Kernel: cfi_get_func_hash */
  readonly hash: number;
  /** CONFIG_CALL_PADDING: 11 nops between the hash and the code (kcfi). */
  readonly callPadding?: boolean;
}

export interface CallDepthConfig {
  /** Per-CPU offset of the counter. Kernel: pcpu_hot + X86_call_depth */
  readonly counter: Kaddr;
  /** Call targets that count by themselves. Kernel: is_callthunk */
  readonly thunks?: readonly Kaddr[];
}

/** Addresses of the kernel functions that an image calls, by symbol. */
export type HelperAddresses = Readonly<Record<string, Kaddr>>;

/** Everything that decides the bytes of an image. Kernel: arguments of arch_prepare_bpf_trampoline. */
export interface TrampolineRequest {
  /** Where the image will stand. */
  readonly image: Kaddr;
  /** Room for it, bytes. 64 of them stay unused. */
  readonly imageSize: number;
  /** Address of the struct bpf_tramp_image. */
  readonly im: Kaddr;
  /** Address of the traced function: its 5-byte site, or the ENDBR before it. */
  readonly origCall: Kaddr;
  /** Size of each argument, bytes, 0 to 255: 1, 2, 4 or 8, and from v6.1 on structs of up to 16. */
  readonly argSizes: readonly number[];
  /** Size of the return value; no emitter looks at it. */
  readonly retSize?: number;
  /** Union of TrampFlag bits. */
  readonly flags: number;
  readonly fentry: readonly ProgRef[];
  readonly fmodRet: readonly ProgRef[];
  readonly fexit: readonly ProgRef[];
  readonly helpers: HelperAddresses;
  readonly config?: TrampolineConfig;
  /** Name of the traced function for listings. */
  readonly name?: string;
}
