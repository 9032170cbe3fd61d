import { ENDBR_BYTES, isEndbr, NOP5 } from '../jit/index.ts';
import { addrAdd, InputError, type Kaddr, KernelError } from '../lib/index.ts';
import {
  type AssembledText,
  assembleText,
  type Btf,
  type FtraceSite,
  type FuncModel,
  type LinkedSymbol,
  objectBtf,
  parseElf,
} from '../obj/index.ts';
import { type Kernel, KModule, loadModule, type Placement, resolveSymbol } from '../tramp/index.ts';
import { showPrototype } from './values.ts';

/** Something with functions that can be traced. */
export interface Target {
  readonly module: KModule;
  readonly btf: Btf | undefined;
  /** Number of its BTF, part of a trampoline's key. */
  readonly objId: number;
}

/** A function of a target. */
export interface TargetFunction {
  readonly target: Target;
  readonly symbol: LinkedSymbol;
}

/** Loads an ELF file as a target. @throws InputError */
export function loadElfTarget(
  kernel: Kernel,
  bytes: Uint8Array,
  file: string,
  { name, objId, as }: TargetPlace,
): Target {
  const object = parseElf(bytes, file);
  const btf = objectBtf(object);
  return { module: loadModule(kernel, object, name, as), btf, objId };
}

/** What the compiler's calls at function entry name. */
const FENTRY = '__fentry__';

/** What a target shall be called, and where it goes. */
export interface TargetPlace {
  readonly name: string;
  readonly objId: number;
  readonly as: Placement;
}

/**
 * Loads assembly text as a target: every label that does not start with a dot is a function, and one
 * that starts with `call __fentry__`, as a compiler's does, or with the 5-byte nop can be traced.
 *
 * @throws InputError naming the line
 */
export async function loadTextTarget(
  kernel: Kernel,
  source: string,
  file: string,
  { name, objId, as }: TargetPlace,
): Promise<Target> {
  // Nothing has to be at the address: the loader takes the calls away before anything runs.
  const fentry = new Map([[FENTRY, kernel.helpers['sched_clock'] as Kaddr]]);
  const { text, address, free } = await placeText(kernel, source, file, name, fentry);
  const functions = functionsOf(text, address);
  if (functions.length === 0) {
    free();
    throw new InputError(
      file,
      undefined,
      'no function: write a label such as f: before the first instruction',
    );
  }
  const module = new KModule(kernel, {
    name,
    text: [{ address, sizeBytes: text.bytes.length }],
    symbols: functions,
    functions,
    sites: sitesOf(text, address, functions),
    origin: as,
    free,
  });
  return { module, btf: undefined, objId };
}

/** Text in executable memory. */
export interface PlacedText {
  readonly text: AssembledText;
  readonly address: Kaddr;
  readonly free: () => void;
}

/** Assembles text and puts it into executable memory of its own. It may name whatever is loaded. */
export async function placeText(
  kernel: Kernel,
  source: string,
  file: string,
  name: string,
  alsoKnown: ReadonlyMap<string, Kaddr> = new Map(),
): Promise<PlacedText> {
  const { memory } = kernel.machine;
  const symbols = new Map([...knownSymbols(kernel), ...alsoKnown]);
  const anywhere = kernel.helpers['sched_clock'] as Kaddr;
  // once for the length, once for the place
  const sizeBytes = (await assembleText(source, { file, address: anywhere, symbols })).bytes.length;
  if (sizeBytes === 0) throw new InputError(file, undefined, 'no instruction in it');
  const address = memory.allocText(sizeBytes, name);
  const free = (): void => memory.freeText(address);
  try {
    const text = await assembleText(source, { file, address, symbols });
    kernel.machine.patchText(address, text.bytes);
    return { text, address, free };
  } catch (error) {
    free();
    throw error;
  }
}

function knownSymbols(kernel: Kernel): Map<string, Kaddr> {
  const names = [
    ...Object.keys(kernel.helpers),
    ...kernel.modules.flatMap(({ contents }) => contents.symbols.map(({ name }) => name)),
  ];
  const known = new Map<string, Kaddr>();
  for (const name of names) {
    const address = resolveSymbol(kernel, name);
    if (address !== undefined) known.set(name, address);
  }
  return known;
}

function functionsOf(text: AssembledText, base: Kaddr): LinkedSymbol[] {
  const labels = [...text.labels].filter(
    ([name, offset]) => !name.startsWith('.') && offset < text.bytes.length,
  );
  const starts = [...new Set(labels.map(([, offset]) => offset)), text.bytes.length].sort((a, b) => a - b);
  return labels.map(([name, offset]) => ({
    name,
    address: addrAdd(base, offset),
    sizeBytes: (starts.find((start) => start > offset) as number) - offset,
    binding: 'global',
    type: 'func',
  }));
}

