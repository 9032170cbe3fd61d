/*
 * Random programs that the verifier lets through: the whole instruction set of a revision, over their own stack,
 * the memory they are handed, and a map's value; with functions of their own, and helpers. They end, because they
 * jump forward but for loops that count.
 *
 *   r9            the memory
 *   r8            what a loop counts down
 *   r0 to r7      numbers
 */

import type { BpfSubprog } from '../../../bpf/index.ts';
import type { Random } from '../../../check/random.ts';
import type { BpfInsn } from '../../../jit/index.ts';
import * as op from '../../../jit/index.ts';

export type Revision = 'v5.15' | 'v6.1' | 'v6.12';

/** Bytes of what every program may touch. */
export const MEMORY_BYTES = 64;
export const VALUE_BYTES = 64;
/** Eight-byte slots of each function's stack. */
const SLOTS = 6;

/** Helpers with something to say in a test; see world.ts. */
export const TEST_HELPERS = { clock: 5, cpu: 8, mix: 109, fill: 120 } as const;

/** A program made of functions; `[0]` is the program. */
export interface Generated {
  readonly insns: readonly BpfInsn[];
  readonly subprogs: readonly BpfSubprog[];
}

/** What stays together: a jump never lands inside. `call`: the function that it calls. */
interface Unit {
  readonly insns: readonly BpfInsn[];
  readonly call?: number;
}

const PLAIN = [op.BPF_ADD, op.BPF_SUB, op.BPF_MUL, op.BPF_OR, op.BPF_AND, op.BPF_XOR, op.BPF_MOV];
const SHIFTS = [op.BPF_LSH, op.BPF_RSH, op.BPF_ARSH];
const CONDITIONS = [
  op.BPF_JEQ,
  op.BPF_JNE,
  op.BPF_JGT,
  op.BPF_JGE,
  op.BPF_JLT,
  op.BPF_JLE,
  op.BPF_JSET,
  op.BPF_JSGT,
  op.BPF_JSGE,
  op.BPF_JSLT,
  op.BPF_JSLE,
];
const ATOMICS = [
  ...[op.BPF_ADD, op.BPF_AND, op.BPF_OR, op.BPF_XOR].flatMap((one) => [one, one | op.BPF_FETCH]),
  op.BPF_XCHG,
  op.BPF_CMPXCHG,
];
const SIZES = [
  [op.BPF_B, 1],
  [op.BPF_H, 2],
  [op.BPF_W, 4],
  [op.BPF_DW, 8],
] as const;
const NUMBERS = 8;
const MEMORY = op.BPF_REG_9;
const COUNTER = op.BPF_REG_8;

const insn = (code: number, fields: Partial<BpfInsn> = {}): BpfInsn => ({
  ...{ code, dst: 0, src: 0, off: 0, imm: 0 },
  ...fields,
});

const EXIT = insn(op.BPF_JMP | op.BPF_EXIT);
const movReg = (dst: number, src: number): BpfInsn =>
  insn(op.BPF_ALU64 | op.BPF_MOV | op.BPF_X, { dst, src });
const low = (value: bigint): number => Number(BigInt.asIntN(32, value));

function loadImm64(dst: number, value: bigint, src = 0): BpfInsn[] {
  return [
    insn(op.BPF_LD | op.BPF_IMM | op.BPF_DW, { dst, src, imm: low(value) }),
    insn(0, { imm: low(value >> 32n) }),
  ];
}

/** The program of one case. */
export function generate(random: Random, revision: Revision): Generated {
  const functions = random.pick([1, 1, 1, 2, 3]);
  const bodies = Array.from({ length: functions }, (_, index) =>
    new FunctionMaker(random, revision, index, functions).make(
      index === 0 ? random.int(4, 40) : random.int(1, 10),
    ),
  );
  const starts: number[] = [];
  let length = 0;
  for (const body of bodies) {
    starts.push(length);
    length += body.reduce((sum, unit) => sum + unit.insns.length, 0);
  }
  const insns: BpfInsn[] = [];
  for (const unit of bodies.flat()) {
    for (const one of unit.insns) {
      const calls =
        unit.call !== undefined && one.code === (op.BPF_JMP | op.BPF_CALL) && one.src === op.BPF_PSEUDO_CALL;
      insns.push(calls ? { ...one, imm: (starts[unit.call ?? 0] as number) - insns.length - 1 } : one);
    }
  }
  const subprogs = starts.map((start, i) => ({
    start,
    length: (starts[i + 1] ?? length) - start,
    name: i === 0 ? 'program' : `function_${i}`,
    global: false,
    type: undefined,
  }));
  return { insns, subprogs };
}

