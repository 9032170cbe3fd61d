import type { CallDepthConfig, HelperAddresses, TrampolineConfig } from '../jit/index.ts';
import { addrAdd, Bug, InputError, type Kaddr, kaddr } from '../lib/index.ts';
import type { Answers } from './answers.ts';
import { HELPERS, type KERNEL_FIELDS, paddingTag } from './script.ts';

/*
 * What decides the bytes of images besides the programs, as a booted kernel tells it: how it was built,
 * what its CPU needs, where its functions are.
 */

type Field = (typeof KERNEL_FIELDS)[number] extends infer F
  ? F extends readonly [infer S extends string, infer M extends string]
    ? `${S}.${M}`
    : never
  : never;

/** Facts of one boot. */
export interface KernelFacts {
  readonly config: TrampolineConfig;
  readonly helpers: HelperAddresses;
  /** What runs a cgroup's LSM programs, by address. */
  readonly cgroupRunners: ReadonlySet<Kaddr>;
  /** Place of a field in its struct, bytes; undefined when this kernel does not have it. */
  readonly offset: (field: Field) => number | undefined;
}

/** Kernel: X86_FEATURE_RETHUNK, arch/x86/include/asm/cpufeatures.h: word and bit. */
const FEATURE_RETHUNK = { word: 11, bit: 14 } as const;

/**
 * @param buildConfig the kernel's .config
 * @throws InputError when the guest left out something that no comparison can do without
 */
export function kernelFacts(answers: Answers, buildConfig: string): KernelFacts {
  const returnThunk = kaddr(readU64(memoryOf(answers, 'x86_return_thunk'), 0));
  const callDepth = countedCalls(answers, returnThunk);
  const helpers: Record<string, Kaddr> = Object.fromEntries(
    [...answers.symbols].filter(([name]) => HELPERS.includes(name)),
  );
  helpers['x86_return_thunk'] = returnThunk;
  const runners = [...answers.symbols].filter(([name]) => name.startsWith('__cgroup_bpf_run_lsm_'));
  return {
    config: {
      ibt: isSet(buildConfig, 'X86_KERNEL_IBT'),
      sls: isSet(buildConfig, 'SLS') || isSet(buildConfig, 'MITIGATION_SLS'),
      rethunk: returnsThroughThunk(answers),
      ...(callDepth === undefined ? {} : { callDepth }),
    },
    helpers,
    cgroupRunners: new Set(runners.map(([, address]) => address)),
    offset: (field) => answers.offsets.get(field),
  };
}

const isSet = (buildConfig: string, name: string): boolean => buildConfig.includes(`\nCONFIG_${name}=y\n`);

/** Whether this CPU's returns are to go through a thunk: its capability says so. */
function returnsThroughThunk(answers: Answers): boolean {
  const capabilities = answers.offsets.get('cpuinfo_x86.x86_capability');
  if (capabilities === undefined)
    throw new InputError('guest', undefined, 'did not say where CPU capabilities are');
  const word = memoryOf(answers, 'boot_cpu_data');
  const at = capabilities + 4 * FEATURE_RETHUNK.word;
  return ((new DataView(word.buffer, word.byteOffset).getUint32(at, true) >>> FEATURE_RETHUNK.bit) & 1) === 1;
}

/**
 * The counter of calls, on a CPU where returns go through the thunk that goes with it; and those helpers whose
 * own padding counts the call already. Kernel: arch/x86/kernel/callthunks.c
 */
function countedCalls(answers: Answers, returnThunk: Kaddr): CallDepthConfig | undefined {
  const hot = answers.symbols.get('pcpu_hot');
  const field = answers.offsets.get('pcpu_hot.call_depth');
  if (answers.symbols.get('call_depth_return_thunk') !== returnThunk) return undefined;
  if (hot === undefined || field === undefined) {
    throw new InputError('guest', undefined, 'did not say where calls are counted');
  }
  const thunks = HELPERS.filter((name) => countsItself(memoryOf(answers, paddingTag(name))));
  return {
    counter: addrAdd(hot, field),
    thunks: thunks.flatMap((name) => answers.symbols.get(name) ?? []),
  };
}

/** `sar qword ptr gs:[rip + counter], 5`, without the counter's place. */
const COUNTING = { start: [0x65, 0x48, 0xc1, 0x3d], end: 0x05, bytes: 9 } as const;

/** Whether the instruction that counts a call stands right before a function. */
function countsItself(padding: Uint8Array): boolean {
  const insn = padding.subarray(padding.length - COUNTING.bytes);
  return COUNTING.start.every((byte, i) => insn[i] === byte) && insn.at(-1) === COUNTING.end;
}

function memoryOf(answers: Answers, tag: string): Uint8Array {
  const found = answers.memory.get(tag);
  if (found === undefined) throw new InputError('guest', undefined, `did not say what ${tag} holds`);
  return found.bytes;
}

/** A word of 8 bytes; 0 where there are none. */
export function readU64(bytes: Uint8Array, at: number): bigint {
  if (at < 0) throw new Bug('a field before its struct');
  if (at + 8 > bytes.length) return 0n;
  return new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(at, true);
}