/** A site for each `call __fentry__`, and for each function that starts with the 5-byte nop. */
function sitesOf(text: AssembledText, base: Kaddr, functions: readonly LinkedSymbol[]): FtraceSite[] {
  const nops = functions
    .filter(({ address }) => startsWithNop(text.bytes, Number(address - base)))
    .map(({ address, name }): FtraceSite => ({ address, function: name, offset: 0, kind: 'nop' }));
  const calls = text.lines.filter((line) => line.text.replace(/\s+/g, ' ') === `call ${FENTRY}`);
  const called = calls.map(({ offset }): FtraceSite => {
    const address = addrAdd(base, offset);
    const holder = functions.find(
      (symbol) => address >= symbol.address && address - symbol.address < BigInt(symbol.sizeBytes),
    );
    const inside = holder === undefined ? 0 : Number(address - holder.address);
    return { address, function: holder?.name, offset: inside, kind: 'call' };
  });
  return [...nops, ...called];
}

function startsWithNop(bytes: Uint8Array, offset: number): boolean {
  return NOP5.every((byte, i) => bytes[offset + i] === byte);
}

/** @throws InputError when no target, or more than one, has a function of that name */
export function findFunction(targets: readonly Target[], name: string): TargetFunction {
  const found = targets.flatMap((target) => {
    const symbols = target.module.contents.functions.filter((candidate) => candidate.name === name);
    return symbols.map((symbol) => ({ target, symbol }));
  });
  const [first, second] = found;
  if (first === undefined) {
    const known = targets.flatMap(({ module }) => module.contents.functions.map((symbol) => symbol.name));
    const some =
      known.length === 0
        ? 'no target is loaded'
        : `there are ${known.slice(0, 8).join(', ')}${known.length > 8 ? ', ...' : ''}`;
    throw new InputError('function', undefined, `no function named ${name}; ${some}`);
  }
  if (second !== undefined) {
    const [one, other] = [first, second].map(({ target }) => target.module.name);
    const where = one === other ? `twice in ${one}` : `in ${one} and in ${other}`;
    throw new InputError('function', undefined, `${name} is ${where}; the name must be unique`);
  }
  return first;
}

/** @throws KernelError EINVAL when trampolines of this revision cannot save its arguments. Kernel: btf_distill_func_proto */
export function checkModel(kernel: Kernel, model: FuncModel): void {
  const why = kernel.rules.refuseModel(model);
  if (why !== undefined) throw new KernelError('EINVAL', 'btf_distill_func_proto', `${model.name}: ${why}`);
}

/** @throws KernelError EINVAL, saying what to do, when the function has no place for a trampoline's call */
export function checkSite(kernel: Kernel, fn: TargetFunction): void {
  const { target, symbol } = fn;
  const { name, address } = symbol;
  const op = 'bpf_check_attach_target';
  const { config, ftrace, machine, rules } = kernel;
  const ibt = rules.siteAnywhere && config.ibt === true;
  // its call, or its jump, is there
  const tr = kernel.trampolines.find(trampolineKey(fn));
  if (tr?.curImage !== undefined || tr?.extension !== undefined) return;
  const endbr = ibt && isEndbr(machine.memory.bytes(address, ENDBR_BYTES));
  const site = addrAdd(address, endbr ? ENDBR_BYTES : 0);
  if (ftrace.location(site) === site) return;
  if (kernel.isPokableText(address) && startsWithNop(machine.memory.bytes(site, NOP5.length), 0)) return;
  const inside = target.module.contents.sites.find((site) => site.function === name);
  if (inside !== undefined) {
    throw new KernelError(
      'EINVAL',
      op,
      `the trace site of ${name} is ${inside.offset} bytes behind its entry; compile with -fcf-protection=none, or have a v6 kernel with IBT`,
    );
  }
  throw new KernelError(
    'EINVAL',
    op,
    `${name} has no trace site; compile it with -pg -mfentry, or start it with call __fentry__ in assembly text`,
  );
}

/** The model of a function: from the target's BTF, else from the prototypes given. @throws InputError when neither has it */
export function findModel(fn: TargetFunction, prototypes: ReadonlyMap<string, FuncModel>): FuncModel {
  const { name } = fn.symbol;
  const given = prototypes.get(name);
  const fromBtf = fn.target.btf?.funcModel(name);
  const model = fromBtf ?? given;
  if (model === undefined) {
    throw new InputError('model', undefined, `no prototype of ${name}: compile with -gbtf or give --model`);
  }
  if (given !== undefined) checkSameShape(given, model, 'model');
  return model;
}

/** @throws InputError when another prototype of the function has a size that differs */
export function checkSameShape(given: FuncModel, known: FuncModel | undefined, from: string): void {
  const shape = ({ args, ret }: FuncModel): string => [...args, ret].map(({ sizeBytes }) => sizeBytes).join();
  if (known === undefined || shape(given) === shape(known)) return;
  const [mine, theirs] = [showPrototype(given), showPrototype(known)];
  throw new InputError(from, undefined, `${mine} differs from what is known, ${theirs}`);
}

/** A trampoline's key: which BTF, and which type in it. Kernel: bpf_trampoline_compute_key */
export function trampolineKey({ target, symbol }: TargetFunction): bigint {
  // Without BTF the function's place among the target's functions stands for its type id.
  const place = target.module.contents.functions.findIndex(({ name }) => name === symbol.name) + 1;
  const id = target.btf?.funcId(symbol.name) ?? place;
  return (BigInt(target.objId) << 32n) | 0x8000_0000n | BigInt(id);
}
