/*
 * Runs instructions of an image on names in place of numbers. Two runs that end with the same names have
 * computed the same numbers, whatever these are.
 *
 *   values   names of 64-bit values: `rdi`, `fp-8` (an address in the frame), `#2a`, `cat(...)` of eight bytes
 *   bytes    `rdi.0` is the lowest byte of `rdi`
 *   fp       what rbp is while the image runs: the address of the saved rbp
 *   caller   the address that the image returns to
 *
 * Whatever is not modelled exactly becomes a name of its own that depends on the instruction and its inputs.
 */

import { type Instruction, instructionAt, type MemoryOperand, type Operand } from './instruction.ts';

/** Something that no name can stand for: the proof ends here without a result. */
export class Unprovable extends Error {
  override readonly name: string = 'Unprovable';
}

const ZERO_BYTE = '#0.0';
/** Where the return address is, from fp. */
const RETURN_ADDRESS = 8;
const BEHIND_RETURN_ADDRESS = 16;
/** On both sides of fp: here is stack, and no access faults. No image's 8-bit displacements reach further. */
export const REACH_BYTES = 256;

/** A value of which no more is known than that it is negative. */
const NEGATIVE = 'negative ';

/** Whether a value is negative: every kernel address is. */
export function isNegative(value: string): boolean {
  return ADDRESS.test(value) || value.startsWith(NEGATIVE);
}

/** Flags as a logical operation on a value leaves them (overflow clear, and carry unless it was set since), or a name. */
export type Flags =
  | { readonly of: string; readonly sizeBytes: number; readonly carry?: boolean }
  | { readonly of: undefined; readonly name: string };

export class State {
  readonly regs: Map<string, string>;
  /** Bytes of the frame that were written, by their distance from fp. */
  readonly memory: Map<number, string>;
  /** Words of the frame that are known although nobody has written them: by their distance. */
  readonly known: Map<number, string>;
  flags: Flags;
  /** Offset of the next instruction. */
  at: number;

  constructor(at: number, from?: State) {
    this.at = at;
    this.regs = new Map(from?.regs);
    this.memory = new Map(from?.memory);
    this.known = new Map(from?.known ?? [[RETURN_ADDRESS, 'caller+0']]);
    this.flags = from?.flags ?? { of: undefined, name: 'flags' };
  }

  copy(): State {
    return new State(this.at, this);
  }

  get(register: string): string {
    return this.regs.get(register) ?? register;
  }

  /** Distance of an address from fp. */
  frameOffset(value: string): number | undefined {
    const match = /^fp([+-]\d+)$/.exec(value);
    return match === null ? undefined : Number(match[1]);
  }

  byte(offset: number): string {
    const word = Math.floor(offset / 8) * 8;
    return this.memory.get(offset) ?? byteOf(this.known.get(word) ?? `m${word}`, offset - word);
  }

  bytes(offset: number, count: number): string[] {
    return Array.from({ length: count }, (_, i) => this.byte(offset + i));
  }

  /** @throws Unprovable where no stack may be */
  load(offset: number, count: number): string[] {
    inReach(offset, count);
    return this.bytes(offset, count);
  }

  /** @throws Unprovable where no stack may be, and below rsp, where an interrupt would overwrite it */
  store(offset: number, bytes: readonly string[]): void {
    inReach(offset, bytes.length);
    const rsp = this.frameOffset(this.get('rsp'));
    if (rsp === undefined || offset < rsp) throw new Unprovable('writes below rsp');
    bytes.forEach((byte, i) => {
      this.memory.set(offset + i, byte);
    });
  }

  /** All that is known of some registers and of the frame, for comparing states as a whole. */
  describe(registers: readonly string[]): string {
    const words = [...this.memory, ...this.known].map(([offset, held]) => `${offset}=${held}`).sort();
    return [...registers.map((register) => this.get(register)), ...words].join(' ');
  }

  /** After a call: the callee has left below rsp what it likes. */
  forgetBelowRsp(callee: string): void {
    const rsp = this.#ownRsp();
    for (const offset of [...this.memory.keys()]) if (offset < rsp) this.memory.delete(offset);
    for (const word of wordsBelow(rsp)) this.known.set(word, `${callee}_${word}`);
  }

