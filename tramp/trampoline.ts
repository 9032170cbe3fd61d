/*
 * Trampolines: which programs are attached where, and the image that runs them.
 *
 *   get(key)  ->  linkProg / unlinkProg  ->  update  ->  image-request.ts   flags, room
 *                                              |           image.ts           the image
 *                                              |           entry.ts           the call at the function's entry
 *                                              +-- of freplace: a jump there, in place of all that
 *
 * What revisions do differently: rev/. Trampolines are also linked to by cgroup-lsm.ts.
 *
 * Kernel: kernel/bpf/trampoline.c
 */

import { TrampFlag, type TrampolineRequest } from '../jit/index.ts';
import { Bug, type Kaddr, KernelError } from '../lib/index.ts';
import type { FuncModel } from '../obj/index.ts';
import {
  type EntryCall,
  modifyFentry,
  moduleGet,
  registerFentry,
  trampOps,
  unregisterFentry,
} from './entry.ts';
import { imageAlloc, imageFree, imagePut, type TrampImage } from './image.ts';
import { imageRequest, imageSize } from './image-request.ts';
import type { Kernel } from './kernel.ts';
import { linkOf, type TrampLink } from './link.ts';
import type { KModule } from './module.ts';
import { Mutex } from './mutex.ts';
import { type BpfProg, PROG_KINDS, type ProgKind, trampKind } from './prog.ts';
import { textPoke } from './text-poke.ts';

/** Programs of one kind that an image has room for. Kernel: BPF_MAX_TRAMP_PROGS */
export const MAX_TRAMP_PROGS = 38;

/** What a trampoline traces. Kernel: struct bpf_attach_target_info */
export interface AttachTarget {
  readonly addr: Kaddr;
  readonly model: FuncModel;
  /** The BPF program that the function is, if it is one. Kernel: prog->aux->dst_prog */
  readonly prog?: BpfProg;
}

/** All that is attached to one function. Kernel: struct bpf_trampoline */
export class Trampoline {
  readonly key: bigint;
  references = 1;
  /** Set once, by the first get that knows it. */
  func: AttachTarget | undefined;
  /** The call at the function's entry. */
  readonly entry: EntryCall;
  /** Attached programs, newest first. */
  readonly links: Readonly<Record<ProgKind, TrampLink[]>> = { fentry: [], fmod_ret: [], fexit: [] };
  /** The program that stands in for the function. */
  extension: BpfProg | undefined;
  curImage: TrampImage | undefined;
  /** Number of the next image, where images have one; 0 when there is none. */
  selector = 0;
  /** Flags of the last update that was tried, where they are kept. */
  flags = 0;
  readonly mutex: Mutex;

  constructor(kernel: Kernel, key: bigint) {
    this.key = key;
    this.mutex = new Mutex(`the mutex of trampoline ${key}`);
    const ops = trampOps(kernel, this, () => update(kernel, this, false));
    this.entry = { ftraceManaged: false, module: undefined, ops };
  }

  get target(): AttachTarget {
    if (this.func === undefined) throw new Bug(`trampoline ${this.key} has no function yet`);
    return this.func;
  }

  get ftraceManaged(): boolean {
    return this.entry.ftraceManaged;
  }

  get module(): KModule | undefined {
    return this.entry.module;
  }

  /** The programs of its links. */
  get progs(): Readonly<Record<ProgKind, readonly BpfProg[]>> {
    const of = (kind: ProgKind): BpfProg[] => this.links[kind].map(({ prog }) => prog);
    return { fentry: of('fentry'), fmod_ret: of('fmod_ret'), fexit: of('fexit') };
  }
}

/** 2^64 divided by the golden ratio. Kernel: GOLDEN_RATIO_64, include/linux/hash.h */
const GOLDEN_RATIO_64 = 0x61c8_8646_80b5_83ebn;
const HASH_BITS = 10;

/** The bucket of a key among 2^`bits`. Kernel: hash_64, include/linux/hash.h */
export function hash64(key: bigint, bits: number): number {
  return Number(BigInt.asUintN(64, key * GOLDEN_RATIO_64) >> BigInt(64 - bits));
}

/** The hash table of all trampolines: 1,024 buckets by key. */
export class TrampolineTable {
  readonly #buckets: Trampoline[][] = Array.from({ length: 1 << HASH_BITS }, () => []);

