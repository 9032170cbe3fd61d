/*
 * What the table of trampolines must do, in plain TypeScript: lists, numbers and sets, no bytes. Each
 * operation says what it must end with, and leaves what must be there afterwards.
 */

import type { ErrnoName } from '../../lib/index.ts';
import { type AttachKind, FAIL_POINTS, type FailPoint, type ManagedRevision } from '../../tramp/index.ts';

export type ListKind = 'fentry' | 'fmod_ret' | 'fexit';
export const LIST_KINDS: readonly ListKind[] = ['fentry', 'fmod_ret', 'fexit'];

/** Programs that an image has room for: of the counted lists together, and of each kind. */
const MOST_PROGRAMS = 38;

const PAGE_BYTES = 4096;
/** What an image of v6.12 has behind its code. */
const SPARE_BYTES = 64;

/** What revisions do differently, as far as the table shows it. */
export interface TableRules {
  /** Lists that are counted together, that keep freplace out, and that the last put warns of. */
  readonly lists: readonly ListKind[];
  /** Images have a number. */
  readonly numbered: boolean;
  /** What making a trampoline passes, and making an image. */
  readonly trampoline: readonly FailPoint[];
  readonly image: readonly FailPoint[];
  /** A program may be attached in several places, by a link for each. */
  readonly manyLinks: boolean;
  /** Flags stay with the trampoline from one update to the next. */
  readonly keepsFlags: boolean;
  /** A program in a prog array is not replaced, and one that is replaced goes into none. */
  readonly guards: boolean;
  /** Each trampoline is an ftrace user of its own, with a filter, and shares its site with a live patch. */
  readonly filters: boolean;
  /** A site that cannot be filtered for is reported; if not, it only matters when it was not filtered for before. */
  readonly looksAtFilter: boolean;
  /** Room of an image, bytes, by the length of its code. */
  readonly room: (length: number) => number;
  /** Images share packs of so many bytes, of which the first is always there; undefined where each has a page. */
  readonly packBytes: number | undefined;
  /** A program keeps the module of what it traces until it is freed; before, the call at the entry does. */
  readonly programsHold: boolean;
}

/** What making an image passes, in every revision. */
const IMAGE: readonly FailPoint[] = [
  'alloc-progs',
  'alloc-im',
  'charge',
  'alloc-image',
  'percpu-ref',
  'emit',
];

const v5: TableRules = {
  lists: ['fentry', 'fexit'],
  numbered: true,
  trampoline: ['alloc-trampoline'],
  image: IMAGE,
  manyLinks: false,
  keepsFlags: false,
  guards: false,
  filters: false,
  looksAtFilter: false,
  room: () => PAGE_BYTES,
  packBytes: undefined,
  programsHold: false,
};
const v6_1: TableRules = {
  ...v5,
  lists: LIST_KINDS,
  numbered: false,
  trampoline: ['alloc-trampoline', 'alloc-ops'],
  manyLinks: true,
  keepsFlags: true,
  guards: true,
  filters: true,
};
const v6_12: TableRules = {
  ...v6_1,
  image: [...IMAGE, 'size', 'protect'],
  looksAtFilter: true,
  room: (length) => length + SPARE_BYTES,
  packBytes: 2 << 20,
  programsHold: true,
};

/** Each revision's, from reading: the model asks nobody. */
export const TABLE_RULES: Readonly<Record<ManagedRevision, TableRules>> = {
  'v5.13': v5,
  'v5.15': v5,
  'v6.1': v6_1,
  'v6.12': v6_12,
};

/** A loaded program, and where it is attached. */
export class ModelProgram {
  readonly name: string;
  readonly kind: AttachKind;
  /** What it returns, when that stands in for the function's result. */
  readonly returns: number;
  /** The function that it has been attached to longest. */
  at: ModelFunction | undefined;
  /** In how many places it is attached: before v6.1 one at most. */
  places = 0;

  constructor(name: string, kind: AttachKind, returns: number) {
    this.name = name;
    this.kind = kind;
    this.returns = returns;
  }
}

/** A program's place on a list, and the cookie that it is given there. */
export class ModelLink<Program extends ModelProgram = ModelProgram> {
  readonly prog: Program;
  readonly cookie: bigint;
  at: ModelFunction<Program> | undefined;

  constructor(prog: Program, cookie: bigint = 0n) {
    this.prog = prog;
    this.cookie = cookie;
  }
}

/** An image as it was made: whom it calls. */
export interface ModelImage<Program extends ModelProgram = ModelProgram> {
  readonly name: string;
  readonly links: Readonly<Record<ListKind, readonly ModelLink<Program>[]>>;
  readonly callsFunction: boolean;
  /** It calls what its return address says, and not the function that it was made for. */
  readonly byStack: boolean;
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
  /** Whether its trampoline's filter names the site. */
  filtered = false;
  references = 0;
  readonly lists: Record<ListKind, ModelLink<Program>[]> = { fentry: [], fmod_ret: [], fexit: [] };
  extension: Program | undefined;
  /** It is a BPF program that is in a prog array. */
  inArray = false;
  /** A live patch has another function run in its place. */
  patched = false;
  /** Its trampoline has noted that it shares the site with a live patch. */
  shares = false;
  image: ModelImage<Program> | undefined;
  selector = 0;

