/**
 * One resolved statement to bytes. keystone does the work; it is handed nothing but text rendered here
 * from parsed operands, so that a hostile line never reaches it. What it is known to get wrong is encoded
 * here: direct branches (the choice of form is ours), immediate pushes, hint nops, endbr64. What it gets
 * right by itself and the read-back could not tell: it refuses a memory operand of ambiguous size.
 * The caller decodes every result again, from either source.
 */

import { createRequire } from 'node:module';
import type { MemoryOperand, Operand } from './asm-text-parse.ts';
import { SIZE_OF } from './asm-text-parse.ts';

/** A statement whose names have become numbers. */
export interface Instruction {
  readonly prefixes: readonly string[];
  /** As keystone and iced spell it. */
  readonly mnemonic: string;
  /** Written as `movabs`: a 64-bit immediate or address. */
  readonly wide: boolean;
  /** Values are final; `symbol` is left as a mark that the value is an address. */
  readonly operands: readonly Operand[];
}

/** Bytes, or why there are none. */
export type Encoded = Uint8Array | string;

/** Condition codes in the order of their encoding, each with its synonyms; iced's name first. */
export const CONDITIONS: readonly (readonly string[])[] = [
  ['o'],
  ['no'],
  ['b', 'c', 'nae'],
  ['ae', 'nc', 'nb'],
  ['e', 'z'],
  ['ne', 'nz'],
  ['be', 'na'],
  ['a', 'nbe'],
  ['s'],
  ['ns'],
  ['p', 'pe'],
  ['np', 'po'],
  ['l', 'nge'],
  ['ge', 'nl'],
  ['le', 'ng'],
  ['g', 'nle'],
];

/** Opcode bytes of a direct branch by the width of its displacement. */
interface BranchForms {
  readonly short: readonly number[] | undefined;
  readonly near: readonly number[] | undefined;
}

const BRANCHES: ReadonlyMap<string, BranchForms> = new Map([
  ['call', { short: undefined, near: [0xe8] }],
  ['jmp', { short: [0xeb], near: [0xe9] }],
  ['loopne', { short: [0xe0], near: undefined }],
  ['loope', { short: [0xe1], near: undefined }],
  ['loop', { short: [0xe2], near: undefined }],
  ['jrcxz', { short: [0xe3], near: undefined }],
  ['jecxz', { short: [0x67, 0xe3], near: undefined }],
  ...CONDITIONS.map(([name], cc): [string, BranchForms] => [
    `j${name}`,
    { short: [0x70 + cc], near: [0x0f, 0x80 + cc] },
  ]),
]);

/** Whether the mnemonic takes a code address, which a name alone then means. */
export function isBranch(mnemonic: string): boolean {
  return BRANCHES.has(mnemonic);
}

/** The forms of a direct branch: displacement of 8 bits, of 32 bits. */
export type BranchWidth = 'short' | 'near';

/** Whether the branch exists in that width. */
export function hasForm(mnemonic: string, width: BranchWidth): boolean {
  return BRANCHES.get(mnemonic)?.[width] !== undefined;
}

/** Bytes of the branch in that width. */
export function branchLength(mnemonic: string, width: BranchWidth): number {
  const opcode = BRANCHES.get(mnemonic)?.[width] ?? [];
  return opcode.length + (width === 'short' ? 1 : 4);
}

/** `mnemonic target`, standing at `address`. */
export function encodeBranch(mnemonic: string, target: bigint, width: BranchWidth, address: bigint): Encoded {
  const opcode = BRANCHES.get(mnemonic)?.[width] ?? [];
  const length = branchLength(mnemonic, width);
  const distance = BigInt.asIntN(64, target - address - BigInt(length));
  const bits = width === 'short' ? 8 : 32;
  if (BigInt.asIntN(bits, distance) !== distance) {
    const reach = width === 'short' ? '127 bytes' : '2 GiB';
    return `the target is ${distance < 0n ? -distance : distance} bytes away; ${mnemonic} reaches ${reach}`;
  }
  return Uint8Array.of(...opcode, ...littleEndian(distance, bits / 8));
}

