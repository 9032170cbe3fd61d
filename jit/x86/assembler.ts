import { Bug, EmitError, type Kaddr } from '../../lib/index.ts';
import type { Code, CodeSymbol, Insn, PatchSite, Reloc, RelocKind, Step } from './code.ts';
import {
  ALU_FORMS,
  type AluOp,
  CALL_RM,
  CC,
  CMOVE,
  CMPXCHG_RM_REG,
  type Cond,
  DEC_RM,
  type Digit,
  type Form,
  IMUL_REG_RM,
  IMUL_REG_RM_IMM8,
  IMUL_REG_RM_IMM32,
  INC_RM,
  JMP_RM,
  LEA,
  MOV_REG_RM,
  MOV_RM_IMM8,
  MOV_RM_IMM32,
  MOV_RM_REG,
  MOVSX_RM8,
  MOVSX_RM16,
  MOVSXD_RM32,
  MOVZX_RM8,
  MOVZX_RM16,
  SHIFT_1,
  SHIFT_CL,
  SHIFT_IMM8,
  SHIFTX_PP,
  type ShiftOp,
  type ShiftxOp,
  TEST_RM_IMM8,
  TEST_RM_IMM32,
  TEST_RM_REG,
  UNARY_RM,
  type UnaryOp,
  XADD_RM_REG,
  XCHG_RM_REG,
} from './encoding.ts';
import { type Mem, type OpSize, Reg, Sym } from './operand.ts';
import { fits8, fits32, OutOfRange, type Rm } from './rm.ts';

/** The distance field of a branch to a place that is not bound yet. */
interface Waiting {
  readonly field: number;
  readonly sizeBytes: 1 | 4;
  readonly next: Waiting | undefined;
}

/** A place in the code: bound once, referred to any number of times, before or after. */
export class Label {
  readonly name: string;
  /** Offset of the bound place; -1 while unbound. */
  offset = -1;
  /** Branches that wait for the place, the latest first. */
  waiting: Waiting | undefined = undefined;

  constructor(name: string) {
    this.name = name;
  }
}

/** Longest x86 instruction, bytes. */
const MAX_INSN = 15;

const LOCK = 0xf0;

/** mmmmm of a VEX prefix. */
const VEX_MAP_0F38 = 2;

const MOVSX_FORMS = { 1: MOVSX_RM8, 2: MOVSX_RM16, 4: MOVSXD_RM32 } as const;

// One 64-bit value seen as two halves, so that no arithmetic on the hot path is done in bigints.
const wide = new BigUint64Array(1);
const halves = new Uint32Array(wide.buffer);

/**
 * An x86-64 assembler for kernel emitters: exact encodings, destination first.
 *
 * - Which form comes out is never a guess: where x86 has several, there are several methods,
 *   or the operand says it (`ptr(rbp, -8, 'disp32')`).
 * - An instruction is emitted whole or not at all: operands are checked before the first byte counts.
 * - Every instruction belongs to a step (see `step`); outside one the assembler refuses.
 * - With `record`, every instruction's step and note, and every address-dependent field, are kept for
 *   listings; without, nothing but bytes is kept.
 *
 * The code is assembled for `origin`, so that branches to absolute addresses can be written at once.
 */
export class Assembler {
  readonly origin: Kaddr;
  readonly record: boolean;

  readonly #originLow: number;
  readonly #originHigh: number;
  #buf: Uint8Array;
  /** Bytes that count. */
  #len = 0;
  /** Write position within the instruction under construction. */
  #pos = 0;
  /** Position of a rip-relative displacement in the instruction under construction, or -1. */
  #ripField = -1;
  #ripSym: Sym | undefined;

  #depth = 0;
  #step: Step | undefined;
  readonly #insns: Insn[] = [];
  readonly #relocs: Reloc[] = [];
  readonly #sites: { name: string; offset: number; sizeBytes: number; target: Label | undefined }[] = [];
  readonly #symbols: CodeSymbol[] = [];
  #unbound = 0;

  /**
   * @param origin address of the first byte; it matters for branches to addresses and for `bytesTo`.
   * @param options.record keep provenance (default true).
   * @param options.buffer scratch memory to assemble into; it grows when too small.
   */
  constructor(origin: Kaddr, options: { record?: boolean; buffer?: Uint8Array } = {}) {
    this.origin = origin;
    this.record = options.record ?? true;
    this.#buf = options.buffer ?? new Uint8Array(1024);
    wide[0] = origin;
    this.#originLow = halves[0] as number;
    this.#originHigh = halves[1] as number;
  }