  /** After rsp has risen: what is below may be what it was, or what an interrupt has left there. */
  doubtBelowRsp(): void {
    const rsp = this.#ownRsp();
    for (const [offset, byte] of this.memory) if (offset < rsp) this.memory.set(offset, `doubted(${byte}).0`);
    for (const word of wordsBelow(rsp))
      this.known.set(word, `doubted(${this.known.get(word) ?? `m${word}`})`);
  }

  #ownRsp(): number {
    return frameAddress(this, this.get('rsp'));
  }

  /** Puts a value in the place of a name, everywhere. */
  substitute(name: string, value: string): void {
    const replace = (byte: string): string =>
      byte.startsWith(`${name}.`) ? byteOf(value, Number(byte.slice(name.length + 1))) : byte;
    // A register that nobody has written holds its own name.
    if (!this.regs.has(name)) this.regs.set(name, name);
    for (const [register, held] of this.regs) {
      this.regs.set(register, fromBytes(Array.from({ length: 8 }, (_, i) => replace(byteOf(held, i)))));
    }
    for (const [offset, byte] of this.memory) this.memory.set(offset, replace(byte));
    for (const [word, held] of this.known) if (held === name) this.known.set(word, value);
    const word = /^m(-?\d+)$/.exec(name);
    if (word !== null) this.known.set(Number(word[1]), value);
  }
}

function wordsBelow(rsp: number): readonly number[] {
  const first = Math.floor(rsp / 8) - 1;
  return Array.from({ length: REACH_BYTES / 8 }, (_, i) => 8 * (first - i));
}

function inReach(offset: number, count: number): void {
  if (offset < -REACH_BYTES || offset + count > REACH_BYTES) throw new Unprovable('reaches out of the stack');
}

/** A byte of a value. */
export function byteOf(value: string, index: number): string {
  if (value.startsWith('#'))
    return `#${((BigInt(`0x${value.slice(1)}`) >> BigInt(8 * index)) & 0xffn).toString(16)}.0`;
  if (value.startsWith('cat(')) return value.slice(4, -1).split('|')[index] as string;
  return `${value}.${index}`;
}

