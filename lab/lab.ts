import { basename } from 'node:path';
import {
  type BpfProgram,
  BpfRuntime,
  type BpfTypeRef,
  type LoadedProgram,
  loadBpfObject,
  readBpfObject,
} from '../bpf/index.ts';
import {
  type BeginOptions,
  type CallResult,
  createMachine,
  type EngineName,
  type Fault,
  type Machine,
  type Vcpu,
} from '../emu/index.ts';
import { type ListingRow, listCode } from '../jit/index.ts';
import { InputError, type Kaddr } from '../lib/index.ts';
import { type Btf, type FuncModel, parsePrototype } from '../obj/index.ts';
import {
  ATTACH_KINDS,
  type AttachKind,
  type AttachTarget,
  attachProg,
  BpfProg,
  type BuildConfig,
  detachProg,
  introspect,
  Kernel,
  type KernelReport,
  type Livepatch,
  livepatch,
  type ManagedRevision,
  managedRevision,
  type Placement,
  type ProgType,
  resolveSymbol,
  TrampLink,
  type Trampoline,
} from '../tramp/index.ts';
import { aimed, BpfPrograms, bpfPlace, type LoadBpfFileOptions, symbolType } from './bpf.ts';
import { readBytes } from './files.ts';
import { pass, pushWords } from './passing.ts';
import { type ProgramCode, ProgramObject, textProgram } from './program.ts';
import {
  checkModel,
  checkSameShape,
  checkSite,
  findFunction,
  findModel,
  loadElfTarget,
  loadTextTarget,
  type Target,
  type TargetFunction,
  trampolineKey,
} from './target.ts';
import { atWidth, passArgument, structValue } from './values.ts';
import { type Seen, type TraceEvent, type WatchedProg, Watcher } from './watch.ts';

export interface LabOptions {
  /** Kernel revision to be; default `v5.15`. */
  readonly revision?: ManagedRevision;
  /** vCPUs, 1 to 64; default 1. */
  readonly cpus?: number;
  /** Default `unicorn`. `native` runs guests on the host's CPU, at user-space addresses. */
  readonly engine?: EngineName;
  /** False: with `native`, calls that are not watched run at full speed and uncounted; see MachineOptions. */
  readonly counting?: boolean;
  /** Instructions after which a call ends with a `step-limit` fault; default 10,000,000. */
  readonly stepLimit?: number;
  /** CONFIG_PREEMPTION; default true. */
  readonly preemption?: boolean;
  /** How the kernel was built, as far as images show it (v6.1 on); default neither IBT nor return thunks. */
  readonly config?: BuildConfig;
  /** How long detached programs stay; see KernelOptions. Default `kernel`. */
  readonly programLifetime?: 'kernel' | 'held';
}

export interface AttachOptions {
  readonly sleepable?: boolean;
  /** What bpf_get_attach_cookie answers the program there, 64 bits; v6.1 on. Default 0. */
  readonly cookie?: bigint | number;
  /** What it is loaded as, where that is not what its kind says; decides about recursion from v6.1 on. */
  readonly type?: ProgType;
}

/** Longest C text that is read, its 0 included, bytes. */
const MAX_TEXT = 257;

/**
 * An argument of a call: an integer, or bytes. Of a pointer they are what it points to, in memory made for the
 * call; of a struct by value, the struct.
 */
export type CallArgument = bigint | number | { readonly bytes: Uint8Array };

export interface LabCallOptions {
  /** Which vCPU; default 0. */
  readonly cpu?: number;
  /** Limit of instructions for this call. */
  readonly steps?: number;
  /** Watch which programs run and what they see; slower, as the call is stepped. */
  readonly watch?: boolean;
  /** Told before every instruction; implies `watch`. */
  readonly onInstruction?: (event: TraceEvent) => void;
}

export interface CallReport {
  readonly function: string;
  /** What was passed: words; a struct as one number, its first byte lowest. */
  readonly args: readonly bigint[];
  /** The result at its type's width (64 bits without a model); null for void functions and after a fault. */
  readonly ret: bigint | null;
  /** NaN when they were not counted. */
  readonly instructions: number;
  readonly fault: Fault | null;
  /** Runs of programs, in order of entry; empty unless the call was watched. */
  readonly seen: readonly Seen[];
}