  /** Bytes emitted so far; the offset of the next instruction. */
  get offset(): number {
    return this.#len;
  }

  /** Bytes from here to the next address that is a multiple of `align` (a power of two). */
  bytesTo(align: number): number {
    return -(this.#originLow + this.#len) & (align - 1);
  }

  // -- steps ------------------------------------------------------------------------------------

  /** Opens a step; returns what `leave` needs. Emitters use `step()` from step.ts instead. */
  enter(name: string, about: string | undefined): Step | undefined {
    const outer = this.#step;
    this.#depth++;
    if (this.record) this.#step = { name, about, parent: outer };
    return outer;
  }

  leave(outer: Step | undefined): void {
    this.#depth--;
    this.#step = outer;
  }

  // -- moves ------------------------------------------------------------------------------------

  /** `mov dst, src` between registers of one width (opcode 89), or between a register and memory. */
  mov(dst: Reg | Mem, src: Reg | Mem, note?: string): void {
    if (src instanceof Reg) this.#rmReg(MOV_RM_REG, dst, src, note);
    else if (dst instanceof Reg) this.#rmReg(MOV_REG_RM, src, dst, note);
    else throw new EmitError('mov: memory to memory does not exist');
  }

  /** `mov r32, imm32` (b8+r), zero-extending; `value` 0 .. 2^32-1. */
  movImm32(dst: Reg, value: number, note?: string): void {
    this.#need(dst.size === 4, 'mov r32, imm32: a 32-bit register');
    if (!Number.isInteger(value) || value < 0 || value > 0xffff_ffff) {
      throw new OutOfRange(`mov r32, imm32: ${value} does not fit`);
    }
    this.#begin();
    if (dst.num >= 8) this.#byte(0x41);
    this.#byte(0xb8 + (dst.num & 7));
    this.#dword(value);
    this.#end(note);
  }

  /** `mov r64, imm64` (REX.W b8+r); `value` modulo 2^64. */
  movImm64(dst: Reg, value: bigint | Sym, note?: string): void {
    this.#need(dst.size === 8, 'mov r64, imm64: a 64-bit register');
    this.#begin();
    this.#byte(dst.num >= 8 ? 0x49 : 0x48);
    this.#byte(0xb8 + (dst.num & 7));
    if (value instanceof Sym) {
      this.#external('abs64', value);
      wide[0] = 0n;
    } else {
      wide[0] = value;
    }
    this.#dword(halves[0] as number);
    this.#dword(halves[1] as number);
    this.#end(note);
  }

  /** `mov dst, imm32` (c7 /0): sign-extended to 64 bits, cut to 16 and 8 bits (c6 /0). */
  movImm(dst: Reg | Mem, value: number | Sym, note?: string): void {
    const size = this.#sizeOf(dst);
    if (size === 1) {
      this.#immForm(MOV_RM_IMM8, 1, dst, value, 1, note);
      return;
    }
    this.#immForm(MOV_RM_IMM32, size, dst, value, size === 2 ? 2 : 4, note);
  }

  /** `movzx dst, src` from 1 or 2 bytes. */
  movzx(dst: Reg, src: Mem | Reg, from: 1 | 2, note?: string): void {
    this.#need(dst.size > from, 'movzx: a destination wider than the source');
    this.#need(src.size === from || src.size === 0, 'movzx: a source of the width named');
    this.#begin();
    this.#modrm(from === 1 ? MOVZX_RM8 : MOVZX_RM16, dst.size, dst.regRex, dst.reg, src.rm);
    this.#end(note);
  }

  /** `movsx dst, src` from 1, 2 or 4 bytes (movsxd). */
  movsx(dst: Reg, src: Mem | Reg, from: 1 | 2 | 4, note?: string): void {
    this.#need(dst.size > from, 'movsx: a destination wider than the source');
    this.#need(src.size === from || src.size === 0, 'movsx: a source of the width named');
    this.#begin();
    this.#modrm(MOVSX_FORMS[from], dst.size, dst.regRex, dst.reg, src.rm);
    this.#end(note);
  }

  /** `movsx dst, src` from a byte register, with a REX prefix even where it says nothing. */
  movsxByteRex(dst: Reg, src: Reg, note?: string): void {
    this.#need(dst.size > 2 && src.size === 1, 'movsx: a byte register into 32 or 64 bits');
    this.#begin();
    this.#modrm(MOVSX_RM8, dst.size, dst.regRex | 0x40, dst.reg, src.rm);
    this.#end(note);
  }

  /** `cmove dst, src`: moved only if the last comparison was equal. */
  cmove(dst: Reg, src: Reg, note?: string): void {
    this.#need(dst.size === src.size && dst.size > 1, 'cmove: registers of one width, 16 bits or more');
    this.#begin();
    this.#modrm(CMOVE, dst.size, dst.regRex, dst.reg, src.rm);
    this.#end(note);
  }

  /** `bswap r32` or `bswap r64`. */
  bswap(reg: Reg, note?: string): void {
    this.#need(reg.size >= 4, 'bswap: a 32- or 64-bit register');
    const rex = (reg.size === 8 ? 0x48 : 0) | (reg.num >= 8 ? 0x41 : 0);
    this.#begin();
    if (rex !== 0) this.#byte(rex);
    this.#byte(0x0f);
    this.#byte(0xc8 + (reg.num & 7));
    this.#end(note);
  }

  /** `lea dst, [mem]`. */
  lea(dst: Reg, src: Mem, note?: string): void {
    this.#need(dst.size > 1, 'lea: a 16-, 32- or 64-bit register');
    this.#need(!src.gs, 'lea: no segment');
    this.#begin();
    this.#modrm(LEA, dst.size, dst.regRex, dst.reg, src.rm);
    this.#end(note);
  }

  push(reg: Reg, note?: string): void {
    this.#pushPop(0x50, reg, note);
  }

  pop(reg: Reg, note?: string): void {
    this.#pushPop(0x58, reg, note);
  }

  // -- arithmetic -------------------------------------------------------------------------------

  /** `op dst, src` with a register on at least one side; register to register takes the `r/m, r` form. */
  alu(op: AluOp, dst: Reg | Mem, src: Reg | Mem, note?: string): void {
    if (src instanceof Reg) this.#rmReg(ALU_FORMS[op].rmReg, dst, src, note);
    else if (dst instanceof Reg) this.#rmReg(ALU_FORMS[op].regRm, src, dst, note);
    else throw new EmitError(`${op}: memory to memory does not exist`);
  }

  /** `op dst, imm8` (83 /n, or 80 /n for bytes), sign-extended. */
  aluImm8(op: AluOp, dst: Reg | Mem, value: number, note?: string): void {
    const size = this.#sizeOf(dst);
    this.#immForm(size === 1 ? ALU_FORMS[op].byteImm8 : ALU_FORMS[op].imm8, size, dst, value, 1, note);
  }

  /** `op dst, imm32` (81 /n), sign-extended to 64 bits; 16-bit operands take an imm16. */
  aluImm32(op: AluOp, dst: Reg | Mem, value: number, note?: string): void {
    const size = this.#sizeOf(dst);
    this.#need(size !== 1, `${op}: bytes have no 32-bit immediate`);
    this.#immForm(ALU_FORMS[op].imm32, size, dst, value, size === 2 ? 2 : 4, note);
  }

  /** `op eax, imm32` or `op rax, imm32` (05 + 8n), sign-extended: the form that only the accumulator has. */
  aluAccImm32(op: AluOp, dst: Reg, value: number, note?: string): void {
    this.#need(dst.num === 0 && dst.size >= 4, `${op}: eax or rax`);
    if (!Number.isInteger(value) || !fits32(value)) throw new OutOfRange(`imm32: ${value} does not fit`);
    this.#begin();
    if (dst.size === 8) this.#byte(0x48);
    this.#byte(ALU_FORMS[op].accImm);
    this.#dword(value);
    this.#end(note);
  }

  /** neg; and mul, div, idiv of (e/r)dx:(e/r)ax. */
  unary(op: UnaryOp, dst: Reg | Mem, note?: string): void {
    this.#rmDigit(UNARY_RM[op], dst, note);
  }

  /** `imul dst, src` (0f af): the low half of the product. */
  imul(dst: Reg, src: Reg | Mem, note?: string): void {
    this.#need(
      dst.size > 1 && (src.size === dst.size || src.size === 0),
      'imul: 16 bits or more, of one width',
    );
    this.#begin();
    this.#modrm(IMUL_REG_RM, dst.size, dst.regRex, dst.reg, src.rm);
    this.#end(note);
  }

