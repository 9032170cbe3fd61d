/*
 * One program of an object, loaded: checked for this kernel, compiled where it stands, or left to the interpreter.
 * It is freed, with its text, when the last one who holds it lets go and a grace period is over.
 *
 * Kernel: bpf_prog_load, kernel/bpf/syscall.c; bpf_int_jit_compile
 */

import { createHash } from 'node:crypto';
import {
  BPF_PSEUDO_FUNC,
  type BpfInsn,
  type BpfJitConfig,
  encodeInsns,
  isLdImm64,
  PLAIN_BPF_JIT_CONFIG,
  type PokeDescriptor,
  tailCallPokes,
} from '../../jit/index.ts';
import { Bug, type Kaddr, KernelError, kaddr } from '../../lib/index.ts';
import {
  type AttachKind,
  BpfProg,
  type Kernel,
  type Ksym,
  type ProgType,
  textPoke,
} from '../../tramp/index.ts';
import type { CheckedProgram } from '../fixup/checked.ts';
import { compileProgram, interpretable, type PlacedFunction } from '../fixup/images.ts';
import type { BpfMap } from '../maps/map.ts';
import { ProgArrayMap } from '../maps/prog-array.ts';
import type { BpfObject, BpfProgram, BpfProgramKind } from '../model.ts';
import type { BpfRuntime } from './runtime.ts';

/** Below this there are no addresses that guests use, in the layout without kernel addresses. */
const USER_LAYOUT_START = 0x1_0000n;
/** A probe load is not tried below this much above what the JIT is told. */
const GUARD_BYTES = 4096n;

/** A program, and where its functions stand. */
export interface LoadedProgram {
  readonly object: BpfObject;
  readonly program: BpfProgram;
  readonly checked: CheckedProgram;
  readonly prog: BpfProg;
  /** Its compiled functions, its own first; empty when it is not compiled. */
  readonly placed: readonly PlacedFunction[];
  readonly config: BpfJitConfig;
}

export interface PlaceProgramOptions {
  readonly object: BpfObject;
  readonly program: BpfProgram;
  readonly checked: CheckedProgram;
  /** By the index that the program's references have. */
  readonly maps: readonly BpfMap[];
  readonly jited: boolean;
  /** Told when its memory has been given back. */
  readonly freed: () => void;
}

/** How this kernel's JIT compiles. */
export function jitConfig({ kernel, helperText, exHandler }: BpfRuntime): BpfJitConfig {
  const { machine, config, helpers } = kernel;
  const thunk = helpers['x86_return_thunk'];
  return {
    ...PLAIN_BPF_JIT_CONFIG,
    callBase: helperText.callBase,
    // Where guests have low addresses, nothing but the first pages is certain to be no address of the kernel's.
    taskSizeMax:
      machine.layout.name === 'kernel' ? PLAIN_BPF_JIT_CONFIG.taskSizeMax : USER_LAYOUT_START - GUARD_BYTES,
    thisCpuOff: machine.percpu.vars.thisCpuOff,
    exHandler,
    ibt: config.ibt ?? false,
    sls: config.sls ?? false,
    rethunk: config.rethunk ?? false,
    thunks:
      thunk === undefined ? PLAIN_BPF_JIT_CONFIG.thunks : { ...PLAIN_BPF_JIT_CONFIG.thunks, return: thunk },
  };
}

/**
 * Puts a checked program into the kernel.
 * @throws InputError when the JIT refuses it
 * @throws KernelError EINVAL what cannot be interpreted, or a prog array that takes other programs; ENOMEM
 */
export function placeProgram(runtime: BpfRuntime, options: PlaceProgramOptions): LoadedProgram {
  const { program, checked, jited, maps } = options;
  const config = jitConfig(runtime);
  const { kind, type } = typeOf(program.kind);
  const tailCallReachable = checked.functions.some((one) => one.tailCallReachable);
  for (const index of checked.maps) {
    const map = maps[index];
    if (map instanceof ProgArrayMap && !map.takes({ type, jited })) {
      throw new KernelError(
        'EINVAL',
        'bpf_check_tail_call',
        `${program.name} is not like the programs of ${map.spec.name}`,
      );
    }
  }
  const undo: (() => void)[] = [];
  const release = (): void => {
    for (const step of undo.reverse()) step();
    options.freed();
  };
  try {
    if (!jited) checkInterpretable(checked, tailCallReachable);
    const placed = jited ? placeText(runtime, options, config, undo) : [];
    const prog = new BpfProg(runtime.kernel, {
      name: program.name,
      kind,
      type,
      bpfFunc: placed[0]?.address ?? runtime.interpreter,
      sleepable: program.sleepable,
      callsGetFuncIp: checked.callsGetFuncIp,
      jited,
      tailCallReachable,
      release,
    });
    if (jited) pokeTailCalls(runtime.kernel, placed, options, undo);
    else undo.push(runtime.addInterpreted(prog, interpretable(checked).insns));
    return { object: options.object, program, checked, prog, placed, config };
  } catch (error) {
    for (const step of undo.reverse()) step();
    throw error;
  }
}