class FunctionMaker {
  readonly #random: Random;
  readonly #revision: Revision;
  readonly #index: number;
  readonly #functions: number;
  readonly #makers: readonly (() => Unit)[];

  constructor(random: Random, revision: Revision, index: number, functions: number) {
    this.#random = random;
    this.#revision = revision;
    this.#index = index;
    this.#functions = functions;
    const one =
      (make: () => BpfInsn): (() => Unit) =>
      () => ({ insns: [make()] });
    const newer = revision === 'v6.12';
    this.#makers = [
      one(() => this.#alu(op.BPF_X, PLAIN)),
      one(() => this.#alu(op.BPF_K, PLAIN)),
      one(() => this.#alu(op.BPF_X, SHIFTS)),
      one(() => this.#shift()),
      one(() => this.#divide()),
      one(() => this.#divide()),
      one(() => insn(this.#width() | op.BPF_NEG, { dst: this.#number() })),
      one(() => this.#end()),
      () => ({ insns: loadImm64(this.#number(), this.#wide()) }),
      () => this.#memory(),
      () => this.#memory(),
      () => this.#memory(),
      () => this.#atomic(),
      () => this.#helper(),
      ...(functions > index + 1 ? [() => this.#call(), () => this.#call()] : []),
      ...(newer ? [one(() => this.#extendingMove()), () => this.#extendingLoad()] : []),
    ];
  }

  /** Whole functions: what comes in is kept, everything has a value, then units, then a result of everything. */
  make(units: number): Unit[] {
    const body = Array.from({ length: units }, () => this.#random.pick(this.#makers)());
    return [this.#setUp(), ...this.#withJumps(body), { insns: this.#fold() }];
  }

  #setUp(): Unit {
    const numbers = Array.from({ length: NUMBERS }, (_, dst) => loadImm64(dst, this.#wide())).flat();
    const slots = Array.from({ length: SLOTS }, (_, i) =>
      insn(op.BPF_STX | op.BPF_MEM | op.BPF_DW, { dst: op.BPF_REG_FP, off: -8 * (i + 1), src: i }),
    );
    return { insns: [movReg(MEMORY, 1), ...numbers, ...slots] };
  }

  /** r0 = a mixture of all numbers and of the stack. */
  #fold(): BpfInsn[] {
    const mix = (src: number): BpfInsn[] => [
      insn(op.BPF_ALU64 | op.BPF_MUL | op.BPF_K, { imm: 31 }),
      insn(op.BPF_ALU64 | op.BPF_ADD | op.BPF_X, { src }),
    ];
    const slots = Array.from({ length: SLOTS }, (_, i) => [
      insn(op.BPF_LDX | op.BPF_MEM | op.BPF_DW, { dst: 1, src: op.BPF_REG_FP, off: -8 * (i + 1) }),
      ...mix(1),
    ]);
    return [...Array.from({ length: NUMBERS - 1 }, (_, i) => mix(i + 1)), ...slots].flat().concat(EXIT);
  }

  // -- operands ---------------------------------------------------------------------------------

  #number(): number {
    return this.#random.int(0, NUMBERS - 1);
  }

  #width(): number {
    return this.#random.pick([op.BPF_ALU, op.BPF_ALU64]);
  }

  /** Small ones, ends of fields, anything. */
  #imm(): number {
    const any = this.#random.u32() | 0;
    return this.#random.pick([0, 1, -1, 2, 127, 128, -128, -129, 0x7fff_ffff, -0x8000_0000, any, any, any]);
  }

  #wide(): bigint {
    const edges = [0n, 1n, -1n, 0xffff_ffffn, 0x8000_0000n, -0x8000_0000n, 0x7fff_ffff_ffff_ffffn, 1n << 63n];
    return this.#random.once(3) ? this.#random.pick(edges) : this.#random.u64();
  }

  // -- arithmetic -------------------------------------------------------------------------------

  #alu(source: number, operations: readonly number[]): BpfInsn {
    const code = this.#width() | this.#random.pick(operations) | source;
    const dst = this.#number();
    return source === op.BPF_X
      ? insn(code, { dst, src: this.#number() })
      : insn(code, { dst, imm: this.#imm() });
  }

  #shift(): BpfInsn {
    const width = this.#width();
    const imm = this.#random.int(0, width === op.BPF_ALU ? 31 : 63);
    return insn(width | this.#random.pick(SHIFTS) | op.BPF_K, { dst: this.#number(), imm });
  }

  /** By zero too, when the divisor is in a register. */
  #divide(): BpfInsn {
    const code = this.#width() | this.#random.pick([op.BPF_DIV, op.BPF_MOD]);
    const off = this.#revision === 'v6.12' ? this.#random.int(0, 1) : 0;
    const dst = this.#number();
    if (this.#random.once(2)) return insn(code | op.BPF_X, { dst, off, src: this.#number() });
    return insn(code | op.BPF_K, { dst, off, imm: this.#imm() || 7 });
  }

  #end(): BpfInsn {
    const imm = this.#random.pick([16, 32, 64]);
    const dst = this.#number();
    if (this.#revision === 'v6.12' && this.#random.once(3))
      return insn(op.BPF_ALU64 | op.BPF_END, { dst, imm });
    return insn(op.BPF_ALU | op.BPF_END | this.#random.pick([op.BPF_TO_BE, op.BPF_TO_LE]), { dst, imm });
  }

  #extendingMove(): BpfInsn {
    const width = this.#width();
    const off = this.#random.pick(width === op.BPF_ALU ? [8, 16] : [8, 16, 32]);
    return insn(width | op.BPF_MOV | op.BPF_X, { dst: this.#number(), src: this.#number(), off });
  }

  // -- memory -----------------------------------------------------------------------------------

  /** A place of so many bytes, aligned: what leads there, its base and offset. */
  #place(
    sizeBytes: number,
    not: number,
  ): { readonly before: BpfInsn[]; readonly base: number; readonly off: number; readonly after: BpfInsn[] } {
    const within = (bytes: number): number => sizeBytes * this.#random.int(0, bytes / sizeBytes - 1);
    switch (this.#random.int(0, 3)) {
      case 0:
        return { before: [], base: op.BPF_REG_FP, off: within(8 * SLOTS) - 8 * SLOTS, after: [] };
      case 1:
        return { before: [], base: MEMORY, off: within(MEMORY_BYTES), after: [] };
      default: {
        // The value's address is in a number's register for a moment.
        const base = this.#random.pick([1, 2, 3, 4, 5, 6, 7].filter((one) => one !== not));
        const start = within(VALUE_BYTES);
        const ahead = this.#random.pick([0, start, 8]);
        const address = loadImm64(base, 0n, op.BPF_PSEUDO_MAP_VALUE);
        const before = [
          address[0] as BpfInsn,
          { ...(address[1] as BpfInsn), imm: Math.max(start - ahead, 0) },
        ];
        return {
          before,
          base,
          off: start - Math.max(start - ahead, 0),
          after: loadImm64(base, this.#wide()),
        };
      }
    }
  }

  #memory(): Unit {
    const [code, sizeBytes] = this.#random.pick(SIZES);
    const value = this.#number();
    const { before, base, off, after } = this.#place(sizeBytes, value);
    const access = this.#random.pick([
      insn(op.BPF_LDX | op.BPF_MEM | code, { dst: value, src: base, off }),
      insn(op.BPF_STX | op.BPF_MEM | code, { dst: base, src: value, off }),
      insn(op.BPF_ST | op.BPF_MEM | code, { dst: base, off, imm: this.#imm() }),
    ]);
    return { insns: [...before, access, ...after] };
  }

  #extendingLoad(): Unit {
    const [code, sizeBytes] = this.#random.pick(SIZES.slice(0, 3));
    const dst = this.#number();
    const { before, base, off, after } = this.#place(sizeBytes as number, dst);
    return {
      insns: [
        ...before,
        insn(op.BPF_LDX | op.BPF_MEMSX | (code as number), { dst, src: base, off }),
        ...after,
      ],
    };
  }

  #atomic(): Unit {
    const [code, sizeBytes] = this.#random.pick(SIZES.slice(2));
    const src = this.#number();
    const { before, base, off, after } = this.#place(sizeBytes as number, src);
    const imm = this.#random.pick(ATOMICS);
    return {
      insns: [
        ...before,
        insn(op.BPF_STX | op.BPF_ATOMIC | (code as number), { dst: base, src, off, imm }),
        ...after,
      ],
    };
  }

  // -- calls ------------------------------------------------------------------------------------

  /** What a call leaves undefined gets values again. */
  #afterCall(): BpfInsn[] {
    return [1, 2, 3, 4, 5].flatMap((dst) => loadImm64(dst, this.#wide()));
  }

  #helper(): Unit {
    const id = this.#random.pick(Object.values(TEST_HELPERS));
    const call = insn(op.BPF_JMP | op.BPF_CALL, { imm: id });
    if (id !== TEST_HELPERS.fill) return { insns: [call, ...this.#afterCall()] };
    const slot = -8 * this.#random.int(1, SLOTS);
    const to = [movReg(3, op.BPF_REG_FP), insn(op.BPF_ALU64 | op.BPF_ADD | op.BPF_K, { dst: 3, imm: slot })];
    const bytes = insn(op.BPF_ALU64 | op.BPF_MOV | op.BPF_K, { dst: 4, imm: 8 });
    return { insns: [...to, bytes, call, ...this.#afterCall()] };
  }

  #call(): Unit {
    const callee = this.#random.int(this.#index + 1, this.#functions - 1);
    const call = insn(op.BPF_JMP | op.BPF_CALL, { src: op.BPF_PSEUDO_CALL });
    return { insns: [movReg(1, MEMORY), call, ...this.#afterCall()], call: callee };
  }

  // -- jumps ------------------------------------------------------------------------------------

  /** In front of some units, a jump over a few of those that follow; around some, a loop. */
  #withJumps(units: readonly Unit[]): Unit[] {
    const out: Unit[] = [];
    // Backwards, so that what a jump skips is there already.
    for (const unit of units.toReversed()) {
      out.unshift(this.#random.once(10) ? this.#loop(unit) : unit);
      if (this.#random.once(3)) out.unshift({ insns: [this.#jump(out)] });
    }
    return out;
  }

  #jump(units: readonly Unit[]): BpfInsn {
    const over = units.slice(0, this.#random.int(1, 4)).reduce((sum, { insns }) => sum + insns.length, 0);
    if (this.#random.once(8)) return this.#certainJump(over);
    const code = this.#random.pick([op.BPF_JMP, op.BPF_JMP32]) | this.#random.pick(CONDITIONS);
    const dst = this.#number();
    if (this.#random.once(2)) return insn(code | op.BPF_X, { dst, src: this.#number(), off: over });
    return insn(code | op.BPF_K, { dst, imm: this.#imm(), off: over });
  }

  /** Over nothing, since what no path leads to is refused; the compiler may make something of it anyway. */
  #certainJump(over: number): BpfInsn {
    if (this.#revision === 'v6.12' && this.#random.once(2)) return insn(op.BPF_JMP32 | op.BPF_JA);
    if (this.#random.once(2)) return insn(op.BPF_JMP | op.BPF_JA);
    // Always, or never, so that something is dead.
    const code = op.BPF_JMP | this.#random.pick([op.BPF_JEQ, op.BPF_JNE, op.BPF_JLE, op.BPF_JSGT]);
    const dst = this.#number();
    return insn(code | op.BPF_X, { dst, src: dst, off: over });
  }

  #loop({ insns, ...rest }: Unit): Unit {
    const times = this.#random.int(1, 5);
    const back = -(insns.length + 2);
    const again = insn(op.BPF_JMP | op.BPF_JNE | op.BPF_K, { dst: COUNTER, imm: 0, off: back });
    const start = insn(op.BPF_ALU64 | op.BPF_MOV | op.BPF_K, { dst: COUNTER, imm: times });
    const count = insn(op.BPF_ALU64 | op.BPF_SUB | op.BPF_K, { dst: COUNTER, imm: 1 });
    return { insns: [start, ...insns, count, again], ...rest };
  }
}
