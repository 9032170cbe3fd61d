import { describe, expect, it } from 'vitest';
import { type BpfWorld, FlatMemory, type Interpreted, interpret } from '../../bpf/index.ts';
import type { BpfInsn } from '../../jit/index.ts';
import { insn } from './object-support.ts';

/*
 * Each instruction against what the instruction set's standard says it does, written out by hand. Opcodes are
 * numbers here: a wrong constant of ours must not be on both sides.
 */

const EXIT = insn(0x95);
const STACK_TOP = 0x1_0000n;
const DATA = 0x2000n;

/** 64-bit immediate. */
const load64 = (dst: number, value: bigint): BpfInsn[] => [
  insn(0x18, { dst, imm: Number(BigInt.asIntN(32, value)) }),
  insn(0, { imm: Number(BigInt.asIntN(32, value >> 32n)) }),
];

function run(
  insns: readonly BpfInsn[],
  data: Uint8Array = new Uint8Array(16),
  world: Partial<BpfWorld> = {},
): Interpreted {
  const memory = new FlatMemory();
  memory.map(STACK_TOP - 4096n, new Uint8Array(4096));
  memory.map(DATA, data);
  const call = (): bigint => 0n;
  return interpret(
    insns,
    { memory, call, ...world },
    { args: [DATA, 16n], stackTop: STACK_TOP, limit: 1000 },
  );
}

function r0(insns: readonly BpfInsn[], data?: Uint8Array, world?: Partial<BpfWorld>): bigint {
  const end = run(insns, data, world);
  if ('error' in end) throw new Error(`${end.error} at ${end.at}`);
  return end.r0;
}

const A = 0x8877_6655_4433_2211n;
const MINUS = (value: bigint): bigint => BigInt.asUintN(64, -value);

