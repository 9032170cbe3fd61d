/*
 * Every instruction form of the assembler, over every register and the boundaries of every field, each
 * with what an independent decoder has to read back. What is expected is written down here in the
 * decoder's own terms (opcode names of the Intel manual), not computed by the assembler.
 */

import {
  type AluOp,
  type Assembler,
  byte,
  type Cond,
  dword,
  gsAt,
  gsPtr,
  Mem,
  type OpSize,
  ptr,
  ptrIndexed,
  qword,
  type Reg,
  registers,
  ripTo,
  Sym,
  word,
} from '../../jit/index.ts';

/** An operand as the decoder shall see it. */
export type Expected = Reg | Mem | { readonly imm: bigint };

/** One instruction: how to ask for it and what has to be read back. */
export interface Case {
  /** The form by the name that iced-x86 gives it: `Add_rm64_imm8`. */
  readonly code: string;
  readonly operands: readonly Expected[];
  readonly lock?: true | undefined;
  /** x86 has a shorter form for these operands, apart from what displacements, alu, test and mov have. */
  readonly long?: boolean | undefined;
  readonly emit: (asm: Assembler) => void;
}

export const SIZES: readonly OpSize[] = [1, 2, 4, 8];
export const ALU_OPS: readonly AluOp[] = ['add', 'or', 'adc', 'sbb', 'and', 'sub', 'xor', 'cmp'];
export const CONDITIONS: readonly Cond[] = [
  'o',
  'no',
  'b',
  'ae',
  'e',
  'ne',
  'be',
  'a',
  's',
  'ns',
  'p',
  'np',
  'l',
  'ge',
  'le',
  'g',
];

const SCALES = [1, 2, 4, 8] as const;
const DISPLACEMENTS = [0, 1, -1, 127, -128, 128, -129, 0x7fff_ffff, -0x8000_0000];
const SIZED: Readonly<Record<OpSize, (mem: Mem) => Mem>> = { 1: byte, 2: word, 4: dword, 8: qword };

const R64 = registers(8);
const INDEXES = R64.filter((reg) => reg.name !== 'rsp');
const fits8 = (value: number): boolean => value >= -128 && value <= 127;

/** Every base with every displacement in every form that can hold it; every base with every index and scale. */
export const ADDRESSES: readonly Mem[] = [
  ...R64.flatMap((base) =>
    DISPLACEMENTS.flatMap((disp) => [
      ptr(base, disp),
      ptr(base, disp, 'disp32'),
      ...(fits8(disp) ? [ptr(base, disp, 'disp8')] : []),
      gsPtr(base, disp),
    ]),
  ),
  ...R64.flatMap((base, b) =>
    INDEXES.flatMap((index, i) =>
      SCALES.flatMap((scale, s) => {
        const disp = pick(DISPLACEMENTS, b + i + s);
        return [
          ptrIndexed(base, index, scale),
          ptrIndexed(base, index, scale, disp),
          ptrIndexed(base, index, scale, disp, 'disp32'),
        ];
      }),
    ),
  ),
  ...INDEXES.flatMap((index) => SCALES.map((scale) => new Mem({ index, scale, disp: 0x1234 }))),
  ...DISPLACEMENTS.flatMap((disp) => [new Mem({ disp }), gsAt(disp)]),
  ripTo('somewhere'),
  ripTo('somewhere', 0x40),
];

/** A few addresses that together use every part of the encoding. */
export const TYPICAL_ADDRESSES: readonly Mem[] = [
  ptr(pick(R64, 5), -8),
  ptr(pick(R64, 4), 8),
  ptr(pick(R64, 13)),
  ptr(pick(R64, 12), 0x1000),
  ptrIndexed(pick(R64, 0), pick(R64, 9), 4, 0x10),
  ptrIndexed(pick(R64, 13), pick(R64, 12), 8),
  gsAt(0x15d00),
  gsPtr(pick(R64, 1), 16),
  ripTo('somewhere'),
];

