import type { Machine } from '../emu/index.ts';
import { NOP5, patchBytes } from '../jit/index.ts';
import { hex64, type Kaddr, KernelError, toHex } from '../lib/index.ts';
import { type KernelBugs, NO_BUGS } from './bugs.ts';
import { FailPoints } from './failpoints.ts';
import type { TextPoker } from './text-poke.ts';

/** Bytes of a site. Kernel: MCOUNT_INSN_SIZE */
const SITE_BYTES = 5n;

/** A function entry that ftrace owns. Kernel: struct dyn_ftrace */
interface FtraceRec {
  readonly ip: Kaddr;
  /** Where the site calls; undefined while it is a nop. */
  direct: Kaddr | undefined;
}

/**
 * ftrace's site table and its direct calls: a registered site calls one trampoline, an unregistered
 * one is a 5-byte nop.
 *
 * Simplified: no other ftrace user ever shares a site, so a direct call is always the site's own call.
 *
 * Kernel: kernel/trace/ftrace.c
 */
export class Ftrace {
  readonly #machine: Machine;
  readonly #text: TextPoker;
  readonly #fail: FailPoints;
  readonly #bugs: KernelBugs;
  readonly #recs = new Map<bigint, FtraceRec>();

  constructor(
    machine: Machine,
    text: TextPoker,
    fail: FailPoints = new FailPoints(),
    bugs: KernelBugs = NO_BUGS,
  ) {
    this.#machine = machine;
    this.#text = text;
    this.#fail = fail;
    this.#bugs = bugs;
  }

  /** Takes over a site at load time: whatever call or nop the compiler left becomes the nop. Kernel: ftrace_process_locs */
  addSite(ip: Kaddr): void {
    this.#recs.set(ip, { ip, direct: undefined });
    this.#machine.patchText(ip, Uint8Array.from(NOP5));
  }

  /** Forgets a site whose text goes away. Kernel: ftrace_release_mod */
  removeSite(ip: Kaddr): void {
    this.#recs.delete(ip);
  }

  /** The site whose five bytes hold `ip`, or undefined. Kernel: ftrace_location */
  location(ip: Kaddr): Kaddr | undefined {
    for (let back = 0n; back < SITE_BYTES; back++) {
      const rec = this.#recs.get(ip - back);
      if (rec !== undefined) return rec.ip;
    }
    return undefined;
  }

  /** What a site calls now. */
  direct(ip: Kaddr): Kaddr | undefined {
    return this.#recs.get(ip)?.direct;
  }

  /** @throws KernelError EBUSY when the site has a direct call, ENODEV when `ip` is no site. Kernel: register_ftrace_direct */
  registerDirect(ip: Kaddr, target: Kaddr): void {
    const rec = this.#rec(ip, 'register_ftrace_direct');
    if (rec.direct !== undefined) {
      throw new KernelError('EBUSY', 'register_ftrace_direct', `${hex64(ip)} has a direct call already`);
    }
    this.#set(rec, target, 'register_ftrace_direct');
  }

  /** @throws KernelError ENODEV when `ip` is no site or does not call `old`. Kernel: modify_ftrace_direct */
  modifyDirect(ip: Kaddr, old: Kaddr, target: Kaddr): void {
    const rec = this.#rec(ip, 'modify_ftrace_direct');
    this.#needs(rec, old, 'modify_ftrace_direct');
    this.#set(rec, target, 'modify_ftrace_direct');
  }

  /** @throws KernelError ENODEV when `ip` is no site or does not call `old`. Kernel: unregister_ftrace_direct */
  unregisterDirect(ip: Kaddr, old: Kaddr): void {
    const rec = this.#rec(ip, 'unregister_ftrace_direct');
    this.#needs(rec, old, 'unregister_ftrace_direct');
    this.#set(rec, undefined, 'unregister_ftrace_direct');
  }

  #rec(ip: Kaddr, op: string): FtraceRec {
    const rec = this.#recs.get(ip);
    if (rec === undefined) throw new KernelError('ENODEV', op, `${hex64(ip)} is no trace site`);
    return rec;
  }

  #needs(rec: FtraceRec, old: Kaddr, op: string): void {
    if (rec.direct !== old)
      throw new KernelError('ENODEV', op, `${hex64(rec.ip)} does not call ${hex64(old)}`);
  }

  /** Writes the site. What stands there must be what we wrote last. Kernel: ftrace_bug otherwise */
  #set(rec: FtraceRec, target: Kaddr | undefined, op: string): void {
    const expected = this.#bytes(rec, rec.direct, op);
    const found = this.#machine.memory.bytes(rec.ip, expected.length);
    if (expected.some((byte, i) => found[i] !== byte) && !this.#bugs.has('ftrace-unchecked')) {
      throw new KernelError('EINVAL', op, `${hex64(rec.ip)} holds ${toHex(found)}, not ${toHex(expected)}`);
    }
    const wanted = this.#bytes(rec, target, op);
    const modifies = rec.direct !== undefined && target !== undefined;
    if (this.#bugs.has('T8')) rec.direct = target;
    if (this.#bugs.has('site-kept')) this.#text.poke(rec.ip, wanted);
    this.#fail.pass('ftrace-hash');
    if (!modifies || !this.#bugs.has('T7-site')) this.#text.poke(rec.ip, wanted);
    if (!modifies || !this.#bugs.has('T7')) rec.direct = target;
  }

  #bytes(rec: FtraceRec, target: Kaddr | undefined, op: string): Uint8Array {
    const bytes = patchBytes('CALL', rec.ip, target ?? null);
    if (bytes === undefined) {
      throw new KernelError('EINVAL', op, `${hex64(rec.ip)} cannot reach ${hex64(target as Kaddr)}`);
    }
    return bytes;
  }
}
