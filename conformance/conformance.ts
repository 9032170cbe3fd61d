import { accessSync, constants } from 'node:fs';
import { join } from 'node:path';
import type { RevisionName } from '../jit/index.ts';
import { InputError, makeFolders } from '../lib/index.ts';
import { type Answers, type CombinationAnswers, readAnswers } from './answers.ts';
import { Apt } from './apt.ts';
import { boot } from './boot.ts';
import type { Combination, KernelName, ProgramSpec } from './combination.ts';
import { combinationsOf } from './combinations.ts';
import { emulate, labRevision } from './emulate.ts';
import { compiledInit, initrd, ROOT } from './guest.ts';
import { compareBytes } from './image.ts';
import { type KernelFacts, kernelFacts } from './kernel-facts.ts';
import { difference, observed } from './observation.ts';
import { compiler, kernelFiles, qemu } from './parts.ts';
import { type Progress, SILENT } from './progress.ts';
import { guestScript } from './script.ts';
import { Store } from './store.ts';

export interface ConformanceOptions {
  readonly kernel: KernelName;
  /** qemu's name of a CPU, with the kernel's mitigations left on; without it the largest CPU, and off. */
  readonly cpu?: string;
  readonly kaslr?: boolean;
  /** More words for the kernel's command line. */
  readonly append?: string;
  /** Names of combinations; all of them when left out. */
  readonly only?: readonly string[];
  /** Seconds after which a boot is given up; default 300. */
  readonly patience?: number;
  /** Where what is fetched is kept; default `.cache/conformance` in the package. */
  readonly cache?: string;
  readonly progress?: Progress;
}

/** What came of one combination. */
export interface CombinationResult {
  readonly name: string;
  /** The traced function. */
  readonly function: string;
  /** Kinds of the programs, in the order in which they are attached. */
  readonly programs: readonly string[];
  /** Every trace site and every image is, byte for byte, what our rules and our emitter make. */
  readonly bytesEqual: boolean;
  /** The lab's run saw and returned the same; null when there was no such run. */
  readonly valuesEqual: boolean | null;
  /** Of the last image, bytes. */
  readonly length: number | null;
  readonly images: number;
  /** The first difference, or why there was no run; null when all is equal. */
  readonly why: string | null;
}

export interface ConformanceReport {
  readonly kernel: KernelName;
  /** As uname says it. */
  readonly release: string;
  readonly cpu: string | null;
  readonly kaslr: boolean;
  /** How this boot's images end. */
  readonly returns: 'ret' | 'return thunk';
  /** Whether images count their calls, against underflow of the return stack. */
  readonly callDepth: boolean;
  /** More words that the kernel was given. */
  readonly append: string;
  /** From the boot's start to its end, seconds. */
  readonly bootSeconds: number;
  readonly combinations: readonly CombinationResult[];
}

const PATIENCE = 300;

/**
 * Asks a kernel: fetches what is not there yet, boots, attaches every combination, and compares what comes
 * out with our emitter and our lab.
 *
 * @throws InputError for what is missing, damaged or hangs
 */
export async function askKernel(options: ConformanceOptions): Promise<ConformanceReport> {
  const { kernel, kaslr = false, progress = SILENT, cache = join(ROOT, '.cache', 'conformance') } = options;
  const combinations = chosen(kernel, options.only);
  prepareFolder(cache);
  const apt = new Apt(join(cache, 'apt'));
  const store = new Store(cache, apt, progress);
  try {
    const files = await kernelFiles(store, apt, kernel);
    const emulator = await qemu(store, apt);
    const init = await compiledInit(await compiler(store, apt), cache);
    progress.say(`booting ${files.release}`);
    const started = performance.now();
    const output = await boot(emulator, {
      image: files.image,
      initrd: initrd(init, guestScript(combinations, kernel)),
      cpu: options.cpu,
      kaslr,
      append: options.append ?? '',
      patience: options.patience ?? PATIENCE,
      folder: cache,
      watch: (text) => progress.say(howFar(text, files.release, combinations.length)),
    });
    const bootSeconds = (performance.now() - started) / 1000;
    const answers = readAnswers(output);
    if (answers.broken !== undefined) throw new InputError('guest', undefined, answers.broken);
    const facts = kernelFacts(answers, files.buildConfig);
    const results: CombinationResult[] = [];
    for (const combination of combinations) {
      progress.say(`comparing ${combination.name}`);
      results.push(await judge(combination, kernel, answers, facts));
    }
    return {
      kernel,
      release: files.release,
      cpu: options.cpu ?? null,
      kaslr,
      returns: facts.config.rethunk === true ? 'return thunk' : 'ret',
      callDepth: facts.config.callDepth !== undefined,
      append: options.append ?? '',
      bootSeconds,
      combinations: results,
    };
  } finally {
    progress.done();
  }
}