  /** `imul dst, src, imm8` (6b), sign-extended. */
  imulImm8(dst: Reg, src: Reg, value: number, note?: string): void {
    if (!Number.isInteger(value) || !fits8(value)) throw new OutOfRange(`imm8: ${value} does not fit`);
    this.#imulBegin(IMUL_REG_RM_IMM8, dst, src);
    this.#byte(value);
    this.#end(note);
  }

  /** `imul dst, src, imm32` (69), sign-extended. */
  imulImm32(dst: Reg, src: Reg, value: number, note?: string): void {
    if (!Number.isInteger(value) || !fits32(value)) throw new OutOfRange(`imm32: ${value} does not fit`);
    this.#imulBegin(IMUL_REG_RM_IMM32, dst, src);
    this.#dword(value);
    this.#end(note);
  }

  /** eax sign-extended into edx:eax. */
  cdq(note?: string): void {
    this.#fixed(0x99, note);
  }

  /** rax sign-extended into rdx:rax. */
  cqo(note?: string): void {
    this.raw([0x48, 0x99], note);
  }

  test(dst: Reg | Mem, src: Reg, note?: string): void {
    this.#rmReg(TEST_RM_REG, dst, src, note);
  }

  /** `test dst, imm` (f7 /0, or f6 /0 for bytes). */
  testImm(dst: Reg | Mem, value: number, note?: string): void {
    const size = this.#sizeOf(dst);
    if (size === 1) this.#immForm(TEST_RM_IMM8, 1, dst, value, 1, note);
    else this.#immForm(TEST_RM_IMM32, size, dst, value, size === 2 ? 2 : 4, note);
  }

