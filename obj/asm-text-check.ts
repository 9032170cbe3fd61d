/**
 * Read-back: decodes bytes with iced-x86 and compares them, part by part, with the instruction that was
 * written. Independent of the encoder: neither keystone's word nor ours is taken for anything.
 */

import {
  type Instruction as Decoded,
  Decoder,
  DecoderOptions,
  Formatter,
  FormatterSyntax,
  MemorySizeExt,
  Mnemonic,
  OpKind,
  Register,
} from 'iced-x86';
import { CONDITIONS, type Instruction, isBranch } from './asm-text-encode.ts';
import type { MemoryOperand, Operand, ValueOperand } from './asm-text-parse.ts';

const CONDITION_OF: ReadonlyMap<string, string> = new Map(
  CONDITIONS.flatMap((names) => names.map((name): [string, string] => [name, names[0] ?? name])),
);

/** Spellings of one instruction, to the one that iced uses. */
const SYNONYMS: ReadonlyMap<string, string> = new Map([
  ['sal', 'shl'],
  ['movabs', 'mov'],
  ['retq', 'ret'],
  ['callq', 'call'],
  ['leaveq', 'leave'],
  ['pushf', 'pushfq'],
  ['popf', 'popfq'],
  ['icebp', 'int1'],
  ['loopz', 'loope'],
  ['loopnz', 'loopne'],
]);

const MNEMONICS: ReadonlySet<string> = new Set(
  Object.keys(Mnemonic)
    .filter((name) => /^[A-Z]/.test(name) && name !== 'INVALID')
    .map((name) => name.toLowerCase()),
);

/** The mnemonic as iced spells it; undefined when there is none of that name. */
export function canonicalMnemonic(mnemonic: string): string | undefined {
  const synonym = SYNONYMS.get(mnemonic);
  if (synonym !== undefined) return synonym;
  const conditional = /^(j|set|cmov)(.*)$/.exec(mnemonic);
  const condition = CONDITION_OF.get(conditional?.[2] ?? '');
  if (conditional !== null && condition !== undefined) return `${conditional[1]}${condition}`;
  return MNEMONICS.has(mnemonic) ? mnemonic : undefined;
}

/**
 * Why `bytes` at `address` are not what was written; undefined when they are.
 * The instruction's values are final and its mnemonic canonical.
 */
export function readBack(written: Instruction, bytes: Uint8Array, address: bigint): string | undefined {
  const decoder = new Decoder(64, bytes, DecoderOptions.None);
  decoder.ip = address;
  const decoded = decoder.decode();
  try {
    const difference = compare(written, decoded, bytes.length);
    return difference === undefined ? undefined : `reads back as '${format(decoded)}': ${difference}`;
  } finally {
    decoded.free();
    decoder.free();
  }
}

function format(decoded: Decoded): string {
  const formatter = new Formatter(FormatterSyntax.Intel);
  try {
    formatter.hexPrefix = '0x';
    formatter.hexSuffix = '';
    formatter.uppercaseHex = false;
    return formatter.format(decoded);
  } finally {
    formatter.free();
  }
}

function compare(written: Instruction, decoded: Decoded, length: number): string | undefined {
  if (decoded.isInvalid) return 'not a valid instruction';
  if (decoded.length !== length) return 'more than one instruction';
  if (Mnemonic[decoded.mnemonic]?.toLowerCase() !== written.mnemonic) return 'another instruction';
  const prefixes: [string, boolean][] = [
    ['lock', decoded.hasLockPrefix],
    ['rep', decoded.hasRepPrefix],
    ['repne', decoded.hasRepnePrefix],
  ];
  for (const [name, found] of prefixes) {
    if (written.prefixes.includes(name) !== found) return `prefix '${name}' differs`;
  }
  const segment = written.operands.find((op): op is MemoryOperand => op.kind === 'memory')?.segment;
  if (registerName(decoded.segmentPrefix) !== segment) return 'segment differs';

  const { operands } = written;
  // The operands of string instructions are implied by the mnemonic, and not written here.
  if (decoded.isStringInstruction && operands.length === 0) return undefined;
  if (decoded.opCount !== operands.length) return `${decoded.opCount} operands, not ${operands.length}`;
  const order = operands.map((_, i) => i);
  const differing = order.find((i) => !sameOperand(operands[i], decoded, i));
  if (differing === undefined) return undefined;
  // These two mean the same whichever operand comes first, and have one encoding for both orders.
  const commutes = written.mnemonic === 'xchg' || written.mnemonic === 'test';
  if (commutes && order.every((i) => sameOperand(operands[1 - i], decoded, i))) return undefined;
  return differsHow(operands[differing], decoded, differing);
}