describe('arithmetic: r0 op= r1', () => {
  const rows: readonly (readonly [string, number, bigint, bigint, bigint, number?])[] = [
    ['add64', 0x0f, MINUS(1n), 2n, 1n],
    ['add32', 0x0c, 0x1_ffff_ffffn, 2n, 1n],
    ['sub64', 0x1f, 1n, 2n, MINUS(1n)],
    ['sub32', 0x1c, 1n, 2n, 0xffff_ffffn],
    ['mul64', 0x2f, A, 0x1_0000n, 0x6655_4433_2211_0000n],
    ['mul32', 0x2c, A, 0x1_0000n, 0x2211_0000n],
    ['div64', 0x3f, MINUS(1n), 16n, 0x0fff_ffff_ffff_ffffn],
    ['div32', 0x3c, MINUS(1n), 16n, 0x0fff_ffffn],
    ['div64 by zero', 0x3f, A, 0n, 0n],
    ['div32 by zero', 0x3c, A, 0x1_0000_0000n, 0n],
    ['sdiv64', 0x3f, MINUS(13n), 4n, MINUS(3n), 1],
    ['sdiv32', 0x3c, MINUS(13n), 4n, 0xffff_fffdn, 1],
    ['sdiv64, overflow', 0x3f, 1n << 63n, MINUS(1n), 1n << 63n, 1],
    ['sdiv32, overflow', 0x3c, 0x8000_0000n, MINUS(1n), 0x8000_0000n, 1],
    ['mod64', 0x9f, MINUS(1n), 16n, 15n],
    ['mod32', 0x9c, 0xf_0000_0013n, 16n, 3n],
    ['mod64 by zero', 0x9f, A, 0n, A],
    ['mod32 by zero', 0x9c, A, 0n, 0x4433_2211n],
    ['smod64', 0x9f, MINUS(13n), 4n, MINUS(1n), 1],
    ['smod32', 0x9c, MINUS(13n), MINUS(4n), 0xffff_ffffn, 1],
    ['smod64, overflow', 0x9f, 1n << 63n, MINUS(1n), 0n, 1],
    ['or64', 0x4f, 0xf0n << 56n, 0x0fn, 0xf000_0000_0000_000fn],
    ['or32', 0x4c, 0xf0n << 56n, 0x0fn, 0x0fn],
    ['and64', 0x5f, A, 0xff00_0000_0000_00ffn, 0x8800_0000_0000_0011n],
    ['and32', 0x5c, A, MINUS(1n), 0x4433_2211n],
    ['lsh64', 0x6f, 1n, 63n, 1n << 63n],
    ['lsh64 by 64', 0x6f, 5n, 64n, 5n],
    ['lsh32', 0x6c, 3n, 31n, 0x8000_0000n],
    ['lsh32 by 33', 0x6c, 3n, 33n, 6n],
    ['rsh64', 0x7f, 1n << 63n, 60n, 8n],
    ['rsh32', 0x7c, A, 4n, 0x0443_3221n],
    ['arsh64', 0xcf, 1n << 63n, 63n, MINUS(1n)],
    ['arsh32', 0xcc, 0x8000_0000n, 31n, 0xffff_ffffn],
    ['xor64', 0xaf, A, MINUS(1n), 0x7788_99aa_bbcc_ddeen],
    ['xor32', 0xac, A, MINUS(1n), 0xbbcc_ddeen],
    ['mov64', 0xbf, 0n, A, A],
    ['mov32', 0xbc, A, A, 0x4433_2211n],
    ['movsx64 8', 0xbf, 0n, 0x80n, MINUS(0x80n), 8],
    ['movsx64 16', 0xbf, 0n, 0x1_7fffn, 0x7fffn, 16],
    ['movsx64 32', 0xbf, 0n, 0x8000_0000n, 0xffff_ffff_8000_0000n, 32],
    ['movsx32 8', 0xbc, 0n, 0x80n, 0xffff_ff80n, 8],
    ['movsx32 16', 0xbc, 0n, 0x8000n, 0xffff_8000n, 16],
  ];
  it.each(rows.map((row) => ({ name: row[0], row })))('$name', ({ row }) => {
    const [, code, left, right, wanted, off = 0] = row;
    const op = insn(code, { dst: 0, src: 1, off });
    expect(r0([...load64(0, left), ...load64(1, right), op, EXIT])).toBe(wanted);
  });

  it.each([
    ['add64', 0x07, 5n, -7, MINUS(2n)],
    ['add32', 0x04, 5n, -7, 0xffff_fffen],
    ['and64 extends the sign', 0x57, A, -256, 0x8877_6655_4433_2200n],
    ['div64 extends the sign', 0x37, MINUS(1n), -1, 1n],
    ['mov64', 0xb7, 0n, -1, MINUS(1n)],
    ['mov32', 0xb4, A, -1, 0xffff_ffffn],
    ['neg64', 0x87, 1n, 0, MINUS(1n)],
    ['neg32', 0x84, 1n, 0, 0xffff_ffffn],
    ['to big endian, 16', 0xdc, A, 16, 0x1122n],
    ['to big endian, 32', 0xdc, A, 32, 0x1122_3344n],
    ['to big endian, 64', 0xdc, A, 64, 0x1122_3344_5566_7788n],
    ['to little endian, 16', 0xd4, A, 16, 0x2211n],
    ['to little endian, 32', 0xd4, A, 32, 0x4433_2211n],
    ['to little endian, 64', 0xd4, A, 64, A],
    ['bswap16', 0xd7, A, 16, 0x1122n],
    ['bswap32', 0xd7, A, 32, 0x1122_3344n],
    ['bswap64', 0xd7, A, 64, 0x1122_3344_5566_7788n],
  ] as const)('%s with a constant', (_, code, left, imm, wanted) => {
    expect(r0([...load64(0, left), insn(code, { dst: 0, imm }), EXIT])).toBe(wanted);
  });

  it('the per-CPU move adds the base', () => {
    const insns = [insn(0xb7, { dst: 1, imm: 0x18 }), insn(0xbf, { dst: 0, src: 1, off: -1 }), EXIT];
    expect(r0(insns, undefined, { percpuBase: 0x1000n })).toBe(0x1018n);
  });
});

describe('jumps: taken or not, by r1 against r2', () => {
  const low = 0xffff_ffffn;
  // opcode of the 64-bit form with a register; operands; taken by 64 bits, by 32 bits
  const rows: readonly (readonly [string, number, bigint, bigint, boolean, boolean])[] = [
    ['jeq', 0x1d, 1n << 32n, 0n, false, true],
    ['jne', 0x5d, 1n << 32n, 0n, true, false],
    ['jgt', 0x2d, MINUS(1n), 1n, true, true],
    ['jgt', 0x2d, 1n, 1n, false, false],
    ['jge', 0x3d, 1n, 1n, true, true],
    ['jlt', 0xad, 1n << 32n, 1n, false, true],
    ['jle', 0xbd, 1n, 1n, true, true],
    ['jle', 0xbd, MINUS(1n), 1n, false, false],
    ['jset', 0x4d, 6n, 9n, false, false],
    ['jset', 0x4d, 5n << 32n, 4n << 32n, true, false],
    ['jsgt', 0x6d, low, 1n, true, false],
    ['jsge', 0x7d, MINUS(1n), 0n, false, false],
    ['jsge', 0x7d, 2n, 2n, true, true],
    ['jslt', 0xcd, low, 0n, false, true],
    ['jsle', 0xdd, MINUS(5n), MINUS(5n), true, true],
  ];
  it.each(rows)('%s 0x%s', (_, code, left, right, wide, narrow) => {
    for (const [width, taken] of [
      [code, wide],
      [code + 1, narrow],
    ] as const) {
      const insns = [
        ...load64(1, left),
        ...load64(2, right),
        insn(0xb7, { dst: 0, imm: 1 }),
        insn(width, { dst: 1, src: 2, off: 1 }),
        insn(0xb7, { dst: 0 }),
        EXIT,
      ];
      expect(r0(insns), `opcode ${width.toString(16)}`).toBe(taken ? 1n : 0n);
    }
  });

  it('a constant is extended by its sign', () => {
    const insns = [
      ...load64(1, MINUS(1n)),
      insn(0xb7, { dst: 0, imm: 1 }),
      insn(0x15, { dst: 1, off: 1, imm: -1 }),
    ];
    expect(r0([...insns, insn(0xb7), EXIT])).toBe(1n);
  });

  it('ja and gotol go their distance', () => {
    const one = insn(0xb7, { imm: 1 });
    const two = insn(0xb7, { imm: 2 });
    expect(r0([one, insn(0x05, { off: 1 }), two, EXIT])).toBe(1n);
    expect(r0([one, insn(0x06, { imm: 1, off: 7 }), two, EXIT])).toBe(1n);
  });
});

