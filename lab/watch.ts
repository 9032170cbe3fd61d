import type { BeginOptions, CallResult, Vcpu } from '../emu/index.ts';
import { ENDBR_BYTES, listBytes } from '../jit/index.ts';
import type { Kaddr } from '../lib/index.ts';
import { addrAdd, kaddr } from '../lib/index.ts';
import type { FuncModel } from '../obj/index.ts';
import type { AttachKind, BpfProg, Kernel } from '../tramp/index.ts';
import { arriving, gather, wordsOf } from './passing.ts';
import { atWidth } from './values.ts';

/** Longest x86 instruction, bytes. */
const MAX_INSN = 15;
const NO_BYTES = new Uint8Array();

/** System V argument registers. */
const ARG_REGS = ['rdi', 'rsi', 'rdx', 'rcx', 'r8', 'r9'] as const;

/** One run of a program, as it happened. */
export interface Seen {
  readonly program: string;
  readonly kind: AttachKind;
  /** The traced function. */
  readonly target: string;
  readonly prog: BpfProg;
  readonly model: FuncModel;
  /** Depth of nesting: 0 for a program of the function that was called. */
  readonly depth: number;
  /** What bpf_get_attach_cookie answers it here: 0 before v6.1. */
  readonly cookie: bigint;
  /** The arguments in its context (of a freplace program: its own), each at its own width; a struct as one number. */
  readonly args: readonly bigint[];
  /** The return value in its context: for fexit programs, and for fmod_ret programs what the one before returned. */
  readonly ret: bigint | undefined;
  /** What the program returned, or undefined when it did not come back. */
  readonly returned: bigint | undefined;
}

/** One executed instruction. */
export interface TraceEvent {
  readonly address: Kaddr;
  /** `symbol+0x12`. */
  readonly place: string | undefined;
  readonly instruction: string;
  /** The emitter's step, inside an image. */
  readonly step: string | undefined;
}

/** An attached program, and what it is attached to. */
export interface WatchedProg {
  readonly prog: BpfProg;
  readonly model: FuncModel;
  readonly cookie: bigint;
  /** Entry of the function. */
  readonly addr: Kaddr;
}

interface Running {
  readonly watched: WatchedProg;
  readonly returnTo: Kaddr;
  readonly rsp: bigint;
  readonly seen: { -readonly [K in keyof Seen]: Seen[K] };
}

/**
 * Watches a call from outside, instruction by instruction: which program ran, what its context held,
 * what it returned. Nothing in the guest is changed for it.
 */
export class Watcher {
  readonly seen: Seen[] = [];
  readonly #kernel: Kernel;
  readonly #attached: () => readonly WatchedProg[];
  /** By the address of their struct bpf_prog: many programs may share one code. */
  readonly #progs = new Map<bigint, WatchedProg>();
  /** The freplace programs, by their code. */
  readonly #replacements = new Map<bigint, WatchedProg>();
  /** Those of cgroups, by their code: their shim is entered, and calls them. */
  readonly #hosted = new Map<bigint, WatchedProg>();
  readonly #enterFunctions: ReadonlySet<bigint>;
  readonly #exitFunctions: ReadonlySet<bigint>;
  /** The program whose enter function was called last, until it is called itself or skipped. */
  #entered: WatchedProg | undefined;
  /** The instruction before: a freplace program is jumped to from the function's entry. */
  #previous = 0n;
  readonly #running: Running[] = [];
  readonly #described = new Map<bigint, { readonly bytes: Uint8Array; readonly event: TraceEvent }>();
  readonly #onInstruction: ((event: TraceEvent) => void) | undefined;

  /** @param attached what is attached now: `onInstruction` may change that */
  constructor(
    kernel: Kernel,
    attached: () => readonly WatchedProg[],
    onInstruction?: (event: TraceEvent) => void,
  ) {
    this.#kernel = kernel;
    this.#attached = attached;
    this.#remember();
    const helpers = Object.entries(kernel.helpers);
    const family = (prefix: string): Set<bigint> =>
      new Set(helpers.filter(([name]) => name.startsWith(prefix)).map(([, address]) => address));
    this.#enterFunctions = family('__bpf_prog_enter');
    this.#exitFunctions = family('__bpf_prog_exit');
    this.#onInstruction = onInstruction;
  }

  /** As Vcpu.call, one instruction at a time. */
  call(cpu: Vcpu, fn: Kaddr, args: readonly bigint[], options: BeginOptions): CallResult {
    cpu.begin(fn, args, options);
    try {
      let instructions = 0;
      for (;;) {
        this.#before(cpu);
        const { reason, instructions: done, fault } = cpu.step();
        instructions += done;
        if (reason === 'returned') {
          const ret = cpu.regs.get('rax');
          const last = this.#running.pop();
          // the function itself was a program, which replaces it
          if (last?.watched.prog.kind === 'freplace') last.seen.returned = ret;
          return { ret, instructions, fault: null };
        }
        if (fault !== null) return { ret: 0n, instructions, fault };
      }
    } finally {
      // Nothing is in flight any more, unless what onInstruction was told made it throw.
      cpu.abort();
    }
  }