/** Everything but direct branches; `address` matters to RIP-relative operands only. */
export function encodeInstruction(assembler: Assembler, instruction: Instruction, address: bigint): Encoded {
  const { mnemonic, prefixes, operands } = instruction;
  const [operand] = operands;
  if (prefixes.length === 0) {
    if (mnemonic === 'endbr64' && operands.length === 0) return Uint8Array.of(0xf3, 0x0f, 0x1e, 0xfa);
    if (mnemonic === 'push' && operand?.kind === 'value') return encodePush(operand.value);
    if (mnemonic === 'nop' && operands.length === 1) return encodeNop(assembler, instruction, address);
  }
  const narrow = operands.find((op) => op.kind === 'memory' && !instruction.wide && !fitsDisplacement(op));
  if (narrow !== undefined) {
    return 'displacement too wide: 32 bits, sign-extended; load the address into a register first';
  }
  const first = assembler.assemble(render(instruction, 0n));
  if (typeof first === 'string' || !instruction.operands.some(namesRipTarget)) return first;
  // The distance counts from the end of the instruction, which is known only now.
  const end = address + BigInt(first.length);
  const far = operands.find((op) => op.kind === 'memory' && !fits32(op.displacement - end));
  if (far !== undefined) return 'the address is out of reach: a RIP-relative operand reaches 2 GiB';
  return assembler.assemble(render(instruction, end));
}

/** keystone takes 16-bit pushes for some values that fit a byte or a doubleword. */
function encodePush(value: bigint): Encoded {
  const signed = BigInt.asIntN(64, value);
  if (BigInt.asIntN(8, signed) === signed) return Uint8Array.of(0x6a, ...littleEndian(signed, 1));
  if (BigInt.asIntN(32, signed) === signed) return Uint8Array.of(0x68, ...littleEndian(signed, 4));
  return 'push takes 32 bits, sign-extended; load the value into a register first';
}

/** A hint nop has the form of `inc`, /0, with 0f 1f for ff; keystone writes another opcode. */
function encodeNop(assembler: Assembler, instruction: Instruction, address: bigint): Encoded {
  const inc = encodeInstruction(assembler, { ...instruction, mnemonic: 'inc' }, address);
  if (typeof inc === 'string') return inc;
  const opcode = inc.indexOf(0xff);
  return Uint8Array.of(...inc.subarray(0, opcode), 0x0f, 0x1f, ...inc.subarray(opcode + 1));
}

function littleEndian(value: bigint, length: number): number[] {
  return Array.from({ length }, (_, i) => Number(BigInt.asUintN(8, value >> BigInt(8 * i))));
}

const namesRipTarget = (op: Operand): boolean =>
  op.kind === 'memory' && op.base === 'rip' && op.symbol !== undefined;

function fitsDisplacement(op: MemoryOperand): boolean {
  if (namesRipTarget(op)) return true;
  // A bare address may be written as it is printed, 0xffffffff81000000; a displacement is a distance.
  const absolute = op.base === undefined || op.symbol !== undefined;
  const value = absolute ? BigInt.asIntN(64, op.displacement) : op.displacement;
  return BigInt.asIntN(32, value) === value;
}

/** Whether a distance between two addresses, modulo 2^64, fits a displacement. */
function fits32(distance: bigint): boolean {
  return BigInt.asIntN(32, distance) === BigInt.asIntN(64, distance);
}

/** The statement in keystone's dialect. `end`: address of the next instruction. */
function render(instruction: Instruction, end: bigint): string {
  const { prefixes, mnemonic, operands, wide } = instruction;
  const words = operands.map((op) => {
    if (op.kind === 'register') return op.name;
    return op.kind === 'value' ? hex(op.value) : renderMemory(op, wide, end);
  });
  return `${[...prefixes, wide ? 'movabs' : mnemonic].join(' ')} ${words.join(', ')}`;
}