describe('memory', () => {
  const bytes = (): Uint8Array => Uint8Array.from({ length: 16 }, (_, i) => 0xf0 + i);
  it.each([
    ['u8', 0x71, 0xf1n],
    ['u16', 0x69, 0xf2f1n],
    ['u32', 0x61, 0xf4f3_f2f1n],
    ['u64', 0x79, 0xf8f7_f6f5_f4f3_f2f1n],
    ['s8', 0x91, MINUS(0x0fn)],
    ['s16', 0x89, 0xffff_ffff_ffff_f2f1n],
    ['s32', 0x81, 0xffff_ffff_f4f3_f2f1n],
  ] as const)('loads %s', (_, code, wanted) => {
    expect(r0([insn(code, { src: 1, off: 1 }), EXIT], bytes())).toBe(wanted);
  });

  it.each([
    ['u8', 0x73, 0x72, 1],
    ['u16', 0x6b, 0x6a, 2],
    ['u32', 0x63, 0x62, 4],
    ['u64', 0x7b, 0x7a, 8],
  ] as const)('stores %s', (_, fromRegister, constant, size) => {
    const data = new Uint8Array(16);
    run([...load64(2, A), insn(fromRegister, { dst: 1, src: 2, off: 3 }), insn(0xb7), EXIT], data);
    const stored = [0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88].slice(0, size);
    expect([...data.slice(3, 12)]).toEqual([...stored, ...new Array(9 - size).fill(0)]);
    run([insn(constant, { dst: 1, off: 3, imm: -2 }), insn(0xb7), EXIT], data);
    expect([...data.slice(3, 12)]).toEqual([
      0xfe,
      ...new Array(size - 1).fill(0xff),
      ...new Array(9 - size).fill(0),
    ]);
  });

  const OLD = 0x1_0000_000fn;
  const BY = 0x2_0000_00f3n;
  // operation; what memory holds after 64 bits, after 32; whether the register gets what was there
  it.each([
    ['add', 0x00, 0x3_0000_0102n, 0x1_0000_0102n, false],
    ['or', 0x40, 0x3_0000_00ffn, 0x1_0000_00ffn, false],
    ['and', 0x50, 0x0000_0003n, 0x1_0000_0003n, false],
    ['xor', 0xa0, 0x3_0000_00fcn, 0x1_0000_00fcn, false],
    ['fetching add', 0x01, 0x3_0000_0102n, 0x1_0000_0102n, true],
    ['fetching or', 0x41, 0x3_0000_00ffn, 0x1_0000_00ffn, true],
    ['fetching and', 0x51, 0x0000_0003n, 0x1_0000_0003n, true],
    ['fetching xor', 0xa1, 0x3_0000_00fcn, 0x1_0000_00fcn, true],
    ['exchange', 0xe1, BY, 0x1_0000_00f3n, true],
  ] as const)('atomic %s', (_, imm, wide, narrow, fetches) => {
    for (const [code, wanted, old] of [
      [0xdb, wide, OLD],
      [0xc3, narrow, 0xfn],
    ] as const) {
      const data = new Uint8Array(16);
      new DataView(data.buffer).setBigUint64(0, OLD, true);
      const insns = [...load64(2, BY), insn(code, { dst: 1, src: 2, imm }), insn(0xbf, { src: 2 }), EXIT];
      expect(r0(insns, data)).toBe(fetches ? old : BY);
      expect(new DataView(data.buffer).getBigUint64(0, true)).toBe(wanted);
    }
  });

  it.each([
    ['equal', OLD, BY, OLD],
    ['not equal', 0x77n, OLD, OLD],
  ] as const)('atomic compare and exchange, %s', (_, expected, after, r0After) => {
    const data = new Uint8Array(16);
    new DataView(data.buffer).setBigUint64(0, OLD, true);
    const insns = [...load64(0, expected), ...load64(2, BY), insn(0xdb, { dst: 1, src: 2, imm: 0xf1 }), EXIT];
    expect(r0(insns, data)).toBe(r0After);
    expect(new DataView(data.buffer).getBigUint64(0, true)).toBe(after);
  });

  it('a narrow compare and exchange compares and gives 4 bytes', () => {
    const data = new Uint8Array(16);
    new DataView(data.buffer).setBigUint64(0, OLD, true);
    const insns = [
      ...load64(0, 0x9_0000_000fn),
      ...load64(2, BY),
      insn(0xc3, { dst: 1, src: 2, imm: 0xf1 }),
      EXIT,
    ];
    expect(r0(insns, data)).toBe(0xfn);
    expect(new DataView(data.buffer).getBigUint64(0, true)).toBe(0x1_0000_00f3n);
  });

  it('a probe load of what is not there gives 0; another one is an error', () => {
    const at = [...load64(1, 0xdead_0000n), insn(0xb7, { imm: 7 })];
    expect(r0([...at, insn(0x39, { src: 1 }), EXIT])).toBe(0n);
    expect(r0([...at, insn(0x51, { src: 1 }), EXIT])).toBe(0n);
    expect(run([...at, insn(0x79, { src: 1 }), EXIT])).toMatchObject({
      at: 3,
      error: expect.stringContaining('0xdead0000'),
    });
  });
});