/** What it is loaded as. Programs that nothing here attaches are of another type, whichever that is. */
function typeOf(kind: BpfProgramKind): { readonly kind: AttachKind; readonly type: ProgType } {
  switch (kind) {
    case 'fentry':
    case 'fexit':
    case 'fmod_ret':
      return { kind, type: 'tracing' };
    case 'lsm':
      return { kind, type: 'lsm' };
    case 'freplace':
      return { kind, type: 'ext' };
    case 'plain':
      return { kind: 'fentry', type: 'other' };
  }
}

/** @throws KernelError EINVAL for what the kernel's interpreter cannot run. Kernel: fixup_call_args, add_subprog_and_kfunc */
function checkInterpretable({ name, functions }: CheckedProgram, tailCallReachable: boolean): void {
  const takesAddress = functions.some(({ insns }) =>
    insns.some((insn) => isLdImm64(insn) && insn.src === BPF_PSEUDO_FUNC),
  );
  const why = takesAddress
    ? 'callbacks are not allowed in non-JITed programs'
    : functions.length > 1 && tailCallReachable
      ? 'tail_calls are not allowed in non-JITed programs with bpf-to-bpf calls'
      : undefined;
  if (why !== undefined) throw new KernelError('EINVAL', 'fixup_call_args', `${name}: ${why}`);
}

/** Compiles the functions and writes them, with symbols and exception tables. */
function placeText(
  runtime: BpfRuntime,
  { program, checked }: PlaceProgramOptions,
  config: BpfJitConfig,
  undo: (() => void)[],
): PlacedFunction[] {
  const { kernel } = runtime;
  const tag = tagOf(program.insns);
  const symbol = (name: string): string => `bpf_prog_${tag}_${name}`;
  const placed = compileProgram(checked, {
    revision: kernel.revision,
    config,
    place: (sizeBytes, name) => {
      const image = kernel.imageMemory.alloc(sizeBytes, symbol(name));
      undo.push(() => kernel.imageMemory.free(image));
      return image;
    },
  });
  for (const one of placed) {
    kernel.machine.patchText(one.image, one.bytes);
    const ksym: Ksym = {
      name: symbol(one.name),
      start: one.image,
      sizeBytes: one.compiled.bytes.length,
      kind: 'bpf',
    };
    kernel.kallsyms.add(ksym);
    runtime.addImage(one);
    undo.push(() => {
      runtime.removeImage(one);
      kernel.kallsyms.remove(ksym);
    });
  }
  return placed;
}

/** Kernel: bpf_prog_calc_tag; simplified: references to maps count as they stand in the object */
function tagOf(insns: readonly BpfInsn[]): string {
  return createHash('sha1').update(encodeInsns(insns)).digest('hex').slice(0, 16);
}

/** Has the direct tail calls follow the slots that they know. Kernel: bpf_tail_call_direct_fixup, prog_array_map_poke_run */
function pokeTailCalls(
  kernel: Kernel,
  placed: readonly PlacedFunction[],
  { checked, maps }: PlaceProgramOptions,
  undo: (() => void)[],
): void {
  for (const { image, compiled } of placed) {
    for (const descriptor of compiled.pokes) {
      const poke = checked.pokes[descriptor.entry - 1];
      const map = maps[poke?.map ?? -1];
      if (poke === undefined || !(map instanceof ProgArrayMap))
        throw new Bug('a direct tail call into no prog array');
      const follow = (slot: number, before: BpfProg | undefined, after: BpfProg | undefined): void => {
        if (slot === poke.slot) patch(kernel, image, descriptor, before, after);
      };
      follow(poke.slot, undefined, map.at(poke.slot));
      map.listeners.add(follow);
      undo.push(() => map.listeners.delete(follow));
    }
  }
}

function patch(
  kernel: Kernel,
  image: Kaddr,
  descriptor: PokeDescriptor,
  before: BpfProg | undefined,
  after: BpfProg | undefined,
): void {
  const func = (prog: BpfProg | undefined): Kaddr | null => (prog === undefined ? null : kaddr(prog.bpfFunc));
  for (const step of tailCallPokes(image, descriptor, func(before), func(after))) {
    // Slots change between calls of the library, when no CPU is in a program.
    if (step.place === 'synchronize_rcu') continue;
    textPoke(kernel, step.poke.ip, step.poke.type, step.poke.oldAddr, step.poke.newAddr);
  }
}
