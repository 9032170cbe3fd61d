/* What single instructions do, from the independent decoder: blame follows values through it. */

import { createRequire } from 'node:module';
import type * as Iced from 'iced-x86';
import type { RegisterName } from '../../emu/index.ts';

/** A place in memory as an instruction writes it down. */
export interface MemoryUse {
  readonly base: RegisterName | undefined;
  readonly index: RegisterName | undefined;
  readonly scale: number;
  /** 64 bits, to be added modulo 2^64. */
  readonly displacement: bigint;
  readonly sizeBytes: number;
}

/** What an instruction does. */
export interface Effects {
  readonly sizeBytes: number;
  /** False when the bytes are no instruction. */
  readonly valid: boolean;
  /** Registers that it writes, at least in part. */
  readonly writes: readonly RegisterName[];
  readonly reads: readonly RegisterName[];
  readonly stores: readonly MemoryUse[];
  readonly loads: readonly MemoryUse[];
  /**
   * It uses registers that are not general ones, those of the floating-point unit and of the CPU itself included,
   * or memory by a segment with a base of its own.
   */
  readonly foreign: boolean;
  /** Whether it reaches into the CPU's own data, by gs. */
  readonly perCpu: boolean;
  readonly flow: 'next' | 'call' | 'return' | 'jump' | 'branch' | 'other';
}

// WebAssembly of more than a megabyte: loaded when the first instruction is looked at, not before.
const require = createRequire(import.meta.url);
let loaded: { readonly iced: typeof Iced; readonly info: Iced.InstructionInfoFactory } | undefined;

function load(): NonNullable<typeof loaded> {
  if (loaded === undefined) {
    const iced = require('iced-x86') as typeof Iced;
    loaded = { iced, info: new iced.InstructionInfoFactory() };
  }
  return loaded;
}

const NAMES: readonly RegisterName[] = [
  'rax',
  'rcx',
  'rdx',
  'rbx',
  'rsp',
  'rbp',
  'rsi',
  'rdi',
  'r8',
  'r9',
  'r10',
  'r11',
  'r12',
  'r13',
  'r14',
  'r15',
];

/** The 64-bit register that a register is part of. */
function fullName(iced: typeof Iced, register: Iced.Register): RegisterName | undefined {
  const full = iced.RegisterExt.fullRegister(register);
  return NAMES[full - iced.Register.RAX];
}

/** Parts of a CPU whose state no operand names: `fninit`, `emms`, `wrpkru`. */
const OTHER_UNITS = [
  ...['FPU', 'FPU287', 'FPU387', 'MMX', 'FXSR', 'XSAVE', 'XSAVEC', 'XSAVEOPT', 'XSAVES'],
  ...['PKU', 'CET_SS'],
] as const satisfies readonly (keyof typeof Iced.CpuidFeature)[];

/** Whether state is used that is in no register operand. Flags have a rule of their own. */
function usesHiddenState(iced: typeof Iced, insn: Iced.Instruction): boolean {
  const { Wait, Ldmxcsr, Stmxcsr } = iced.Mnemonic;
  const features = [...insn.cpuidFeatures()] as Iced.CpuidFeature[];
  return (
    (insn.isPrivileged && insn.rflagsModified === 0) ||
    [Wait, Ldmxcsr, Stmxcsr].includes(insn.mnemonic) ||
    OTHER_UNITS.some((unit) => features.includes(iced.CpuidFeature[unit]))
  );
}

/** Decodes the instruction at the start of some bytes. */
export function effectsOf(bytes: Uint8Array): Effects {
  const { iced, info } = load();
  const decoder = new iced.Decoder(64, bytes.subarray(0, 15), iced.DecoderOptions.None);
  const insn = decoder.decode();
  const used = info.info(insn);
  try {
    const { OpAccess, FlowControl } = iced;
    const written = [OpAccess.Write, OpAccess.CondWrite, OpAccess.ReadWrite, OpAccess.ReadCondWrite];
    const read = [OpAccess.Read, OpAccess.CondRead, OpAccess.ReadWrite, OpAccess.ReadCondWrite];
    const registers = used.usedRegisters() as Iced.UsedRegister[];
    const memory = used.usedMemory() as Iced.UsedMemory[];
    const named = (accesses: readonly Iced.OpAccess[]): RegisterName[] =>
      registers
        .filter(({ access }) => accesses.includes(access))
        .map(({ register }) => fullName(iced, register))
        .filter((name) => name !== undefined);
    const places = (accesses: readonly Iced.OpAccess[]): MemoryUse[] =>
      memory
        .filter(({ access }) => accesses.includes(access))
        .map((use) => ({
          base: fullName(iced, use.base),
          index: fullName(iced, use.index),
          scale: use.scale,
          displacement: use.displacement,
          sizeBytes: iced.MemorySizeExt.size(use.memorySize),
        }));
    const flows = new Map<Iced.FlowControl, Effects['flow']>([
      [FlowControl.Next, 'next'],
      [FlowControl.Call, 'call'],
      [FlowControl.IndirectCall, 'call'],
      [FlowControl.Return, 'return'],
      [FlowControl.UnconditionalBranch, 'jump'],
      [FlowControl.IndirectBranch, 'jump'],
      [FlowControl.ConditionalBranch, 'branch'],
    ]);
    const effects: Effects = {
      sizeBytes: insn.length,
      valid: insn.code !== iced.Code.INVALID,
      writes: named(written),
      reads: named(read),
      stores: places(written),
      loads: places(read),
      foreign:
        usesHiddenState(iced, insn) ||
        registers.some(
          ({ register }) => register !== iced.Register.GS && fullName(iced, register) === undefined,
        ),
      perCpu: registers.some(({ register }) => register === iced.Register.GS),
      flow: flows.get(insn.flowControl) ?? 'other',
    };
    for (const item of [...registers, ...memory]) item.free();
    return effects;
  } finally {
    used.free();
    insn.free();
    decoder.free();
  }
}

/** Decodes an image's instructions, by offset, each once; what was decoded of an image is kept for its next call. */
export function decoderOf(image: Uint8Array): (offset: number) => Effects {
  if (Buffer.compare(image, latest.image) !== 0) latest = { image: image.slice(), known: new Map() };
  const { image: bytes, known } = latest;
  return (offset) => {
    const effects = known.get(offset) ?? effectsOf(bytes.subarray(offset));
    known.set(offset, effects);
    return effects;
  };
}

let latest: { readonly image: Uint8Array; readonly known: Map<number, Effects> } = {
  image: new Uint8Array(),
  known: new Map(),
};

/** The address of a place, given what the registers hold that it names. */
export function addressOf(use: MemoryUse, regs: Readonly<Partial<Record<RegisterName, bigint>>>): bigint {
  const base = use.base === undefined ? 0n : (regs[use.base] ?? 0n);
  const index = use.index === undefined ? 0n : (regs[use.index] ?? 0n) * BigInt(use.scale);
  return BigInt.asUintN(64, base + index + use.displacement);
}