  /** `op dst, imm8` (c1 /n, or c0 /n for bytes): shifts by a constant. */
  shiftImm8(op: ShiftOp, dst: Reg | Mem, count: number, note?: string): void {
    this.#immForm(SHIFT_IMM8[op], this.#sizeOf(dst), dst, count, 1, note);
  }

  /** `op dst, 1` (d1 /n). */
  shift1(op: ShiftOp, dst: Reg | Mem, note?: string): void {
    this.#rmDigit(SHIFT_1[op], dst, note);
  }

  /** `op dst, cl` (d3 /n). */
  shiftCl(op: ShiftOp, dst: Reg | Mem, note?: string): void {
    this.#rmDigit(SHIFT_CL[op], dst, note);
  }

  /** `op dst, src, count` in registers (BMI2, three-byte VEX prefix). */
  shiftx(op: ShiftxOp, dst: Reg, src: Reg, count: Reg, note?: string): void {
    const { size } = dst;
    this.#need(size >= 4 && src.size === size && count.size === size, `${op}: registers of 32 or of 64 bits`);
    this.#begin();
    this.#byte(0xc4);
    // R, X and B, as in a REX prefix but inverted; then the map
    this.#byte((dst.num >= 8 ? 0 : 0x80) | 0x40 | (src.num >= 8 ? 0 : 0x20) | VEX_MAP_0F38);
    this.#byte((size === 8 ? 0x80 : 0) | ((~count.num & 15) << 3) | SHIFTX_PP[op]);
    this.#byte(0xf7);
    this.#byte(src.rm.modrm | dst.reg);
    this.#end(note);
  }

  inc(dst: Reg | Mem, note?: string): void {
    this.#rmDigit(INC_RM, dst, note);
  }

  dec(dst: Reg | Mem, note?: string): void {
    this.#rmDigit(DEC_RM, dst, note);
  }

  // -- atomics ----------------------------------------------------------------------------------

  lockInc(dst: Mem, note?: string): void {
    this.#rmDigit(INC_RM, dst, note, LOCK);
  }

  lockDec(dst: Mem, note?: string): void {
    this.#rmDigit(DEC_RM, dst, note, LOCK);
  }

  /** `lock op [mem], reg`, for an op that writes. */
  lockAlu(op: Exclude<AluOp, 'cmp'>, dst: Mem, src: Reg, note?: string): void {
    this.#rmReg(ALU_FORMS[op].rmReg, dst, src, note, LOCK);
  }

