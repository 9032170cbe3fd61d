import { Bug, EmitError, type Kaddr } from '../../lib/index.ts';
import type { Code, CodeSymbol, Insn, PatchSite, Reloc, RelocKind, Step } from './code.ts';
import {
  ALU_FORMS,
  type AluOp,
  CALL_RM,
  CC,
  CMPXCHG_RM_REG,
  type Cond,
  DEC_RM,
  type Digit,
  type Form,
  INC_RM,
  JMP_RM,
  LEA,
  MOV_REG_RM,
  MOV_RM_IMM8,
  MOV_RM_IMM32,
  MOV_RM_REG,
  MOVZX_RM8,
  MOVZX_RM16,
  TEST_RM_IMM8,
  TEST_RM_IMM32,
  TEST_RM_REG,
  XADD_RM_REG,
  XCHG_RM_REG,
} from './encoding.ts';
import { type Mem, type OpSize, Reg, Sym } from './operand.ts';

/** A displacement, immediate or branch distance that does not fit its field. */
export class OutOfRange extends EmitError {
  override readonly name: string = 'OutOfRange';
}

/** A place in the code: bound once, referred to any number of times, before or after. */
export class Label {
  readonly name: string;
  /** Offset of the bound place; -1 while unbound. */
  offset = -1;
  /** Fields that wait for the place: offset of the field, negative (~offset) for 1-byte fields. */
  readonly waiting: number[] = [];

  constructor(name: string) {
    this.name = name;
  }
}

/** Longest x86 instruction, bytes. */
const MAX_INSN = 15;

// One 64-bit value seen as two halves, so that no arithmetic on the hot path is done in bigints.
const wide = new BigUint64Array(1);
const halves = new Uint32Array(wide.buffer);