  constructor({ name, inModule, isVoid, isPlain }: ModelFunctionOptions) {
    this.name = name;
    this.inModule = inModule;
    this.isVoid = isVoid;
    this.isPlain = isPlain;
  }

  get attached(): readonly ModelLink<Program>[] {
    return LIST_KINDS.flatMap((kind) => this.lists[kind]);
  }

  listOf({ kind }: ModelProgram): ListKind | 'replace' {
    if (kind === 'freplace') return 'replace';
    if (kind === 'lsm') return this.isVoid ? 'fexit' : 'fmod_ret';
    return kind;
  }

  /** Programs on some of the lists. */
  count(lists: readonly ListKind[]): number {
    return lists.reduce((sum, list) => sum + this.lists[list].length, 0);
  }

  /** The image that the lists ask for. */
  makeImage(key: bigint, numbered: boolean): ModelImage<Program> {
    const { fentry, fmod_ret, fexit } = this.lists;
    const callsFunction = fmod_ret.length + fexit.length > 0;
    return {
      name: `bpf_trampoline_${key}${numbered ? `_${this.selector}` : ''}`,
      links: { fentry: [...fentry], fmod_ret: [...fmod_ret], fexit: [...fexit] },
      callsFunction,
      byStack: callsFunction && this.shares,
      skipsExit: false,
    };
  }
}

/** What an operation must end with: an errno, or success. */
export type Verdict = ErrnoName | undefined;

/** The table, and the warnings that it must have printed. */
export class TableModel<Program extends ModelProgram = ModelProgram> {
  warnings = 0;
  readonly rules: TableRules;
  /** Programs stand for a link of their own. */
  readonly #own = new WeakMap<Program, ModelLink<Program>>();
  /** Links that are on a list, or replace a function, in the order of attaching. */
  readonly #linked = new Set<ModelLink<Program>>();

  /** @param revision default v5.15 */
  constructor(revision: ManagedRevision = 'v5.15') {
    this.rules = TABLE_RULES[revision];
  }

  /** bpf_trampoline_get */
  get(fn: ModelFunction<Program>, inject: FailPoint | undefined): Verdict {
    const { trampoline } = this.rules;
    if (!fn.inTable && inject !== undefined && trampoline.includes(inject)) return FAIL_POINTS[inject];
    if (fn.inTable && fn.references === 0) this.warnings++;
    fn.inTable = true;
    fn.references++;
    return undefined;
  }

  /** bpf_trampoline_put */
  put(fn: ModelFunction<Program>): void {
    if (--fn.references > 0) return;
    if (fn.count(this.rules.lists) > 0) {
      this.warnings++;
      return;
    }
    fn.inTable = false;
    fn.filtered = false;
    fn.shares = false;
  }

  /** A program's own link. */
  linkOf(prog: Program): ModelLink<Program> {
    const own = this.#own.get(prog) ?? new ModelLink(prog);
    this.#own.set(prog, own);
    return own;
  }

  /** The link by which a program has been attached longest. */
  oldestLink(prog: Program): ModelLink<Program> | undefined {
    for (const link of this.#linked) if (link.prog === prog) return link;
    return undefined;
  }

  /** bpf_trampoline_link_prog. @param what a program stands for its own link */
  attach(
    fn: ModelFunction<Program>,
    what: Program | ModelLink<Program>,
    key: bigint,
    inject: FailPoint | undefined,
  ): Verdict {
    const link = what instanceof ModelLink ? what : this.linkOf(what);
    if (fn.extension !== undefined) return 'EBUSY';
    const counted = fn.count(this.rules.lists);
    const list = fn.listOf(link.prog);
    if (list === 'replace') {
      if (counted > 0) return 'EBUSY';
      if (this.rules.guards && fn.inArray) return 'EBUSY';
      if (inject === 'poke') return FAIL_POINTS.poke;
      if (fn.inModule) return 'EINVAL';
      if (fn.image !== undefined || fn.foreign || fn.patched) return 'EBUSY';
      fn.extension = link.prog;
      this.#noteLinked(link, fn);
      return undefined;
    }
    if (counted >= MOST_PROGRAMS || fn.lists[list].length >= MOST_PROGRAMS) return 'E2BIG';
    if (this.#isLinked(link, fn.lists[list])) return 'EBUSY';
    const { image } = this.rules;
    const failed = this.#failure(fn, inject, [...image, fn.image === undefined ? 'register' : 'modify']);
    if (failed !== undefined) return failed;
    fn.lists[list].unshift(link);
    this.#noteLinked(link, fn);
    this.#newImage(fn, key, inject);
    return undefined;
  }

  #isLinked(link: ModelLink<Program>, list: readonly ModelLink<Program>[]): boolean {
    if (!this.rules.manyLinks) return link.prog.places > 0;
    return link.at !== undefined || list.some(({ prog }) => prog === link.prog);
  }

  #noteLinked(link: ModelLink<Program>, at: ModelFunction<Program> | undefined): void {
    const { prog } = link;
    link.at = at;
    if (at === undefined) this.#linked.delete(link);
    else this.#linked.add(link);
    prog.places += at === undefined ? -1 : 1;
    prog.at = this.oldestLink(prog)?.at;
  }

