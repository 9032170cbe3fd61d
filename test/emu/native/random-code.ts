/*
 * Random straight-line programs of integer, string and SSE instructions, for comparing two CPUs. What the
 * architecture leaves undefined (flags, mostly) is kept track of and never looked at.
 *
 *   rdi points at DATA_BYTES of data; gs:[slot] is a word; the stack is balanced.
 *   At the end rax holds the flags that are defined; xmm0..3 are in the last 64 bytes of the data.
 */

export const DATA_BYTES = 512;
/** Where in the data the vector registers are left. */
const VECTORS_AT = DATA_BYTES - 64;

const CF = 1;
const PF = 4;
const AF = 0x10;
const ZF = 0x40;
const SF = 0x80;
const OF = 0x800;
const ALL = CF | PF | AF | ZF | SF | OF;

/** Numbers of the registers that programs use: all but rsp, rdi and r15. */
const POOL: readonly number[] = [0, 1, 2, 3, 5, 6, 8, 9, 10, 11, 12, 13, 14];

/** The flags that a condition code (the low half of setcc's opcode, without its lowest bit) depends on. */
const CONDITION_FLAGS: readonly number[] = [OF, CF, ZF, CF | ZF, SF, PF, SF | OF, ZF | SF | OF];

export type Below = (below: number) => number;

interface Operand {
  /** A register, or a place in the data. */
  readonly register?: number;
  readonly disp?: number;
}

function le(value: bigint | number, bytes: number): number[] {
  const wide = BigInt.asUintN(64, BigInt(value));
  return Array.from({ length: bytes }, (_, i) => Number((wide >> BigInt(8 * i)) & 0xffn));
}

class Program {
  readonly bytes: number[] = [];
  readonly #below: Below;
  readonly #slot: number;
  readonly #strings: boolean;
  /** Flags whose values are defined now. */
  #defined: number = 0;

  constructor(below: Below, slot: number, strings: boolean) {
    this.#below = below;
    this.#slot = slot;
    this.#strings = strings;
  }

  emit(...bytes: readonly number[]): void {
    this.bytes.push(...bytes);
  }

  #pick<T>(items: readonly T[]): T {
    return items[this.#below(items.length)] as T;
  }