const fits8 = (value: number): boolean => value >= -128 && value <= 127;
const fits32 = (value: number): boolean => value >= -0x8000_0000 && value <= 0x7fff_ffff;

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
   * @param origin address of the first byte; it matters for branches to addresses and for `padTo`.
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
    if (src instanceof Reg) this.#rm(MOV_RM_REG, src.size, src.num, dst, src, note);
    else if (dst instanceof Reg) this.#rm(MOV_REG_RM, dst.size, dst.num, src, dst, note);
    else throw new EmitError('mov: memory to memory does not exist');
  }

  /** `mov r32, imm32` (b8+r), zero-extending; `value` 0 .. 2^32-1. */
  movImm32(dst: Reg, value: number, note?: string): void {
    this.#need(dst.size === 4, 'mov r32, imm32: a 32-bit register');
    this.#range(value >= 0 && value <= 0xffff_ffff, 'mov r32, imm32', value);
    this.#begin();
    if (dst.num >= 8) this.#byte(0x41);
    this.#byte(0xb8 + (dst.num & 7));
    this.#dword(value);
    this.#end(note);
  }

  /** `mov r64, imm64` (REX.W b8+r). */
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
    const byteSource = src instanceof Reg && from === 1 ? src : undefined;
    this.#need(!(src instanceof Reg) || src.size === from, 'movzx: a source register of the source width');
    this.#rm(from === 1 ? MOVZX_RM8 : MOVZX_RM16, dst.size, dst.num, src, byteSource, note, false);
  }

  /** `lea dst, [mem]`. */
  lea(dst: Reg, src: Mem, note?: string): void {
    this.#need(dst.size > 1, 'lea: a 16-, 32- or 64-bit register');
    this.#need(!src.gs, 'lea: no segment');
    this.#rm(LEA, dst.size, dst.num, src, undefined, note);
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
    if (src instanceof Reg) this.#rm(ALU_FORMS[op].rmReg, src.size, src.num, dst, src, note);
    else if (dst instanceof Reg) this.#rm(ALU_FORMS[op].regRm, dst.size, dst.num, src, dst, note);
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

  test(dst: Reg | Mem, src: Reg, note?: string): void {
    this.#rm(TEST_RM_REG, src.size, src.num, dst, src, note);
  }

  /** `test dst, imm` (f7 /0, or f6 /0 for bytes). */
  testImm(dst: Reg | Mem, value: number, note?: string): void {
    const size = this.#sizeOf(dst);
    if (size === 1) this.#immForm(TEST_RM_IMM8, 1, dst, value, 1, note);
    else this.#immForm(TEST_RM_IMM32, size, dst, value, size === 2 ? 2 : 4, note);
  }

  inc(dst: Reg | Mem, note?: string): void {
    this.#ext(INC_RM, dst, note);
  }

  dec(dst: Reg | Mem, note?: string): void {
    this.#ext(DEC_RM, dst, note);
  }

  // -- atomics ----------------------------------------------------------------------------------

  lockInc(dst: Mem, note?: string): void {
    this.#locked(INC_RM, this.#sizeOf(dst), INC_RM.ext, dst, undefined, note);
  }

  lockDec(dst: Mem, note?: string): void {
    this.#locked(DEC_RM, this.#sizeOf(dst), DEC_RM.ext, dst, undefined, note);
  }

  xadd(dst: Mem, src: Reg, note?: string): void {
    this.#rm(XADD_RM_REG, src.size, src.num, dst, src, note);
  }

  lockXadd(dst: Mem, src: Reg, note?: string): void {
    this.#locked(XADD_RM_REG, src.size, src.num, dst, src, note);
  }

  lockCmpxchg(dst: Mem, src: Reg, note?: string): void {
    this.#locked(CMPXCHG_RM_REG, src.size, src.num, dst, src, note);
  }

  /** `xchg [mem], reg`: locked by itself. */
  xchg(dst: Mem, src: Reg, note?: string): void {
    this.#rm(XCHG_RM_REG, src.size, src.num, dst, src, note);
  }

  // -- control flow -----------------------------------------------------------------------------

  label(name: string): Label {
    return new Label(name);
  }

  /** Binds a label here and fills every branch that waited for it. Throws OutOfRange when a short one cannot reach. */
  bind(label: Label): void {
    if (label.offset >= 0) throw new Bug(`label ${label.name} is bound twice`);
    label.offset = this.#len;
    for (const field of label.waiting) {
      if (field >= 0) this.#patch32(field, this.#len - (field + 4));
      else this.#patch8(~field, this.#len - (~field + 1), label);
    }
    this.#unbound -= label.waiting.length;
    label.waiting.length = 0;
  }

  /** `call rel32` to an address; `name` is what listings call it. Throws OutOfRange beyond +-2 GiB. */
  call(target: Kaddr, name: string, note?: string): void {
    this.#begin();
    this.#byte(0xe8);
    this.#relTo(target, name, 'call');
    this.#end(note);
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
    this.#rm(CALL_RM, 4, CALL_RM.ext, target, undefined, note);
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
    this.#rm(JMP_RM, 4, JMP_RM.ext, target, undefined, note);
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

  #range(condition: boolean, what: string, value: number): void {
    if (!condition) throw new OutOfRange(`${what}: ${value} does not fit`);
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
    if (this.#ripField >= 0) {
      // rip is the address after the instruction, immediate included
      const symbol = this.#ripSym as Sym;
      const behind = this.#pos - this.#ripField;
      this.#relocs.push({
        offset: this.#ripField,
        kind: 'pc32',
        symbol: symbol.name,
        addend: symbol.addend - behind,
        target: undefined,
      });
    }
    if (this.record) this.#insns.push({ offset: this.#len, step: this.#step as Step, note });
    this.#len = this.#pos;
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

  /** rel32 from the end of this field to an absolute address, modulo 2^64, without bigint arithmetic. */
  #relTo(target: Kaddr, name: string, what: string): void {
    const field = this.#pos;
    wide[0] = target;
    const low = (halves[0] as number) - this.#originLow - field - 4;
    const high = ((halves[1] as number) - this.#originHigh) | 0;
    const distance = high * 0x1_0000_0000 + low;
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
    label.waiting.push(field);
    this.#unbound++;
    this.#dword(0);
  }

  #short(label: Label): void {
    const field = this.#pos;
    if (label.offset >= 0) {
      const distance = label.offset - (field + 1);
      this.#range(fits8(distance), `short branch to ${label.name}`, distance);
      this.#byte(distance);
      return;
    }
    label.waiting.push(~field);
    this.#unbound++;
    this.#byte(0);
  }

  #patch32(field: number, value: number): void {
    const buf = this.#buf;
    buf[field] = value;
    buf[field + 1] = value >> 8;
    buf[field + 2] = value >> 16;
    buf[field + 3] = value >> 24;
  }

  #patch8(field: number, value: number, label: Label): void {
    this.#range(fits8(value), `short branch to ${label.name}`, value);
    this.#buf[field] = value;
  }

  #locked(
    form: Form,
    size: OpSize,
    reg: number,
    rm: Mem,
    byteReg: Reg | undefined,
    note: string | undefined,
  ): void {
    this.#begin();
    this.#byte(0xf0);
    this.#modrm(form, size, reg, rm, byteReg, true);
    this.#end(note);
  }

  /** prefixes, opcode, ModRM, SIB, displacement; no immediate. */
  #rm(
    form: Form,
    size: OpSize,
    reg: number,
    rm: Reg | Mem,
    regOperand: Reg | undefined,
    note: string | undefined,
    sameWidth = true,
  ): void {
    this.#begin();
    this.#modrm(form, size, reg, rm, regOperand, sameWidth);
    this.#end(note);
  }

  /** A form with one operand and a /digit. */
  #ext(form: Digit, dst: Reg | Mem, note: string | undefined): void {
    this.#rm(form, this.#sizeOf(dst), form.ext, dst, undefined, note);
  }

  /** As `#rm`, with an immediate of `bytes` bytes behind. */
  #immForm(
    form: Digit,
    size: OpSize,
    rm: Reg | Mem,
    value: number | Sym,
    bytes: 1 | 2 | 4,
    note: string | undefined,
  ): void {
    if (typeof value === 'number') {
      const bits = bytes * 8;
      // A narrow operand may be written signed or unsigned; a 64-bit one is sign-extended, so it must be signed.
      const top = bytes === size ? 2 ** bits - 1 : 2 ** (bits - 1) - 1;
      this.#range(
        Number.isInteger(value) && value >= -(2 ** (bits - 1)) && value <= top,
        `imm${bits}`,
        value,
      );
    } else {
      this.#need(bytes === 4, 'a symbol needs a 32-bit immediate');
    }
    this.#begin();
    this.#modrm(form, size, form.ext, rm, undefined, true);
    if (value instanceof Sym) {
      this.#external(size === 8 ? 'abs32s' : 'abs32', value);
      this.#dword(0);
    } else if (bytes === 1) this.#byte(value);
    else if (bytes === 2) this.#word(value);
    else this.#dword(value);
    this.#end(note);
  }

  #modrm(
    form: Form,
    size: OpSize,
    reg: number,
    rm: Reg | Mem,
    regOperand: Reg | undefined,
    sameWidth: boolean,
  ): void {
    // spl, bpl, sil, dil need a REX prefix to be told from ah..bh
    let rex = size === 8 ? 0x48 : 0;
    if (reg >= 8) rex |= 0x44;
    if (regOperand !== undefined && regOperand.size === 1 && regOperand.num >= 4) rex |= 0x40;
    const opcode = size === 1 && form.narrow === true ? form.op - 1 : form.op;
    const regBits = (reg & 7) << 3;

    if (rm instanceof Reg) {
      if (sameWidth && regOperand !== undefined && rm.size !== size) {
        throw new EmitError(`operands of different width: ${rm.name} and ${regOperand.name}`);
      }
      if (rm.num >= 8) rex |= 0x41;
      if (rm.size === 1 && rm.num >= 4) rex |= 0x40;
      if (size === 2) this.#byte(0x66);
      if (rex !== 0) this.#byte(rex);
      if (form.map !== undefined) this.#byte(form.map);
      this.#byte(opcode);
      this.#byte(0xc0 | regBits | (rm.num & 7));
      return;
    }

    if (sameWidth && regOperand !== undefined && rm.size !== 0 && rm.size !== size) {
      throw new EmitError(`operands of different width: ${rm.size * 8}-bit memory and ${regOperand.name}`);
    }
    const { base, index, disp } = rm;
    if (!fits32(disp)) throw new OutOfRange(`displacement ${disp} does not fit 32 bits`);
    if (base !== undefined && base.num >= 8) rex |= 0x41;
    if (index !== undefined && index.num >= 8) rex |= 0x42;
    if (rm.gs) this.#byte(0x65);
    if (size === 2) this.#byte(0x66);
    if (rex !== 0) this.#byte(rex);
    if (form.map !== undefined) this.#byte(form.map);
    this.#byte(opcode);
    if (base !== undefined && index === undefined && (base.num & 7) !== 4) {
      this.#based(regBits | (base.num & 7), -1, base, disp, rm);
    } else {
      this.#sibOrAbsolute(regBits, rm);
    }
  }

  /** `[base + disp]` and `[base + index*scale + disp]`: ModRM, SIB when not -1, displacement as the operand asks. */
  #based(modrm: number, sib: number, base: Reg, disp: number, rm: Mem): void {
    if (base.size !== 8) throw new EmitError(`a 64-bit base register, not ${base.name}`);
    const { form } = rm;
    if (form === 'disp8' && !fits8(disp)) throw new OutOfRange(`displacement ${disp} does not fit 8 bits`);
    // mod 00 with rbp or r13 as base means something else, so those always carry a displacement
    const bare = form === 'fit' && disp === 0 && (base.num & 7) !== 5;
    const short = form !== 'disp32' && fits8(disp);
    this.#byte((bare ? 0x00 : short ? 0x40 : 0x80) | modrm);
    if (sib >= 0) this.#byte(sib);
    if (bare) return;
    if (short) this.#byte(disp);
    else this.#dword(disp);
  }

  #sibOrAbsolute(regBits: number, rm: Mem): void {
    const { base, index, disp, rip } = rm;
    if (rip !== undefined) {
      if (base !== undefined || index !== undefined)
        throw new EmitError('rip-relative excludes base and index');
      this.#byte(0x05 | regBits);
      this.#ripField = this.#pos;
      this.#ripSym = rip;
      this.#dword(0);
      return;
    }
    if (index !== undefined && index.num === 4) throw new EmitError('rsp cannot be an index');
    if (index !== undefined && index.size !== 8)
      throw new EmitError(`a 64-bit index register, not ${index.name}`);
    const scale = { 1: 0x00, 2: 0x40, 4: 0x80, 8: 0xc0 }[rm.scale];
    const indexBits = index === undefined ? 0x20 : (index.num & 7) << 3;
    if (base !== undefined) {
      this.#based(0x04 | regBits, scale | indexBits | (base.num & 7), base, disp, rm);
      return;
    }
    // no base: SIB with base 101 and mod 00 is [index*scale + disp32], or [disp32] alone
    this.#byte(0x04 | regBits);
    this.#byte(scale | indexBits | 0x05);
    this.#dword(disp);
  }
}
