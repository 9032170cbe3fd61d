/* Instructions of an image, from the independent decoder, as far as symbolic.ts needs to know them. */

import * as iced from 'iced-x86';

export interface RegisterOperand {
  readonly kind: 'register';
  /** The 64-bit register that it is part of. */
  readonly name: string;
  readonly sizeBytes: number;
  /** ah, ch, dh or bh. */
  readonly high: boolean;
}

export interface MemoryOperand {
  readonly kind: 'memory';
  readonly base: string | undefined;
  /** Has an index register, or a segment with a base. */
  readonly indexed: boolean;
  readonly displacement: bigint;
  readonly sizeBytes: number;
}

export interface ImmediateOperand {
  readonly kind: 'immediate';
  readonly value: bigint;
}

export type Operand = RegisterOperand | MemoryOperand | ImmediateOperand | { readonly kind: 'other' };

export interface Instruction {
  readonly offset: number;
  readonly next: number;
  readonly valid: boolean;
  /** As the decoder names it, in lower case, without prefixes. */
  readonly mnemonic: string;
  /** Operands and all. */
  readonly text: string;
  /** The text and all numbers: the decoder's text has no place for the upper half of some. */
  readonly exact: string;
  readonly operands: readonly Operand[];
  readonly flow: 'next' | 'call' | 'return' | 'jump' | 'branch' | 'other';
  /** Where a direct call or jump goes. */
  readonly target: bigint | undefined;
  /** 64-bit registers that it reads and writes; undefined entries are registers of other kinds. */
  readonly reads: readonly (string | undefined)[];
  readonly writes: readonly (string | undefined)[];
  readonly touchesMemory: boolean;
  readonly storesMemory: boolean;
  readonly changesFlags: boolean;
  /** Leaves some of the flags that it could change as they are, now or always. */
  readonly keepsFlags: boolean;
  /** Flags that are not arithmetic ones. */
  readonly changesControl: boolean;
  readonly readsFlags: boolean;
  /** All that it does is in the fields above, on every x86-64 CPU, and it cannot fault but by its memory. */
  readonly ordinary: boolean;
}

const NAMES = [
  ...['rax', 'rcx', 'rdx', 'rbx', 'rsp', 'rbp', 'rsi', 'rdi'],
  ...['r8', 'r9', 'r10', 'r11', 'r12', 'r13', 'r14', 'r15'],
];

const formatter = new iced.Formatter(iced.FormatterSyntax.Intel);
const factory = new iced.InstructionInfoFactory();

function fullName(register: iced.Register): string | undefined {
  return NAMES[iced.RegisterExt.fullRegister(register) - iced.Register.RAX];
}

const HIGH: readonly iced.Register[] = [
  iced.Register.AH,
  iced.Register.CH,
  iced.Register.DH,
  iced.Register.BH,
];

const { DF, IF, AC, UIF, OF, SF, ZF, AF, CF, PF } = iced.RflagsBits;
const CONTROL = DF | IF | AC | UIF;
const ARITHMETIC = OF | SF | ZF | AF | CF | PF;

/** Shifted by nothing, they leave all flags as they are. */
const SHIFTS = /^(sh[lr]d?|sa[lr]|ro[lr]|rc[lr])$/;
/** Of the integer unit since the first 64-bit CPU. */
const ORDINARY: readonly iced.CpuidFeature[] = [
  iced.CpuidFeature.INTEL8086,
  iced.CpuidFeature.INTEL186,
  iced.CpuidFeature.INTEL286,
  iced.CpuidFeature.INTEL386,
  iced.CpuidFeature.INTEL486,
  iced.CpuidFeature.X64,
  iced.CpuidFeature.CMOV,
];
/** They look at the floating-point unit; divide, which can fault; or test a bit that can lie outside of an operand. */
const EXTRAORDINARY = /^(f?wait|i?div|bt[src]?)$/;

/** Segments with a base of their own; the others are flat. */
const BASED: readonly iced.Register[] = [iced.Register.FS, iced.Register.GS];

/** Instructions that were decoded already, by image and offset. */
const decoded = new WeakMap<Uint8Array, Map<number, Instruction>>();