  /**
   * Finds the trampoline of a key or makes one; either way the caller gets a reference.
   * @throws KernelError ENOMEM. Kernel: bpf_trampoline_lookup
   */
  lookup(kernel: Kernel, anyKey: bigint): Trampoline {
    const key = BigInt.asUintN(64, anyKey);
    const bucket = this.#bucket(key);
    const found = kernel.bugs.has('short-key')
      ? this.list().find((tr) => BigInt.asUintN(32, tr.key) === BigInt.asUintN(32, key))
      : bucket.find((tr) => tr.key === key);
    if (found !== undefined) {
      // one that put could not remove, because programs were attached
      kernel.warnOn(found.references === 0, `refcount_t: ${key} is taken again after its last reference`);
      found.references++;
      return found;
    }
    kernel.fail.pass('alloc-trampoline');
    const tr = new Trampoline(kernel, key);
    bucket.unshift(tr);
    return tr;
  }

  /**
   * As lookup, and names the traced function if this is the first to do so. From v6.1 on, a function that can
   * end in a tail call has its count passed through from then on. Kernel: bpf_trampoline_get; bpf_check_attach_target
   */
  get(kernel: Kernel, key: bigint, target: AttachTarget): Trampoline {
    const tr = this.lookup(kernel, key);
    tr.func ??= target;
    if (kernel.rules.keepsFlags && target.prog?.tailCallReachable === true) {
      tr.flags |= TrampFlag.TAIL_CALL_CTX;
    }
    return tr;
  }

  /**
   * Drops a reference; with the last one the trampoline goes, unless programs are attached. Its last
   * image may outlive it. Kernel: bpf_trampoline_put
   */
  put(kernel: Kernel, tr: Trampoline): void {
    if (tr.references === 0) throw new Bug(`trampoline ${tr.key} is put once too often`);
    if (--tr.references > 0) return;
    kernel.warnOn(tr.mutex.held, `bpf_trampoline_put: ${tr.mutex.name} is taken`);
    for (const kind of kernel.rules.warnsOnPut) {
      if (kernel.warnOn(tr.links[kind].length > 0, `bpf_trampoline_put: ${tr.key} has ${kind} programs`))
        return;
    }
    tr.entry.ops?.filter.clear();
    const bucket = this.#bucket(tr.key);
    bucket.splice(bucket.indexOf(tr), 1);
  }

  /** The trampoline of a key, if there is one; takes no reference. */
  find(key: bigint): Trampoline | undefined {
    return this.#bucket(key).find((tr) => tr.key === key);
  }

  /** All trampolines, in no particular order. */
  list(): Trampoline[] {
    return this.#buckets.flat();
  }

  #bucket(key: bigint): Trampoline[] {
    return this.#buckets[hash64(key, HASH_BITS)] as Trampoline[];
  }
}

/**
 * Attaches a program and puts the new image in place. On error everything is as before.
 *
 * @param what a program, which stands for its own link, or a link of it
 * @throws KernelError EBUSY a freplace program is there, or this one is attached already; E2BIG too
 *   many programs; or what `update` met
 *
 * Kernel: bpf_trampoline_link_prog
 */
export function linkProg(kernel: Kernel, what: BpfProg | TrampLink, tr: Trampoline): void {
  tr.mutex.with(() => linkLocked(kernel, what, tr));
}

/** As `linkProg`, with the trampoline's mutex held. Kernel: __bpf_trampoline_link_prog */
export function linkLocked(kernel: Kernel, what: BpfProg | TrampLink, tr: Trampoline): void {
  const op = 'bpf_trampoline_link_prog';
  const link = linkOf(what);
  const { prog } = link;
  const { model } = tr.target;
  const { bugs, rules } = kernel;
  const kind = kindOf(kernel, prog, tr);
  if (tr.extension !== undefined && !bugs.has('replaced-unchecked')) {
    throw new KernelError('EBUSY', op, `${model.name} is replaced by ${tr.extension.name}`);
  }
  if (kind === 'replace') {
    const traced = rules.blocksReplacement.some((list) => tr.links[list].length > 0);
    if (traced && !bugs.has('traced-unchecked')) {
      const kinds = rules.blocksReplacement.join(' or ');
      throw new KernelError('EBUSY', op, `${model.name} has ${kinds} programs`);
    }
    linkExtension(kernel, prog, tr);
    return;
  }
  if (!hasRoom(kernel, tr, kind)) {
    throw new KernelError('E2BIG', op, `${model.name} has ${MAX_TRAMP_PROGS} programs already`);
  }
  const list = tr.links[kind];
  if (rules.alreadyLinked(link, list) && !overlooked(kernel, link, list)) {
    throw new KernelError('EBUSY', op, `program ${prog.name} is attached already`);
  }
  const letGo = rules.moduleHeldBy === 'program' ? holdModule(kernel, prog, tr) : undefined;
  if (bugs.has('oldest-first')) list.push(link);
  else list.unshift(link);
  link.linked = true;
  try {
    update(kernel, tr);
  } catch (error) {
    if (!bugs.has('module-kept')) letGo?.();
    if (!bugs.has('listed-kept')) list.splice(list.indexOf(link), 1);
    if (!bugs.has('linked-kept')) link.linked = false;
    throw error;
  }
}

