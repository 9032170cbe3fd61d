/*
 * What kernel revisions do differently around trampolines. A later revision is the earlier one with some
 * rules replaced, so that its file shows exactly what changed. A rule that is a function is pure.
 */

import type { FuncModel } from '../../obj/index.ts';
import type { TrampLink } from '../link.ts';
import type { ProgKind } from '../prog.ts';
import type { ManagedRevision } from '../revisions.ts';

/** How the kernel was built, as far as a retired image is waited for by it. */
export interface WaitConfig {
  /** CONFIG_PREEMPTION */
  readonly preemption: boolean;
  /** CONFIG_TASKS_RCU */
  readonly tasksRcu: boolean;
}

/** What the flags of an image follow from. */
export interface FlagQuestion {
  /** Flags that the trampoline has from the update before. */
  readonly kept: number;
  readonly callsOriginal: boolean;
  /** A program asks for the traced function's address. */
  readonly wantsIp: boolean;
}

/** Structs whose functions are programs. Kernel: kernel/bpf/bpf_struct_ops.c */
export interface StructOpsRules {
  readonly flags: (hasResult: boolean) => number;
  /** An image has the kernel's own function of its type as its original. */
  readonly namesStub: boolean;
  /** Its size is asked for first. */
  readonly asksSize: boolean;
  readonly mostPages: number;
  readonly charged: boolean;
  /** A symbol for each member. */
  readonly ownSymbols: boolean;
}

/** Kernel: kernel/bpf/trampoline.c and what it calls, one revision of it. */
export interface ManagerRules {
  readonly name: ManagedRevision;

  // -- what may be attached: bpf_trampoline_link_prog, bpf_trampoline_put
  /** Lists that are counted together against the limit. */
  readonly counted: readonly ProgKind[];
  /** Lists whose programs keep a freplace program out. */
  readonly blocksReplacement: readonly ProgKind[];
  /** Whether a link, or its program, is where it must not be a second time. @param list those of its kind there */
  readonly alreadyLinked: (link: TrampLink, list: readonly TrampLink[]) => boolean;
  /** The program that freplace replaces must be in no prog array, and is marked meanwhile. */
  readonly guardsReplaced: boolean;
  /** Links have cookies, and a program any number of links. */
  readonly cookies: boolean;
  /** Why a function cannot be traced, in words. Kernel: btf_distill_func_proto, kernel/bpf/btf.c */
  readonly refuseModel: (model: FuncModel) => string | undefined;
  /** Lists that the last put of a trampoline warns of. */
  readonly warnsOnPut: readonly ProgKind[];

  // -- an image: bpf_trampoline_update, bpf_tramp_image_alloc
  /** Flags of the next image. */
  readonly flags: (question: FlagQuestion) => number;
  /** Flags stay with the trampoline from one update to the next. */
  readonly keepsFlags: boolean;
  /** Images are numbered, and named by it. */
  readonly numbersImages: boolean;
  /** `page`: a page for each. `pack`: as much as is asked for beforehand, of a page shared with others. */
  readonly imageMemory: 'page' | 'pack';
  /** What executable memory is charged by, bytes. */
  readonly chargeUnitBytes: number;

  // -- what else makes images, or is on lists
  /** LSM programs of cgroups, by a shim for each hook. */
  readonly cgroupShims: boolean;
  /** Undefined where it is not modelled. */
  readonly structOps: StructOpsRules | undefined;

  // -- the call at the entry: register_fentry
  /** `direct`: one call by address. `ops`: each trampoline an ftrace user of its own, which IPMODIFY users may join. */
  readonly ftrace: 'direct' | 'ops';
  /** A site that is found for an address counts although it is not at it, behind an ENDBR. */
  readonly siteAnywhere: boolean;
  /** A site that cannot be filtered for is reported; before, ftrace finds that no site is asked for. */
  readonly looksAtFilter: boolean;
  /** Who keeps the traced function's module loaded: the call at its entry, or the program. */
  readonly moduleHeldBy: 'entry' | 'program';

  // -- an image's end: bpf_tramp_image_put
  /** Whether tasks that have not entered an image yet are waited for before its percpu_ref is killed. */
  readonly waitsBeforeKill: (config: WaitConfig) => boolean;
}
