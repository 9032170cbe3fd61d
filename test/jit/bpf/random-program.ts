/* Random programs that a verifier would let through: registers, constants, their own stack, jumps forward. */

import {
  BPF_ADD,
  BPF_ALU,
  BPF_ALU64,
  BPF_AND,
  BPF_ARSH,
  BPF_ATOMIC,
  BPF_B,
  BPF_CMPXCHG,
  BPF_DIV,
  BPF_DW,
  BPF_END,
  BPF_FETCH,
  BPF_H,
  BPF_JA,
  BPF_JEQ,
  BPF_JGE,
  BPF_JGT,
  BPF_JLE,
  BPF_JLT,
  BPF_JMP,
  BPF_JMP32,
  BPF_JNE,
  BPF_JSET,
  BPF_JSGE,
  BPF_JSGT,
  BPF_JSLE,
  BPF_JSLT,
  BPF_K,
  BPF_LDX,
  BPF_LSH,
  BPF_MEM,
  BPF_MEMSX,
  BPF_MOD,
  BPF_MOV,
  BPF_MUL,
  BPF_NEG,
  BPF_OR,
  BPF_REG_FP,
  BPF_RSH,
  BPF_ST,
  BPF_STX,
  BPF_SUB,
  BPF_TO_BE,
  BPF_TO_LE,
  BPF_W,
  BPF_X,
  BPF_XCHG,
  BPF_XOR,
  type BpfInsn,
} from '../../../jit/index.ts';
import { exit, insn, ldImm64, movImm } from './programs.ts';

/** A number from 0 to less than `below`. */
export type Random = (below: number) => number;

/** What stays together: a jump never lands inside. */
type Unit = readonly BpfInsn[];

const REGS = 10;
/** Eight-byte slots of stack, all written first. */
const SLOTS = 4;
export const STACK_DEPTH: number = 8 * SLOTS;

const PLAIN = [BPF_ADD, BPF_SUB, BPF_MUL, BPF_OR, BPF_AND, BPF_XOR, BPF_MOV];
const SHIFTS = [BPF_LSH, BPF_RSH, BPF_ARSH];
const DIVISIONS = [BPF_DIV, BPF_MOD];
const CONDITIONS = [
  BPF_JEQ,
  BPF_JNE,
  BPF_JGT,
  BPF_JGE,
  BPF_JLT,
  BPF_JLE,
  BPF_JSET,
  BPF_JSGT,
  BPF_JSGE,
  BPF_JSLT,
  BPF_JSLE,
];
const ATOMICS = [BPF_ADD, BPF_AND, BPF_OR, BPF_XOR].flatMap((op) => [op, op | BPF_FETCH]).concat(BPF_XCHG);

