/*
 * Trampolines: which programs are attached where, and the image that runs them.
 *
 *   get(key)  ->  linkProg / unlinkProg  ->  update  ->  image.ts
 *                                              |
 *                          register / modify / unregister the call at the function's entry
 *
 * Kernel: kernel/bpf/trampoline.c
 */

import { TrampFlag, type TrampolineRequest } from '../jit/index.ts';
import { Bug, type Kaddr, KernelError } from '../lib/index.ts';
import type { FuncModel } from '../obj/index.ts';
import { IMAGE_BYTES, imageAlloc, imageFree, imagePut, type TrampImage } from './image.ts';
import type { Kernel } from './kernel.ts';
import type { KModule } from './module.ts';
import { type BpfProg, PROG_KINDS, type ProgKind, trampKind } from './prog.ts';
import { textPoke } from './text-poke.ts';

/** Programs of one kind that an image has room for. Kernel: BPF_MAX_TRAMP_PROGS */
export const MAX_TRAMP_PROGS = 38;

/** What a trampoline traces. Kernel: struct bpf_attach_target_info */
export interface AttachTarget {
  readonly addr: Kaddr;
  readonly model: FuncModel;
}

/** All that is attached to one function. Kernel: struct bpf_trampoline */
export class Trampoline {
  readonly key: bigint;
  references = 1;
  /** Set once, by the first get that knows it. */
  func: AttachTarget | undefined;
  ftraceManaged = false;
  module: KModule | undefined;
  /** Attached programs, newest first. */
  readonly progs: Readonly<Record<ProgKind, BpfProg[]>> = { fentry: [], fmod_ret: [], fexit: [] };
  /** The program that stands in for the function. */
  extension: BpfProg | undefined;
  curImage: TrampImage | undefined;
  /** Number of the next image; 0 when there is none. */
  selector = 0;

  constructor(key: bigint) {
    this.key = key;
  }

  get target(): AttachTarget {
    if (this.func === undefined) throw new Bug(`trampoline ${this.key} has no function yet`);
    return this.func;
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
    const tr = new Trampoline(key);
    bucket.unshift(tr);
    return tr;
  }

  /** As lookup, and names the traced function if this is the first to do so. Kernel: bpf_trampoline_get */
  get(kernel: Kernel, key: bigint, target: AttachTarget): Trampoline {
    const tr = this.lookup(kernel, key);
    tr.func ??= target;
    return tr;
  }