/** The value of eight bytes, lowest first. */
export function fromBytes(bytes: readonly string[]): string {
  if (bytes.every((byte) => /^#[0-9a-f]+\.0$/.test(byte))) {
    const digits = bytes.map((byte) => byte.slice(1, -2).padStart(2, '0')).toReversed();
    return `#${BigInt(`0x${digits.join('')}`).toString(16)}`;
  }
  const name = (bytes[0] as string).slice(0, (bytes[0] as string).lastIndexOf('.'));
  return bytes.every((byte, i) => byte === `${name}.${i}`) ? name : `cat(${bytes.join('|')})`;
}

function constant(value: bigint): string {
  return `#${BigInt.asUintN(64, value).toString(16)}`;
}

/** What stops a run: a call, the return, or a branch that may go either way. */
export type Stop = Instruction;

/** Instructions that change nothing, or nothing that an image can know of: the direction flag is clear before. */
export function isNop({ mnemonic }: Pick<Instruction, 'mnemonic'>): boolean {
  return /^(nop|cld$|endbr|prefetch|reservednop|pause|cldemote)/.test(mnemonic);
}

/** Runs from where a state is until something stops it; the state is at the stopping instruction then. */
export function run(state: State, image: Uint8Array, base: bigint, stopAt: number | undefined): Stop {
  for (let steps = 0; steps < 4096; steps++) {
    if (state.at < 0 || state.at >= image.length) throw new Unprovable('runs out of the image');
    const insn = instructionAt(image, state.at, base);
    if (!insn.valid) throw new Unprovable(`no instruction at +0x${state.at.toString(16)}`);
    // They count rcx down as well, taken or not.
    const { of = '' } = state.flags;
    if ((insn.mnemonic === 'loope' && isNegative(of)) || (insn.mnemonic === 'loopne' && of === '#0')) {
      state.regs.set('rcx', shortName(`counted down ${state.get('rcx')}`));
      state.at = insn.next;
      continue;
    }
    if (insn.mnemonic.startsWith('loop')) throw new Unprovable(insn.text);
    if (state.at === stopAt || insn.flow === 'call' || insn.flow === 'return' || insn.flow === 'branch')
      return insn;
    if (insn.flow === 'other') throw new Unprovable(insn.text);
    if (insn.flow === 'jump') {
      if (insn.target === undefined) throw new Unprovable(insn.text);
      state.at = Number(insn.target - base);
      continue;
    }
    const before = state.frameOffset(state.get('rsp'));
    execute(state, insn);
    const after = state.frameOffset(state.get('rsp'));
    // An interrupt would write into the caller's frame, or nowhere.
    if (after === undefined || after > BEHIND_RETURN_ADDRESS) throw new Unprovable('rsp leaves the frame');
    if (before !== undefined && after > before) state.doubtBelowRsp();
    state.at = insn.next;
  }
  throw new Unprovable('does not end');
}

function execute(state: State, insn: Instruction): void {
  if (isNop(insn)) return;
  const [first, second] = insn.operands;
  const mnemonic = insn.mnemonic;
  if (mnemonic === 'push' && first?.kind === 'register' && first.sizeBytes === 8) {
    const value = state.get(first.name);
    const at = moveStack(state, -8);
    state.store(at, eight(value));
    return;
  }
  if (mnemonic === 'push' && first?.kind === 'immediate' && insn.text.startsWith('push ')) {
    state.store(moveStack(state, -8), eight(constant(first.value)));
    return;
  }
  if (insn.text === 'pushfq') {
    state.store(moveStack(state, -8), eight(shortName(`pushed ${flagsName(state.flags)}`)));
    return;
  }
  if (mnemonic === 'pop' && first?.kind === 'register' && first.sizeBytes === 8) {
    const at = frameAddress(state, state.get('rsp'));
    moveStack(state, 8);
    state.regs.set(first.name, fromBytes(state.load(at, 8)));
    return;
  }
  // With a prefix it pops two bytes.
  if (insn.text === 'leave') {
    const at = frameAddress(state, state.get('rbp'));
    state.regs.set('rbp', fromBytes(state.load(at, 8)));
    state.regs.set('rsp', `fp${signed(at + 8)}`);
    return;
  }
  if (['clc', 'stc', 'cmc'].includes(mnemonic) && state.flags.of !== undefined) {
    const { of, sizeBytes } = state.flags;
    const carry = mnemonic === 'stc' || (mnemonic === 'cmc' && !carryOf(state.flags));
    state.flags = { of, sizeBytes, carry };
    return;
  }
  if (first === undefined || second === undefined) {
    opaque(state, insn);
    return;
  }
  switch (mnemonic) {
    case 'mov':
    case 'movabs':
    case 'movsxd':
      // To 32 bits it extends nothing.
      if (mnemonic === 'movsxd' && sizeOf(first) !== sizeOf(second)) break;
      if (first.kind === 'other' || second.kind === 'other') break;
      write(state, first, read(state, second, sizeOf(first)));
      return;
    case 'movzx':
      write(state, first, padded(read(state, second, sizeOf(second)), sizeOf(first)));
      return;
    case 'lea': {
      const address = second.kind === 'memory' ? addressOf(state, second) : undefined;
      if (address === undefined || sizeOf(first) !== 8) break;
      write(state, first, eight(`fp${signed(address)}`));
      return;
    }
    case 'xchg': {
      const size = sizeOf(first);
      const [one, other] = [read(state, first, size), read(state, second, size)];
      write(state, first, other);
      write(state, second, one);
      return;
    }
    case 'add':
    case 'sub':
      if (addressArithmetic(state, insn, first, second)) return;
      break;
    case 'adc':
    case 'sbb':
      if (carryOf(state.flags) === false && addressArithmetic(state, insn, first, second)) return;
      break;
    case 'rol':
    case 'ror':
    case 'rcl':
    case 'rcr':
    case 'shl':
    case 'shr':
    case 'sar': {
      const size = sizeOf(first);
      const bits = size === 8 ? 63n : 31n;
      // By nothing; 32 bits would be extended all the same.
      if (second.kind === 'immediate' && (second.value & bits) === 0n && size !== 4) return;
      break;
    }
    default:
  }
  if (logic(state, insn, first, second)) return;
  opaque(state, insn);
}

/** A kernel address by its distance from one that has a name. */
const ADDRESS = /^(fp|caller)([+-]\d+)$/;

/** Addition to, or subtraction from, a kernel address. */
function addressArithmetic(state: State, insn: Instruction, first: Operand, second: Operand): boolean {
  if (first.kind !== 'register' || first.sizeBytes !== 8 || second.kind !== 'immediate') return false;
  const [, base, offset] = ADDRESS.exec(state.get(first.name)) ?? [];
  const by = Number(BigInt.asIntN(64, second.value));
  if (base === undefined || Math.abs(by) > REACH_BYTES) return false;
  const adds = insn.mnemonic === 'add' || insn.mnemonic === 'adc';
  const address = `${base}${signed(adds ? Number(offset) + by : Number(offset) - by)}`;
  state.regs.set(first.name, address);
  // It stays one: negative, and nothing overflows. It carries when a negative number is added.
  state.flags =
    by < 0 ? { of: undefined, name: `${insn.mnemonic}${by}_${address}` } : { of: address, sizeBytes: 8 };
  return true;
}

/** Operations that set flags by a value that is known: of a thing with itself, or a comparison with zero. */
function logic(state: State, insn: Instruction, first: Operand, second: Operand): boolean {
  const size = sizeOf(first);
  if (size === 0 || first.kind === 'other' || second.kind === 'other') return false;
  const mine = read(state, first, size);
  const other = second.kind === 'immediate' ? undefined : read(state, second, size);
  const equal = other?.every((byte, i) => byte === mine[i]) === true;
  const zero = second.kind === 'immediate' && second.value === 0n;
  const { mnemonic } = insn;
  if ((mnemonic === 'xor' || mnemonic === 'sub') && equal) {
    write(
      state,
      first,
      Array.from({ length: size }, () => ZERO_BYTE),
    );
    state.flags = { of: '#0', sizeBytes: 8 };
    return true;
  }
  const keeps =
    (equal && ['or', 'and', 'test'].includes(mnemonic)) ||
    (zero && ['cmp', 'sub', 'or', 'xor', 'add'].includes(mnemonic));
  if (
    other !== undefined &&
    ['add', 'or', 'xor'].includes(mnemonic) &&
    mine.every((byte) => byte === ZERO_BYTE)
  ) {
    write(state, first, other);
    state.flags = { of: fromBytes(padded(other, 8)), sizeBytes: size };
    return true;
  }
  if (!keeps) return false;
  if (mnemonic !== 'test' && mnemonic !== 'cmp') write(state, first, mine);
  state.flags = { of: fromBytes(padded(mine, 8)), sizeBytes: size };
  return true;
}

const shortNames = new Map<string, string>();

/** Names of results would grow with every instruction; equal ones get equal short names instead. */
function shortName(name: string): string {
  const known = shortNames.get(name) ?? `x${shortNames.size}`;
  shortNames.set(name, known);
  return known;
}

/** Forgets the names of earlier proofs. */
export function newProof(): void {
  shortNames.clear();
}

/** Everything that the instruction writes gets a name that tells the instruction and its inputs. */
function opaque(state: State, insn: Instruction): void {
  if (insn.changesControl || !insn.ordinary) throw new Unprovable(insn.text);
  const memory = insn.operands.filter((operand) => operand.kind === 'memory');
  if (insn.reads.includes(undefined) || insn.writes.includes(undefined)) throw new Unprovable(insn.text);
  if (insn.touchesMemory && memory.length !== 1) throw new Unprovable(insn.text);
  const place = memory[0];
  const at = place === undefined ? undefined : (addressOf(state, place) as number | undefined);
  if (place !== undefined && at === undefined && insn.touchesMemory) throw new Unprovable(insn.text);
  const size = place?.sizeBytes ?? 0;
  const inputs = [
    // What is written in part keeps the rest.
    ...[...insn.reads, ...insn.writes].map((name) => state.get(name as string)),
    ...(at === undefined || !insn.touchesMemory ? [] : state.load(at, size)),
    ...(insn.readsFlags || insn.keepsFlags ? [flagsName(state.flags)] : []),
  ];
  const name = shortName(`${insn.exact} ${inputs.join(',')}`);
  if (insn.writes.includes('rsp') || insn.writes.includes('rbp')) throw new Unprovable(insn.text);
  for (const register of insn.writes) state.regs.set(register as string, `${name}_${register}`);
  if (at !== undefined && insn.storesMemory) {
    state.store(
      at,
      Array.from({ length: size }, (_, i) => `${name}_mem.${i}`),
    );
  }
  const [to, by] = insn.operands;
  const setsSign =
    insn.mnemonic === 'or' &&
    to !== undefined &&
    by?.kind === 'immediate' &&
    BigInt.asIntN(8 * sizeOf(to), by.value) < 0n;
  if (setsSign) state.flags = { of: `${NEGATIVE}${name}`, sizeBytes: 8 };
  else if (insn.changesFlags) state.flags = { of: undefined, name: `${name}_flags` };
}

export function flagsName(flags: Flags): string {
  if (flags.of === undefined) return flags.name;
  return `logic${flags.sizeBytes}${carryOf(flags) ? '+carry' : ''}_${flags.of}`;
}

/** The carry flag; undefined when it is not known. */
export function carryOf(flags: Flags): boolean | undefined {
  return flags.of === undefined ? undefined : flags.carry === true;
}

function sizeOf(operand: Operand): number {
  return operand.kind === 'register' || operand.kind === 'memory' ? operand.sizeBytes : 0;
}

function eight(value: string): string[] {
  return Array.from({ length: 8 }, (_, i) => byteOf(value, i));
}

function padded(bytes: readonly string[], size: number): string[] {
  return Array.from({ length: size }, (_, i) => bytes[i] ?? ZERO_BYTE);
}

function read(state: State, operand: Operand, size: number): string[] {
  switch (operand.kind) {
    case 'register': {
      if (operand.high) return [byteOf(state.get(operand.name), 1)];
      return eight(state.get(operand.name)).slice(0, operand.sizeBytes);
    }
    case 'memory': {
      const at = addressOf(state, operand);
      if (at === undefined) throw new Unprovable('reads memory that is not the frame');
      return state.load(at, operand.sizeBytes);
    }
    case 'immediate':
      return eight(constant(operand.value)).slice(0, size);
    case 'other':
      throw new Unprovable('an operand of another kind');
  }
}

function write(state: State, operand: Operand, bytes: readonly string[]): void {
  if (operand.kind === 'memory') {
    const at = addressOf(state, operand);
    if (at === undefined) throw new Unprovable('writes memory that is not the frame');
    state.store(at, bytes);
    return;
  }
  if (operand.kind !== 'register') throw new Unprovable('an operand of another kind');
  const before = eight(state.get(operand.name));
  const { sizeBytes, high } = operand;
  const after =
    sizeBytes === 4
      ? padded(bytes, 8)
      : high
        ? before.with(1, bytes[0] as string)
        : [...bytes, ...before.slice(sizeBytes)];
  state.regs.set(operand.name, fromBytes(after));
}

function addressOf(state: State, { base, indexed, displacement }: MemoryOperand): number | undefined {
  if (base === undefined || indexed) return undefined;
  const offset = state.frameOffset(state.get(base));
  return offset === undefined ? undefined : offset + Number(displacement);
}

function frameAddress(state: State, value: string): number {
  const offset = state.frameOffset(value);
  if (offset === undefined) throw new Unprovable(`${value} is no address in the frame`);
  return offset;
}

/** Moves rsp; where it is then. */
function moveStack(state: State, by: number): number {
  const at = frameAddress(state, state.get('rsp')) + by;
  state.regs.set('rsp', `fp${signed(at)}`);
  return at;
}

function signed(value: number): string {
  return value < 0 ? String(value) : `+${value}`;
}