describe('calls', () => {
  it('a helper gets r1 to r5 and gives r0', () => {
    const args = [1, 2, 3, 4, 5].map((dst) => insn(0xb7, { dst, imm: dst * 10 }));
    const seen: unknown[] = [];
    const call = (helper: number, given: readonly bigint[]): bigint => {
      seen.push(helper, given);
      return 77n;
    };
    expect(r0([...args, insn(0x85, { imm: 42 }), EXIT], undefined, { call })).toBe(77n);
    expect(seen).toEqual([42, [10n, 20n, 30n, 40n, 50n]]);
  });

  it('a function has a stack of its own, and gives r6 to r10 back', () => {
    const insns = [
      insn(0xb7, { dst: 6, imm: 6 }),
      insn(0x7a, { dst: 10, off: -8, imm: 1 }),
      insn(0x85, { src: 1, imm: 3 }),
      insn(0x79, { dst: 1, src: 10, off: -8 }),
      insn(0x0f, { dst: 6, src: 1 }),
      insn(0x05, { off: 3 }),
      insn(0xb7, { dst: 6, imm: 100 }),
      insn(0x7a, { dst: 10, off: -8, imm: 100 }),
      EXIT,
      insn(0xbf, { src: 6 }),
      EXIT,
    ];
    expect(r0(insns)).toBe(7n);
  });

  it('a tail call goes on in another program, or behind itself', () => {
    const other = [insn(0xb7, { imm: 5 }), EXIT];
    const insns = [
      insn(0xb7, { dst: 2, imm: 0x30 }),
      insn(0xb7, { dst: 3, imm: 1 }),
      insn(0xf5),
      insn(0xb7, { imm: 9 }),
      EXIT,
    ];
    const tailCall = (map: bigint, index: number): BpfInsn[] | undefined => {
      return map === 0x30n && index === 1 ? other : undefined;
    };
    expect(r0(insns, undefined, { tailCall })).toBe(5n);
    expect(r0(insns, undefined, { tailCall: () => undefined })).toBe(9n);
  });

  it('a program makes 33 tail calls, and then falls through', () => {
    const insns = [
      insn(0x79, { dst: 4, src: 1 }),
      insn(0x07, { dst: 4, imm: 1 }),
      insn(0x7b, { dst: 1, src: 4 }),
    ];
    const again = [...insns, insn(0xb7, { dst: 3 }), insn(0xf5), insn(0x79, { src: 1 }), EXIT];
    expect(r0(again, undefined, { tailCall: () => again })).toBe(34n);
  });
});

describe('what no verifier lets through ends a run', () => {
  it.each([
    ['an unknown opcode', [insn(0xff)], /0xff is unknown/],
    ['the end of the program', [insn(0xb7)], /ran out of the program/],
    ['a loop without end', [insn(0x05, { off: -1 })], /1000 instructions and no end/],
    ['a write to r10', [insn(0xb7, { dst: 10 })], /r10 cannot be written/],
    ['functions without end', [insn(0x85, { src: 1, imm: -1 })], /8 functions deep/],
  ])('%s', (_, insns, message) => {
    expect(run(insns)).toMatchObject({ error: expect.stringMatching(message) });
  });
});
