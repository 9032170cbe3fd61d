import { hex64, type Kaddr, kaddr } from '../lib/index.ts';
import type { CombinationAnswers } from './answers.ts';
import type { Combination, KernelName, ProgramSpec } from './combination.ts';
import { type Recorded, readRecord, seesRet } from './recorder.ts';
import { programName, stepTag } from './script.ts';
import { type ArgWord, type CallResult, callerOn, type Target } from './target.ts';

/*
 * What can be seen of a run, the same for a kernel and for our lab: the errno of every attachment, the
 * result of every call, what each program recorded of it, how often it ran and how often it was skipped.
 * Two runs are equal when these are.
 */

/** A call, or the end of one that slept. */
export interface CallSeen {
  /** What the caller got, as the guest would say it. */
  readonly outcome: CallResult | undefined;
  /** By program. */
  readonly records: readonly Recorded[];
  /** What went wrong in a lab. */
  readonly fault?: string | undefined;
}

export interface Observation {
  /** By step: 0 or a negative errno. */
  readonly attached: ReadonlyMap<number, number>;
  readonly calls: ReadonlyMap<number, CallSeen>;
  /** By program. */
  readonly counters: readonly { readonly runs: bigint; readonly misses: bigint }[];
  /** The traced function's address. */
  readonly address: Kaddr;
}

/** What a guest saw. Undefined when it left something out. */
export function observed(
  combination: Combination,
  kernel: KernelName,
  answers: CombinationAnswers,
): Observation | undefined {
  const { steps, programs, target } = combination;
  const [site] = answers.sites.values();
  const attached = new Map<number, number>();
  const calls = new Map<number, CallSeen>();
  const tells = callerOn(target, kernel).outcome !== undefined;
  for (const [at, step] of steps.entries()) {
    if (step.do === 'attach') {
      const error = answers.links.get(`l${at}`);
      if (error === undefined) return undefined;
      attached.set(at, error);
    }
    if (step.do !== 'call' && step.do !== 'wake') continue;
    const outcome = answers.calls.get(step.do === 'wake' ? 'parked' : stepTag(at));
    const block = answers.records.get(stepTag(at));
    if (outcome === undefined || block === undefined) return undefined;
    const records = programs.map((_, slot) => readRecord(block, slot, target.args.length));
    calls.set(at, { outcome: tells ? outcome : undefined, records });
  }
  const counters = programs.map((_, program) => answers.infos.get(programName(program)));
  // A struct has no address that a program could see.
  const address = target.struct === undefined ? site?.address : kaddr(0);
  if (address === undefined || counters.some((counter) => counter === undefined)) return undefined;
  return {
    attached,
    calls,
    counters: counters.map((counter) => ({ runs: counter?.runs ?? 0n, misses: counter?.misses ?? 0n })),
    address,
  };
}

/**
 * What the kernel alone decides: words of the arguments that the description leaves open, as a program saw
 * them in a call; 0 where none did.
 */
export function givenWords(target: Target, seen: CallSeen, before: CallSeen | undefined): bigint[] {
  const ran = seen.records.find((record, i) => record.runs !== (before?.records[i]?.runs ?? 0n));
  return target.args.map(({ value }, i) => (value === 'given' ? (ran?.args[i] ?? 0n) : value));
}

/** The first difference between what a kernel and our lab saw, in words; undefined when there is none. */
export function difference(
  combination: Combination,
  theirs: Observation,
  ours: Observation,
): string | undefined {
  const { steps, programs, target } = combination;
  for (const [at, step] of steps.entries()) {
    const where = `step ${at + 1}`;
    const [a, b] = [theirs.attached.get(at), ours.attached.get(at)];
    if (a !== b) return `${where}: the kernel answers ${a} to the attachment, we ${b}`;
    if (step.do === 'attach' && a !== -(step.refused ?? 0)) return `${where}: ${a} was not expected`;
    const [one, other] = [theirs.calls.get(at), ours.calls.get(at)];
    if (one === undefined && other === undefined) continue;
    if (one === undefined || other === undefined) return `${where}: a call that only one side made`;
    if (other.fault !== undefined) return `${where}: our run faults: ${other.fault}`;
    if (one.outcome !== undefined && JSON.stringify(one.outcome) !== JSON.stringify(other.outcome)) {
      return `${where}: the call gives ${JSON.stringify(one.outcome)}, ours ${JSON.stringify(other.outcome)}`;
    }
    for (const [program, spec] of programs.entries()) {
      const mine = rows(spec, target, ours.address, other.records[program]);
      for (const [i, [name, value]] of rows(spec, target, theirs.address, one.records[program]).entries()) {
        if (value !== mine[i]?.[1]) {
          return `${where}: ${name} of ${programName(program)} is ${value} in the kernel, ${mine[i]?.[1]} here`;
        }
      }
    }
  }
  for (const [program, counter] of theirs.counters.entries()) {
    const mine = ours.counters[program];
    if (counter.runs !== mine?.runs)
      return `${programName(program)}: ${counter.runs} runs, ours ${mine?.runs}`;
    if (counter.misses !== mine.misses)
      return `${programName(program)}: ${counter.misses} misses, ours ${mine.misses}`;
  }
  return undefined;
}

/** A record as text, without what has no meaning: upper halves that a caller may leave as they are. */
function rows(
  spec: ProgramSpec,
  target: Target,
  address: Kaddr,
  record: Recorded | undefined,
): (readonly [name: string, value: string])[] {
  if (record === undefined) return [];
  const { runs, order, args, ret, funcIp, cookie, argCount } = record;
  const word = ({ bits }: ArgWord, value: bigint): string => hex64(BigInt.asUintN(bits, value));
  return [
    ['the number of runs', String(runs)],
    ['its turn', String(order)],
    ...target.args.map((arg, i) => [`argument word ${i}`, word(arg, args[i] ?? 0n)] as const),
    ...(seesRet(spec.kind, target.retBits)
      ? [['the return value', hex64(BigInt.asUintN(target.retBits, ret))] as const]
      : []),
    ...(spec.funcIp === true
      ? [['the function address', funcIp === address ? "the function's" : hex64(funcIp)] as const]
      : []),
    ...(spec.cookie !== undefined ? [['the cookie', hex64(cookie)] as const] : []),
    ...(spec.argCount === true ? [['the argument count', String(argCount)] as const] : []),
  ];
}
