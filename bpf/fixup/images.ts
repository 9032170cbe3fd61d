import {
  BPF_CALL,
  BPF_JMP,
  BPF_PSEUDO_CALL,
  BPF_PSEUDO_FUNC,
  type BpfImage,
  type BpfInsn,
  type BpfJitConfig,
  type BpfJitRevision,
  type BpfJitRevisionName,
  cfiOffset,
  compileBpf,
  isLdImm64,
  type BpfProgram as JitProgram,
  withExTable,
} from '../../jit/index.ts';
import { addrAdd, addrDistance, alignDown, hex64, InputError, type Kaddr, kaddr } from '../../lib/index.ts';
import type { CheckedFunction, CheckedProgram } from './checked.ts';

/*
 * A checked program compiled. Functions call each other by address, and an address is known only once
 * everything has its length; so they are compiled twice: for their lengths, and when each has its place.
 *
 * Kernel: jit_subprogs, kernel/bpf/verifier.c
 */

/** A function where it will stand. */
export interface PlacedFunction {
  readonly name: string;
  readonly function: CheckedFunction;
  /** Where the bytes go. */
  readonly image: Kaddr;
  /** What others call: behind what the kernel's CFI puts first. */
  readonly address: Kaddr;
  /** What the JIT was given. */
  readonly program: JitProgram;
  readonly compiled: BpfImage;
  /** What stands in memory at `image`: the code, and the exception table behind it. */
  readonly bytes: Uint8Array;
}

export interface CompileOptions {
  readonly revision: BpfJitRevisionName;
  /** Compile by this JIT in the place of the revision's own. */
  readonly jit?: BpfJitRevision | undefined;
  readonly config: BpfJitConfig;
  /** Finds room for a function of that many bytes, its exception table included. */
  readonly place: (sizeBytes: number, name: string) => Kaddr;
  /** Keep what tells bytes and instructions apart, for listings; see compileBpf. Default false. */
  readonly provenance?: boolean;
}

/**
 * Compiles every function of a program. `[0]` is the program itself.
 *
 * @throws InputError when the JIT refuses. What `place` gave is then the caller's to give back.
 */
export function compileProgram(checked: CheckedProgram, options: CompileOptions): PlacedFunction[] {
  const { functions } = checked;
  const trial = alignDown(options.config.callBase, 4096);
  const images = functions.map((one) => {
    const draft = compile(checked, one, draftOf(one, trial, options), options, false);
    return options.place(withExTable(draft).length, one.name);
  });
  return compileAt(checked, images, options);
}

/** As {@link compileProgram}, with each function's place known beforehand. */
export function compileAt(
  checked: CheckedProgram,
  images: readonly Kaddr[],
  options: Omit<CompileOptions, 'place'>,
): PlacedFunction[] {
  const { functions } = checked;
  const addresses = images.map((image) => entryOf(image, options.config));
  return functions.map((one, index) => {
    const image = images[index] as Kaddr;
    const draft = draftOf(one, image, options);
    const program = refersToFunctions(one)
      ? { ...draft, final: linked(one.insns, addresses, options.config.callBase) }
      : draft;
    const compiled = compile(checked, one, program, options, options.provenance ?? false);
    const address = entryOf(image, options.config);
    return { name: one.name, function: one, image, address, program, compiled, bytes: withExTable(compiled) };
  });
}

const entryOf = (image: Kaddr, { cfi }: BpfJitConfig): Kaddr =>
  cfi === 'off' ? image : addrAdd(image, cfiOffset({ scheme: cfi, hash: 0, callPadding: true }));

function compile(
  { name }: CheckedProgram,
  one: CheckedFunction,
  program: JitProgram,
  { revision, jit, config }: Omit<CompileOptions, 'place'>,
  provenance: boolean,
): BpfImage {
  const compiled = compileBpf(jit ?? revision, program, config, { provenance });
  if (compiled.bytes !== undefined) return compiled;
  const which = one.name === name ? '' : ` (in ${one.name})`;
  throw new InputError(name, undefined, `the JIT of ${revision} refuses it${which}: pass ${compiled.fail}`);
}

