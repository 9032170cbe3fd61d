import { type Attachment, type CallReport, createLab, type Lab, type ProgramCode } from '../lab/index.ts';
import { Bug, type Kaddr, KernelError, kaddr } from '../lib/index.ts';
import { MANAGED_REVISIONS, type ManagedRevision } from '../tramp/index.ts';
import type { Combination, KernelName, ProgramSpec, Step } from './combination.ts';
import { type CallSeen, givenWords, type Observation } from './observation.ts';
import { readRecord, recordBytes, seesRet } from './recorder.ts';
import { recorderText } from './recorder-text.ts';
import { callerOn } from './target.ts';

/*
 * Runs a combination in our lab: the same programs on a function of the same prototype, with the same
 * arguments. What a guest's kernel alone decides, such as addresses of its own structs, is passed as the
 * guest's programs saw it; nothing else comes from there.
 */

/** The lab's revision of a kernel; undefined when the lab cannot be it. */
export function labRevision(kernel: KernelName): ManagedRevision | undefined {
  return MANAGED_REVISIONS.find((name) => name === `v${kernel}`);
}

/** @param theirs what the guest saw, for what only its kernel knows */
export async function emulate(
  combination: Combination,
  kernel: KernelName,
  revision: ManagedRevision,
  theirs: Observation,
): Promise<Observation> {
  const lab = await createLab({ revision });
  try {
    const run = new Run(lab, combination, kernel, theirs);
    await run.prepare();
    return run.go();
  } finally {
    lab.close();
  }
}

class Run {
  readonly #lab: Lab;
  readonly #combination: Combination;
  readonly #kernel: KernelName;
  readonly #theirs: Observation;
  readonly #attached = new Map<number, number>();
  readonly #calls = new Map<number, CallSeen>();
  readonly #links = new Map<number, Attachment>();
  /** By program, of attachments that are gone: every one has counters of its own in a lab. */
  readonly #gone: { runs: bigint; misses: bigint }[];
  #codes: ProgramCode[] = [];
  #block: Kaddr = kaddr(0);
  #address: Kaddr = kaddr(0);

  constructor(lab: Lab, combination: Combination, kernel: KernelName, theirs: Observation) {
    this.#lab = lab;
    this.#combination = combination;
    this.#kernel = kernel;
    this.#theirs = theirs;
    this.#gone = combination.programs.map(() => ({ runs: 0n, misses: 0n }));
  }

  /** The function, and the programs' code. */
  async prepare(): Promise<void> {
    const lab = this.#lab;
    const { target, programs } = this.#combination;
    lab.kernel.statsEnabled = true;
    const { module } = await lab.loadText(`${target.fn}:\ncall __fentry__\n${target.body}\n`, target.fn);
    this.#address = module.symbol(target.fn)?.address ?? this.#address;
    lab.prototype(target.prototype);
    const { memory } = lab.machine;
    const size = recordBytes(programs.length);
    this.#block = memory.kmalloc(size, 'records');
    memory.write(this.#block, new Uint8Array(size));
    for (const [slot, spec] of programs.entries()) {
      const shape = { words: target.args, hasRet: seesRet(spec.kind, target.retBits) };
      const text = recorderText(spec, slot, shape, { block: this.#block, fn: target.fn });
      this.#codes.push(await lab.assemble(`p${slot}`, text));
    }
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
    const sum = this.#gone[program];
    if (counters === undefined || sum === undefined) return;
    sum.runs += counters.runs;
    sum.misses += counters.misses;
  }

  #attach(program: number): number {
    const { programs, target } = this.#combination;
    const { kind, sleepable = false } = programs[program] as ProgramSpec;
    if (kind === 'lsm_cgroup' || kind === 'struct_ops') throw new Bug(`a lab has no ${kind} programs`);
    try {
      const attachment = this.#lab.attach(kind, target.fn, this.#codes[program] as ProgramCode, {
        sleepable,
      });
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
    return this.#lab.call(
      target.fn,
      words.map((value, i) => BigInt.asUintN(target.args[i]?.bits ?? 64, value)),
      onInstruction === undefined ? {} : { onInstruction },
    );
  }

  #latestOfTheirs(at: number): CallSeen | undefined {
    const before = [...this.#theirs.calls].filter(([step]) => step < at);
    return before.at(-1)?.[1];
  }

  #keep(at: number, report: CallReport): void {
    const { target, programs } = this.#combination;
    if (report.fault !== null) throw new Bug(`${target.fn} faulted in our lab: ${report.fault.detail}`);
    const block = this.#lab.machine.memory.bytes(this.#block, recordBytes(programs.length)).slice();
    const outcome = callerOn(target, this.#kernel).outcome?.(report.ret ?? 0n);
    const records = programs.map((_, slot) => readRecord(block, slot, target.args.length));
    this.#calls.set(at, { outcome, records });
  }
}
