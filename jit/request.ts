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
} as const;

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
  /** Name for listings. */
  readonly name?: string;
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
  /** Address of the traced function (its 5-byte site). */
  readonly origCall: Kaddr;
  /** Size of each argument, bytes: 1, 2, 4 or 8. */
  readonly argSizes: readonly number[];
  /** Size of the return value; no emitter looks at it. */
  readonly retSize?: number;
  /** Union of TrampFlag bits. */
  readonly flags: number;
  readonly fentry: readonly ProgRef[];
  readonly fmodRet: readonly ProgRef[];
  readonly fexit: readonly ProgRef[];
  readonly helpers: HelperAddresses;
  /** Name of the traced function for listings. */
  readonly name?: string;
}