/** Whether a bug is on that has what is attached already attached again. */
function overlooked({ bugs }: Kernel, link: TrampLink, list: readonly TrampLink[]): boolean {
  const isThere = list.some(({ prog }) => prog === link.prog);
  return (
    bugs.has('linked-unchecked') ||
    (bugs.has('link-unchecked') && !isThere) ||
    (bugs.has('program-unchecked') && !link.linked)
  );
}

/**
 * Has a program keep the module of what it traces. Simplified: the kernel does so when the program is loaded,
 * here it is told its target when it is attached.
 * @throws KernelError ENOENT when the module is going. Kernel: bpf_check_attach_target, kernel/bpf/verifier.c
 */
function holdModule(kernel: Kernel, prog: BpfProg, { target }: Trampoline): (() => void) | undefined {
  const module = moduleGet(kernel, target.addr);
  if (module === undefined) return undefined;
  const undo = prog.holdModule(module);
  if (undo === undefined && !kernel.bugs.has('module-held-twice')) module.put();
  return undo;
}

/** The list that a program belongs to. */
function kindOf({ bugs }: Kernel, { kind }: BpfProg, { target }: Trampoline): ProgKind | 'replace' {
  return kind === 'lsm' && bugs.has('lsm-by-name') ? 'fmod_ret' : trampKind(kind, target.model);
}

/**
 * Whether a list can take one more. v5 kernels count fentry and fexit together and forget fmod_ret, which then
 * overflows its array.
 */
function hasRoom({ bugs, rules }: Kernel, { links }: Trampoline, kind: ProgKind): boolean {
  const limit = bugs.has('one-too-few') ? MAX_TRAMP_PROGS - 1 : MAX_TRAMP_PROGS;
  const forgotten = (list: ProgKind): boolean =>
    (list === 'fexit' && bugs.has('fexit-uncounted')) || (list === 'fmod_ret' && bugs.has('T1'));
  const counted = (bugs.has('limit-by-kind') ? [kind] : rules.counted)
    .filter((list) => !forgotten(list))
    .reduce((sum, list) => sum + links[list].length, 0);
  const overflows = links[kind].length >= limit && !bugs.has('T1');
  return counted < limit && !overflows;
}

/** Jumps from the function's entry to the program that replaces it. */
function linkExtension(kernel: Kernel, prog: BpfProg, tr: Trampoline): void {
  const { addr, prog: replaced } = tr.target;
  if (kernel.rules.guardsReplaced) replaced?.extend();
  tr.extension = prog;
  try {
    textPoke(kernel, addr, 'JUMP', null, prog.bpfFunc);
  } catch (error) {
    if (!kernel.bugs.has('T13')) {
      tr.extension = undefined;
      if (kernel.rules.guardsReplaced) replaced?.unextend();
    }
    throw error;
  }
  // no image keeps it, so the jump does
  if (holdsExtension(kernel)) prog.get();
}

/** Jumps no more. With the `held` lifetime the program stays until no task that jumped can be in it. */
function unlinkExtension(kernel: Kernel, prog: BpfProg, tr: Trampoline): void {
  const { addr, model, prog: replaced } = tr.target;
  if (tr.extension !== prog) throw new Bug(`${prog.name} does not replace ${model.name}`);
  if (!kernel.bugs.has('replacement-recorded')) tr.extension = undefined;
  try {
    textPoke(kernel, addr, 'JUMP', prog.bpfFunc, null);
  } finally {
    if (kernel.rules.guardsReplaced && !kernel.bugs.has('extended-kept')) replaced?.unextend();
  }
  if (!holdsExtension(kernel)) return;
  const { grace } = kernel;
  grace.callRcuTasks(() => grace.callRcuTasksTrace(() => prog.put()));
}

function holdsExtension({ bugs, programLifetime }: Kernel): boolean {
  return programLifetime === 'held' && !bugs.has('replacement-unheld');
}

/**
 * Detaches a program. As in the kernel it is off the list even when putting the new image in place fails.
 *
 * @param what a program, which stands for its own link, or a link of it
 * @throws KernelError what `update` met
 *
 * Kernel: bpf_trampoline_unlink_prog
 */
