/*
 * What a case is about, made: a kernel, the functions, and the programs as they are loaded.
 */

import type { Machine } from '../../emu/index.ts';
import {
  type Assembler,
  GET_FUNC_IP,
  ptr,
  type Reg,
  type Revision,
  r8,
  r9,
  rax,
  rdi,
} from '../../jit/index.ts';
import { Bug, type Kaddr, toHex } from '../../lib/index.ts';
import { Kernel, type KernelBug, type Livepatch, livepatch, ProgArray } from '../../tramp/index.ts';
import {
  type FunctionSpec,
  type HistoryCase,
  isV6,
  MOST,
  mayNest,
  PATCH_ADDS,
  type ProgramSpec,
  TASK_ARGUMENT,
} from './case.ts';
import { endOf, Guest, type GuestFunction } from './guest.ts';
import { ENTRY_COOKIE, ENTRY_IP, type Log, lowerHalf, Note } from './log.ts';
import { ModelFunction } from './model.ts';
import { LoadedProgram, type Version, type Way } from './record.ts';

/** Lower half of every key: what tells functions apart is the upper one, as for functions of several objects. */
const KEY_LOW = 0x8000_0007n;

/** The helper that a program asks for its cookie. */
const GET_COOKIE = 'bpf_get_attach_cookie';

/** A function of the case: the real one, what the model knows of it, and what has stood at its entry. */
export class WorldFunction extends ModelFunction<LoadedProgram> {
  readonly spec: FunctionSpec;
  readonly index: number;
  readonly versions: Version[] = [];
  /** Changes when its module is loaded again. */
  real: GuestFunction;
  /** Its code behind the entry, as it was made. */
  code: string;
  /** Somebody has a reference to its trampoline, and no program attached. */
  isHeld = false;
  /** Calls of tasks that are inside, each with a reference to the module. */
  callers = 0;
  /** Programs that were attached to it since its module was loaded. */
  readonly holders: Set<LoadedProgram> = new Set();
  /** The function that live patches put in its place, once there was one. */
  replacement: Kaddr | undefined;
  livepatch: Livepatch | undefined;

  constructor(index: number, spec: FunctionSpec, real: GuestFunction, code: string) {
    super({
      name: real.name,
      inModule: spec.place === 'module',
      isVoid: spec.isVoid,
      isPlain: spec.site === 'nop',
    });
    this.index = index;
    this.spec = spec;
    this.real = real;
    this.code = code;
  }

  /** Where calls go from its entry now. */
  get way(): Way {
    const { image, extension, patched } = this;
    return { image, extension, patched };
  }

  /** Notes what stands at its entry from some time on. */
  note(from: number, ways: readonly Way[] = [this.way]): void {
    this.versions.push({ from, ways, ip: lowerHalf(this.real.addr) });
  }

  /** What stands there. */
  get version(): Version {
    return this.versions.at(-1) as Version;
  }
}

export class World {
  readonly kernel: Kernel;
  readonly guest: Guest;
  readonly functions: readonly WorldFunction[];
  /** All that were ever loaded; the index is the number in the log. */
  readonly programs: LoadedProgram[] = [];
  /** v6: see the record of the same name. */
  readonly v6: boolean;
  /** Where functions that are BPF programs are put, each in a slot of its own. */
  readonly progArray: ProgArray = new ProgArray(MOST.functions);
  readonly #log: Log;

  constructor(
    machine: Machine,
    log: Log,
    one: HistoryCase,
    suspects: { readonly bugs: readonly KernelBug[]; readonly emitter: Revision | undefined },
  ) {
    const { revision, preemption } = one;
    const { bugs, emitter } = suspects;
    this.#log = log;
    this.v6 = isV6(one);
    this.kernel = new Kernel(machine, {
      revision,
      preemption,
      programLifetime: 'held',
      bugs,
      ...(emitter === undefined ? {} : { emitter }),
    });
    this.guest = new Guest(this.kernel);
    const functions: WorldFunction[] = [];
    for (const [index, spec] of one.functions.entries()) {
      const real = this.#make(index, spec, placeOf(one, functions, machine), functions);
      functions.push(new WorldFunction(index, spec, real, this.codeOf(real)));
    }
    this.functions = functions;
    for (const fn of functions) fn.note(0);
  }