/** @param revision v6.12 has more instructions than the others. */
export function randomProgram(random: Random, revision: string, units: number): BpfInsn[] {
  const pick = <T>(list: readonly T[]): T => list[random(list.length)] as T;
  const reg = (): number => random(REGS);
  const word = (): number => (random(0x1_0000) << 16) | random(0x1_0000);
  /** Small ones, ends of fields, anything. */
  const imm = (): number => pick([0, 1, -1, 127, 128, -128, -129, 0x7fff_ffff, -0x8000_0000, word(), word()]);
  const aluClass = (): number => pick([BPF_ALU, BPF_ALU64]);
  const newer = revision === 'v6.12';

  const stackPlace = (size: number): number => -size * (1 + random(STACK_DEPTH / size));

  const makers: readonly (() => Unit)[] = [
    () => [insn(aluClass() | pick(PLAIN) | BPF_X, { dst: reg(), src: reg() })],
    () => [insn(aluClass() | pick(PLAIN) | BPF_K, { dst: reg(), imm: imm() })],
    () => [insn(aluClass() | pick(SHIFTS) | BPF_X, { dst: reg(), src: reg() })],
    () => shiftByConstant(),
    () => [insn(aluClass() | BPF_NEG, { dst: reg() })],
    () => [insn(BPF_ALU | BPF_END | pick([BPF_TO_BE, BPF_TO_LE]), { dst: reg(), imm: pick([16, 32, 64]) })],
    () => ldImm64(reg(), (BigInt(word()) << 32n) | BigInt(word() >>> 0)),
    () => ldImm64(reg(), pick([0n, 0xffff_ffffn, -1n, -0x8000_0000n, -0x8000_0001n])),
    () => division(),
    () => memory(),
    () => atomic(),
    ...(newer ? [() => newMove(), () => newMemory()] : []),
  ];

  function shiftByConstant(): Unit {
    const kind = aluClass();
    const count = pick([0, 1, random(kind === BPF_ALU ? 32 : 64)]);
    return [insn(kind | pick(SHIFTS) | BPF_K, { dst: reg(), imm: count })];
  }

  /** Never by zero, and no signed quotient that does not fit. */
  function division(): Unit {
    const code = aluClass() | pick(DIVISIONS);
    const off = newer ? random(2) : 0;
    const by = 1 + random(pick([3, 1000, 0x7fff_ffff]));
    if (random(2) === 0) return [insn(code | BPF_K, { dst: reg(), off, imm: by })];
    const src = reg();
    return [movImm(src, by), insn(code | BPF_X, { dst: reg(), src, off })];
  }

  function memory(): Unit {
    const [code, size] = pick([
      [BPF_B, 1],
      [BPF_H, 2],
      [BPF_W, 4],
      [BPF_DW, 8],
    ] as const);
    const off = stackPlace(size);
    return pick([
      [insn(BPF_LDX | BPF_MEM | code, { dst: reg(), src: BPF_REG_FP, off })],
      [insn(BPF_STX | BPF_MEM | code, { dst: BPF_REG_FP, src: reg(), off })],
      [insn(BPF_ST | BPF_MEM | code, { dst: BPF_REG_FP, off, imm: imm() })],
    ]);
  }

  function atomic(): Unit {
    const [code, size] = pick([
      [BPF_W, 4],
      [BPF_DW, 8],
    ] as const);
    const off = stackPlace(size);
    const at = { dst: BPF_REG_FP, off, src: reg() };
    if (random(4) > 0) return [insn(BPF_STX | BPF_ATOMIC | code, { ...at, imm: pick(ATOMICS) })];
    const exchange = insn(BPF_STX | BPF_ATOMIC | code, { ...at, imm: BPF_CMPXCHG });
    // the verifier adds this to the narrow one, which leaves the upper half of r0 alone when it succeeds
    return size === 8 ? [exchange] : [exchange, insn(BPF_ALU | BPF_MOV | BPF_X)];
  }

  function newMove(): Unit {
    if (random(3) === 0) return [insn(BPF_ALU64 | BPF_END, { dst: reg(), imm: pick([16, 32, 64]) })];
    const kind = aluClass();
    const off = pick(kind === BPF_ALU ? [8, 16] : [8, 16, 32]);
    return [insn(kind | BPF_MOV | BPF_X, { dst: reg(), src: reg(), off })];
  }

  function newMemory(): Unit {
    const [code, size] = pick([
      [BPF_B, 1],
      [BPF_H, 2],
      [BPF_W, 4],
    ] as const);
    return [insn(BPF_LDX | BPF_MEMSX | code, { dst: reg(), src: BPF_REG_FP, off: stackPlace(size) })];
  }

  const body = Array.from({ length: units }, () => pick(makers)());
  return [
    ...setUp(word),
    ...withJumps(body, random, { pick, reg, imm, gotol: revision !== 'v5.15' }),
    ...fold(),
    exit,
  ];
}

/** Every register and every slot gets a value. */
function setUp(word: () => number): BpfInsn[] {
  const regs = Array.from({ length: REGS }, (_, dst) =>
    ldImm64(dst, (BigInt(word()) << 32n) | BigInt(word() >>> 0)),
  );
  const slots = Array.from({ length: SLOTS }, (_, i) =>
    insn(BPF_STX | BPF_MEM | BPF_DW, { dst: BPF_REG_FP, off: -8 * (i + 1), src: i }),
  );
  return [...regs.flat(), ...slots];
}

/** In front of some units, a jump over a few of those that follow. */
function withJumps(
  units: readonly Unit[],
  random: Random,
  {
    pick,
    reg,
    imm,
    gotol,
  }: { pick: <T>(list: readonly T[]) => T; reg: () => number; imm: () => number; gotol: boolean },
): BpfInsn[] {
  const out: BpfInsn[] = [];
  // backwards, so that what a jump skips is there already
  for (const unit of units.toReversed()) {
    out.unshift(...unit);
    if (random(3) > 0) continue;
    const off = unit.length;
    if (random(8) === 0) {
      const far = gotol && random(2) === 0;
      out.unshift(far ? insn(BPF_JMP32 | BPF_JA, { imm: off }) : insn(BPF_JMP | BPF_JA, { off }));
      continue;
    }
    const code = pick([BPF_JMP, BPF_JMP32]) | pick(CONDITIONS);
    const compared =
      random(2) === 0 ? { code: code | BPF_X, src: reg() } : { code: code | BPF_K, imm: imm() };
    out.unshift(insn(code, { dst: reg(), off, ...compared }));
  }
  return out;
}

/** r0 = a mixture of all registers and slots. */
function fold(): BpfInsn[] {
  const mix = (src: number): BpfInsn[] => [
    insn(BPF_ALU64 | BPF_MUL | BPF_K, { imm: 31 }),
    insn(BPF_ALU64 | BPF_ADD | BPF_X, { src }),
  ];
  const slots = Array.from({ length: SLOTS }, (_, i) => [
    insn(BPF_LDX | BPF_MEM | BPF_DW, { dst: 1, src: BPF_REG_FP, off: -8 * (i + 1) }),
    ...mix(1),
  ]);
  return [...Array.from({ length: REGS - 1 }, (_, i) => mix(i + 1)), ...slots].flat();
}