  #before(cpu: Vcpu): void {
    const rip = cpu.regs.get('rip');
    this.#onInstruction?.(this.#describe(kaddr(rip)));
    const rsp = cpu.regs.get('rsp');
    // Back below its caller's frame without a proper return: it has not returned, and never will.
    while ((this.#running.at(-1)?.rsp ?? rsp) < rsp) this.#running.pop();
    const last = this.#running.at(-1);
    if (last !== undefined && rip === last.returnTo && rsp === last.rsp) {
      last.seen.returned = cpu.regs.get('rax');
      this.#running.pop();
    }
    if (this.#enterFunctions.has(rip)) this.#entered = this.#find(cpu.regs.get('rdi'));
    else if (this.#exitFunctions.has(rip)) this.#entered = undefined;
    const entered = this.#entered;
    const previous = this.#previous;
    this.#previous = rip;
    if (entered !== undefined && rip === entered.prog.bpfFunc) {
      this.#entered = undefined;
      this.#enter(entered, cpu);
      return;
    }
    const hosted = this.#hosted.get(rip);
    if (hosted !== undefined && this.#kernel.cgroupLsm.isRunner(kaddr(previous))) this.#enter(hosted, cpu);
    const replacement = this.#replacements.get(rip);
    // from the entry, or from behind its ENDBR
    const from = replacement === undefined ? -1n : previous - replacement.addr;
    if (replacement !== undefined && (from === 0n || from === BigInt(ENDBR_BYTES))) {
      this.#enter(replacement, cpu);
    }
  }

  /** Programs that were detached meanwhile are remembered: an old image still runs them. */
  #find(address: bigint): WatchedProg | undefined {
    this.#remember();
    return this.#progs.get(address);
  }

  #remember(): void {
    for (const watched of this.#attached()) {
      this.#progs.set(watched.prog.address, watched);
      if (watched.prog.type === 'lsm_cgroup') this.#hosted.set(watched.prog.bpfFunc, watched);
      if (watched.prog.kind === 'freplace') this.#replacements.set(watched.prog.bpfFunc, watched);
    }
  }

  /** Loops come to the same instruction again and again: it is decoded once, as long as its bytes stay. */
  #describe(address: Kaddr): TraceEvent {
    const { memory } = this.#kernel.machine;
    const region = memory.regionAt(address);
    const left = region === undefined ? 0 : Number(region.start - address) + region.sizeBytes;
    const bytes = left === 0 ? NO_BYTES : memory.bytes(address, Math.min(left, MAX_INSN));
    const known = this.#described.get(address);
    if (known?.bytes.length === bytes.length && known.bytes.every((byte, i) => byte === bytes[i])) {
      return known.event;
    }
    const { kallsyms } = this.#kernel;
    const [row] = listBytes(bytes, address, { nameOf: (target) => kallsyms.nameOf(target) });
    const at = kallsyms.locate(address);
    const event: TraceEvent = {
      address,
      place: at === undefined ? undefined : `${at.symbol}+0x${at.offset.toString(16)}`,
      instruction: row?.instruction ?? '(unmapped)',
      step: at?.step,
    };
    this.#described.set(address, { bytes: bytes.slice(), event });
    return event;
  }

  #enter(watched: WatchedProg, cpu: Vcpu): void {
    const { memory } = this.#kernel.machine;
    const { prog, model, cookie } = watched;
    const rsp = cpu.regs.get('rsp');
    const above = (index: number): bigint => memory.readU64(kaddr(rsp + 8n + 8n * BigInt(index)));
    const own =
      prog.kind === 'freplace'
        ? arriving(model.args, (index) => cpu.regs.get(ARG_REGS[index] ?? 'rdi'), above)
        : undefined;
    const inCtx = wordsAt(this.#kernel, kaddr(cpu.regs.get('rdi')));
    const keepsReturn = prog.kind !== 'fentry' && prog.kind !== 'freplace' && model.ret.sizeBytes > 0;
    const nrWords = model.args.reduce((sum, arg) => sum + wordsOf(arg), 0);
    const seen = {
      program: prog.name,
      kind: prog.kind,
      target: model.name,
      prog,
      model,
      cookie,
      depth: this.#running.length,
      args: gather(model.args, own === undefined ? inCtx : (index) => own[index] ?? 0n),
      ret: keepsReturn ? atWidth(model.ret, inCtx(nrWords)) : undefined,
      returned: undefined,
    };
    this.seen.push(seen);
    this.#running.push({ watched, returnTo: kaddr(memory.readU64(kaddr(rsp))), rsp: rsp + 8n, seen });
  }
}

function wordsAt({ machine }: Kernel, ctx: Kaddr): (index: number) => bigint {
  return (index) => machine.memory.readU64(addrAdd(ctx, 8 * index));
}