  /** Loads a program. */
  load(spec: ProgramSpec): LoadedProgram {
    const id = this.programs.length;
    const name = `${spec.kind}${id}`;
    const getFuncIp = spec.asksIp ? this.kernel.helpers[GET_FUNC_IP] : undefined;
    const getCookie = spec.asksCookie ? this.kernel.helpers[GET_COOKIE] : undefined;
    const told = (asm: Assembler): ((entry: Reg) => void) | undefined =>
      getCookie === undefined ? undefined : (entry) => asm.mov(ptr(entry, ENTRY_COOKIE), r9.as(4));
    const ask = (asm: Assembler): void => {
      if (getCookie === undefined) return;
      asm.call(getCookie, GET_COOKIE);
      asm.mov(r9, rax);
    };
    const real = this.guest.addProgram(name, spec.kind, {
      sleepable: spec.sleepable,
      sleeps: spec.sleeps,
      returns: spec.returns,
      callsGetFuncIp: spec.asksIp,
      ...(spec.calls === null ? {} : { calls: this.#function(spec.calls).real.addr }),
      ...(mayNest(spec, this.v6) ? { callsWhere: TASK_ARGUMENT } : {}),
      enter: (asm) => {
        if (getFuncIp !== undefined) {
          asm.call(getFuncIp, GET_FUNC_IP);
          asm.mov(r8, rax);
        }
        ask(asm);
        this.#log.emitRun(asm, id, (entry) => {
          if (getFuncIp !== undefined) asm.mov(ptr(entry, ENTRY_IP), r8.as(4));
          told(asm)?.(entry);
        });
      },
      leave: (asm) => {
        ask(asm);
        this.#log.emit(asm, Note.done, id, told(asm));
      },
    });
    const program = new LoadedProgram(id, name, spec, real);
    this.programs.push(program);
    return program;
  }

  /** Makes the function that a live patch puts in another one's place: as slow, and with another result. */
  prepareReplacement(fn: WorldFunction): void {
    fn.replacement ??= this.#makeReplacement(fn);
  }

  /** Has it run there. @throws KernelError */
  patch(fn: WorldFunction): void {
    if (fn.replacement === undefined) throw new Bug(`nothing to run in place of ${fn.name}`);
    fn.livepatch = livepatch(this.kernel, fn.real.addr, fn.replacement);
  }

  #makeReplacement({ index, name, spec }: WorldFunction): Kaddr {
    const { addr } = this.guest.addFunction(`${name}_patch`, {
      sleeps: spec.sleeps,
      origin: 'kernel',
      plain: true,
      enter: (asm) => this.#log.emit(asm, Note.patch, index),
      leave: (asm) => {
        this.#log.emit(asm, Note.patchEnd, index);
        asm.movImm(rax, PATCH_ADDS);
        asm.alu('add', rdi, rax);
      },
    });
    return addr;
  }

  /** Loads a function's module again, after it was unloaded. */
  reload(fn: WorldFunction, now: number): void {
    fn.real = this.#make(fn.index, fn.spec, undefined, this.functions);
    fn.code = this.codeOf(fn.real);
    fn.holders.clear();
    fn.note(now);
  }

  /** The code of a function behind its entry, as it stands in memory. */
  codeOf({ addr, sizeBytes }: GuestFunction): string {
    return toHex(this.kernel.machine.memory.bytes(addr, sizeBytes).subarray(5));
  }

  #make(
    index: number,
    spec: FunctionSpec,
    at: Kaddr | undefined,
    functions: readonly WorldFunction[],
  ): GuestFunction {
    const callee = spec.calls === null ? undefined : functions[spec.calls];
    return this.guest.addFunction(`f${index}`, {
      sleeps: spec.sleeps,
      origin: spec.place,
      plain: spec.site === 'nop',
      isProgram: spec.site === 'nop',
      retSize: spec.isVoid ? 0 : 8,
      args: spec.args,
      key: (BigInt(index + 1) << 32n) | KEY_LOW,
      ...(callee === undefined ? {} : { calls: callee.real.addr }),
      ...(at === undefined ? {} : { at }),
      enter: (asm) => this.#log.emit(asm, Note.body, index),
      leave: (asm) => this.#log.emit(asm, Note.end, index),
    });
  }

  #function(index: number): WorldFunction {
    return this.functions[index] as WorldFunction;
  }
}

/** Functions that lie one behind the other share a page; the others have pages of their own. */
function placeOf(
  { functions }: HistoryCase,
  made: readonly WorldFunction[],
  machine: Machine,
): Kaddr | undefined {
  const before = made.at(-1);
  if (before !== undefined && functions[made.length]?.behind === true) return endOf(before.real);
  const isFollowed = functions[made.length + 1]?.behind === true;
  if (!isFollowed) return undefined;
  return functions[made.length]?.place === 'kernel'
    ? machine.memory.allocKernelText(4096, 'text of several')
    : machine.memory.allocText(4096, 'text of several');
}

/** Whether a function's module may go and come again: nobody has its address, and nobody shares its page. */
export function isReloadable({ functions, programs }: HistoryCase, index: number): boolean {
  const shared = functions[index]?.behind === true || functions[index + 1]?.behind === true;
  const isCalled = [...functions, ...programs].some(({ calls }) => calls === index);
  return functions[index]?.place === 'module' && !shared && !isCalled;
}

/**
 * Whether a program can be attached to a function without doing what a verifier would forbid: sleep, or call
 * somebody who sleeps, where that is not allowed, or modify a result that there is not.
 */
export function isAllowed({ functions }: HistoryCase, program: ProgramSpec, fn: FunctionSpec): boolean {
  if (program.kind === 'fmod_ret' && fn.isVoid) return false;
  if (fn.slow && program.sleepable) return true;
  const callsSlow = program.calls !== null && functions[program.calls]?.slow === true;
  return !program.sleeps && !callsSlow;
}
