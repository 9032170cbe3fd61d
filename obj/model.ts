/*
 * The model of a traced function: what a trampoline must know of its prototype to save its arguments
 * and give back its result. Built from BTF (btf-model.ts) or from C text (prototype.ts).
 */

/** One parameter. Kernel: `struct btf_func_model`, include/linux/bpf.h. */
export interface ArgModel {
  /** As the prototype names it, if it does. */
  readonly name: string | undefined;
  /** As C spells it, e.g. `unsigned long`, `const char *`, `u64`. */
  readonly type: string;
  readonly sizeBytes: 1 | 2 | 4 | 8;
  /** Integers only: whether the value is sign-extended when it is shown. */
  readonly signed: boolean;
  readonly pointer: boolean;
}

/** The result. */
export interface RetModel {
  readonly type: string;
  /** 0 for void. */
  readonly sizeBytes: 0 | 1 | 2 | 4 | 8;
  readonly signed: boolean;
  readonly pointer: boolean;
}

/** A function that a trampoline can be made for. Simplified: no struct arguments (the kernel has them from v6.1 on). */
export interface FuncModel {
  readonly name: string;
  /** At most 12, the kernel's MAX_BPF_FUNC_ARGS; an emitter may take fewer. */
  readonly args: readonly ArgModel[];
  readonly ret: RetModel;
}
