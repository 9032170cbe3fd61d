/*
 * What a case is about, made: a kernel, the functions, and the programs as they are loaded.
 */

import type { Machine } from '../../emu/index.ts';
import { GET_FUNC_IP, ptr, type Revision, r8, rax } from '../../jit/index.ts';
import { type Kaddr, toHex } from '../../lib/index.ts';
import { Kernel, type KernelBug } from '../../tramp/index.ts';
import type { FunctionSpec, HistoryCase, ProgramSpec } from './case.ts';
import { endOf, Guest, type GuestFunction } from './guest.ts';
import { type Log, Note } from './log.ts';
import { ModelFunction } from './model.ts';
import { LoadedProgram, type Version } from './record.ts';

/** Lower half of every key: what tells functions apart is the upper one, as for functions of several objects. */
const KEY_LOW = 0x8000_0007n;

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

  /** Notes what stands at its entry from now on. */
  note(now: number): void {
    const { image, extension } = this;
    this.versions.push({ from: now, image, extension, ip: lowerHalf(this.real.addr) });
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
    const real = this.guest.addProgram(name, spec.kind, {
      sleepable: spec.sleepable,
      sleeps: spec.sleeps,
      returns: spec.returns,
      callsGetFuncIp: spec.asksIp,
      ...(spec.calls === null ? {} : { calls: this.#function(spec.calls).real.addr }),
      enter: (asm) => {
        if (getFuncIp === undefined) {
          this.#log.emitRun(asm, id);
          return;
        }
        asm.call(getFuncIp, GET_FUNC_IP);
        asm.mov(r8, rax);
        this.#log.emitRun(asm, id, (entry) => asm.mov(ptr(entry, 24), r8.as(4)));
      },
      leave: (asm) => this.#log.emit(asm, Note.done, id),
    });
    const program = new LoadedProgram(id, name, spec, real);
    this.programs.push(program);
    return program;
  }

  /** Loads a function's module again, after it was unloaded. */
  reload(fn: WorldFunction, now: number): void {
    fn.real = this.#make(fn.index, fn.spec, undefined, this.functions);
    fn.code = this.codeOf(fn.real);
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

export function lowerHalf(address: bigint): number {
  return Number(BigInt.asUintN(32, address));
}