/** Immediates of a field, at the ends and around 0, as numbers that the operand's width allows. */
function immediates(bits: 8 | 16 | 32, width: OpSize): readonly number[] {
  const half = 2 ** (bits - 1);
  const signed = [0, 1, -1, half - 1, -half];
  return width * 8 === bits ? [...signed, half, 2 * half - 1] : signed;
}

const rmReg = (size: OpSize): string => `rm${size * 8}_r${size * 8}`;
const regRm = (size: OpSize): string => `r${size * 8}_rm${size * 8}`;
const immBits = (size: OpSize): 8 | 16 | 32 => (size === 1 ? 8 : size === 2 ? 16 : 32);
const imm = (value: number, width: OpSize): Expected => ({
  imm: BigInt.asUintN(width * 8, BigInt(value)),
});
const capital = (name: string): string => `${name[0]?.toUpperCase()}${name.slice(1)}`;

/** Forms `op r/m, r` on registers: every register with every register. */
function* registerPairs(
  mnemonic: string,
  emit: (asm: Assembler, rm: Reg, reg: Reg) => void,
): Generator<Case> {
  for (const size of SIZES) {
    for (const reg of registers(size)) {
      for (const rm of registers(size)) {
        const code = `${mnemonic}_${rmReg(size)}`;
        yield { code, operands: [rm, reg], emit: (asm) => emit(asm, rm, reg) };
      }
    }
  }
}

/** Forms `op r/m, r` on memory: every address, and every register with a few addresses that say their width. */
function* stores(
  mnemonic: string,
  emit: (asm: Assembler, mem: Mem, reg: Reg) => void,
  lock?: true,
): Generator<Case> {
  for (const size of SIZES) {
    const regs = registers(size);
    const pairs = [
      ...ADDRESSES.map((mem, i): [Mem, Reg] => [mem, pick(regs, i)]),
      ...TYPICAL_ADDRESSES.flatMap((mem) => regs.map((reg): [Mem, Reg] => [SIZED[size](mem), reg])),
    ];
    for (const [mem, reg] of pairs) {
      const code = `${mnemonic}_${rmReg(size)}`;
      yield { code, operands: [mem, reg], lock, emit: (asm) => emit(asm, mem, reg) };
    }
  }
}

/** Forms `op r, r/m` with memory on the right. */
function* loads(mnemonic: string, emit: (asm: Assembler, reg: Reg, mem: Mem) => void): Generator<Case> {
  for (const size of SIZES) {
    const regs = registers(size);
    for (const [i, mem] of ADDRESSES.entries()) {
      const reg = pick(regs, i * 7);
      yield {
        code: `${mnemonic}_${regRm(size)}`,
        operands: [reg, mem],
        emit: (asm) => emit(asm, reg, mem),
      };
    }
  }
}

/** Every register of a width, and every address said to be of that width. */
function* oneOperand(size: OpSize): Generator<Reg | Mem> {
  yield* registers(size);
  for (const mem of ADDRESSES) yield SIZED[size](mem);
}

/** As `oneOperand`, with a few addresses: for forms of which there are many, all by the same few lines. */
function* typicalOperand(size: OpSize): Generator<Reg | Mem> {
  yield* registers(size);
  for (const mem of TYPICAL_ADDRESSES) yield SIZED[size](mem);
}

function* everyOperand(mnemonic: string, emit: (asm: Assembler, rm: Reg | Mem) => void): Generator<Case> {
  for (const size of SIZES) {
    for (const rm of oneOperand(size)) {
      yield { code: `${mnemonic}_rm${size * 8}`, operands: [rm], emit: (asm) => emit(asm, rm) };
    }
  }
}

