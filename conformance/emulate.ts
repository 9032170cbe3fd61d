import { type Attachment, type CallReport, createLab, type Lab, type ProgramCode } from '../lab/index.ts';
import { addrAdd, Bug, hex64, type Kaddr, KernelError, kaddr } from '../lib/index.ts';
import { parsePrototype } from '../obj/index.ts';
import {
  BpfProg,
  MANAGED_REVISIONS,
  type ManagedRevision,
  StructOps,
  type StructOpsMember,
} from '../tramp/index.ts';
import type { Combination, KernelName, ProgramSpec, Step } from './combination.ts';
import { type CallSeen, givenWords, type Observation } from './observation.ts';
import { readRecord, recordBytes, seesRet } from './recorder.ts';
import { recorderText } from './recorder-text.ts';
import { callerOn, type Target } from './target.ts';

/*
 * Runs a combination in our lab: the same programs on a function of the same prototype, called with the same
 * arguments. What a guest's kernel alone decides, such as addresses of its own structs, is passed as the
 * guest's programs saw it; nothing else comes from there.
 */

/** The lab's revision of a kernel; undefined when the lab cannot be it. */
export function labRevision(kernel: KernelName): ManagedRevision | undefined {
  return MANAGED_REVISIONS.find((name) => name === `v${kernel}`);
}

export interface EmulateOptions {
  readonly kernel: KernelName;
  readonly revision: ManagedRevision;
  /** Whether functions start with an ENDBR, as the kernel's do. */
  readonly ibt: boolean;
}

/** @param theirs what the guest saw, for what only its kernel knows */
export async function emulate(
  combination: Combination,
  theirs: Observation,
  options: EmulateOptions,
): Promise<Observation> {
  const { revision, ibt } = options;
  const lab = await createLab({ revision, ...(ibt ? { config: { ibt } } : {}) });
  try {
    const run = new Run(lab, combination, theirs, options);
    await run.prepare();
    return run.go();
  } finally {
    lab.close();
  }
}

/** Arguments that a caller passes in registers. */
const ARG_REGS = ['rdi', 'rsi', 'rdx', 'rcx', 'r8', 'r9'] as const;
/** 66 0f 1f 00: what the kernel leaves of an ENDBR that nobody needs. */
const SEALED_ENDBR = 'nop word ptr [rax]';

/** The function that is traced. */
function targetText({ fn, body }: Target, ibt: boolean): string {
  return `${fn}:\n${ibt ? `${SEALED_ENDBR}\n` : ''}call __fentry__\n${body}\n`;
}

/**
 * Calls it with words from memory, those that registers do not hold on the stack.
 * @param callee its name; or what r11, the address of a pointer, leads to
 */
function callerText({ fn, args }: Target, callee: string, pointer: Kaddr, block: Kaddr): string {
  const onStack = args
    .slice(ARG_REGS.length)
    .map((_, i) => [
      `mov r10, qword ptr [rax + ${8 * (ARG_REGS.length + i)}]`,
      `mov qword ptr [rsp + ${8 * i}], r10`,
    ]);
  const inRegisters = args
    .slice(0, ARG_REGS.length)
    .map((_, i) => `mov ${ARG_REGS[i]}, qword ptr [rax + ${8 * i}]`);
  const lines = [
    ...['push rbp', 'mov rbp, rsp', `sub rsp, ${16 * Math.ceil(onStack.length / 2)}`],
    ...[`movabs rax, ${hex64(block)}`, ...onStack.flat(), ...inRegisters],
    ...[`movabs r11, ${hex64(pointer)}`, `call ${callee}`, 'leave', 'ret'],
  ];
  return `${callerOf(fn)}:\n${lines.join('\n')}\n`;
}

const callerOf = (fn: string): string => `call_${fn}`;

class Run {
  readonly #lab: Lab;
  readonly #combination: Combination;
  readonly #theirs: Observation;
  readonly #options: EmulateOptions;
  readonly #attached = new Map<number, number>();
  readonly #calls = new Map<number, CallSeen>();
  readonly #links = new Map<number, Attachment>();
  /** By program, of attachments that are gone: every one has counters of its own in a lab. */
  readonly #gone: { runs: bigint; misses: bigint }[];
  #codes: ProgramCode[] = [];
  /** Of a struct of operations: its programs, and the struct when it is registered. */
  #members: StructOpsMember[] = [];
  #struct: StructOps | undefined;
  /** Where the kernel's struct has the member that is called. */
  #pointer: Kaddr = kaddr(0);
  /** Where programs record, and where the caller finds the arguments. */
  #block: Kaddr = kaddr(0);
  #args: Kaddr = kaddr(0);
  #address: Kaddr = kaddr(0);

  constructor(lab: Lab, combination: Combination, theirs: Observation, options: EmulateOptions) {
    this.#lab = lab;
    this.#combination = combination;
    this.#theirs = theirs;
    this.#options = options;
    this.#gone = combination.programs.map(() => ({ runs: 0n, misses: 0n }));
  }