/** A program where it is attached. */
export interface Attachment {
  readonly prog: BpfProg;
  readonly function: string;
  readonly kind: AttachKind;
  readonly cookie: bigint;
  /** Whether it still is. */
  attached(): boolean;
  /** Takes the program off again. @throws KernelError */
  detach(): void;
}

/** Where a program is attached: the trampoline's key, and what it traces. */
export interface AttachPlace {
  readonly key: bigint;
  readonly target: AttachTarget;
}

/** What stands at a traced function now. */
export interface TrampolineInfo {
  readonly function: string;
  readonly key: bigint;
  readonly ksym: string;
  readonly image: Kaddr;
  readonly length: number;
  readonly bytes: Uint8Array;
}

/** @throws InputError for a cookie that is none, or that the revision cannot give */
function cookieOf(kernel: Kernel, given: bigint | number | undefined): bigint {
  if (given === undefined) return 0n;
  const whole = typeof given === 'bigint' || Number.isSafeInteger(given);
  const cookie = whole ? BigInt(given) : -1n;
  if (cookie < 0n || cookie >= 1n << 64n) {
    throw new InputError('cookie', undefined, `${given} is no 64-bit number; give 0 to 0xffffffffffffffff`);
  }
  if (cookie !== 0n && !kernel.rules.cookies) {
    throw new InputError('cookie', undefined, `${kernel.revision} has no cookies; they come with v6.1`);
  }
  return cookie;
}

/** As Vcpu.call, from a stack with words on it. */
function callWithStack(cpu: Vcpu, fn: Kaddr, regs: readonly bigint[], options: BeginOptions): CallResult {
  cpu.begin(fn, regs, options);
  const { instructions, fault } = cpu.run();
  return { ret: fault === null ? cpu.regs.get('rax') : 0n, instructions, fault };
}

/** Makes a lab: a machine with a kernel's trampolines and nothing attached. @throws InputError for bad options */
export async function createLab(options: LabOptions = {}): Promise<Lab> {
  const { cpus, engine, counting, stepLimit, preemption, programLifetime, config } = options;
  const revision = managedRevision(String(options.revision ?? 'v5.15'));
  const machine = await createMachine({
    ...(cpus === undefined ? {} : { cpus }),
    ...(engine === undefined ? {} : { engine }),
    ...(counting === undefined ? {} : { counting }),
    ...(stepLimit === undefined ? {} : { stepLimit }),
  });
  const kernel = new Kernel(machine, {
    revision,
    ...(preemption === undefined ? {} : { preemption }),
    ...(programLifetime === undefined ? {} : { programLifetime }),
    ...(config === undefined ? {} : { config }),
  });
  return new Lab(machine, kernel);
}

/**
 * Load a target, attach programs, call functions, look.
 *
 *     const lab = await createLab({ revision: 'v5.15' });
 *     lab.load('target.o');
 *     const probe = await lab.assemble('probe', 'xor eax, eax\nret');
 *     const attached = lab.attach('fentry', 'f', probe);
 *     const { ret, seen } = lab.call('f', [1, 2n], { watch: true });
 *     attached.detach();
 *     lab.close();
 */
export class Lab {
  readonly #machine: Machine;
  readonly #kernel: Kernel;
  readonly #targets: Target[] = [];
  readonly #prototypes = new Map<string, FuncModel>();
  readonly #attached = new Map<Attachment, Trampoline>();
  readonly #bpf: BpfPrograms[] = [];
  #runtime: BpfRuntime | undefined;
  #targetsLoaded = 0;
  #closed = false;

  constructor(machine: Machine, kernel: Kernel) {
    this.#machine = machine;
    this.#kernel = kernel;
  }

  /** @throws InputError once the lab is closed: the memory that stood behind it is gone */
  get machine(): Machine {
    this.#checkOpen();
    return this.#machine;
  }

  /** @throws InputError once the lab is closed */
  get kernel(): Kernel {
    this.#checkOpen();
    return this.#kernel;
  }

  // -- loading ----------------------------------------------------------------------------------