  #register(): number {
    return this.#pick(POOL);
  }

  #memory(sizeBytes: number): Operand {
    return { disp: this.#below(VECTORS_AT - sizeBytes) };
  }

  #operand(sizeBytes: number): Operand {
    return this.#below(3) === 0 ? this.#memory(sizeBytes) : { register: this.#register() };
  }

  /** A 64-bit number that is often a boundary. */
  #value(): bigint {
    const bits = BigInt(this.#pick([7, 8, 15, 16, 31, 32, 63, 64]));
    const kind = this.#below(4);
    if (kind === 0) return BigInt.asUintN(64, (1n << bits) - BigInt(this.#below(3)));
    if (kind === 1) return BigInt(this.#below(256));
    const half = (): bigint => BigInt(this.#below(2 ** 31)) * 2n + BigInt(this.#below(2));
    return (half() << 32n) | half();
  }

  /** Prefixes, opcode and ModRM of an instruction with a register field and a register or memory operand. */
  #modrm(
    opcode: readonly number[],
    reg: number,
    rm: Operand,
    size: 1 | 2 | 4 | 8,
    options: { readonly prefix?: readonly number[]; readonly lock?: boolean } = {},
  ): void {
    const register = rm.register ?? 7;
    const byteRegisters = size === 1 && [reg, rm.register ?? 0].some((each) => each >= 4 && each < 8);
    const rex =
      (size === 8 ? 8 : 0) | (reg >= 8 ? 4 : 0) | (rm.register !== undefined && register >= 8 ? 1 : 0);
    if (options.lock === true) this.emit(0xf0);
    if (size === 2) this.emit(0x66);
    this.emit(...(options.prefix ?? []));
    if (rex !== 0 || byteRegisters) this.emit(0x40 | rex);
    this.emit(...opcode);
    if (rm.register !== undefined) this.emit(0xc0 | ((reg & 7) << 3) | (register & 7));
    else this.emit(0x80 | ((reg & 7) << 3) | 7, ...le(rm.disp ?? 0, 4));
  }

  /** Gives registers, flags and vectors their first values. */
  begin(): void {
    for (const register of POOL) this.#movImm(register, this.#value());
    for (let xmm = 0; xmm < 4; xmm++)
      this.#modrm([0x0f, 0x6e], xmm, { register: this.#register() }, 8, { prefix: [0x66] });
    this.emit(0x31, 0xc0); // xor eax, eax
    this.#defined = ALL & ~AF;
  }

  #movImm(register: number, value: bigint): void {
    this.emit(0x48 | (register >= 8 ? 1 : 0), 0xb8 | (register & 7), ...le(value, 8));
  }

  /** One instruction, or a few that belong together. */
  step(): void {
    const steps = [
      () => this.#alu(),
      () => this.#alu(),
      () => this.#alu(),
      () => this.#aluImm(),
      () => this.#aluImm(),
      () => this.#mov(),
      () => this.#unary(),
      () => this.#shift(),
      () => this.#shift(),
      () => this.#multiply(),
      () => this.#divide(),
      () => this.#condition(),
      () => this.#condition(),
      () => this.#extend(),
      () => this.#exchange(),
      () => this.#bits(),
      () => this.#flags(),
      () => this.#stack(),
      () => this.#string(),
      () => this.#vector(),
      () => this.#perCpu(),
    ];
    this.#pick(steps)();
  }

  #size(): 1 | 2 | 4 | 8 {
    return this.#pick([1, 2, 4, 8] as const);
  }

  /** add, or, adc, sbb, and, sub, xor, cmp between registers and memory; test. */
  #alu(): void {
    const op = this.#below(9);
    if ((op === 2 || op === 3) && (this.#defined & CF) === 0) return;
    const size = this.#size();
    const rm = this.#operand(size);
    const wide = size === 1 ? 0 : 1;
    if (op === 8) this.#modrm([0x84 | wide], this.#register(), rm, size);
    else {
      const toRegister = this.#below(2) === 1;
      const lock = !toRegister && rm.disp !== undefined && op !== 7 && this.#below(3) === 0;
      this.#modrm([(op << 3) | (toRegister ? 2 : 0) | wide], this.#register(), rm, size, { lock });
    }
    this.#aluFlags(op);
  }

  #aluImm(): void {
    const op = this.#below(8);
    if ((op === 2 || op === 3) && (this.#defined & CF) === 0) return;
    const size = this.#size();
    const rm = this.#operand(size);
    const short = size === 1 || this.#below(2) === 0;
    this.#modrm([size === 1 ? 0x80 : short ? 0x83 : 0x81], op, rm, size);
    this.emit(...le(this.#value(), short ? 1 : size === 2 ? 2 : 4));
    this.#aluFlags(op);
  }

  /** or, and, xor and test leave AF undefined. */
  #aluFlags(op: number): void {
    this.#defined = [1, 4, 6, 8].includes(op) ? ALL & ~AF : ALL;
  }

  #mov(): void {
    const size = this.#size();
    const rm = this.#operand(size);
    switch (this.#below(4)) {
      case 0:
        this.#modrm([size === 1 ? 0x88 : 0x89], this.#register(), rm, size);
        break;
      case 1:
        this.#modrm([size === 1 ? 0x8a : 0x8b], this.#register(), rm, size);
        break;
      case 2:
        this.#movImm(this.#register(), this.#value());
        break;
      default:
        // lea
        this.#modrm([0x8d], this.#register(), this.#memory(8), 8);
    }
  }

  /** not, neg, inc, dec. */
  #unary(): void {
    const size = this.#size();
    const rm = this.#operand(size);
    const wide = size === 1 ? 0 : 1;
    const which = this.#below(4);
    if (which < 2) this.#modrm([0xf6 | wide], 2 + which, rm, size);
    else this.#modrm([0xfe | wide], which - 2, rm, size);
    if (which === 1) this.#defined = ALL;
    if (which >= 2) this.#defined = (this.#defined & CF) | (ALL & ~CF);
  }

  /** rol, ror, rcl, rcr, shl, shr, sar. */
  #shift(): void {
    const op = this.#pick([0, 1, 2, 3, 4, 5, 7]);
    if ((op === 2 || op === 3) && (this.#defined & CF) === 0) return;
    const size = this.#size();
    const bits = 8 * size;
    const rm = this.#operand(size);
    const wide = size === 1 ? 0 : 1;
    const rotates = op < 4;
    const others = rotates ? this.#defined & (SF | ZF | PF | AF) : SF | ZF | PF;
    const form = this.#below(3);
    if (form === 0) {
      this.#modrm([0xd0 | wide], op, rm, size);
      this.#defined = others | CF | OF;
      return;
    }
    if (form === 1) {
      const count = 1 + this.#below(bits - 1);
      this.#modrm([0xc0 | wide], op, rm, size);
      this.emit(count);
      this.#defined = others | CF | (count === 1 ? OF : 0);
      return;
    }
    // By cl: a count of 0 leaves all flags alone, so only what was defined before stays so.
    this.#modrm([0xd2 | wide], op, rm, size);
    const carry = rotates || size >= 4 ? CF : 0;
    this.#defined &= others | carry;
  }

  #multiply(): void {
    const size = this.#pick([2, 4, 8] as const);
    const rm = this.#operand(size);
    switch (this.#below(3)) {
      case 0:
        this.#modrm([0xf7], 4 + this.#below(2), rm, size);
        break;
      case 1:
        this.#modrm([0x0f, 0xaf], this.#register(), rm, size);
        break;
      default:
        this.#modrm([0x6b], this.#register(), rm, size);
        this.emit(this.#below(256));
    }
    this.#defined = CF | OF;
  }

  /** A division of 64 bits that cannot overflow. */
  #divide(): void {
    const size = this.#pick([4, 8] as const);
    const divisor = this.#pick(POOL.filter((register) => register !== 0 && register !== 2));
    this.#modrm([0x83], 1, { register: divisor }, size);
    this.emit(1); // or divisor, 1
    this.emit(0x31, 0xd2); // xor edx, edx
    this.#modrm([0xf7], 6, { register: divisor }, size);
    this.#defined = 0;
  }

  /** setcc, cmovcc, and a jump over an instruction. */
  #condition(): void {
    const code = this.#below(16);
    const needs = CONDITION_FLAGS[code >> 1] ?? ALL;
    if ((this.#defined & needs) !== needs) return;
    switch (this.#below(3)) {
      case 0:
        this.#modrm([0x0f, 0x90 | code], 0, this.#operand(1), 1);
        break;
      case 1: {
        const size = this.#pick([2, 4, 8] as const);
        this.#modrm([0x0f, 0x40 | code], this.#register(), this.#operand(size), size);
        break;
      }
      default: {
        const register = this.#register();
        this.emit(0x70 | code, 10);
        this.#movImm(register, this.#value());
      }
    }
  }

  /** movzx, movsx, movsxd, bswap, cbw and its family. */
  #extend(): void {
    const size = this.#pick([4, 8] as const);
    switch (this.#below(4)) {
      case 0: {
        const from = this.#below(2);
        const rm = this.#operand(2);
        // A byte register numbered 4 to 7 would be ah to bh without REX.
        if (from === 0 && size === 4 && (rm.register ?? 0) >= 4 && (rm.register ?? 0) < 8) return;
        this.#modrm([0x0f, this.#pick([0xb6, 0xbe]) | from], this.#register(), rm, size);
        break;
      }
      case 1:
        this.#modrm([0x63], this.#register(), this.#operand(4), 8);
        break;
      case 2: {
        const register = this.#register();
        this.emit(0x40 | (size === 8 ? 8 : 0) | (register >= 8 ? 1 : 0), 0x0f, 0xc8 | (register & 7));
        break;
      }
      default:
        this.emit(...this.#pick([[], [0x48], [0x66]]), this.#pick([0x98, 0x99]));
    }
  }

  /** xchg, xadd, cmpxchg; locked or not. */
  #exchange(): void {
    const size = this.#size();
    const rm = this.#operand(size);
    const wide = size === 1 ? 0 : 1;
    const lock = rm.disp !== undefined && this.#below(2) === 0;
    switch (this.#below(3)) {
      case 0:
        this.#modrm([0x86 | wide], this.#register(), rm, size, { lock });
        return;
      case 1:
        this.#modrm([0x0f, 0xc0 | wide], this.#register(), rm, size, { lock });
        break;
      default:
        // Unicorn 2.0.1 clears the upper half of a 32-bit register that compares unequal; CPUs leave it alone.
        if (size === 4 && rm.register !== undefined) return;
        this.#modrm([0x0f, 0xb0 | wide], this.#register(), rm, size, { lock });
    }
    this.#defined = ALL;
  }

  /** bt and its family, by register and immediate; bsf and bsr of what is not 0. */
  #bits(): void {
    const size = this.#pick([2, 4, 8] as const);
    if (this.#below(3) === 0) {
      const source = this.#register();
      this.#modrm([0x83], 1, { register: source }, size);
      this.emit(1); // or source, 1
      this.#modrm([0x0f, this.#pick([0xbc, 0xbd])], this.#register(), { register: source }, size);
      this.#defined = ZF;
      return;
    }
    const which = 4 + this.#below(4);
    if (this.#below(2) === 0) {
      this.#modrm([0x0f, 0xba], which, this.#operand(size), size);
      this.emit(this.#below(8 * size));
    } else {
      const opcode = [0xa3, 0xab, 0xb3, 0xbb][which - 4] as number;
      this.#modrm([0x0f, opcode], this.#register(), { register: this.#register() }, size);
    }
    this.#defined = CF | (this.#defined & ZF);
  }

  /** clc, stc, cmc, lahf, sahf; the flags as a number. */
  #flags(): void {
    const status = SF | ZF | AF | PF | CF;
    switch (this.#below(5)) {
      case 0:
        this.emit(this.#pick([0xf8, 0xf9]));
        this.#defined |= CF;
        break;
      case 1:
        this.emit(0xf5);
        break;
      case 2:
        if ((this.#defined & status) === status) this.emit(0x9f);
        break;
      case 3:
        this.emit(0x9e);
        this.#defined |= status;
        break;
      default:
        this.#flagsTo(this.#register());
    }
  }

  /** pushfq; and qword [rsp], what is defined; pop register. */
  #flagsTo(register: number): void {
    this.emit(0x9c, 0x48, 0x81, 0x24, 0x24, ...le(this.#defined, 4));
    this.emit(...(register >= 8 ? [0x41] : []), 0x58 | (register & 7));
    this.#defined = ALL & ~AF;
  }

  /** push and pop; a call of the next instruction; enter and leave. */
  #stack(): void {
    const register = this.#register();
    const pop = (to: number): void => this.emit(...(to >= 8 ? [0x41] : []), 0x58 | (to & 7));
    switch (this.#below(4)) {
      case 0:
        this.emit(...(register >= 8 ? [0x41] : []), 0x50 | (register & 7));
        break;
      case 1:
        this.emit(0x68, ...le(this.#value(), 4));
        break;
      case 2:
        this.emit(0xe8, 0, 0, 0, 0);
        break;
      default:
        this.#modrm([0xff], 6, this.#memory(8), 4);
    }
    pop(this.#register());
  }

  /** rep movs and rep stos of a few elements, forwards. */
  #string(): void {
    if (!this.#strings) return;
    const wide = this.#below(2);
    this.emit(0x57); // push rdi
    this.emit(0x48, 0x8d, 0xb7, ...le(this.#below(100), 4)); // lea rsi, [rdi + n]
    this.emit(0x48, 0x81, 0xc7, ...le(200 + this.#below(100), 4)); // add rdi, n
    this.emit(0xb9, ...le(this.#below(9), 4)); // mov ecx, n
    this.emit(0xf3, ...this.#pick([[], [0x48]]), this.#pick([0xa4, 0xaa]) | wide);
    this.emit(0x5f); // pop rdi
    this.#defined = 0;
  }

  /** Between xmm0 to xmm3 and memory. */
  #vector(): void {
    const xmm = this.#below(4);
    const other: Operand = this.#below(3) === 0 ? this.#memory(16) : { register: this.#below(4) };
    switch (this.#below(4)) {
      case 0:
        this.#modrm([0x0f, 0x6e], xmm, { register: this.#register() }, 8, { prefix: [0x66] });
        break;
      case 1:
        this.#modrm([0x0f, this.#pick([0x6f, 0x7f])], xmm, other, 4, { prefix: [0xf3] });
        break;
      case 2:
        this.#modrm([0x0f, 0x7e], xmm, { register: this.#register() }, 8, { prefix: [0x66] });
        break;
      default: {
        // paddb/w/d/q, psub, pand, por, pxor, pmullw, pcmpeq, punpckl, pshuf: between registers
        const opcodes = [
          0xfc, 0xfd, 0xfe, 0xd4, 0xf8, 0xf9, 0xfa, 0xfb, 0xdb, 0xeb, 0xef, 0xd5, 0x74, 0x75, 0x76, 0x60,
        ];
        this.#modrm([0x0f, this.#pick(opcodes)], xmm, { register: this.#below(4) }, 4, { prefix: [0x66] });
      }
    }
  }

  /** mov and add through gs. */
  #perCpu(): void {
    const register = this.#register();
    const opcode = this.#pick([0x89, 0x8b, 0x01]);
    const rex = 0x48 | (register >= 8 ? 4 : 0);
    this.emit(0x65, rex, opcode, ((register & 7) << 3) | 4, 0x25, ...le(this.#slot, 4));
    if (opcode === 0x01) this.#defined = ALL;
  }

  /** Leaves everything where it can be seen. */
  end(): void {
    for (let xmm = 0; xmm < 4; xmm++) {
      this.#modrm([0x0f, 0x7f], xmm, { disp: VECTORS_AT + 16 * xmm }, 4, { prefix: [0xf3] });
    }
    this.#flagsTo(0);
    this.emit(0xc3);
  }
}

/**
 * A program.
 * @param slot a per-CPU word
 * @param options.strings whether string instructions are among it
 */
export function randomProgram(
  below: Below,
  slot: number,
  options: { readonly strings: boolean },
): Uint8Array {
  const program = new Program(below, slot, options.strings);
  program.begin();
  const steps = 1 + below(60);
  for (let i = 0; i < steps; i++) program.step();
  program.end();
  return Uint8Array.from(program.bytes);
}
