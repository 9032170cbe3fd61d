import type { Machine } from '../emu/index.ts';
import { NOP5, patchBytes } from '../jit/index.ts';
import { Bug, hex64, type Kaddr, KernelError, toHex } from '../lib/index.ts';
import { type KernelBugs, NO_BUGS } from './bugs.ts';
import { FailPoints } from './failpoints.ts';
import type { FtraceCaller } from './ftrace-caller.ts';
import { Mutex } from './mutex.ts';
import type { TextPoker } from './text-poke.ts';

/** Bytes of a site. Kernel: MCOUNT_INSN_SIZE */
const SITE_BYTES = 5n;

/** What ftrace tells a user whose site somebody else wants too. Kernel: enum ftrace_ops_cmd */
export type FtraceCommand =
  | 'ENABLE_SHARE_IPMODIFY_SELF'
  | 'ENABLE_SHARE_IPMODIFY_PEER'
  | 'DISABLE_SHARE_IPMODIFY_PEER';

/** A user of direct calls (v6.1). Kernel: struct ftrace_ops */
export interface FtraceOps {
  readonly name: string;
  /** The sites that it traces. */
  readonly filter: Set<Kaddr>;
  /** @throws KernelError EAGAIN when the answer takes something first, EBUSY. Kernel: ops->ops_func */
  readonly command: (command: FtraceCommand) => void;
}

/** A function entry that ftrace owns. Kernel: struct dyn_ftrace */
interface FtraceRec {
  readonly ip: Kaddr;
  /** Where its direct call goes; undefined without one. */
  direct: Kaddr | undefined;
  /** Whose direct call it is; before v6.1 nobody's. */
  ops: FtraceOps | undefined;
  /** Decides which function runs behind the site. Kernel: FTRACE_FL_IPMODIFY */
  ipmodify: FtraceCaller | undefined;
}

/** How often a user is asked again that has its reasons to wait, a millisecond each: for ever, in the kernel. */
const PATIENCE = 10_000;

/**
 * ftrace's site table and its direct calls: a registered site calls one trampoline, an unregistered
 * one is a 5-byte nop. An IPMODIFY user, a live patch, may have the site too: then it calls code of ftrace's
 * (ftrace-caller.ts) that does both.
 *
 * Simplified: no other users; a site has one IPMODIFY user at most, which has one site.
 *
 * Kernel: kernel/trace/ftrace.c
 */