  /**
   * Loads a relocatable object or a static executable whose functions shall be traced.
   * @param options.bytes its contents; read from `file` when left out
   * @param options.as where an object goes: the kernel's own text (default), or a module, which can be unloaded
   * @throws InputError; nothing is loaded then
   */
  load(file: string, options: { readonly bytes?: Uint8Array; readonly as?: Placement } = {}): Target {
    const { bytes = readBytes(file), as = 'kernel' } = options;
    const place = { name: this.#moduleName(file), objId: this.#nextObjId(), as };
    return this.#adopt(loadElfTarget(this.kernel, bytes, file, place));
  }

  /**
   * Loads assembly text whose labels are functions; those that start with `call __fentry__` or with the
   * 5-byte nop can be traced.
   * @param options.as whether its text counts as the kernel's own (default) or as a module's
   * @throws InputError naming the line
   */
  async loadText(source: string, file = 'text', options: { readonly as?: Placement } = {}): Promise<Target> {
    const place = { name: this.#moduleName(file), objId: this.#nextObjId(), as: options.as ?? 'kernel' };
    return this.#adopt(await loadTextTarget(this.kernel, source, file, place));
  }

  /**
   * Takes a target away again.
   * @throws KernelError EBUSY while a function of it is traced, or for an executable, which is kernel text
   */
  unload(target: Target): void {
    this.#checkOpen();
    const index = this.#targets.indexOf(target);
    if (index < 0) throw new InputError('unload', undefined, `${target.module.name} is not loaded`);
    target.module.unload();
    this.#targets.splice(index, 1);
  }

  /**
   * Tells the prototype of a function whose target carries no BTF.
   * @param from where the text came from, for messages
   * @throws InputError naming the column; or the prototype that is known already, when it differs
   */
  prototype(text: string, from = 'prototype'): FuncModel {
    const model = parsePrototype(text, from);
    const known = this.#targets.map(({ btf }) => btf?.funcModel(model.name));
    for (const other of [...known, this.#prototypes.get(model.name)]) checkSameShape(model, other, from);
    this.#prototypes.set(model.name, model);
    return model;
  }

  /** Assembles a program. @throws InputError naming the line */
  async assemble(name: string, source: string, file: string = name): Promise<ProgramCode> {
    return textProgram(this.kernel, name, source, file);
  }

  /** Loads an object of programs; it may call what is loaded already. @throws InputError */
  loadPrograms(file: string, bytes?: Uint8Array): ProgramObject {
    return new ProgramObject(this.kernel, bytes ?? readBytes(file), file, this.#moduleName(file));
  }

  // -- attaching --------------------------------------------------------------------------------

  /**
   * Attaches a program to a function, in front of those of its kind that are there.
   *
   * @throws InputError unknown function, or no prototype of it
   * @throws KernelError EINVAL no trace site, E2BIG, EBUSY, ENOTSUPP more argument words than the revision takes;
   *   nothing has changed then
   */
  attach(kind: AttachKind, fn: string, code: ProgramCode, options: AttachOptions = {}): Attachment {
    const { kernel } = this;
    if (!ATTACH_KINDS.includes(kind)) {
      throw new InputError(
        'attach',
        undefined,
        `no kind ${String(kind)}; there are ${ATTACH_KINDS.join(', ')}`,
      );
    }
    const place = this.#placeFor(fn, code);
    const cookie = cookieOf(kernel, options.cookie);
    const prog = new BpfProg(kernel, {
      name: code.name,
      kind,
      bpfFunc: code.entry,
      sleepable: options.sleepable ?? false,
      callsGetFuncIp: code.callsGetFuncIp,
      ...(options.type === undefined ? {} : { type: options.type }),
      release: code.put,
    });
    code.get();
    return this.#attachLink(prog, fn, place, cookie);
  }

  /**
   * Attaches an LSM program for cgroups to a hook (v6.1 on): a shim in the hook's trampoline runs it, and others
   * like it, oldest first. One that answers 0 refuses the call with -EPERM.
   * @throws as `attach`; InputError before v6.1
   */
  attachCgroup(fn: string, code: ProgramCode): Attachment {
    const { kernel } = this;
    const { cgroupLsm } = kernel;
    const { key, target } = this.#placeFor(fn, code);
    const prog = new BpfProg(kernel, {
      name: code.name,
      kind: 'lsm',
      type: 'lsm_cgroup',
      bpfFunc: code.entry,
      release: code.put,
    });
    code.get();
    let trampoline: Trampoline;
    try {
      trampoline = cgroupLsm.attach(prog, key, target);
    } finally {
      // attached, its place has a reference of its own
      prog.put();
      kernel.settle();
    }
    const attachment: Attachment = {
      prog,
      function: fn,
      kind: prog.kind,
      cookie: 0n,
      attached: () => this.#attached.has(attachment),
      detach: () => {
        this.#checkOpen();
        if (!this.#attached.delete(attachment)) {
          throw new InputError('detach', undefined, `${prog.name} is detached from ${fn} already`);
        }
        try {
          cgroupLsm.detach(prog, key);
        } finally {
          kernel.settle();
        }
      },
    };
    this.#attached.set(attachment, trampoline);
    return attachment;
  }

  /**
   * Has another function run in place of one, traced or not, until the patch is removed. From v6.1 on the two may
   * share a function's entry; before, whoever comes second is refused with EBUSY.
   * @param replacement a function of any target, of the same type
   * @throws InputError unknown function; KernelError EINVAL no trace site, EBUSY
   */
  livepatch(fn: string, replacement: string): Livepatch {
    const old = findFunction(this.#targets, fn);
    const fresh = findFunction(this.#targets, replacement);
    const patch = livepatch(this.kernel, old.symbol.address, fresh.symbol.address);
    this.kernel.settle();
    return patch;
  }

  /** Where code is to be attached. @throws InputError when it is of another lab; as `attach` */
  #placeFor(fn: string, code: ProgramCode): AttachPlace {
    const { kernel } = this;
    if (code.kernel !== kernel) {
      throw new InputError('attach', undefined, `${code.name} is loaded in another lab; load it in this one`);
    }
    const found = findFunction(this.#targets, fn);
    const model = findModel(found, this.#prototypes);
    checkModel(kernel, model);
    checkSite(kernel, found);
    return this.#place(found, model);
  }

  #place(found: TargetFunction, model: FuncModel): AttachPlace {
    return { key: trampolineKey(found), target: { addr: found.symbol.address, model } };
  }

  /** Attaches a loaded program, one reference of which goes to the attachment, or is put when it fails. */
  #attachLink(prog: BpfProg, fn: string, { key, target }: AttachPlace, cookie: bigint): Attachment {
    const { kernel } = this;
    const link = new TrampLink(prog, cookie);
    const drop = (): void => {
      prog.put();
      kernel.settle();
    };
    let trampoline: Trampoline;
    try {
      trampoline = attachProg(kernel, link, key, target);
    } catch (error) {
      drop();
      throw error;
    }
    kernel.settle();
    const attachment: Attachment = {
      prog,
      function: fn,
      kind: prog.kind,
      cookie,
      attached: () => this.#attached.has(attachment),
      detach: () => {
        this.#checkOpen();
        if (!this.#attached.delete(attachment)) {
          throw new InputError('detach', undefined, `${prog.name} is detached from ${fn} already`);
        }
        try {
          detachProg(kernel, link, trampoline);
        } finally {
          drop();
        }
      },
    };
    this.#attached.set(attachment, trampoline);
    return attachment;
  }

  // -- programs in C ----------------------------------------------------------------------------

  /**
   * Loads an eBPF object as clang makes it: its maps, its variables, its programs, for this kernel and the targets
   * that are loaded. Nothing is attached yet.
   *
   * @throws InputError, KernelError what is wrong with it; nothing is loaded then
   */
  loadBpf(file: string, options: LoadBpfFileOptions = {}): BpfPrograms {
    this.#runtime ??= new BpfRuntime(this.kernel);
    const object = aimed(readBpfObject(options.bytes ?? readBytes(file), { file }), options.targets);
    const loaded = loadBpfObject(this.#runtime, object, {
      types: this.#targets.flatMap(({ btf }) => btf ?? []),
      symbol: (name) => this.#bpfSymbol(name),
      attachTypes: (program) => this.#attachTypes(program),
      kconfig: options.kconfig,
      jited: options.jited,
      also: options.also,
      without: options.without,
    });
    const programs = new BpfPrograms(this.#runtime, loaded, {
      attach: (program, to, cookie) => this.#attachBpf(program, to, cookie),
      closed: () => {
        this.#bpf.splice(this.#bpf.indexOf(programs), 1);
      },
    });
    this.#bpf.push(programs);
    return programs;
  }

  /** The eBPF objects that are loaded, oldest first. */
  get bpf(): readonly BpfPrograms[] {
    return this.#bpf;
  }

  /** What programs have printed so far, by line. */
  get log(): readonly string[] {
    return this.#runtime?.log ?? [];
  }

  #bpfSymbol(name: string): { readonly address: Kaddr; readonly type?: BpfTypeRef } | undefined {
    const address = resolveSymbol(this.kernel, name) ?? this.kernel.kallsyms.named(name)?.start;
    if (address === undefined) return undefined;
    for (const { btf } of this.#targets) {
      const id = btf === undefined ? undefined : symbolType(btf, name);
      if (btf !== undefined && id !== undefined) return { address, type: { btf, id } };
    }
    return { address };
  }

  /** In whose types a program finds the function that it attaches to: a target's, else another object's. */
  #attachTypes({ name, kind, attachTo = '' }: BpfProgram): Btf {
    const inPrograms = this.#bpf.find(({ object }) => object.btf?.funcId(attachTo) !== undefined)?.object.btf;
    if (kind === 'freplace' && inPrograms !== undefined) return inPrograms;
    const inTargets = this.#targets.find(({ btf }) => btf?.funcId(attachTo) !== undefined)?.btf;
    const btf = inTargets ?? inPrograms;
    if (btf !== undefined) return btf;
    const what =
      kind === 'freplace' ? 'no program that is loaded has' : 'no target that is loaded has BTF of';
    throw new InputError(
      name,
      undefined,
      `${what} a function ${attachTo}: load it first; compile it with -gbtf`,
    );
  }

  #attachBpf({ prog }: LoadedProgram, to: string, given: bigint | number | undefined): Attachment {
    const { kernel } = this;
    const cookie = cookieOf(kernel, given);
    const isTarget = this.#targets.some(({ module }) =>
      module.contents.functions.some(({ name }) => name === to),
    );
    let place: AttachPlace | undefined;
    if (prog.kind === 'freplace' || !isTarget) {
      place = bpfPlace(this.#bpf, to);
      if (place === undefined && prog.kind === 'freplace') {
        throw new InputError('attach', undefined, `no program that is loaded has a function ${to}`);
      }
    }
    if (place === undefined) {
      const found = findFunction(this.#targets, to);
      const model = findModel(found, this.#prototypes);
      checkSite(kernel, found);
      place = this.#place(found, model);
    }
    checkModel(kernel, place.target.model);
    prog.get();
    return this.#attachLink(prog, to, place, cookie);
  }

  /** What is attached, oldest first. */
  attachments(): Attachment[] {
    return [...this.#attached.keys()];
  }

  // -- calling ----------------------------------------------------------------------------------

  /**
   * Calls a function of a target on a vCPU, traced or not.
   * @throws InputError unknown function, wrong number of arguments, a value that does not fit its type
   */
  call(fn: string, args: readonly CallArgument[] = [], options: LabCallOptions = {}): CallReport {
    const found = findFunction(this.#targets, fn);
    const model = this.#modelOrNone(found);
    const cpu = this.machine.cpus[options.cpu ?? 0];
    if (cpu === undefined) {
      const last = this.machine.cpus.length - 1;
      throw new InputError('cpu', undefined, `there is no CPU ${options.cpu}; the last one is ${last}`);
    }
    if (model !== undefined && model.args.length !== args.length) {
      const wanted = model.args.length === 1 ? '1 argument' : `${model.args.length} arguments`;
      throw new InputError('call', undefined, `${fn} takes ${wanted}, not ${args.length}`);
    }
    const made: Kaddr[] = [];
    try {
      const values = args.map((arg, i) => this.#value(fn, model, i, arg, made));
      const { regs, stack } = pass(model?.args ?? [], values);
      const limit = options.steps === undefined ? {} : { steps: options.steps };
      const place = stack.length === 0 ? {} : { stackTop: pushWords(cpu, this.machine.memory, stack) };
      const watched = options.watch === true || options.onInstruction !== undefined;
      const watcher = watched
        ? new Watcher(this.kernel, () => this.#watchable(), options.onInstruction)
        : undefined;
      const entry = found.symbol.address;
      const result =
        watcher !== undefined
          ? watcher.call(cpu, entry, regs, { ...limit, ...place })
          : stack.length === 0
            ? cpu.call(entry, regs, limit)
            : callWithStack(cpu, entry, regs, { ...limit, ...place });
      if (result.fault !== null) this.kernel.killCurrent(cpu.id);
      const isVoid = model?.ret.sizeBytes === 0;
      return {
        function: fn,
        args: values,
        ret: result.fault !== null || isVoid ? null : atWidth(model?.ret ?? { sizeBytes: 8 }, result.ret),
        instructions: result.instructions,
        fault: result.fault,
        seen: watcher?.seen ?? [],
      };
    } finally {
      for (const address of made) this.machine.memory.kfree(address);
      this.kernel.settle();
    }
  }

  // -- looking ----------------------------------------------------------------------------------

  /** The model of a function. @throws InputError when nobody told it */
  model(fn: string): FuncModel {
    return findModel(findFunction(this.#targets, fn), this.#prototypes);
  }

  /** The images that traced functions call now. */
  trampolines(): TrampolineInfo[] {
    return this.kernel.trampolines.list().flatMap(({ key, curImage, target }) =>
      curImage === undefined
        ? []
        : [
            {
              function: target.model.name,
              key,
              ksym: curImage.ksym.name,
              image: curImage.image,
              length: curImage.length,
              bytes: curImage.bytes(),
            },
          ],
    );
  }

  /** Symbols, programs with their counters, images with what they wait for, modules: as data. See formatReport. */
  report(): KernelReport {
    return introspect(this.kernel);
  }

  /** The annotated image of a traced function. @throws InputError when it is not traced */
  listing(fn: string): ListingRow[] {
    const tr = this.kernel.trampolines.list().find((candidate) => candidate.target.model.name === fn);
    const code = tr?.curImage?.code();
    if (tr?.curImage === undefined || code === undefined) {
      throw new InputError('listing', undefined, `nothing is attached to ${fn}`);
    }
    return listCode(code, tr.curImage.image, { nameOf: (address) => this.kernel.kallsyms.nameOf(address) });
  }

  /** The C text at an address, without its 0; undefined where there is none, or none of at most 256 bytes. */
  readText(address: Kaddr): string | undefined {
    const { memory } = this.machine;
    const region = memory.regionAt(address);
    if (region === undefined) return undefined;
    const left = region.sizeBytes - Number(address - region.start);
    const bytes = memory.bytes(address, Math.min(left, MAX_TEXT));
    const end = bytes.indexOf(0);
    return end < 0 ? undefined : new TextDecoder().decode(bytes.subarray(0, end));
  }

  /** Gives the machine back. */
  close(): void {
    this.#closed = true;
    this.#machine.close();
  }

  #checkOpen(): void {
    if (this.#closed) throw new InputError('lab', undefined, 'it is closed');
  }

  #value(fn: string, model: FuncModel | undefined, index: number, arg: CallArgument, made: Kaddr[]): bigint {
    const type = model?.args[index];
    if (typeof arg === 'object' && arg.bytes instanceof Uint8Array) {
      if (type?.struct === true) return structValue(fn, index, type, arg.bytes);
      if (type !== undefined && !type.pointer && type.sizeBytes < 8) {
        throw new InputError('call', undefined, `${fn}: argument ${index + 1} (${type.type}) is no pointer`);
      }
      const address = this.machine.memory.kmalloc(Math.max(arg.bytes.length, 1), 'call argument');
      made.push(address);
      this.machine.memory.write(address, arg.bytes);
      return address;
    }
    if (typeof arg !== 'bigint' && !(typeof arg === 'number' && Number.isSafeInteger(arg))) {
      const what = `argument ${index + 1} is ${String(arg)}`;
      throw new InputError('call', undefined, `${fn}: ${what}; give an integer, or { bytes }`);
    }
    return type === undefined ? BigInt.asUintN(64, BigInt(arg)) : passArgument(fn, index, type, BigInt(arg));
  }

  #modelOrNone(found: ReturnType<typeof findFunction>): FuncModel | undefined {
    const { name } = found.symbol;
    const known = found.target.btf?.funcId(name) !== undefined || this.#prototypes.has(name);
    return known ? findModel(found, this.#prototypes) : undefined;
  }

  #watchable(): WatchedProg[] {
    return [...this.#attached].map(([{ prog, cookie }, tr]) => {
      const { addr, model } = tr.target;
      return { prog, cookie, addr, model };
    });
  }

  #adopt(target: Target): Target {
    this.#targets.push(target);
    this.#targetsLoaded++;
    return target;
  }

  /** Kernel: vmlinux's BTF is number 1, modules follow. */
  #nextObjId(): number {
    return this.#targetsLoaded + 1;
  }

  #moduleName(file: string): string {
    const base = basename(file).replace(/\.[^.]+$/, '');
    const taken = (name: string): boolean => this.kernel.modules.some((module) => module.name === name);
    let name = base;
    for (let n = 2; taken(name); n++) name = `${base}.${n}`;
    return name;
  }
}