/** The instruction at an offset of an image that stands at `base`. */
export function instructionAt(bytes: Uint8Array, offset: number, base: bigint): Instruction {
  let known = decoded.get(bytes);
  if (known === undefined) {
    known = new Map();
    decoded.set(bytes, known);
  }
  const found = known.get(offset) ?? decode(bytes, offset, base);
  known.set(offset, found);
  return found;
}

function decode(bytes: Uint8Array, offset: number, base: bigint): Instruction {
  const decoder = new iced.Decoder(64, bytes.subarray(offset, offset + 15), iced.DecoderOptions.None);
  decoder.ip = base + BigInt(offset);
  const insn = decoder.decode();
  const info = factory.info(insn);
  const registers = info.usedRegisters() as iced.UsedRegister[];
  const memory = info.usedMemory() as iced.UsedMemory[];
  try {
    const { OpAccess } = iced;
    const mnemonic = formatter.formatMnemonicOptions(insn, iced.FormatMnemonicOptions.NoPrefixes);
    const text = formatter.format(insn);
    const features = [...insn.cpuidFeatures()] as iced.CpuidFeature[];
    const operands = Array.from({ length: insn.opCount }, (_, i) => operand(insn, i));
    const target =
      insn.op0Kind === iced.OpKind.NearBranch64 && insn.opCount > 0 ? insn.nearBranchTarget : undefined;
    const numbers = operands.map((one) => {
      if (one.kind === 'immediate') return one.value;
      return one.kind === 'memory' ? one.displacement : '';
    });
    const modified = insn.rflagsModified;
    const written = [OpAccess.Write, OpAccess.CondWrite, OpAccess.ReadWrite, OpAccess.ReadCondWrite];
    const read = [OpAccess.Read, OpAccess.CondRead, OpAccess.ReadWrite, OpAccess.ReadCondWrite];
    const named = (accesses: readonly iced.OpAccess[]): (string | undefined)[] =>
      registers.filter(({ access }) => accesses.includes(access)).map(({ register }) => fullName(register));
    return {
      offset,
      next: offset + insn.length,
      valid: insn.code !== iced.Code.INVALID,
      mnemonic,
      text,
      exact: [text, ...numbers, target ?? ''].join(' '),
      operands,
      flow: FLOWS.get(insn.flowControl) ?? 'other',
      target,
      reads: named(read),
      writes: named(written),
      touchesMemory: memory.length > 0,
      storesMemory: memory.some(({ access }) => written.includes(access)),
      changesFlags: modified !== 0,
      keepsFlags: modified !== 0 && ((modified & ARITHMETIC) !== ARITHMETIC || SHIFTS.test(mnemonic)),
      changesControl: (modified & CONTROL) !== 0,
      readsFlags: insn.rflagsRead !== 0,
      ordinary:
        !insn.isPrivileged &&
        features.every((feature) => ORDINARY.includes(feature)) &&
        !EXTRAORDINARY.test(mnemonic),
    };
  } finally {
    for (const used of [...registers, ...memory]) used.free();
    info.free();
    insn.free();
    decoder.free();
  }
}

const FLOWS = new Map<iced.FlowControl, Instruction['flow']>([
  [iced.FlowControl.Next, 'next'],
  [iced.FlowControl.Call, 'call'],
  [iced.FlowControl.Return, 'return'],
  [iced.FlowControl.UnconditionalBranch, 'jump'],
  [iced.FlowControl.ConditionalBranch, 'branch'],
]);

function operand(insn: iced.Instruction, index: number): Operand {
  const kind = insn.opKind(index);
  if (kind === iced.OpKind.Register) {
    const register = insn.opRegister(index);
    const name = fullName(register);
    if (name === undefined) return { kind: 'other' };
    const high = HIGH.includes(register);
    return { kind: 'register', name, sizeBytes: iced.RegisterExt.size(register), high };
  }
  if (kind === iced.OpKind.Memory) {
    return {
      kind: 'memory',
      base: fullName(insn.memoryBase),
      indexed: insn.memoryIndex !== iced.Register.None || BASED.includes(insn.memorySegment),
      displacement: BigInt.asIntN(64, insn.memoryDisplacementU64),
      sizeBytes: iced.MemorySizeExt.size(insn.memorySize),
    };
  }
  if (kind >= iced.OpKind.Immediate8 && kind <= iced.OpKind.Immediate32to64) {
    return { kind: 'immediate', value: BigInt.asUintN(64, insn.immediate(index)) };
  }
  return { kind: 'other' };
}