  /** The function, who calls it, and the programs' code. */
  async prepare(): Promise<void> {
    const lab = this.#lab;
    const { target, programs } = this.#combination;
    lab.kernel.statsEnabled = true;
    this.#block = this.#zeros(recordBytes(programs.length), 'records');
    this.#args = this.#zeros(8 * Math.max(target.args.length, 1), 'arguments');
    if (target.struct === undefined) {
      const { module } = await lab.loadText(targetText(target, this.#options.ibt), target.fn);
      this.#address = module.symbol(target.fn)?.address ?? this.#address;
      lab.prototype(target.prototype);
    } else this.#pointer = this.#zeros(8, target.struct.name);
    const callee = target.struct === undefined ? target.fn : 'qword ptr [r11]';
    await lab.loadText(callerText(target, callee, this.#pointer, this.#args), callerOf(target.fn));
    for (const [slot, spec] of programs.entries()) {
      const shape = { words: target.args, hasRet: seesRet(spec.kind, target.retBits) };
      const text = recorderText(spec, slot, shape, { block: this.#block, fn: target.fn });
      const code = await lab.assemble(`p${slot}`, text);
      this.#codes.push(code);
      if (target.struct !== undefined) this.#members.push(this.#member(spec, slot, code.entry));
    }
  }

  /** All with the prototype of the one that is called. */
  #member({ member = '' }: ProgramSpec, slot: number, bpfFunc: Kaddr): StructOpsMember {
    const prog = new BpfProg(this.#lab.kernel, {
      name: `p${slot}`,
      kind: 'fentry',
      type: 'struct_ops',
      bpfFunc,
    });
    return { name: member, model: parsePrototype(this.#combination.target.prototype), prog };
  }

  #zeros(sizeBytes: number, name: string): Kaddr {
    const { memory } = this.#lab.machine;
    const address = memory.kmalloc(sizeBytes, name);
    memory.write(address, new Uint8Array(sizeBytes));
    return address;
  }

  go(): Observation {
    const { steps } = this.#combination;
    for (let at = 0; at < steps.length; at++) {
      if ((steps[at] as Step).do === 'park') at = this.#park(at);
      else this.#step(at);
    }
    for (const program of [...this.#links.keys()]) this.#count(program);
    return { attached: this.#attached, calls: this.#calls, counters: this.#gone, address: this.#address };
  }

  #step(at: number): void {
    const step = this.#combination.steps[at] as Step;
    switch (step.do) {
      case 'attach':
        this.#attached.set(at, this.#attach(step.program));
        break;
      case 'detach':
        this.#count(step.program);
        this.#links.get(step.program)?.detach();
        this.#links.delete(step.program);
        break;
      case 'call':
        this.#keep(at, this.#call(at));
        break;
      case 'register':
        this.#register();
        break;
      case 'unregister':
        for (const [program, { prog }] of this.#members.entries()) this.#add(program, prog.counters(0));
        this.#struct?.unregister();
        break;
      case 'look':
      case 'lookAgain':
        break;
      default:
        throw new Bug(`${step.do} stands alone`);
    }
  }

  /** Adds what an attachment counted to what the program's others did. */
  #count(program: number): void {
    const counters = this.#links.get(program)?.prog.counters(0);
    if (counters !== undefined) this.#add(program, counters);
  }

  #add(program: number, { runs, misses }: { readonly runs: bigint; readonly misses: bigint }): void {
    const sum = this.#gone[program];
    if (sum === undefined) return;
    sum.runs += runs;
    sum.misses += misses;
  }

  /** Puts the struct together, and the pointer to the member that is called where its caller finds it. */
  #register(): void {
    const { struct } = this.#combination.target;
    if (struct === undefined) throw new Bug('only a struct can be registered');
    this.#struct = new StructOps(this.#lab.kernel, struct.type, this.#members);
    this.#lab.machine.memory.writeU64(this.#pointer, this.#struct.pointer(struct.called));
  }

  #attach(program: number): number {
    const { programs, target } = this.#combination;
    const { kind, sleepable = false, cookie } = programs[program] as ProgramSpec;
    if (kind === 'struct_ops') throw new Bug('a struct of operations has no function to attach to');
    const code = this.#codes[program] as ProgramCode;
    const options = { sleepable, ...(cookie === undefined ? {} : { cookie }) };
    try {
      const attachment =
        kind === 'lsm_cgroup'
          ? this.#lab.attachCgroup(target.fn, code)
          : this.#lab.attach(kind, target.fn, code, options);
      this.#links.set(program, attachment);
      return 0;
    } catch (error) {
      if (error instanceof KernelError) return -error.errno;
      throw error;
    }
  }

  /** Calls the function; what happens between `park` and `wake` is done while it sleeps. Gives the place of `wake`. */
  #park(at: number): number {
    const { steps, target } = this.#combination;
    const wake = steps.findIndex((step, i) => i > at && step.do === 'wake');
    let asleep = false;
    const report = this.#call(wake, ({ place }) => {
      if (asleep || place?.startsWith('schedule+') !== true) return;
      asleep = true;
      for (let between = at + 1; between < wake; between++) this.#step(between);
    });
    if (!asleep) throw new Bug(`${target.fn} did not sleep`);
    this.#keep(wake, report);
    return wake;
  }

  #call(at: number, onInstruction?: (event: { readonly place: string | undefined }) => void): CallReport {
    const { target } = this.#combination;
    const seen = this.#theirs.calls.get(at);
    const words = seen === undefined ? [] : givenWords(target, seen, this.#latestOfTheirs(at));
    const { memory } = this.#lab.machine;
    for (const [i, value] of words.entries()) {
      memory.writeU64(addrAdd(this.#args, 8 * i), BigInt.asUintN(target.args[i]?.bits ?? 64, value));
    }
    return this.#lab.call(callerOf(target.fn), [], onInstruction === undefined ? {} : { onInstruction });
  }

  #latestOfTheirs(at: number): CallSeen | undefined {
    const before = [...this.#theirs.calls].filter(([step]) => step < at);
    return before.at(-1)?.[1];
  }

  #keep(at: number, report: CallReport): void {
    const { target, programs } = this.#combination;
    const block = this.#lab.machine.memory.bytes(this.#block, recordBytes(programs.length)).slice();
    const outcome = callerOn(target, this.#options.kernel).outcome?.(report.ret ?? 0n);
    const records = programs.map((_, slot) => readRecord(block, slot, target.args.length));
    this.#calls.set(at, { outcome, records, fault: report.fault?.detail });
  }
}