  xadd(dst: Mem, src: Reg, note?: string): void {
    this.#rmReg(XADD_RM_REG, dst, src, note);
  }

  lockXadd(dst: Mem, src: Reg, note?: string): void {
    this.#rmReg(XADD_RM_REG, dst, src, note, LOCK);
  }

  lockCmpxchg(dst: Mem, src: Reg, note?: string): void {
    this.#rmReg(CMPXCHG_RM_REG, dst, src, note, LOCK);
  }

  /** `xchg [mem], reg`: locked by itself. */
  xchg(dst: Mem, src: Reg, note?: string): void {
    this.#rmReg(XCHG_RM_REG, dst, src, note);
  }

  /** `lock xchg [mem], reg`: the prefix changes nothing. */
  lockXchg(dst: Mem, src: Reg, note?: string): void {
    this.#rmReg(XCHG_RM_REG, dst, src, note, LOCK);
  }

  lfence(note?: string): void {
    this.raw([0x0f, 0xae, 0xe8], note);
  }

  pause(note?: string): void {
    this.raw([0xf3, 0x90], note);
  }

  // -- control flow -----------------------------------------------------------------------------

  label(name: string): Label {
    return new Label(name);
  }

  /** Binds a label here and fills every branch that waited for it. Throws OutOfRange when a short one cannot reach. */
  bind(label: Label): void {
    if (label.offset >= 0) throw new Bug(`label ${label.name} is bound twice`);
    const here = this.#len;
    for (let branch = label.waiting; branch !== undefined; branch = branch.next) {
      if (branch.sizeBytes === 1) this.#shortDistance(branch.field, here, label);
    }
    for (let branch = label.waiting; branch !== undefined; branch = branch.next) {
      const distance = here - (branch.field + branch.sizeBytes);
      if (branch.sizeBytes === 1) this.#buf[branch.field] = distance;
      else this.#patch32(branch.field, distance);
      this.#unbound--;
    }
    label.offset = here;
    label.waiting = undefined;
  }

  /** `call rel32` to an address; `name` is what listings call it. Throws OutOfRange beyond +-2 GiB. */
  call(target: Kaddr, name: string, note?: string): void {
    this.#begin();
    this.#byte(0xe8);
    this.#relTo(target, name, 'call');
    this.#end(note);
  }

