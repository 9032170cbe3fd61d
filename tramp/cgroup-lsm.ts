/*
 * LSM programs of cgroups (v6.1). They are on no trampoline's list: a shim is, a program of the kernel's own that
 * runs them.
 *
 *   hook -> image -> enter, runner(ctx, insnsi of the shim), exit
 *                      |
 *                      +--> the shim: insnsi is at its end
 *                             +--> aux: the programs that are attached, oldest first
 *
 * One shim for all programs of a hook: the first attach makes it, each holds a reference to it, the last put
 * unlinks it. That takes the trampoline's mutex, and so does finding it: references are put only after the
 * mutex is let go.
 *
 * Simplified: there is one cgroup, which every task and every socket is in.
 *
 * Kernel: bpf_trampoline_link_cgroup_shim, kernel/bpf/trampoline.c; kernel/bpf/cgroup.c
 */

import { CGROUP_RUNNERS, type CgroupRunner, BpfProg as ProgField } from '../jit/index.ts';
import { addrAdd, Bug, InputError, type Kaddr, kaddr } from '../lib/index.ts';
import type { FuncModel } from '../obj/index.ts';
import type { Kernel } from './kernel.ts';
import { BpfProg } from './prog.ts';
import { type AttachTarget, linkLocked, type Trampoline, unlinkProg } from './trampoline.ts';

/** By the hook's first argument. Kernel: bpf_lsm_find_cgroup_shim, kernel/bpf/bpf_lsm.c */
export function cgroupRunner({ args: [first] }: FuncModel): CgroupRunner {
  if (first?.type === 'struct socket *') return '__cgroup_bpf_run_lsm_socket';
  if (first?.type === 'struct sock *') return '__cgroup_bpf_run_lsm_sock';
  return '__cgroup_bpf_run_lsm_current';
}

/** Kernel: struct bpf_shim_tramp_link */
interface Shim {
  readonly prog: BpfProg;
  readonly tr: Trampoline;
  /** Kernel: link->refcnt */
  references: number;
  /** Kernel: cgrp->bpf.effective */
  readonly programs: BpfProg[];
  /** The array of their structs in guest memory, 0 behind the last. */
  array: Kaddr;
}

export class CgroupLsm {
  readonly #kernel: Kernel;
  readonly #shims: Map<BpfProg, Shim> = new Map();

  constructor(kernel: Kernel) {
    this.#kernel = kernel;
  }

  /** Whether an instruction is one of a runner. */
  isRunner(address: Kaddr): boolean {
    const { name } = this.#kernel.kallsyms.lookup(address)?.ksym ?? {};
    return CGROUP_RUNNERS.some((runner) => runner === name);
  }

  /** Shims that are linked. */
  get shims(): number {
    return this.#shims.size;
  }

  /** The references to the shim of a hook; 0 without one. */
  references(tr: Trampoline): number {
    return this.#find(tr)?.references ?? 0;
  }

  /**
   * Attaches a program of type `lsm_cgroup` to a hook. On error everything is as before.
   * @throws InputError for another type, or in a revision without them; KernelError what `linkProg` meets
   * Kernel: __cgroup_bpf_attach, bpf_trampoline_link_cgroup_shim
   */
  attach(prog: BpfProg, key: bigint, target: AttachTarget): Trampoline {
    const kernel = this.#kernel;
    if (!kernel.rules.cgroupShims) {
      throw new InputError(
        'cgroup',
        undefined,
        `${kernel.revision} has no LSM programs of cgroups; they come with v6.1`,
      );
    }
    if (prog.type !== 'lsm_cgroup') {
      throw new InputError('cgroup', undefined, `${prog.name} is of type ${prog.type}, not lsm_cgroup`);
    }
    const tr = kernel.trampolines.get(kernel, key, target);
    let made: Shim | undefined;
    try {
      tr.mutex.with(() => {
        const found = this.#find(tr);
        if (found !== undefined) {
          found.references++;
          this.#setPrograms(found, [...found.programs, prog]);
          return;
        }
        made = this.#make(tr, prog);
        linkLocked(kernel, made.prog, tr);
        this.#shims.set(made.prog, made);
      });
    } finally {
      // Without the mutex: what is put last may be unlinked. A shim that is linked keeps the reference to tr.
      const linked = made !== undefined && this.#shims.has(made.prog);
      if (!linked) {
        made?.prog.put();
        kernel.trampolines.put(kernel, tr);
      }
    }
    prog.get();
    return tr;
  }

  /** Detaches it. @throws KernelError what `unlinkProg` meets when it was the last. Kernel: bpf_trampoline_unlink_cgroup_shim */
  detach(prog: BpfProg, key: bigint): void {
    const kernel = this.#kernel;
    const tr = kernel.trampolines.lookup(kernel, key);
    try {
      const shim = tr.mutex.with(() => this.#find(tr));
      if (shim === undefined || !shim.programs.includes(prog))
        throw new Bug(`${prog.name} is not attached there`);
      this.#setPrograms(
        shim,
        shim.programs.filter((other) => other !== prog),
      );
      prog.put();
      this.#put(shim);
    } finally {
      kernel.trampolines.put(kernel, tr);
    }
  }

  /** Kernel: cgroup_shim_find */
  #find(tr: Trampoline): Shim | undefined {
    const runner = this.#runner(tr.target.model);
    return [...this.#shims.values()].find((shim) => shim.tr === tr && shim.prog.bpfFunc === runner);
  }

  /** Drops a reference; with the last one the shim is unlinked. Kernel: bpf_shim_tramp_link_release */
  #put(shim: Shim): void {
    if (--shim.references > 0) return;
    const kernel = this.#kernel;
    this.#shims.delete(shim.prog);
    try {
      unlinkProg(kernel, shim.prog, shim.tr);
    } finally {
      kernel.trampolines.put(kernel, shim.tr);
      shim.prog.put();
    }
  }

  /**
   * The program that stands for them: one instruction, not compiled, attached as any LSM program is.
   * Kernel: cgroup_shim_alloc
   */
  #make(tr: Trampoline, first: BpfProg): Shim {
    const { machine } = this.#kernel;
    const { model } = tr.target;
    const prog = new BpfProg(this.#kernel, {
      name: `shim of ${model.name}`,
      kind: 'lsm',
      bpfFunc: this.#runner(model),
      jited: false,
      // whoever may still run it reads the array
      release: () => machine.memory.kfree(shim.array),
    });
    const shim: Shim = { prog, tr, references: 1, programs: [], array: kaddr(0) };
    this.#setPrograms(shim, [first]);
    return shim;
  }

  /** Publishes another array; the one before is freed when nobody reads it any more. Kernel: activate_effective_progs */
  #setPrograms(shim: Shim, programs: readonly BpfProg[]): void {
    const { grace, machine } = this.#kernel;
    const { memory } = machine;
    const array = memory.kmalloc(8 * (programs.length + 1), 'bpf_prog_array');
    for (const [i, { address }] of programs.entries()) memory.writeU64(addrAdd(array, 8 * i), address);
    memory.writeU64(addrAdd(array, 8 * programs.length), 0n);
    const old = shim.array;
    shim.array = array;
    shim.programs.splice(0, shim.programs.length, ...programs);
    memory.writeU64(addrAdd(shim.prog.address, ProgField.aux), array);
    if (old !== 0n) grace.callRcu(() => memory.kfree(old));
  }

  /** The runner of a hook. */
  #runner(model: FuncModel): Kaddr {
    const name = cgroupRunner(model);
    const address = this.#kernel.helpers[name];
    if (address === undefined) throw new Bug(`the runtime has no ${name}`);
    return address;
  }
}
