/*
 * What the table of trampolines must do, in plain TypeScript: lists, numbers and sets, no bytes. Each
 * operation says what it must end with, and leaves what must be there afterwards.
 */

import type { ErrnoName } from '../../lib/index.ts';
import { type AttachKind, FAIL_POINTS, type FailPoint } from '../../tramp/index.ts';

export type ListKind = 'fentry' | 'fmod_ret' | 'fexit';
export const LIST_KINDS: readonly ListKind[] = ['fentry', 'fmod_ret', 'fexit'];

/** Programs that an image has room for: of fentry and fexit together, and of each kind. */
const MOST_PROGRAMS = 38;

/** A loaded program, and where it is attached. */
export class ModelProgram {
  readonly name: string;
  readonly kind: AttachKind;
  /** What it returns, when that stands in for the function's result. */
  readonly returns: number;
  at: ModelFunction | undefined;

  constructor(name: string, kind: AttachKind, returns: number) {
    this.name = name;
    this.kind = kind;
    this.returns = returns;
  }
}

/** An image as it was made: whom it calls. */
export interface ModelImage<Program extends ModelProgram = ModelProgram> {
  readonly name: string;
  readonly progs: Readonly<Record<ListKind, readonly Program[]>>;
  readonly callsFunction: boolean;
  /** Its jump over the fexit programs is in place, or is being put there. */
  skipsExit: boolean;
}

export interface ModelFunctionOptions {
  readonly name: string;
  readonly inModule: boolean;
  readonly isVoid: boolean;
  /** Its entry is a bare nop: a text poke patches it. */
  readonly isPlain: boolean;
}

/** A traced function and its trampoline. */
export class ModelFunction<Program extends ModelProgram = ModelProgram> {
  readonly name: string;
  readonly inModule: boolean;
  readonly isVoid: boolean;
  readonly isPlain: boolean;
  /** Somebody else has changed what stands at its entry. */
  foreign = false;
  /** Whether the table has a trampoline. */
  inTable = false;
  references = 0;
  readonly lists: Record<ListKind, Program[]> = { fentry: [], fmod_ret: [], fexit: [] };
  extension: Program | undefined;
  image: ModelImage<Program> | undefined;
  selector = 0;

  constructor({ name, inModule, isVoid, isPlain }: ModelFunctionOptions) {
    this.name = name;
    this.inModule = inModule;
    this.isVoid = isVoid;
    this.isPlain = isPlain;
  }

  get attached(): readonly Program[] {
    return LIST_KINDS.flatMap((kind) => this.lists[kind]);
  }

  listOf({ kind }: ModelProgram): ListKind | 'replace' {
    if (kind === 'freplace') return 'replace';
    if (kind === 'lsm') return this.isVoid ? 'fexit' : 'fmod_ret';
    return kind;
  }

  /** The image that the lists ask for. */
  makeImage(key: bigint): ModelImage<Program> {
    const { fentry, fmod_ret, fexit } = this.lists;
    return {
      name: `bpf_trampoline_${key}_${this.selector}`,
      progs: { fentry: [...fentry], fmod_ret: [...fmod_ret], fexit: [...fexit] },
      callsFunction: fmod_ret.length + fexit.length > 0,
      skipsExit: false,
    };
  }
}

/** What an operation must end with: an errno, or success. */
export type Verdict = ErrnoName | undefined;

/** What making an image passes. */
const IMAGE: readonly FailPoint[] = [
  'alloc-progs',
  'alloc-im',
  'charge',
  'alloc-image',
  'percpu-ref',
  'emit',
];

/** The table, and the warnings that it must have printed. */
export class TableModel<Program extends ModelProgram = ModelProgram> {
  warnings = 0;

  /** bpf_trampoline_get */
  get(fn: ModelFunction<Program>, inject: FailPoint | undefined): Verdict {
    if (!fn.inTable && inject === 'alloc-trampoline') return FAIL_POINTS[inject];
    if (fn.inTable && fn.references === 0) this.warnings++;
    fn.inTable = true;
    fn.references++;
    return undefined;
  }

  /** bpf_trampoline_put */
  put(fn: ModelFunction<Program>): void {
    if (--fn.references > 0) return;
    if (fn.lists.fentry.length + fn.lists.fexit.length > 0) {
      this.warnings++;
      return;
    }
    fn.inTable = false;
  }

  /** bpf_trampoline_link_prog */
  attach(fn: ModelFunction<Program>, prog: Program, key: bigint, inject: FailPoint | undefined): Verdict {
    if (fn.extension !== undefined) return 'EBUSY';
    const { fentry, fexit } = fn.lists;
    const list = fn.listOf(prog);
    if (list === 'replace') {
      if (fentry.length + fexit.length > 0) return 'EBUSY';
      if (inject === 'poke') return FAIL_POINTS.poke;
      if (fn.inModule) return 'EINVAL';
      if (fn.image !== undefined || fn.foreign) return 'EBUSY';
      fn.extension = prog;
      prog.at = fn;
      return undefined;
    }
    if (fentry.length + fexit.length >= MOST_PROGRAMS || fn.lists[list].length >= MOST_PROGRAMS)
      return 'E2BIG';
    if (prog.at !== undefined) return 'EBUSY';
    const failed = this.#failure(fn, inject, [...IMAGE, fn.image === undefined ? 'register' : 'modify']);
    if (failed !== undefined) return failed;
    fn.lists[list].unshift(prog);
    prog.at = fn;
    this.#newImage(fn, key, inject);
    return undefined;
  }

  /** bpf_trampoline_unlink_prog */
  detach(prog: Program, fn: ModelFunction<Program>, key: bigint, inject: FailPoint | undefined): Verdict {
    prog.at = undefined;
    const list = fn.listOf(prog);
    if (list === 'replace') {
      fn.extension = undefined;
      return undefined;
    }
    fn.lists[list].splice(fn.lists[list].indexOf(prog), 1);
    if (fn.attached.length > 0) {
      const failed = this.#failure(fn, inject, [...IMAGE, 'modify']);
      if (failed !== undefined) return failed;
      this.#newImage(fn, key, inject);
      return undefined;
    }
    if (inject === 'alloc-progs') return FAIL_POINTS[inject];
    this.#retire(fn.image, fn, inject);
    fn.image = undefined;
    fn.selector = 0;
    return undefined;
  }

  /** What putting an image in place fails with, the earliest first. */
  #failure(fn: ModelFunction<Program>, inject: FailPoint | undefined, path: readonly FailPoint[]): Verdict {
    const fails = (point: FailPoint): boolean => inject === point;
    if (inject !== undefined && path.includes(inject)) return FAIL_POINTS[inject];
    if (fn.isPlain && fails('poke')) return FAIL_POINTS.poke;
    if (fn.foreign) return fn.isPlain ? 'EBUSY' : 'EINVAL';
    if (!fn.isPlain && fails('ftrace-hash')) return FAIL_POINTS['ftrace-hash'];
    return undefined;
  }

  #newImage(fn: ModelFunction<Program>, key: bigint, inject: FailPoint | undefined): void {
    const old = fn.image;
    fn.image = fn.makeImage(key);
    fn.selector++;
    this.#retire(old, fn, inject);
  }

  /** A failing poke of the old image is a warning, and its fexit programs go on being run. */
  #retire(
    old: ModelImage<Program> | undefined,
    fn: ModelFunction<Program>,
    inject: FailPoint | undefined,
  ): void {
    if (old?.callsFunction !== true) return;
    if (inject === 'poke' && !fn.isPlain) this.warnings++;
    else old.skipsExit = true;
  }
}