  /** bpf_trampoline_unlink_prog */
  detach(
    what: Program | ModelLink<Program>,
    fn: ModelFunction<Program>,
    key: bigint,
    inject: FailPoint | undefined,
  ): Verdict {
    const link = what instanceof ModelLink ? what : this.linkOf(what);
    this.#noteLinked(link, undefined);
    const list = fn.listOf(link.prog);
    if (list === 'replace') {
      fn.extension = undefined;
      return undefined;
    }
    fn.lists[list].splice(fn.lists[list].indexOf(link), 1);
    if (fn.attached.length > 0) {
      const failed = this.#failure(fn, inject, [...this.rules.image, 'modify']);
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

  /** prog_fd_array_get_ptr, and taken out again */
  toggleArray(fn: ModelFunction<Program>): Verdict {
    if (this.rules.guards && !fn.inArray && fn.extension !== undefined) return 'EBUSY';
    fn.inArray = !fn.inArray;
    return undefined;
  }

  /**
   * Another function runs in place of one: register_ftrace_function with FTRACE_OPS_FL_IPMODIFY. An image that calls
   * the function itself is made again. What fails leaves its mark: the trampoline counts as shared.
   */
  patch(fn: ModelFunction<Program>, key: bigint, inject: FailPoint | undefined): Verdict {
    if (fn.image !== undefined) {
      if (!this.rules.filters) return 'EBUSY';
      fn.shares = true;
      const again = fn.image.callsFunction && !fn.image.byStack;
      const failed = again ? this.#remake(fn, key, inject) : undefined;
      if (failed !== undefined) return failed;
    }
    if (fn.foreign || fn.extension !== undefined) return 'EINVAL';
    if (inject === 'ftrace-hash') return FAIL_POINTS[inject];
    fn.patched = true;
    return undefined;
  }

  /** And it does not any more. Whether the image can be made again does not matter. */
  unpatch(fn: ModelFunction<Program>, key: bigint, inject: FailPoint | undefined): Verdict {
    if (inject === 'ftrace-hash') return FAIL_POINTS[inject];
    fn.patched = false;
    if (fn.image === undefined || !this.rules.filters) return undefined;
    fn.shares = false;
    if (fn.image.byStack) this.#remake(fn, key, inject);
    return undefined;
  }

  #remake(fn: ModelFunction<Program>, key: bigint, inject: FailPoint | undefined): Verdict {
    const failed = this.#failure(fn, inject, [...this.rules.image, 'modify']);
    if (failed === undefined) this.#newImage(fn, key, inject);
    return failed;
  }

  /** What putting an image in place fails with, the earliest first. */
  #failure(fn: ModelFunction<Program>, inject: FailPoint | undefined, path: readonly FailPoint[]): Verdict {
    const fails = (point: FailPoint): boolean => inject === point;
    const { image, filters, looksAtFilter } = this.rules;
    if (inject !== undefined && image.includes(inject)) return FAIL_POINTS[inject];
    if (filters && !fn.isPlain && path.includes('register')) {
      if (!fails('filter')) fn.filtered = true;
      else if (looksAtFilter) return FAIL_POINTS.filter;
      else if (!fn.filtered) return 'EINVAL';
    }
    if (inject !== undefined && path.includes(inject)) return FAIL_POINTS[inject];
    if (fn.isPlain && fails('poke')) return FAIL_POINTS.poke;
    if (fn.patched && !filters) return 'EBUSY';
    if (fn.foreign) return fn.isPlain ? 'EBUSY' : 'EINVAL';
    if (!fn.isPlain && fails('ftrace-hash')) return FAIL_POINTS['ftrace-hash'];
    return undefined;
  }

  #newImage(fn: ModelFunction<Program>, key: bigint, inject: FailPoint | undefined): void {
    const old = fn.image;
    // a trampoline that comes to a patched function is asked; once it is there nobody asks it
    if (old === undefined && fn.patched && fn.count(['fmod_ret', 'fexit']) > 0) fn.shares = true;
    fn.image = fn.makeImage(key, this.rules.numbered);
    if (this.rules.numbered) fn.selector++;
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