export class Ftrace {
  readonly #machine: Machine;
  readonly #text: TextPoker;
  readonly #fail: FailPoints;
  readonly #bugs: KernelBugs;
  readonly #recs = new Map<bigint, FtraceRec>();
  /** Kernel: direct_mutex */
  readonly #directMutex: Mutex = new Mutex('direct_mutex');

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
    this.#recs.set(ip, { ip, direct: undefined, ops: undefined, ipmodify: undefined });
    this.#machine.patchText(ip, Uint8Array.from(NOP5));
  }

  /** Forgets a site whose text goes away. Kernel: ftrace_release_mod */
  removeSite(ip: Kaddr): void {
    this.#recs.delete(ip);
  }

  /** The site whose five bytes hold `ip`, or undefined. Kernel: ftrace_location_range */
  location(ip: Kaddr): Kaddr | undefined {
    for (let back = 0n; back < SITE_BYTES; back++) {
      const rec = this.#recs.get(ip - back);
      if (rec !== undefined) return rec.ip;
    }
    return undefined;
  }

  /** The first site in a function. Kernel: ftrace_location (v6.1) */
  locationWithin(start: Kaddr, sizeBytes: number): Kaddr | undefined {
    for (let at = 0n; at < BigInt(sizeBytes); at++) {
      const rec = this.#recs.get(start + at);
      if (rec !== undefined) return rec.ip;
    }
    return undefined;
  }

  /** Where a site's direct call goes now. */
  direct(ip: Kaddr): Kaddr | undefined {
    return this.#recs.get(ip)?.direct;
  }

  /**
   * @param ops whose call it is (v6.1)
   * @throws KernelError EBUSY when the site has a direct call, ENODEV when `ip` is no site, EINVAL when the ops
   *   trace none, EAGAIN when they want to think again because of an IPMODIFY user
   *
   * Kernel: register_ftrace_direct; register_ftrace_direct_multi (v6.1)
   */
  registerDirect(ip: Kaddr, target: Kaddr, ops?: FtraceOps): void {
    const op = 'register_ftrace_direct';
    this.#directMutex.with(() => {
      const rec = this.#rec(ip, op);
      if (ops !== undefined && !ops.filter.has(ip))
        throw new KernelError('EINVAL', op, `${ops.name} traces no site`);
      if (rec.direct !== undefined)
        throw new KernelError('EBUSY', op, `${hex64(ip)} has a direct call already`);
      if (rec.ipmodify !== undefined) {
        if (ops === undefined) throw new KernelError('EBUSY', op, `${hex64(ip)} has an IPMODIFY user`);
        if (!this.#bugs.has('self-unasked')) ops.command('ENABLE_SHARE_IPMODIFY_SELF');
      }
      this.#set(rec, target, op);
      rec.ops = ops;
    });
  }

  /**
   * @param locks false for a user that was asked by ftrace, which holds the mutex
   * @throws KernelError ENODEV when `ip` is no site or does not call `old`
   * Kernel: modify_ftrace_direct; modify_ftrace_direct_multi, modify_ftrace_direct_multi_nolock (v6.1)
   */
  modifyDirect(ip: Kaddr, old: Kaddr, target: Kaddr, locks: boolean = true): void {
    const op = 'modify_ftrace_direct';
    const modify = (): void => {
      const rec = this.#rec(ip, op);
      this.#needs(rec, old, op);
      this.#set(rec, target, op);
    };
    if (locks) this.#directMutex.with(modify);
    else modify();
  }

  /** @throws KernelError ENODEV when `ip` is no site or does not call `old`. Kernel: unregister_ftrace_direct */
  unregisterDirect(ip: Kaddr, old: Kaddr): void {
    const op = 'unregister_ftrace_direct';
    this.#directMutex.with(() => {
      const rec = this.#rec(ip, op);
      this.#needs(rec, old, op);
      this.#set(rec, undefined, op);
      rec.ops = undefined;
    });
  }

  /**
   * Has another function run behind a site. A direct call that is there is asked first.
   * @param caller what the site shall call
   * @throws KernelError EBUSY when there is an IPMODIFY user, or a direct call of somebody who cannot be asked;
   *   ENODEV when `ip` is no site; what making room for it met
   *
   * Kernel: register_ftrace_function with FTRACE_OPS_FL_IPMODIFY; prepare_direct_functions_for_ipmodify
   */
  registerIpmodify(ip: Kaddr, caller: FtraceCaller): void {
    const op = 'register_ftrace_function';
    for (let tries = 1; ; tries++) {
      try {
        this.#directMutex.with(() => {
          const rec = this.#rec(ip, op);
          if (rec.ipmodify !== undefined)
            throw new KernelError('EBUSY', op, `${hex64(ip)} has an IPMODIFY user already`);
          if (rec.direct !== undefined) {
            if (rec.ops === undefined) throw new KernelError('EBUSY', op, `${hex64(ip)} has a direct call`);
            rec.ops.command('ENABLE_SHARE_IPMODIFY_PEER');
          }
          caller.direct = rec.direct;
          this.#patch(rec, caller.address, op);
          rec.ipmodify = caller;
        });
        return;
      } catch (error) {
        if (!(error instanceof KernelError) || error.code !== 'EAGAIN') throw error;
        if (tries === PATIENCE) throw new Bug(`nobody lets go: ${error.message}`);
      }
    }
  }

  /**
   * The opposite. The direct call's user is told, and may answer as it likes.
   * @throws KernelError ENODEV when the site is none of that caller's
   * Kernel: unregister_ftrace_function; cleanup_direct_functions_after_ipmodify
   */
  unregisterIpmodify(ip: Kaddr, caller: FtraceCaller): void {
    const op = 'unregister_ftrace_function';
    this.#directMutex.with(() => {
      const rec = this.#rec(ip, op);
      if (rec.ipmodify !== caller)
        throw new KernelError('ENODEV', op, `${hex64(ip)} has another IPMODIFY user, or none`);
      this.#patch(rec, this.#bugs.has('unpatch-forgets') ? undefined : rec.direct, op);
      rec.ipmodify = undefined;
      try {
        rec.ops?.command('DISABLE_SHARE_IPMODIFY_PEER');
      } catch (error) {
        if (!(error instanceof KernelError)) throw error;
      }
    });
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

  /** Changes the direct call: at the site, or in ftrace's own code where that is called. */
  #set(rec: FtraceRec, target: Kaddr | undefined, op: string): void {
    const { ipmodify } = rec;
    const wanted = this.#checked(rec, ipmodify?.address ?? target, op);
    const modifies = rec.direct !== undefined && target !== undefined;
    if (this.#bugs.has('T8')) rec.direct = target;
    if (this.#bugs.has('site-kept')) this.#text.poke(rec.ip, wanted);
    this.#fail.pass('ftrace-hash');
    if (ipmodify !== undefined) {
      if (!modifies || !this.#bugs.has('T7-shared')) ipmodify.direct = target;
    } else if (!modifies || !this.#bugs.has('T7-site')) this.#text.poke(rec.ip, wanted);
    if (!modifies || !this.#bugs.has('T7')) rec.direct = target;
  }

  /** Has the site call something, or nothing. */
  #patch(rec: FtraceRec, target: Kaddr | undefined, op: string): void {
    const wanted = this.#checked(rec, target, op);
    this.#fail.pass('ftrace-hash');
    this.#text.poke(rec.ip, wanted);
  }

  /** What shall stand at a site. What stands there must be what we wrote last. Kernel: ftrace_bug otherwise */
  #checked(rec: FtraceRec, target: Kaddr | undefined, op: string): Uint8Array {
    const expected = this.#bytes(rec, rec.ipmodify?.address ?? rec.direct, op);
    const found = this.#machine.memory.bytes(rec.ip, expected.length);
    if (expected.some((byte, i) => found[i] !== byte) && !this.#bugs.has('ftrace-unchecked')) {
      throw new KernelError('EINVAL', op, `${hex64(rec.ip)} holds ${toHex(found)}, not ${toHex(expected)}`);
    }
    return this.#bytes(rec, target, op);
  }

  #bytes(rec: FtraceRec, target: Kaddr | undefined, op: string): Uint8Array {
    const bytes = patchBytes('CALL', rec.ip, target ?? null);
    if (bytes === undefined) {
      throw new KernelError('EINVAL', op, `${hex64(rec.ip)} cannot reach ${hex64(target as Kaddr)}`);
    }
    return bytes;
  }
}