  /** Whether a 5-byte call or jump emitted here would reach the address. */
  reaches(target: Kaddr): boolean {
    return fits32(this.#distance(target, this.#len + 5));
  }

  /** `call rel32` to a symbol that the linker resolves. */
  callSym(symbol: Sym, note?: string): void {
    this.#begin();
    this.#byte(0xe8);
    this.#external('pc32', new Sym(symbol.name, symbol.addend - 4));
    this.#dword(0);
    this.#end(note);
  }

  /** `call rel32` to a place in this code. */
  callLabel(target: Label, note?: string): void {
    this.#begin();
    this.#byte(0xe8);
    this.#near(target);
    this.#end(note);
  }

  /** `call r/m64`. */
  callIndirect(target: Reg | Mem, note?: string): void {
    this.#indirect(CALL_RM, target, note);
  }

  /** `jmp rel32` to an address. */
  jmp(target: Kaddr, name: string, note?: string): void {
    this.#begin();
    this.#byte(0xe9);
    this.#relTo(target, name, 'jmp');
    this.#end(note);
  }

  /** `jmp r/m64`. */
  jmpIndirect(target: Reg | Mem, note?: string): void {
    this.#indirect(JMP_RM, target, note);
  }

  jmpShort(target: Label, note?: string): void {
    this.#begin();
    this.#byte(0xeb);
    this.#short(target);
    this.#end(note);
  }

  jmpNear(target: Label, note?: string): void {
    this.#begin();
    this.#byte(0xe9);
    this.#near(target);
    this.#end(note);
  }

  /** `jcc rel8`. */
  jccShort(cond: Cond, target: Label, note?: string): void {
    this.#begin();
    this.#byte(0x70 + CC[cond]);
    this.#short(target);
    this.#end(note);
  }

  /** `jcc rel32`. */
  jccNear(cond: Cond, target: Label, note?: string): void {
    this.#begin();
    this.#byte(0x0f);
    this.#byte(0x80 + CC[cond]);
    this.#near(target);
    this.#end(note);
  }

  /** `jmp rel8` over a number of bytes, counted from its own end. */
  jmpShortBy(distance: number, note?: string): void {
    if (!fits8(distance)) throw new OutOfRange(`short jump: ${distance} does not fit`);
    this.#begin();
    this.#byte(0xeb);
    this.#byte(distance);
    this.#end(note);
  }

  /** `jmp rel32` over a number of bytes. */
  jmpNearBy(distance: number, note?: string): void {
    if (!fits32(distance)) throw new OutOfRange(`jump: ${distance} does not fit`);
    this.#begin();
    this.#byte(0xe9);
    this.#dword(distance);
    this.#end(note);
  }

  /** `jcc rel8` over a number of bytes. */
  jccShortBy(cond: Cond, distance: number, note?: string): void {
    if (!fits8(distance)) throw new OutOfRange(`short branch: ${distance} does not fit`);
    this.#begin();
    this.#byte(0x70 + CC[cond]);
    this.#byte(distance);
    this.#end(note);
  }

  /** `jcc rel32` over a number of bytes. */
  jccNearBy(cond: Cond, distance: number, note?: string): void {
    if (!fits32(distance)) throw new OutOfRange(`branch: ${distance} does not fit`);
    this.#begin();
    this.#byte(0x0f);
    this.#byte(0x80 + CC[cond]);
    this.#dword(distance);
    this.#end(note);
  }

  leave64(note?: string): void {
    this.#fixed(0xc9, note);
  }

  ret(note?: string): void {
    this.#fixed(0xc3, note);
  }

  int3(note?: string): void {
    this.#fixed(0xcc, note);
  }

  hlt(note?: string): void {
    this.#fixed(0xf4, note);
  }

  pushfq(note?: string): void {
    this.#fixed(0x9c, note);
  }

  popfq(note?: string): void {
    this.#fixed(0x9d, note);
  }

  ud2(note?: string): void {
    this.raw([0x0f, 0x0b], note);
  }

  /** One instruction whose bytes are given: nops and other fixed forms that the caller has chosen. */
  raw(bytes: readonly number[], note?: string): void {
    this.#need(bytes.length > 0 && bytes.length <= MAX_INSN, 'raw: 1 to 15 bytes');
    this.#begin();
    for (const value of bytes) this.#byte(value);
    this.#end(note);
  }

  // -- sites and symbols ------------------------------------------------------------------------

  /** Names the next `sizeBytes` bytes as a place that is patched while live; `target` is where it may jump. */
  site(name: string, sizeBytes: number, target?: Label): void {
    this.#sites.push({ name, offset: this.#len, sizeBytes, target });
  }

  /** Names the bytes from `start` to here. */
  symbol(name: string, start: number): void {
    this.#symbols.push({ name, offset: start, sizeBytes: this.#len - start });
  }

  // -- result -----------------------------------------------------------------------------------

  /** The bytes alone, copied out of the scratch memory. */
  bytes(): Uint8Array {
    this.#settled();
    return this.#buf.slice(0, this.#len);
  }

  /** Everything. Throws Bug when a label was left unbound or the assembler did not record. */
  finish(): Code {
    if (!this.record) throw new Bug('finish() needs an assembler that records');
    const sites = this.#sites.map(
      ({ target, ...site }): PatchSite => ({ ...site, targetOffset: target?.offset }),
    );
    return {
      bytes: this.bytes(),
      insns: this.#insns,
      relocs: this.#relocs,
      sites,
      symbols: this.#symbols,
    };
  }

