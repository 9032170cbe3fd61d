/*
 * The call at a traced function's entry, through ftrace where it has a site there, as a text poke where it
 * has none; and what ftrace asks of a trampoline whose site somebody else wants too.
 *
 * From v6.1 on a trampoline may share its site with an IPMODIFY user, a live patch. That decides which function
 * runs next, so an image that calls the original must call what the return address on its stack says
 * (ORIG_STACK), and not the function that it was attached to. ftrace asks:
 *
 *   SELF       the trampoline registers where an IPMODIFY user is. An image that calls the original otherwise
 *              is refused with -EAGAIN, and made again.
 *   PEER on    an IPMODIFY user comes. The image is made again now.
 *   PEER off   it goes. The same.
 *
 * Locks: the trampoline's mutex, then ftrace's. A PEER question comes with ftrace's held, so the trampoline's is
 * only tried; -EAGAIN lets ftrace go of its own and ask once more.
 *
 * Kernel: kernel/bpf/trampoline.c
 */

import { TrampFlag } from '../jit/index.ts';
import { type Kaddr, KernelError } from '../lib/index.ts';
import type { FtraceCommand, FtraceOps } from './ftrace.ts';
import type { Kernel } from './kernel.ts';
import type { KModule } from './module.ts';
import { textPoke } from './text-poke.ts';
import type { Trampoline } from './trampoline.ts';

/** Part of a trampoline. Kernel: struct bpf_trampoline */
export interface EntryCall {
  /** Whether the call goes through ftrace. */
  ftraceManaged: boolean;
  /** The traced function's module, where the call keeps it loaded. */
  module: KModule | undefined;
  /** As what it appears to ftrace; undefined where direct calls go by address, or where ftrace has none. */
  readonly ops: FtraceOps | undefined;
}

/**
 * @param update makes the image again, and leaves ftrace's mutex alone
 * @throws KernelError ENOMEM. Kernel: bpf_trampoline_lookup
 */
export function trampOps(kernel: Kernel, tr: Trampoline, update: () => void): FtraceOps | undefined {
  if (kernel.rules.ftrace === 'direct' || !kernel.directCalls) return undefined;
  kernel.fail.pass('alloc-ops');
  return {
    name: `bpf_trampoline_${tr.key}`,
    filter: new Set(),
    command: (command) => answer(kernel, tr, command, update),
  };
}

const { CALL_ORIG, ORIG_STACK, SHARE_IPMODIFY } = TrampFlag;

/** @throws KernelError EAGAIN, EBUSY, or what making the image again met. Kernel: bpf_tramp_ftrace_ops_func */
function answer(kernel: Kernel, tr: Trampoline, command: FtraceCommand, update: () => void): void {
  const op = 'bpf_tramp_ftrace_ops_func';
  const callsOriginal = (tr.flags & CALL_ORIG) !== 0;
  const byStack = (tr.flags & ORIG_STACK) !== 0;
  if (command === 'ENABLE_SHARE_IPMODIFY_SELF') {
    if (!callsOriginal || byStack) return;
    if (
      kernel.warnOn(
        (tr.flags & SHARE_IPMODIFY) !== 0,
        `${op}: the site is shared, and the image does not know`,
      )
    ) {
      throw new KernelError('EBUSY', op, `${tr.target.model.name}: its image calls the function itself`);
    }
    tr.flags |= SHARE_IPMODIFY;
    throw new KernelError('EAGAIN', op, `${tr.target.model.name}: the image has to be made again`);
  }
  if (!tr.mutex.tryLock()) {
    kernel.msleep(1);
    throw new KernelError('EAGAIN', op, `${tr.mutex.name} is taken`);
  }
  try {
    if (command === 'ENABLE_SHARE_IPMODIFY_PEER') {
      tr.flags |= SHARE_IPMODIFY;
      if (callsOriginal && !byStack && !kernel.bugs.has('peer-unasked')) update();
    } else {
      if (!kernel.bugs.has('share-kept')) tr.flags &= ~SHARE_IPMODIFY;
      if (byStack) update();
    }
  } finally {
    tr.mutex.unlock();
  }
}