const KEYWORD_OF = new Map([...SIZE_OF].map(([keyword, size]) => [size, keyword]));

function renderMemory(op: MemoryOperand, wide: boolean, end: bigint): string {
  const size = op.size === undefined ? '' : `${KEYWORD_OF.get(op.size)} ptr `;
  const segment = op.segment === undefined ? '' : `${op.segment}:`;
  const registers: string[] = [];
  if (op.base !== undefined) registers.push(op.base);
  if (op.index !== undefined) registers.push(`${op.index}*${op.scale}`);
  if (registers.length === 0 && wide) return `${size}${segment}[${hex(BigInt.asUintN(64, op.displacement))}]`;
  // Without any register keystone makes a 64-bit or RIP-relative address of it: riz is its "no index".
  if (registers.length === 0) registers.push('riz*1');
  const distance = namesRipTarget(op) ? op.displacement - end : op.displacement;
  const signed = op.symbol === undefined && op.base !== undefined ? distance : BigInt.asIntN(64, distance);
  const sign = signed < 0n ? '-' : '+';
  return `${size}${segment}[${registers.join('+')}${sign}${hex(signed < 0n ? -signed : signed)}]`;
}

const hex = (value: bigint): string =>
  value < 0n ? `-0x${(-value).toString(16)}` : `0x${value.toString(16)}`;

/** keystone-wasm, as far as it is used; its package names no types that a module resolver finds. */
interface KeystoneModule {
  loadKeystone(emscripten: {
    print(text: string): void;
    printErr(text: string): void;
    quit(status: number, reason: unknown): void;
  }): Promise<void>;
  readonly Keystone: new (arch: number, mode: number) => { asm(text: string): Uint8Array };
  readonly Const: { readonly KS_ARCH_X86: number; readonly KS_MODE_64: number };
}

/** A keystone that can be asked line by line. */
export interface Assembler {
  assemble(text: string): Encoded;
}

const require = createRequire(import.meta.url);
let loaded: Promise<Assembler> | undefined;

/** keystone, loaded at the first call and again after it died. */
export function loadAssembler(): Promise<Assembler> {
  loaded ??= startKeystone();
  return loaded;
}

async function startKeystone(): Promise<Assembler> {
  // Its loader keeps one WebAssembly instance for ever, so a fresh instance needs a fresh module.
  delete require.cache[require.resolve('keystone-wasm')];
  const { loadKeystone, Keystone, Const } = require('keystone-wasm') as KeystoneModule;
  await loadKeystone({
    print: () => undefined,
    printErr: () => undefined,
    quit: (_status, reason) => {
      throw reason;
    },
  });
  const keystone = new Keystone(Const.KS_ARCH_X86, Const.KS_MODE_64);
  return {
    assemble(text) {
      try {
        return keystone.asm(text);
      } catch (error) {
        const reason =
          error instanceof Error && /^Failed to assemble, error: (.*) \((\w+)\)$/.exec(error.message);
        if (reason) return refusal(reason[2] ?? '', reason[1] ?? '');
        // LLVM gave up inside (exit, abort, trap): this instance is not to be used again.
        loaded = undefined;
        return 'the assembler cannot encode this combination of operands';
      }
    },
  };
}

function refusal(code: string, reason: string): string {
  switch (code) {
    case 'KS_ERR_ASM_INVALIDOPERAND':
      return "no form of this instruction takes these operands (a memory operand may need its size, as in 'qword ptr [...]')";
    case 'KS_ERR_ASM_MNEMONICFAIL':
      return 'unknown mnemonic or wrong number of operands';
    case 'KS_ERR_ASM_MISSINGFEATURE':
      return 'not an instruction of 64-bit mode';
    default:
      return `the assembler refuses it: ${reason.toLowerCase()}`;
  }
}