  /** Notes that 8 or 4 bytes ending here hold an address that was chosen by the caller; listings name it. */
  pointer(kind: RelocKind, target: Kaddr, name: string): void {
    if (!this.record) return;
    this.#relocs.push({
      offset: this.#len - (kind === 'abs64' ? 8 : 4),
      kind,
      symbol: name,
      addend: 0,
      target,
    });
  }

  // -- machinery --------------------------------------------------------------------------------

  #settled(): void {
    if (this.#unbound !== 0) throw new Bug(`${this.#unbound} branches wait for labels that were never bound`);
  }

  #need(condition: boolean, what: string): void {
    if (!condition) throw new EmitError(`not encodable; wanted ${what}`);
  }

  #sizeOf(operand: Reg | Mem): OpSize {
    if (operand.size === 0)
      throw new EmitError('a memory operand without width; say byte(), word(), dword() or qword()');
    return operand.size;
  }

  #begin(): void {
    if (this.#depth === 0) throw new Bug('an instruction was emitted outside a step');
    if (this.#buf.length < this.#len + MAX_INSN + 1) {
      const grown = new Uint8Array(this.#buf.length * 2 + MAX_INSN + 1);
      grown.set(this.#buf);
      this.#buf = grown;
    }
    this.#pos = this.#len;
    this.#ripField = -1;
  }

  #byte(value: number): void {
    this.#buf[this.#pos++] = value;
  }

  #word(value: number): void {
    const buf = this.#buf;
    buf[this.#pos++] = value;
    buf[this.#pos++] = value >> 8;
  }

  #dword(value: number): void {
    const buf = this.#buf;
    const pos = this.#pos;
    buf[pos] = value;
    buf[pos + 1] = value >> 8;
    buf[pos + 2] = value >> 16;
    buf[pos + 3] = value >> 24;
    this.#pos = pos + 4;
  }

  /** The instruction is whole: now it counts. */
  #end(note: string | undefined): void {
    if (this.#ripField >= 0) this.#ripRelative(this.#ripSym as Sym);
    if (this.record) this.#insns.push({ offset: this.#len, step: this.#step as Step, note });
    this.#len = this.#pos;
  }

  /** rip is the address after the instruction, immediate included: only now is it known. */
  #ripRelative({ name, addend, address }: Sym): void {
    const offset = this.#ripField;
    if (address !== undefined) {
      const distance = this.#distance(address, this.#pos) + addend;
      if (!fits32(distance)) throw new OutOfRange(`${name}: more than 2 GiB away`);
      this.#patch32(offset, distance);
    }
    this.#relocs.push({
      offset,
      kind: 'pc32',
      symbol: name,
      addend: addend - (this.#pos - offset),
      target: address,
    });
  }

  #fixed(opcode: number, note: string | undefined): void {
    this.#begin();
    this.#byte(opcode);
    this.#end(note);
  }

  #pushPop(opcode: number, reg: Reg, note: string | undefined): void {
    this.#need(reg.size === 8, 'push / pop: a 64-bit register');
    this.#begin();
    if (reg.num >= 8) this.#byte(0x41);
    this.#byte(opcode + (reg.num & 7));
    this.#end(note);
  }

  #external(kind: RelocKind, symbol: Sym): void {
    this.#relocs.push({
      offset: this.#pos,
      kind,
      symbol: symbol.name,
      addend: symbol.addend,
      target: undefined,
    });
  }

  /** From the byte at `offset` to an absolute address, modulo 2^64, without bigint arithmetic. */
  #distance(target: Kaddr, offset: number): number {
    wide[0] = target;
    const low = (halves[0] as number) - this.#originLow - offset;
    const high = ((halves[1] as number) - this.#originHigh) | 0;
    return high * 0x1_0000_0000 + low;
  }

  /** rel32 from the end of this field to an absolute address. */
  #relTo(target: Kaddr, name: string, what: string): void {
    const field = this.#pos;
    const distance = this.#distance(target, field + 4);
    if (!fits32(distance)) throw new OutOfRange(`${what} ${name}: the target is more than 2 GiB away`);
    if (this.record) this.#relocs.push({ offset: field, kind: 'pc32', symbol: name, addend: -4, target });
    this.#dword(distance);
  }

  #near(label: Label): void {
    const field = this.#pos;
    if (label.offset >= 0) {
      this.#dword(label.offset - (field + 4));
      return;
    }
    this.#await(label, 4);
    this.#dword(0);
  }

  #short(label: Label): void {
    if (label.offset >= 0) {
      this.#byte(this.#shortDistance(this.#pos, label.offset, label));
      return;
    }
    this.#await(label, 1);
    this.#byte(0);
  }

  #await(label: Label, sizeBytes: 1 | 4): void {
    label.waiting = { field: this.#pos, sizeBytes, next: label.waiting };
    this.#unbound++;
  }

  #shortDistance(field: number, to: number, label: Label): number {
    const distance = to - (field + 1);
    if (!fits8(distance)) throw new OutOfRange(`short branch to ${label.name}: ${distance} does not fit`);
    return distance;
  }

  #patch32(field: number, value: number): void {
    const buf = this.#buf;
    buf[field] = value;
    buf[field + 1] = value >> 8;
    buf[field + 2] = value >> 16;
    buf[field + 3] = value >> 24;
  }

  /** An r/m and a register operand of one width, in whichever direction `form` says. */
  #rmReg(form: Form, rm: Reg | Mem, reg: Reg, note: string | undefined, prefix = 0): void {
    if (rm.size !== reg.size && rm.size !== 0) {
      throw new EmitError(`operands of different width: ${rm.size * 8} bits and ${reg.name}`);
    }
    this.#begin();
    if (prefix !== 0) this.#byte(prefix);
    this.#modrm(form, reg.size, reg.regRex, reg.reg, rm.rm);
    this.#end(note);
  }

  /** An r/m operand alone. */
  #rmDigit(form: Digit, rm: Reg | Mem, note: string | undefined, prefix = 0): void {
    const size = this.#sizeOf(rm);
    this.#begin();
    if (prefix !== 0) this.#byte(prefix);
    this.#modrm(form, size, 0, form.ext << 3, rm.rm);
    this.#end(note);
  }

  /** All of an imul with an immediate but the immediate. */
  #imulBegin(form: Form, dst: Reg, src: Reg): void {
    this.#need(dst.size >= 4 && src.size === dst.size, 'imul: 32- or 64-bit registers of one width');
    this.#begin();
    this.#modrm(form, dst.size, dst.regRex, dst.reg, src.rm);
  }

  /** A branch to an address in an r/m operand: always 64 bits, without REX.W. */
  #indirect(form: Digit, target: Reg | Mem, note: string | undefined): void {
    this.#need(target.size === 8 || target.size === 0, 'an indirect branch: a 64-bit target');
    this.#begin();
    this.#modrm(form, 4, 0, form.ext << 3, target.rm);
    this.#end(note);
  }

  /** As `#rmDigit`, with an immediate of `bytes` bytes behind. */
  #immForm(
    form: Digit,
    size: OpSize,
    rm: Reg | Mem,
    value: number | Sym,
    bytes: 1 | 2 | 4,
    note: string | undefined,
  ): void {
    if (typeof value === 'number') {
      const half = bytes === 1 ? 0x80 : bytes === 2 ? 0x8000 : 0x8000_0000;
      // A field of the operand's width may be written signed or unsigned; a narrower one is sign-extended.
      const end = bytes === size ? 2 * half : half;
      if (!Number.isInteger(value) || value < -half || value >= end) {
        throw new OutOfRange(`imm${bytes * 8}: ${value} does not fit`);
      }
    } else {
      this.#need(bytes === 4, 'a symbol needs a 32-bit immediate');
    }
    this.#begin();
    this.#modrm(form, size, 0, form.ext << 3, rm.rm);
    if (value instanceof Sym) {
      this.#external(size === 8 ? 'abs32s' : 'abs32', value);
      this.#dword(0);
    } else if (bytes === 1) this.#byte(value);
    else if (bytes === 2) this.#word(value);
    else this.#dword(value);
    this.#end(note);
  }

  /**
   * Prefixes, opcode, ModRM, SIB, displacement; no immediate.
   *
   * @param regRex, reg what the register operand or the /digit puts into REX and ModRM.
   */
  #modrm(form: Form, size: OpSize, regRex: number, reg: number, rm: Rm): void {
    const buf = this.#buf;
    let pos = this.#pos;
    const rex = (size === 8 ? 0x48 : 0) | regRex | rm.rex;
    if (rm.gs) buf[pos++] = 0x65;
    if (size === 2) buf[pos++] = 0x66;
    if (rex !== 0) buf[pos++] = rex;
    if (form.map !== undefined) buf[pos++] = form.map;
    buf[pos++] = size === 1 && form.narrow ? form.op - 1 : form.op;
    buf[pos++] = rm.modrm | reg;
    if (rm.sib >= 0) buf[pos++] = rm.sib;
    this.#pos = pos;
    if (rm.dispBytes === 1) this.#byte(rm.disp);
    else if (rm.dispBytes === 4) this.#disp32(rm);
  }

  #disp32(rm: Rm): void {
    if (rm.rip !== undefined) {
      this.#ripField = this.#pos;
      this.#ripSym = rm.rip;
    }
    this.#dword(rm.disp);
  }
}