  /**
   * Drops a reference; with the last one the trampoline goes, unless programs are attached. Its last
   * image may outlive it. Kernel: bpf_trampoline_put
   */
  put(kernel: Kernel, tr: Trampoline): void {
    if (tr.references === 0) throw new Bug(`trampoline ${tr.key} is put once too often`);
    if (--tr.references > 0) return;
    if (kernel.warnOn(tr.progs.fentry.length > 0, `bpf_trampoline_put: ${tr.key} has fentry programs`))
      return;
    if (kernel.warnOn(tr.progs.fexit.length > 0, `bpf_trampoline_put: ${tr.key} has fexit programs`)) return;
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
 * @throws KernelError EBUSY a freplace program is there, or this one is attached already; E2BIG too
 *   many programs; or what `update` met
 *
 * Kernel: bpf_trampoline_link_prog
 */
export function linkProg(kernel: Kernel, prog: BpfProg, tr: Trampoline): void {
  const op = 'bpf_trampoline_link_prog';
  const { model } = tr.target;
  const { bugs } = kernel;
  const kind = kindOf(kernel, prog, tr);
  if (tr.extension !== undefined && !bugs.has('replaced-unchecked')) {
    throw new KernelError('EBUSY', op, `${model.name} is replaced by ${tr.extension.name}`);
  }
  if (kind === 'replace') {
    const traced = tr.progs.fentry.length + tr.progs.fexit.length > 0;
    if (traced && !bugs.has('traced-unchecked')) {
      throw new KernelError('EBUSY', op, `${model.name} has fentry or fexit programs`);
    }
    linkExtension(kernel, prog, tr);
    return;
  }
  if (!hasRoom(kernel, tr, kind)) {
    throw new KernelError('E2BIG', op, `${model.name} has ${MAX_TRAMP_PROGS} programs already`);
  }
  if (prog.linked && !bugs.has('linked-unchecked')) {
    throw new KernelError('EBUSY', op, `program ${prog.name} is attached already`);
  }
  const list = tr.progs[kind];
  if (bugs.has('oldest-first')) list.push(prog);
  else list.unshift(prog);
  prog.linked = true;
  try {
    update(kernel, tr);
  } catch (error) {
    if (!bugs.has('listed-kept')) list.splice(list.indexOf(prog), 1);
    if (!bugs.has('linked-kept')) prog.linked = false;
    throw error;
  }
}

/** The list that a program belongs to. */
function kindOf({ bugs }: Kernel, { kind }: BpfProg, { target }: Trampoline): ProgKind | 'replace' {
  return kind === 'lsm' && bugs.has('lsm-by-name') ? 'fmod_ret' : trampKind(kind, target.model);
}

/** Whether a list can take one more. The kernel counts fentry and fexit together and forgets fmod_ret, which then overflows its array. */
function hasRoom({ bugs }: Kernel, { progs }: Trampoline, kind: ProgKind): boolean {
  const limit = bugs.has('one-too-few') ? MAX_TRAMP_PROGS - 1 : MAX_TRAMP_PROGS;
  const counted = progs.fentry.length + (bugs.has('fexit-uncounted') ? 0 : progs.fexit.length);
  const overflows = progs[kind].length >= limit && !bugs.has('T1');
  return counted < limit && !overflows;
}

/** Jumps from the function's entry to the program that replaces it. */
function linkExtension(kernel: Kernel, prog: BpfProg, tr: Trampoline): void {
  tr.extension = prog;
  try {
    textPoke(kernel, tr.target.addr, 'JUMP', null, prog.bpfFunc);
  } catch (error) {
    if (!kernel.bugs.has('T13')) tr.extension = undefined;
    throw error;
  }
  // no image keeps it, so the jump does
  if (holdsExtension(kernel)) prog.get();
}

/** Jumps no more. With the `held` lifetime the program stays until no task that jumped can be in it. */
function unlinkExtension(kernel: Kernel, prog: BpfProg, tr: Trampoline): void {
  const { addr, model } = tr.target;
  if (tr.extension !== prog) throw new Bug(`${prog.name} does not replace ${model.name}`);
  if (!kernel.bugs.has('replacement-recorded')) tr.extension = undefined;
  textPoke(kernel, addr, 'JUMP', prog.bpfFunc, null);
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
 * @throws KernelError what `update` met
 *
 * Kernel: bpf_trampoline_unlink_prog
 */
export function unlinkProg(kernel: Kernel, prog: BpfProg, tr: Trampoline): void {
  const { model } = tr.target;
  const kind = kindOf(kernel, prog, tr);
  if (kind === 'replace') {
    unlinkExtension(kernel, prog, tr);
    return;
  }
  const list = tr.progs[kind];
  const index = list.indexOf(prog);
  if (index < 0) throw new Bug(`program ${prog.name} is not attached to ${model.name}`);
  list.splice(index, 1);
  prog.linked = false;
  update(kernel, tr);
}

/** Makes the image and the call at the function's entry agree with the lists. Kernel: bpf_trampoline_update */
function update(kernel: Kernel, tr: Trampoline): void {
  const { curImage } = tr;
  const { bugs, fail } = kernel;
  fail.pass('alloc-progs');
  if (PROG_KINDS.every((kind) => tr.progs[kind].length === 0)) {
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

  const im = imageAlloc(kernel, tr.key, tr.selector);
  try {
    im.write(
      request(kernel, tr, im),
      PROG_KINDS.flatMap((kind) => tr.progs[kind]),
    );
    kernel.warnOn(
      curImage !== undefined && tr.selector === 0,
      'bpf_trampoline_update: an image without number',
    );
    kernel.warnOn(
      curImage === undefined && tr.selector !== 0,
      'bpf_trampoline_update: a number without image',
    );
    if (curImage !== undefined && bugs.has('early-put')) imagePut(kernel, curImage);
    if (curImage === undefined) registerFentry(kernel, tr, im.image);
    else modifyFentry(kernel, tr, curImage.image, im.image);
  } catch (error) {
    // nothing has reached it, so nobody need be waited for
    if (!bugs.has(im.length === 0 ? 'L5-emit' : 'L5')) imageFree(kernel, im);
    throw error;
  }
  if (curImage !== undefined && !bugs.has('early-put')) imagePut(kernel, curImage);
  tr.curImage = im;
  if (!bugs.has('number-stuck')) tr.selector++;
}

function request(kernel: Kernel, tr: Trampoline, im: TrampImage): TrampolineRequest {
  const { bugs } = kernel;
  const { addr, model } = tr.target;
  const { fentry, fmod_ret: fmodRet, fexit } = tr.progs;
  const callsOriginal = fexit.length > 0 || (fmodRet.length > 0 && !bugs.has('fmod-ret-alone'));
  const { CALL_ORIG, SKIP_FRAME, RESTORE_REGS, IP_ARG } = TrampFlag;
  // The delta of v5.15: before it no program is asked.
  const asksProgs = (kernel.emitter.knownFlags & IP_ARG) !== 0;
  const asked = bugs.has('ip-of-fentry') ? PROG_KINDS.slice(0, 1) : PROG_KINDS;
  const wantsIp = asksProgs && asked.some((kind) => tr.progs[kind].some((prog) => prog.callsGetFuncIp));
  return {
    image: im.image,
    imageSize: IMAGE_BYTES,
    im: im.address,
    origCall: addr,
    argSizes: model.args.map(({ sizeBytes }) => sizeBytes),
    retSize: model.ret.sizeBytes,
    flags: (callsOriginal ? CALL_ORIG | SKIP_FRAME : RESTORE_REGS) | (wantsIp ? IP_ARG : 0),
    fentry: fentry.map((prog) => prog.ref()),
    fmodRet: fmodRet.map((prog) => prog.ref()),
    fexit: fexit.map((prog) => prog.ref()),
    helpers: kernel.helpers,
    name: model.name,
  };
}

// -- the call at the function's entry -----------------------------------------------------------

/** Puts the first call in place. @throws KernelError EFAULT, ENOENT, or what patching met. Kernel: register_fentry */
function registerFentry(kernel: Kernel, tr: Trampoline, image: Kaddr): void {
  const ip = tr.target.addr;
  const location = kernel.ftrace.location(ip);
  if (
    kernel.warnOn(location !== undefined && location !== ip, 'is_ftrace_location: inside a site, not at it')
  ) {
    throw new KernelError(
      'EFAULT',
      'is_ftrace_location',
      `${tr.target.model.name} does not start with its site`,
    );
  }
  tr.ftraceManaged = location !== undefined;
  tr.module = moduleGet(kernel, ip);
  try {
    kernel.fail.pass('register');
    if (tr.ftraceManaged) kernel.ftrace.registerDirect(ip, image);
    else textPoke(kernel, ip, 'CALL', null, image);
  } catch (error) {
    if (!kernel.bugs.has('module-kept')) modulePut(tr);
    throw error;
  }
}

/** Kernel: modify_fentry */
function modifyFentry(kernel: Kernel, tr: Trampoline, old: Kaddr, image: Kaddr): void {
  const ip = tr.target.addr;
  kernel.fail.pass('modify');
  if (tr.ftraceManaged) kernel.ftrace.modifyDirect(ip, old, image);
  else textPoke(kernel, ip, 'CALL', old, image);
}

/** Kernel: unregister_fentry */
function unregisterFentry(kernel: Kernel, tr: Trampoline, old: Kaddr): void {
  const ip = tr.target.addr;
  kernel.fail.pass('unregister');
  if (tr.ftraceManaged) kernel.ftrace.unregisterDirect(ip, old);
  else textPoke(kernel, ip, 'CALL', old, null);
  if (!kernel.bugs.has('module-kept-last')) modulePut(tr);
}

/** Keeps the traced function's module loaded. @throws KernelError ENOENT when it is going. Kernel: bpf_trampoline_module_get */
function moduleGet(kernel: Kernel, ip: Kaddr): KModule | undefined {
  if (kernel.bugs.has('L4')) return undefined;
  const module = kernel.moduleText.at(ip);
  if (module !== undefined && !module.tryGet()) {
    throw new KernelError('ENOENT', 'bpf_trampoline_module_get', `module ${module.name} is going`);
  }
  return module;
}

/** Kernel: bpf_trampoline_module_put */
function modulePut(tr: Trampoline): void {
  tr.module?.put();
  tr.module = undefined;
}