function differsHow(written: Operand | undefined, decoded: Decoded, i: number): string {
  const bits = IMMEDIATE_BITS.get(decoded.opKind(i));
  if (written?.kind === 'value' && bits !== undefined && !fits(written.value, bits)) {
    return `${written.value} does not fit ${bits} bits`;
  }
  return `operand ${i + 1} differs`;
}

function sameOperand(written: Operand | undefined, decoded: Decoded, i: number): boolean {
  if (written === undefined) return false;
  const kind = decoded.opKind(i);
  switch (written.kind) {
    case 'register':
      return kind === OpKind.Register && registerName(decoded.opRegister(i)) === written.name;
    case 'value':
      return isBranch(Mnemonic[decoded.mnemonic]?.toLowerCase() ?? '')
        ? kind === OpKind.NearBranch64 && decoded.nearBranchTarget === BigInt.asUintN(64, written.value)
        : sameValue(written, decoded, i);
    case 'memory':
      return kind === OpKind.Memory && sameMemory(written, decoded);
  }
}

/** Bits that an immediate is extended to before the instruction uses it. */
const IMMEDIATE_BITS: ReadonlyMap<OpKind, number> = new Map([
  [OpKind.Immediate8, 8],
  [OpKind.Immediate8_2nd, 8],
  [OpKind.Immediate8to16, 16],
  [OpKind.Immediate8to32, 32],
  [OpKind.Immediate8to64, 64],
  [OpKind.Immediate16, 16],
  [OpKind.Immediate32, 32],
  [OpKind.Immediate32to64, 64],
  [OpKind.Immediate64, 64],
]);

/** The same number, signed or unsigned, within the operand's width. */
function sameValue({ value }: ValueOperand, decoded: Decoded, i: number): boolean {
  const bits = IMMEDIATE_BITS.get(decoded.opKind(i));
  if (bits === undefined) return false;
  return fits(value, bits) && BigInt.asUintN(bits, decoded.immediate(i)) === BigInt.asUintN(bits, value);
}

const fits = (value: bigint, bits: number): boolean =>
  value >= -(1n << BigInt(bits - 1)) && value < 1n << BigInt(bits);

function sameMemory(written: MemoryOperand, decoded: Decoded): boolean {
  const size = MemorySizeExt.size(decoded.memorySize);
  if (written.size !== undefined && written.size !== size) return false;
  const base = registerName(decoded.memoryBase);
  const index = registerName(decoded.memoryIndex);
  if (base === 'rip') {
    // iced gives the address, as it does for what is written with a name; else the distance is written.
    const target =
      written.symbol === undefined ? written.displacement + decoded.nextIP : written.displacement;
    return written.base === 'rip' && decoded.memoryDisplacementU64 === BigInt.asUintN(64, target);
  }
  const same = base === written.base && index === written.index;
  // Without a scale base and index are interchangeable, and so is a lone register's place.
  const unscaled = decoded.memoryIndexScale === 1 && written.scale === 1;
  const swapped = unscaled && base === written.index && index === written.base;
  if (!same && !swapped) return false;
  if (written.index !== undefined && decoded.memoryIndexScale !== written.scale) return false;
  const bits = /^(?:e|r\d+d$)/.test(written.base ?? written.index ?? '') ? 32 : 64;
  return BigInt.asUintN(bits, decoded.memoryDisplacementU64) === BigInt.asUintN(bits, written.displacement);
}

/** As Intel names it: iced says r8l for r8b. */
function registerName(register: Register): string | undefined {
  if (register === Register.None) return undefined;
  return Register[register]?.toLowerCase().replace(/^(r\d+)l$/, '$1b');
}