/** Puts the first call in place. @throws KernelError EFAULT, ENOTSUPP, ENOENT, or what patching met. Kernel: register_fentry */
export function registerFentry(kernel: Kernel, tr: Trampoline, image: Kaddr): void {
  const { entry, target } = tr;
  const { ftrace, rules } = kernel;
  const ip = target.addr;
  const site = siteOf(kernel, ip);
  if (
    kernel.warnOn(
      site !== undefined && site !== ip && !rules.siteAnywhere,
      'is_ftrace_location: inside a site, not at it',
    )
  ) {
    throw new KernelError(
      'EFAULT',
      'is_ftrace_location',
      `${target.model.name} does not start with its site`,
    );
  }
  if (site !== undefined && rules.ftrace === 'ops' && entry.ops === undefined) {
    throw new KernelError(
      'ENOTSUPP',
      'register_fentry',
      `ftrace has ${target.model.name} and no direct calls`,
    );
  }
  entry.ftraceManaged = site !== undefined;
  const held = rules.moduleHeldBy === 'entry' ? moduleGet(kernel, ip) : undefined;
  entry.module = held;
  try {
    if (site !== undefined && entry.ops !== undefined) setFilter(kernel, entry.ops, site);
    kernel.fail.pass('register');
    if (site === undefined) textPoke(kernel, ip, 'CALL', null, image);
    else ftrace.registerDirect(site, image, entry.ops);
  } catch (error) {
    if (!kernel.bugs.has('module-kept')) modulePut(entry);
    throw error;
  }
}

/** The site of a function: from v6.1 on also one that is not at its address. */
function siteOf({ ftrace, kallsyms, rules }: Kernel, ip: Kaddr): Kaddr | undefined {
  const at = ftrace.location(ip);
  if (at !== undefined || !rules.siteAnywhere) return at;
  const hit = kallsyms.lookup(ip);
  return hit?.offset === 0 ? ftrace.locationWithin(ip, hit.ksym.sizeBytes) : undefined;
}

/**
 * Has the trampoline's ops trace one site and no other.
 * @throws KernelError ENOMEM; v6.1 does not look, and ftrace finds the filter empty: EINVAL. Kernel: ftrace_set_filter_ip
 */
function setFilter({ bugs, fail, rules }: Kernel, { filter }: FtraceOps, site: Kaddr): void {
  try {
    fail.pass('filter');
    filter.add(site);
  } catch (error) {
    if (rules.looksAtFilter && !bugs.has('filter-unreported')) throw error;
  }
}

/** @param locksFtrace false when ftrace itself has asked. Kernel: modify_fentry */
export function modifyFentry(
  kernel: Kernel,
  tr: Trampoline,
  old: Kaddr,
  image: Kaddr,
  locksFtrace: boolean,
): void {
  const ip = tr.target.addr;
  kernel.fail.pass('modify');
  if (tr.ftraceManaged) kernel.ftrace.modifyDirect(siteOf(kernel, ip) ?? ip, old, image, locksFtrace);
  else textPoke(kernel, ip, 'CALL', old, image);
}

/** Kernel: unregister_fentry */
export function unregisterFentry(kernel: Kernel, tr: Trampoline, old: Kaddr): void {
  const ip = tr.target.addr;
  kernel.fail.pass('unregister');
  if (tr.ftraceManaged) kernel.ftrace.unregisterDirect(siteOf(kernel, ip) ?? ip, old);
  else textPoke(kernel, ip, 'CALL', old, null);
  if (!kernel.bugs.has('module-kept-last')) modulePut(tr.entry);
}

/** Keeps the traced function's module loaded. @throws KernelError ENOENT when it is going. Kernel: bpf_trampoline_module_get */
export function moduleGet(kernel: Kernel, ip: Kaddr): KModule | undefined {
  if (kernel.bugs.has('L4')) return undefined;
  const module = kernel.moduleText.at(ip);
  if (module !== undefined && !module.tryGet()) {
    throw new KernelError('ENOENT', 'bpf_trampoline_module_get', `module ${module.name} is going`);
  }
  return module;
}

/** Kernel: bpf_trampoline_module_put */
function modulePut(entry: EntryCall): void {
  entry.module?.put();
  entry.module = undefined;
}