/** What the JIT is told before the other functions have their places. */
function draftOf(one: CheckedFunction, image: Kaddr, options: Pick<CompileOptions, 'revision'>): JitProgram {
  return {
    insns: refersToFunctions(one) ? unlinked(one.insns, placeholder(options.revision, image)) : one.insns,
    image,
    stackDepth: one.stackDepth,
    isSubprog: one.subprog !== 0,
    tailCallReachable: one.tailCallReachable,
    wasClassic: false,
    numExentries: one.numExentries,
  };
}

const isCallOfFunction = ({ code, src }: BpfInsn): boolean =>
  code === (BPF_JMP | BPF_CALL) && src === BPF_PSEUDO_CALL;

const isAddressOfFunction = (insn: BpfInsn): boolean => isLdImm64(insn) && insn.src === BPF_PSEUDO_FUNC;

const refersToFunctions = ({ insns }: CheckedFunction): boolean =>
  insns.some((insn) => isCallOfFunction(insn) || isAddressOfFunction(insn));

/**
 * What stands for a function's address in the first run: as long, once compiled, as the address will be.
 * Kernels before v6.12 take any number above 32 bits, v6.12 the beginning of the modules. Where guests
 * have low addresses, it must be one of those.
 */
function placeholder(revision: BpfJitRevisionName, image: Kaddr): bigint {
  if (image < 1n << 32n) return image;
  return revision === 'v6.12' ? 0xffff_ffff_c000_0000n : 1n << 32n;
}

const unlinked = (insns: readonly BpfInsn[], address: bigint): BpfInsn[] =>
  withFunctions(
    insns,
    () => 1,
    () => address,
  );

function linked(insns: readonly BpfInsn[], addresses: readonly Kaddr[], callBase: Kaddr): BpfInsn[] {
  const at = (index: number): Kaddr => addresses[index] as Kaddr;
  const distance = (index: number): number => {
    const far = addrDistance(callBase, at(index));
    if (BigInt.asIntN(32, far) === far) return Number(far);
    throw new InputError('image', undefined, `${hex64(at(index))} is out of the reach of calls`);
  };
  return withFunctions(insns, distance, at);
}

function withFunctions(
  insns: readonly BpfInsn[],
  distance: (index: number) => number,
  address: (index: number) => bigint,
): BpfInsn[] {
  const done = [...insns];
  for (const [i, insn] of insns.entries()) {
    if (isCallOfFunction(insn)) done[i] = { ...insn, imm: distance(insn.imm) };
    else if (isAddressOfFunction(insn)) putImm64(done, i, address(insn.imm));
  }
  return done;
}

/** Writes both halves of a 64-bit immediate. */
export function putImm64(insns: BpfInsn[], at: number, value: bigint, src?: number): void {
  const first = insns[at] as BpfInsn;
  const second = insns[at + 1] as BpfInsn;
  const wide = kaddr(value);
  insns[at] = { ...first, src: src ?? first.src, imm: Number(BigInt.asIntN(32, wide)) };
  insns[at + 1] = { ...second, imm: Number(BigInt.asIntN(32, wide >> 32n)) };
}

/**
 * The whole program in one list, for the interpreter: calls of functions count slots, as in the object.
 *
 * @returns also where each function begins
 */
export function interpretable({ functions }: CheckedProgram): {
  readonly insns: readonly BpfInsn[];
  readonly starts: readonly number[];
} {
  const starts: number[] = [];
  let length = 0;
  for (const { insns } of functions) {
    starts.push(length);
    length += insns.length;
  }
  const insns = functions.flatMap((one, f) =>
    one.insns.map((insn, i) => {
      if (!isCallOfFunction(insn) && !isAddressOfFunction(insn)) return insn;
      const here = (starts[f] as number) + i;
      return { ...insn, imm: (starts[insn.imm] as number) - here - 1 };
    }),
  );
  return { insns, starts };
}