/** As `everyOperand`, without registers and with the lock prefix. */
function* everyAddress(mnemonic: string, emit: (asm: Assembler, mem: Mem) => void): Generator<Case> {
  for (const size of SIZES) {
    for (const mem of ADDRESSES.map(SIZED[size])) {
      yield { code: `${mnemonic}_rm${size * 8}`, operands: [mem], lock: true, emit: (asm) => emit(asm, mem) };
    }
  }
}

/** Forms with an immediate: every operand with a rotating value, and every value with a few operands. */
function* withImmediate(
  size: OpSize,
  code: string,
  bits: 8 | 16 | 32,
  emit: (asm: Assembler, rm: Reg | Mem, value: number) => void,
): Generator<Case> {
  const values = immediates(bits, size);
  let turn = 0;
  for (const rm of oneOperand(size)) {
    const value = pick(values, turn++);
    yield { code, operands: [rm, imm(value, size)], emit: (asm) => emit(asm, rm, value) };
  }
  for (const value of values) {
    for (const rm of [...registers(size), ...TYPICAL_ADDRESSES.map(SIZED[size])]) {
      yield { code, operands: [rm, imm(value, size)], emit: (asm) => emit(asm, rm, value) };
    }
  }
}

/** Every register of a width with every other. */
function* pairsOf(size: OpSize): Generator<[dst: Reg, src: Reg]> {
  for (const dst of registers(size)) for (const src of registers(size)) yield [dst, src];
}

/** The immediate forms of imul, which have three operands. */
function* multiplications(
  bits: 8 | 32,
  values: readonly number[],
  emit: (asm: Assembler, dst: Reg, src: Reg, value: number) => void,
): Generator<Case> {
  for (const size of [4, 8] as const) {
    for (const [dst, src] of pairsOf(size)) {
      const value = pick(values, dst.num + src.num);
      const operands = [dst, src, imm(value, size)];
      const code = `Imul_${regRm(size)}_imm${bits}`;
      const long = bits === 32 && fits8(value);
      yield { code, operands, long, emit: (asm) => emit(asm, dst, src, value) };
    }
  }
}

const SHIFT_OPS = ['rol', 'ror', 'shl', 'shr', 'sar'] as const;

/** Shifts by one, or by cl: what they shift by is in the opcode. */
function* shifts(
  by: '1' | 'CL',
  count: Expected,
  emit: (asm: Assembler, op: (typeof SHIFT_OPS)[number], rm: Reg | Mem) => void,
): Generator<Case> {
  for (const op of SHIFT_OPS) {
    for (const size of SIZES) {
      for (const rm of typicalOperand(size)) {
        const code = `${capital(op)}_rm${size * 8}_${by}`;
        yield { code, operands: [rm, count], emit: (asm) => emit(asm, op, rm) };
      }
    }
  }
}