export function unlinkProg(kernel: Kernel, what: BpfProg | TrampLink, tr: Trampoline): void {
  tr.mutex.with(() => {
    const link = linkOf(what);
    const { model } = tr.target;
    const kind = kindOf(kernel, link.prog, tr);
    if (kind === 'replace') {
      unlinkExtension(kernel, link.prog, tr);
      return;
    }
    const list = tr.links[kind];
    const index = list.indexOf(link);
    if (index < 0) throw new Bug(`program ${link.prog.name} is not attached to ${model.name}`);
    list.splice(index, 1);
    link.linked = false;
    update(kernel, tr);
  });
}

/**
 * Makes the image and the call at the function's entry agree with the lists. The trampoline's mutex is held.
 * @param locksFtrace false when ftrace asks for it, and holds its mutex already
 * Kernel: bpf_trampoline_update
 */
function update(kernel: Kernel, tr: Trampoline, locksFtrace: boolean = true): void {
  const { curImage } = tr;
  const { bugs, fail, rules } = kernel;
  fail.pass('alloc-progs');
  if (PROG_KINDS.every((kind) => tr.links[kind].length === 0)) {
    if (curImage === undefined) throw new Bug(`trampoline ${tr.key} had nothing attached`);
    if (bugs.has('early-put-last')) imagePut(kernel, curImage);
    try {
      unregisterFentry(kernel, tr, curImage.image);
    } finally {
      // retired and forgotten even when the call at the entry could not be taken away
      if (!bugs.has('early-put-last')) imagePut(kernel, curImage);
      tr.curImage = undefined;
      if (!bugs.has('number-kept')) tr.selector = 0;
    }
    return;
  }

  const before = tr.flags;
  let im: TrampImage;
  try {
    im = placeImage(kernel, tr, locksFtrace);
  } catch (error) {
    if (!bugs.has('flags-kept')) tr.flags = before;
    throw error;
  }
  if (curImage !== undefined && !bugs.has('early-put')) imagePut(kernel, curImage);
  tr.curImage = im;
  if (rules.numbersImages && !bugs.has('number-stuck')) tr.selector++;
}

/**
 * Makes an image and has the function's entry call it. ftrace may ask for another one meanwhile, because an
 * IPMODIFY user shares the site: -EAGAIN, see entry.ts.
 */
function placeImage(kernel: Kernel, tr: Trampoline, locksFtrace: boolean): TrampImage {
  const { bugs, rules } = kernel;
  const { curImage } = tr;
  const links = PROG_KINDS.flatMap((kind) => tr.links[kind]);
  /** Flags, then how much room they need. */
  const prepare = (): Omit<TrampolineRequest, 'image' | 'im'> => {
    const asked = imageRequest(kernel, tr);
    if (rules.keepsFlags) tr.flags = asked.flags;
    return { ...asked, imageSize: imageSize(kernel, asked) };
  };
  let request = prepare();
  let im = imageAlloc(kernel, tr.key, tr.selector, request.imageSize);
  for (;;) {
    try {
      im.write({ ...request, image: im.image, im: im.address }, links);
      im.protect();
      warnOfNumber(kernel, tr);
      if (curImage !== undefined && bugs.has('early-put')) imagePut(kernel, curImage);
      if (curImage === undefined) registerFentry(kernel, tr, im.image);
      else modifyFentry(kernel, tr, curImage.image, im.image, locksFtrace);
      return im;
    } catch (error) {
      const again = rules.ftrace === 'ops' && error instanceof KernelError && error.code === 'EAGAIN';
      // a page is written once more; a part of a pack may need another size
      const keeps = again && rules.imageMemory === 'page';
      // nothing has reached it, so nobody need be waited for
      if (!keeps && !isLeaked(kernel, im, again)) {
        if (bugs.has('failed-retired')) imagePut(kernel, im);
        else imageFree(kernel, im);
      }
      if (!again) throw error;
      if (!bugs.has('again-unprepared')) request = prepare();
      if (!keeps) im = imageAlloc(kernel, tr.key, tr.selector, request.imageSize);
    }
  }
}

/** Whether a bug is on that leaves an image behind which could not be put in place. */
function isLeaked({ bugs }: Kernel, { length }: TrampImage, again: boolean): boolean {
  return bugs.has(again ? 'again-leaked' : length === 0 ? 'L5-emit' : 'L5');
}

function warnOfNumber(kernel: Kernel, { curImage, selector }: Trampoline): void {
  if (!kernel.rules.numbersImages) return;
  const numbered = selector !== 0;
  kernel.warnOn(curImage !== undefined && !numbered, 'bpf_trampoline_update: an image without number');
  kernel.warnOn(curImage === undefined && numbered, 'bpf_trampoline_update: a number without image');
}