/** @throws InputError when nothing can be written there */
function prepareFolder(cache: string): void {
  makeFolders(cache);
  try {
    accessSync(cache, constants.W_OK);
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : String(error);
    throw new InputError(cache, undefined, `cannot be written (${code}); name another folder with --cache`);
  }
}

function chosen(kernel: KernelName, only: readonly string[] | undefined): Combination[] {
  const all = combinationsOf(kernel);
  if (only === undefined) return all;
  const unknown = only.find((name) => all.every((combination) => combination.name !== name));
  if (unknown !== undefined) {
    throw new InputError('--only', undefined, `${unknown} is no combination of ${kernel}; --list names them`);
  }
  return all.filter(({ name }) => only.includes(name));
}

function howFar(output: string, release: string, all: number): string {
  const begun = output.split('"at":"begin"').length - 1;
  return begun === 0 ? `booting ${release}` : `${release}: combination ${begun} of ${all}`;
}

async function judge(
  combination: Combination,
  kernel: KernelName,
  all: Answers,
  facts: KernelFacts,
): Promise<CombinationResult> {
  const { name, target } = combination;
  const about = { name, function: target.fn, programs: combination.programs.map(kindOf) };
  const answers = all.combinations.get(name);
  const failed = (why: string): CombinationResult => ({
    ...about,
    bytesEqual: false,
    valuesEqual: false,
    length: null,
    images: 0,
    why,
  });
  if (answers === undefined) return failed('the guest did not come to it');
  if (answers.error !== undefined) {
    return failed(
      `the kernel refuses: ${answers.error}${answers.log === undefined ? '' : `; ${lastWords(answers.log)}`}`,
    );
  }
  const ofProgram = { args: target.args.map(() => ({ size: 8, struct: false })), ret: target.retBits / 8 };
  const isFunction = target.made === undefined && target.struct === undefined;
  const model = isFunction ? all.models.get(target.fn) : ofProgram;
  if (model === undefined) return failed(`the kernel has no type of ${target.fn}`);
  const revision: RevisionName = `v${kernel}`;
  const bytes = compareBytes({ combination, revision, facts, model, models: all.models, answers });
  const values = await compareValues(combination, kernel, answers, facts);
  return {
    ...about,
    bytesEqual: bytes.equal,
    valuesEqual: values.equal,
    length: bytes.length,
    images: bytes.images,
    why: bytes.why ?? values.why ?? null,
  };
}

async function compareValues(
  combination: Combination,
  kernel: KernelName,
  answers: CombinationAnswers,
  facts: KernelFacts,
): Promise<{ readonly equal: boolean | null; readonly why?: string }> {
  const theirs = observed(combination, kernel, answers);
  if (theirs === undefined) return { equal: false, why: 'the guest left something out' };
  const revision = labRevision(kernel);
  if (revision === undefined) return { equal: null, why: `our lab cannot be v${kernel}` };
  const ours = await emulate(combination, theirs, { kernel, revision, ibt: facts.config.ibt === true });
  const why = difference(combination, theirs, ours);
  return why === undefined ? { equal: true } : { equal: false, why };
}

const kindOf = ({ kind, sleepable }: ProgramSpec): string => (sleepable === true ? `${kind}.s` : kind);

/** The verifier's reason stands before its statistics. */
function lastWords(log: string): string {
  const lines = log.split('\n').filter((line) => line !== '' && !line.startsWith('processed '));
  return lines.at(-1) ?? 'the verifier did not say why';
}