/** By method of the assembler; all but branches to labels and addresses, whose operand is not theirs alone. */
export const FORMS: Readonly<Record<string, () => Iterable<Case>>> = {
  *mov() {
    yield* registerPairs('Mov', (asm, rm, reg) => asm.mov(rm, reg));
    yield* stores('Mov', (asm, mem, reg) => asm.mov(mem, reg));
    yield* loads('Mov', (asm, reg, mem) => asm.mov(reg, mem));
  },

  *movImm32() {
    for (const reg of registers(4)) {
      for (const value of [0, 1, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff]) {
        const operands = [reg, { imm: BigInt(value) }];
        yield { code: 'Mov_r32_imm32', operands, emit: (asm) => asm.movImm32(reg, value) };
      }
    }
  },

  *movImm64() {
    const values = [0n, 1n, 0x7fff_ffffn, 0xffff_c900_001d_5000n, 2n ** 64n - 1n, -1n, -(2n ** 63n)];
    for (const reg of R64) {
      for (const value of values) {
        const operands = [reg, { imm: BigInt.asUintN(64, value) }];
        yield { code: 'Mov_r64_imm64', operands, emit: (asm) => asm.movImm64(reg, value) };
      }
      const open = new Sym('somewhere');
      yield {
        code: 'Mov_r64_imm64',
        operands: [reg, { imm: 0n }],
        emit: (asm) => asm.movImm64(reg, open),
      };
    }
  },

  *movImm() {
    for (const size of SIZES) {
      const bits = immBits(size);
      yield* withImmediate(size, `Mov_rm${size * 8}_imm${bits}`, bits, (asm, rm, value) =>
        asm.movImm(rm, value),
      );
    }
    for (const rm of [...oneOperand(4), ...oneOperand(8)]) {
      const operands = [rm, { imm: 0n }];
      const open = new Sym('somewhere');
      yield { code: `Mov_rm${rm.size * 8}_imm32`, operands, emit: (asm) => asm.movImm(rm, open) };
    }
  },

  *movzx() {
    for (const from of [1, 2] as const) {
      for (const size of SIZES.filter((wider) => wider > from)) {
        const code = `Movzx_r${size * 8}_rm${from * 8}`;
        for (const dst of registers(size)) {
          for (const src of registers(from)) {
            yield { code, operands: [dst, src], emit: (asm) => asm.movzx(dst, src, from) };
          }
        }
        for (const [i, mem] of ADDRESSES.entries()) {
          const dst = pick(registers(size), i * 3);
          const said = SIZED[from](mem);
          yield { code, operands: [dst, said], emit: (asm) => asm.movzx(dst, said, from) };
          yield { code, operands: [dst, mem], emit: (asm) => asm.movzx(dst, mem, from) };
        }
      }
    }
  },

  *movsx() {
    for (const from of [1, 2, 4] as const) {
      for (const size of SIZES.filter((wider) => wider > from)) {
        const code = `${from === 4 ? 'Movsxd' : 'Movsx'}_r${size * 8}_rm${from * 8}`;
        for (const dst of registers(size)) {
          for (const src of registers(from)) {
            yield { code, operands: [dst, src], emit: (asm) => asm.movsx(dst, src, from) };
          }
        }
        for (const [i, mem] of ADDRESSES.entries()) {
          const dst = pick(registers(size), i * 3);
          const said = SIZED[from](mem);
          yield { code, operands: [dst, said], emit: (asm) => asm.movsx(dst, said, from) };
          yield { code, operands: [dst, mem], emit: (asm) => asm.movsx(dst, mem, from) };
        }
      }
    }
  },

  *movsxByteRex() {
    for (const size of [4, 8] as const) {
      for (const dst of registers(size)) {
        for (const src of registers(1)) {
          const code = `Movsx_r${size * 8}_rm8`;
          const long = size === 4 && dst.num < 8 && src.num < 4;
          yield { code, operands: [dst, src], long, emit: (asm) => asm.movsxByteRex(dst, src) };
        }
      }
    }
  },

  *cmove() {
    for (const size of [2, 4, 8] as const) {
      for (const [dst, src] of pairsOf(size)) {
        const code = `Cmove_${regRm(size)}`;
        yield { code, operands: [dst, src], emit: (asm) => asm.cmove(dst, src) };
      }
    }
  },

  *bswap() {
    for (const size of [4, 8] as const) {
      for (const reg of registers(size)) {
        yield { code: `Bswap_r${size * 8}`, operands: [reg], emit: (asm) => asm.bswap(reg) };
      }
    }
  },

  *lea() {
    for (const size of [2, 4, 8] as const) {
      for (const [i, mem] of ADDRESSES.filter(({ gs }) => !gs).entries()) {
        const dst = pick(registers(size), i * 5);
        yield { code: `Lea_r${size * 8}_m`, operands: [dst, mem], emit: (asm) => asm.lea(dst, mem) };
      }
    }
  },

  *push() {
    for (const reg of R64) yield { code: 'Push_r64', operands: [reg], emit: (asm) => asm.push(reg) };
  },

  *pop() {
    for (const reg of R64) yield { code: 'Pop_r64', operands: [reg], emit: (asm) => asm.pop(reg) };
  },

  *alu() {
    for (const op of ALU_OPS) {
      yield* registerPairs(capital(op), (asm, rm, reg) => asm.alu(op, rm, reg));
      yield* stores(capital(op), (asm, mem, reg) => asm.alu(op, mem, reg));
      yield* loads(capital(op), (asm, reg, mem) => asm.alu(op, reg, mem));
    }
  },

  *aluImm8() {
    for (const op of ALU_OPS) {
      for (const size of SIZES) {
        yield* withImmediate(size, `${capital(op)}_rm${size * 8}_imm8`, 8, (asm, rm, value) =>
          asm.aluImm8(op, rm, value),
        );
      }
    }
  },

  *aluImm32() {
    for (const op of ALU_OPS) {
      for (const size of [2, 4, 8] as const) {
        const bits = immBits(size);
        yield* withImmediate(size, `${capital(op)}_rm${size * 8}_imm${bits}`, bits, (asm, rm, value) =>
          asm.aluImm32(op, rm, value),
        );
      }
    }
  },

  *aluAccImm32() {
    for (const op of ALU_OPS) {
      for (const size of [4, 8] as const) {
        const acc = pick(registers(size), 0);
        for (const value of [0, 1, -1, 127, 128, -129, 0x7fff_ffff, -0x8000_0000]) {
          const code = `${capital(op)}_${acc.name.toUpperCase()}_imm32`;
          const operands = [acc, imm(value, size)];
          const long = fits8(value);
          yield { code, operands, long, emit: (asm) => asm.aluAccImm32(op, acc, value) };
        }
      }
    }
  },

  *unary() {
    for (const op of ['neg', 'mul', 'div', 'idiv'] as const) {
      for (const size of SIZES) {
        for (const rm of typicalOperand(size)) {
          yield { code: `${capital(op)}_rm${size * 8}`, operands: [rm], emit: (asm) => asm.unary(op, rm) };
        }
      }
    }
  },

  *imul() {
    for (const size of [2, 4, 8] as const) {
      const code = `Imul_${regRm(size)}`;
      for (const [dst, src] of pairsOf(size)) {
        yield { code, operands: [dst, src], emit: (asm) => asm.imul(dst, src) };
      }
      for (const [i, mem] of ADDRESSES.entries()) {
        const dst = pick(registers(size), i * 7);
        yield { code, operands: [dst, mem], emit: (asm) => asm.imul(dst, mem) };
      }
    }
  },

  imulImm8: () => multiplications(8, [0, 1, -1, 127, -128], (asm, ...args) => asm.imulImm8(...args)),
  imulImm32: () =>
    multiplications(32, [0, -1, 128, 0x7fff_ffff, -0x8000_0000], (asm, ...args) => asm.imulImm32(...args)),

  cdq: () => [{ code: 'Cdq', operands: [], emit: (asm) => asm.cdq() }],
  cqo: () => [{ code: 'Cqo', operands: [], emit: (asm) => asm.cqo() }],

  *test() {
    yield* registerPairs('Test', (asm, rm, reg) => asm.test(rm, reg));
    yield* stores('Test', (asm, mem, reg) => asm.test(mem, reg));
  },

  *testImm() {
    for (const size of SIZES) {
      const bits = immBits(size);
      yield* withImmediate(size, `Test_rm${size * 8}_imm${bits}`, bits, (asm, rm, value) =>
        asm.testImm(rm, value),
      );
    }
  },

  *shiftImm8() {
    for (const op of SHIFT_OPS) {
      for (const size of SIZES) {
        let count = 0;
        for (const rm of typicalOperand(size)) {
          // the count is a byte of its own, whatever the operand's width
          const by = count++ % 64;
          const operands = [rm, { imm: BigInt(by) }];
          const code = `${capital(op)}_rm${size * 8}_imm8`;
          yield { code, operands, long: by === 1, emit: (asm) => asm.shiftImm8(op, rm, by) };
        }
      }
    }
  },

  shift1: () => shifts('1', { imm: 1n }, (asm, op, rm) => asm.shift1(op, rm)),
  shiftCl: () => shifts('CL', pick(registers(1), 1), (asm, op, rm) => asm.shiftCl(op, rm)),

  *shiftx() {
    for (const op of ['shlx', 'sarx', 'shrx'] as const) {
      for (const size of [4, 8] as const) {
        for (const [dst, src] of pairsOf(size)) {
          const count = pick(registers(size), dst.num * 5 + src.num);
          const code = `VEX_${capital(op)}_r${size * 8}_rm${size * 8}_r${size * 8}`;
          yield { code, operands: [dst, src, count], emit: (asm) => asm.shiftx(op, dst, src, count) };
        }
      }
    }
  },

  inc: () => everyOperand('Inc', (asm, rm) => asm.inc(rm)),
  dec: () => everyOperand('Dec', (asm, rm) => asm.dec(rm)),
  lockInc: () => everyAddress('Inc', (asm, mem) => asm.lockInc(mem)),
  lockDec: () => everyAddress('Dec', (asm, mem) => asm.lockDec(mem)),
  xadd: () => stores('Xadd', (asm, mem, reg) => asm.xadd(mem, reg)),
  xchg: () => stores('Xchg', (asm, mem, reg) => asm.xchg(mem, reg)),
  lockXadd: () => stores('Xadd', (asm, mem, reg) => asm.lockXadd(mem, reg), true),
  lockCmpxchg: () => stores('Cmpxchg', (asm, mem, reg) => asm.lockCmpxchg(mem, reg), true),

  lockXchg: () => stores('Xchg', (asm, mem, reg) => asm.lockXchg(mem, reg), true),
  *lockAlu() {
    for (const op of ['add', 'or', 'adc', 'sbb', 'and', 'sub', 'xor'] as const) {
      for (const size of SIZES) {
        const code = `${capital(op)}_${rmReg(size)}`;
        for (const mem of TYPICAL_ADDRESSES) {
          for (const reg of registers(size)) {
            yield { code, operands: [mem, reg], lock: true, emit: (asm) => asm.lockAlu(op, mem, reg) };
          }
        }
      }
    }
  },

  *callIndirect() {
    for (const target of oneOperand(8)) {
      yield { code: 'Call_rm64', operands: [target], emit: (asm) => asm.callIndirect(target) };
    }
  },

  *jmpIndirect() {
    for (const target of oneOperand(8)) {
      yield { code: 'Jmp_rm64', operands: [target], emit: (asm) => asm.jmpIndirect(target) };
    }
  },

  leave64: () => [{ code: 'Leaveq', operands: [], emit: (asm) => asm.leave64() }],
  ret: () => [{ code: 'Retnq', operands: [], emit: (asm) => asm.ret() }],
  int3: () => [{ code: 'Int3', operands: [], emit: (asm) => asm.int3() }],
  hlt: () => [{ code: 'Hlt', operands: [], emit: (asm) => asm.hlt() }],
  pushfq: () => [{ code: 'Pushfq', operands: [], emit: (asm) => asm.pushfq() }],
  popfq: () => [{ code: 'Popfq', operands: [], emit: (asm) => asm.popfq() }],
  lfence: () => [{ code: 'Lfence', operands: [], emit: (asm) => asm.lfence() }],
  pause: () => [{ code: 'Pause', operands: [], emit: (asm) => asm.pause() }],
  ud2: () => [{ code: 'Ud2', operands: [], emit: (asm) => asm.ud2() }],
  raw: () => [{ code: 'Nopd', operands: [], emit: (asm) => asm.raw([0x90]) }],
};

/** The element at `i`, round and round. */
export function pick<T>(list: readonly T[], i: number): T {
  return list[i % list.length] as T;
}
