import { describe, expect, it } from 'vitest';
import { type BpfEnvironment, type BpfMapPlace, checkProgram } from '../../bpf/index.ts';
import type { BpfInsn } from '../../jit/index.ts';
import { kaddr } from '../../lib/index.ts';
import { EMPTY_ENVIRONMENT, loadable } from './fixup-support.ts';
import { bpfFixture, call, EXIT, helper, insn, load64, targetBtf, ZERO } from './object-support.ts';

/* What is refused at load, with the number of the instruction and the reason; and what must not be. */

const HASH: BpfMapPlace = {
  name: 'pairs',
  typeId: 1,
  keyBytes: 4,
  valueBytes: 16,
  maxEntries: 8,
  address: kaddr(0xffff_c900_0000_1000n),
};
const PROG_ARRAY: BpfMapPlace = { ...HASH, name: 'steps', typeId: 3, valueBytes: 4 };

const FENTRY: BpfEnvironment['entry'] = {
  kind: 'trampoline',
  attach: 'fentry',
  args: [{ kind: 'scalar' }, { kind: 'scalar' }],
  result: undefined,
};
const entry = (attach: 'fexit' | 'fmod_ret' | 'lsm', more = {}): BpfEnvironment['entry'] => ({
  ...FENTRY,
  attach,
  result: { kind: 'scalar' },
  ...more,
});

const ENV: BpfEnvironment = {
  ...EMPTY_ENVIRONMENT,
  entry: FENTRY,
  maps: [HASH, PROG_ARRAY],
  globals: [
    { name: '.rodata', address: kaddr(0x1000), sizeBytes: 8, readOnly: true, contents: Uint8Array.of(5) },
    { name: '.bss', address: kaddr(0x2000), sizeBytes: 8, readOnly: false, contents: new Uint8Array() },
  ],
  externs: [{ name: 'bpf_missing', address: undefined }],
};

interface Options {
  readonly env?: Partial<BpfEnvironment>;
  /** Where functions begin, besides 0. */
  readonly functions?: readonly number[];
}

function check(
  insns: readonly BpfInsn[],
  { env = {}, functions = [] }: Options = {},
): ReturnType<typeof checkProgram> {
  const starts = [0, ...functions];
  const subprogs = starts.map((start, i) => ({
    start,
    length: (starts[i + 1] ?? insns.length) - start,
    name: i === 0 ? 'prog' : `sub_${i}`,
    global: false,
    type: undefined,
  }));
  return checkProgram({ name: 'prog', insns, subprogs, references: [] }, { ...ENV, ...env });
}

const mov = (dst: number, imm: number): BpfInsn => insn(0xb7, { dst, imm });
const movReg = (dst: number, src: number): BpfInsn => insn(0xbf, { dst, src });
const add = (dst: number, imm: number): BpfInsn => insn(0x07, { dst, imm });
const map = (dst: number, index: number): BpfInsn[] => [insn(0x18, { dst, src: 1, imm: index }), insn(0)];
const global = (dst: number, index: number, off = 0): BpfInsn[] => [
  insn(0x18, { dst, src: 2, imm: index }),
  insn(0, { imm: off }),
];
const key = [insn(0x62, { dst: 10, off: -4 }), movReg(2, 10), add(2, -4)];
const lookup = [...key, ...map(1, 0), helper(1)];

const refusals: readonly (readonly [string, readonly BpfInsn[], number, RegExp, Options?])[] = [
  // shape
  ['an unknown opcode', [insn(0xff), EXIT], 0, /unknown/],
  ['a load for socket filters', [insn(0x20), EXIT], 0, /socket filters/],
  ['a register that is not there', [insn(0xb7, { dst: 11 }), EXIT], 0, /r11 does not exist/],
  ['a source that is not there', [insn(0xbf, { src: 12 }), EXIT], 0, /r12 does not exist/],
  ['a write to r10', [mov(10, 1), ZERO, EXIT], 0, /r10, the frame pointer/],
  ['a load into r10', [insn(0x79, { dst: 10, src: 1 }), ZERO, EXIT], 0, /r10, the frame pointer/],
  ['reserved fields', [insn(0xb7, { src: 1 }), EXIT], 0, /not zero/],
  ['a constant divisor of zero', [ZERO, insn(0x37), EXIT], 1, /divides by zero/],
  ['a shift that is too far', [ZERO, insn(0x67, { imm: 64 }), EXIT], 1, /shifts by 64/],
  ['a swap of 24 bits', [ZERO, insn(0xdc, { imm: 24 }), EXIT], 1, /swaps 24/],
  ['an atomic operation on bytes', [insn(0xd3, { dst: 10, src: 1, off: -8 }), ZERO, EXIT], 0, /4 bytes or 8/],
  [
    'an unknown atomic operation',
    [insn(0xdb, { dst: 10, src: 1, off: -8, imm: 2 }), ZERO, EXIT],
    0,
    /0x2 is unknown/,
  ],
  ['half an immediate', [ZERO, insn(0x18)], 1, /second half/],
  ['a jump out of the program', [insn(0x05, { off: 5 }), ZERO, EXIT], 0, /slot 6, out of its function/],
  ['a jump before the program', [insn(0x05, { off: -2 }), ZERO, EXIT], 0, /slot -1/],
  ['a jump into an immediate', [ZERO, insn(0x15, { off: 1 }), ...load64(), EXIT], 1, /into the middle/],
  [
    'a jump into another function',
    [insn(0x85, { src: 1, imm: 2 }), insn(0x05, { off: 1 }), EXIT, ZERO, EXIT],
    1,
    /out of its function/,
    { functions: [3] },
  ],
  ['falling off the end', [ZERO], 0, /past its end/],
  ['no instructions', [], 0, /empty/],
  ['what no path leads to', [ZERO, EXIT, ZERO, EXIT], 2, /no path leads to it/],
  ['a call of no function', [call(1), ZERO, EXIT], 0, /no function begins at slot 2/],
  [
    'version 4 of the set, before v6.12',
    [insn(0xbf, { src: 1, off: 8 }), EXIT],
    0,
    /not zero/,
    { env: { revision: 'v6.1' } },
  ],
  ['gotol, before v6.12', [insn(0x06), ZERO, EXIT], 0, /unknown/, { env: { revision: 'v6.1' } }],
  // registers
  ['a register without a value', [movReg(0, 3), EXIT], 0, /r3 is not initialised/],
  ['a result without a value', [EXIT], 0, /r0, the result, is not initialised/],
  ['r1 to r5 behind a call', [helper(5), movReg(0, 1), EXIT], 1, /r1 is not initialised/],
  [
    'a register without a value on one path',
    [insn(0x79, { dst: 2, src: 1 }), insn(0x15, { dst: 2, off: 1 }), mov(3, 0), movReg(0, 3), EXIT],
    3,
    /r3 is not initialised/,
  ],
  // memory
  ['a number as a pointer', [mov(1, 8), insn(0x79, { src: 1 }), EXIT], 1, /r1 is a number, and no pointer/],
  ['a store to the context', [insn(0x7b, { dst: 1, src: 1 }), ZERO, EXIT], 0, /cannot be written/],
  [
    'an argument that is not there',
    [insn(0x79, { src: 1, off: 16 }), ZERO, EXIT],
    0,
    /the function has 2 words/,
  ],
  ['an argument out of line', [insn(0x79, { src: 1, off: 4 }), ZERO, EXIT], 0, /not aligned/],
  ['above the stack', [insn(0x7a, { dst: 10 }), ZERO, EXIT], 0, /offset 0 of the stack/],
  ['below the stack', [insn(0x7a, { dst: 10, off: -520 }), ZERO, EXIT], 0, /offset -520/],
  ['a map as memory', [...map(1, 0), insn(0x79, { src: 1 }), EXIT], 2, /r1 is map pairs/],
  [
    'a value that may be null',
    [...lookup, insn(0x79, { src: 0 }), ZERO, EXIT],
    6,
    /or null: compare it with 0 first/,
  ],
  ['arithmetic on what may be null', [...lookup, add(0, 8), ZERO, EXIT], 6, /compare it with 0 first/],
  [
    'behind a value',
    [...lookup, insn(0x15, { off: 1 }), insn(0x79, { dst: 1, src: 0, off: 12 }), ZERO, EXIT],
    7,
    /8 bytes at offset 12 .*which has 16/,
  ],
  [
    'a constant that is written',
    [...global(1, 0), insn(0x7a, { dst: 1 }), ZERO, EXIT],
    2,
    /\.rodata cannot be written/,
  ],
  ['behind variables', [...global(1, 1, 4), insn(0x79, { src: 1 }), ZERO, EXIT], 2, /offset 4 .*which has 8/],
  [
    'a pointer to its own stack',
    [call(1), EXIT, movReg(0, 10), EXIT],
    3,
    /its own stack/,
    { functions: [2] },
  ],
  // helpers
  ['a helper without a name', [helper(4000), EXIT], 0, /helper 4000 is unknown to v6.12/],
  [
    'a helper of a later kernel',
    [helper(181), EXIT],
    0,
    /helper 181 \(bpf_loop\) is unknown to v5.15/,
    { env: { revision: 'v5.15' } },
  ],
  [
    'a helper that is not there',
    [helper(5), EXIT],
    0,
    /helper 5 \(bpf_ktime_get_ns\) is not there/,
    { env: { helper: () => undefined } },
  ],
  [
    'a helper of other programs',
    [helper(173), EXIT],
    0,
    /is for fentry, fexit, fmod_ret programs/,
    { env: { entry: entry('lsm') } },
  ],
  [
    'a cookie before v6.1',
    [helper(174), EXIT],
    0,
    /not for programs of trampolines/,
    { env: { revision: 'v5.15' } },
  ],
  ['one that sleeps', [helper(148), EXIT], 0, /programs that may sleep/],
  [
    'a key that is a number',
    [...map(1, 0), mov(2, 0), helper(1), EXIT],
    3,
    /r2 is a number; bpf_map_lookup_elem wants memory/,
  ],
  ['a map that is a number', [...key, mov(1, 0), helper(1), EXIT], 4, /r1 is a number; .* wants a map/],
  ['a map of another type', [...key, ...map(1, 1), helper(1), EXIT], 5, /wants a map of another type/],
  ['a tail call into a hash', [...map(2, 0), mov(3, 0), helper(12), ZERO, EXIT], 3, /another type/],
  [
    'a size that reaches above the stack',
    [movReg(1, 10), add(1, -8), mov(2, 16), mov(3, 0), helper(113), EXIT],
    4,
    /16 bytes at offset -8/,
  ],
  [
    'a negative size',
    [movReg(1, 10), add(1, -8), mov(2, -1), mov(3, 0), helper(113), EXIT],
    4,
    /a number of bytes/,
  ],
  [
    'a record of unknown size',
    [insn(0x79, { dst: 2, src: 1 }), ...map(1, 0), mov(3, 0), helper(131), EXIT],
    4,
    /r2, the size of the record/,
    { env: { maps: [{ ...HASH, typeId: 27 }] } },
  ],
  [
    'a kernel function that is missing',
    [insn(0x85, { src: 2 }), EXIT],
    0,
    /bpf_missing, which the target does not have/,
  ],
  // results
  ['fentry that returns 1', [mov(0, 1), EXIT], 1, /it returns 1; fentry programs must return 0/],
  [
    'fexit that returns anything',
    [insn(0x79, { src: 1 }), EXIT],
    1,
    /fexit programs must return 0/,
    { env: { entry: entry('fexit') } },
  ],
  [
    'an LSM hook that says 1 in v6.12',
    [mov(0, 1), EXIT],
    1,
    /this hook must return -4095 to 0/,
    { env: { entry: entry('lsm') } },
  ],
  [
    'a yes-or-no hook that says -1',
    [insn(0xb4, { imm: -1 }), EXIT],
    1,
    /must return 0 to 1/,
    { env: { entry: entry('lsm', { returnsBool: true }) } },
  ],
  ['a pointer as a result', [movReg(0, 10), EXIT], 1, /is a pointer to the stack and no number/],
  // stacks and calls
  [
    'a function that calls itself',
    [call(1), EXIT, call(-1), EXIT],
    2,
    /more than 8 functions/,
    { functions: [2] },
  ],
  [
    '... where no path leads',
    [ZERO, insn(0x15, { off: 1 }), call(1), EXIT, call(-1), EXIT],
    4,
    /in a circle/,
    { functions: [4] },
  ],
];

describe('refused', () => {
  it.each(refusals.map((row) => ({ name: row[0], row })))('$name', ({ row }) => {
    const [, insns, at, reason, options = {}] = row;
    expect(() => check(insns, options)).toThrow(new RegExp(`^prog instruction ${at}\\b`));
    expect(() => check(insns, options)).toThrow(reason);
  });

  it('stacks that are too deep together', () => {
    const deep = (bytes: number): BpfInsn => insn(0x7a, { dst: 10, off: -bytes });
    const program = (bytes: number): BpfInsn[] => [deep(256), call(2), ZERO, EXIT, deep(bytes), ZERO, EXIT];
    expect(() => check(program(256), { functions: [4] })).not.toThrow();
    expect(() => check(program(264), { functions: [4] })).toThrow(
      /instruction 1, .*528 bytes of stack.*512 are allowed/,
    );
    // In multiples of 32 before v6.12.
    expect(() => check(program(264), { functions: [4], env: { revision: 'v6.1' } })).toThrow(/544 bytes/);
  });

  it('more than 8 functions deep', () => {
    const chain = (depth: number): BpfInsn[] =>
      Array.from({ length: depth }, (_, i) => [i < depth - 1 ? call(2) : ZERO, ZERO, EXIT]).flat();
    const functions = (depth: number): number[] => Array.from({ length: depth - 1 }, (_, i) => 3 * (i + 1));
    expect(() => check(chain(8), { functions: functions(8) })).not.toThrow();
    expect(() => check(chain(9), { functions: functions(9) })).toThrow(/more than 8 functions/);
  });

  it('tail calls below 256 bytes of stack', () => {
    const tail = [...map(2, 1), mov(3, 0), helper(12), ZERO, EXIT];
    const program = (bytes: number): BpfInsn[] => [
      insn(0x7a, { dst: 10, off: -bytes }),
      call(2),
      ZERO,
      EXIT,
      ...tail,
    ];
    expect(() => check(program(240), { functions: [4] })).not.toThrow();
    expect(() => check(program(248), { functions: [4] })).toThrow(/callers have 256 bytes/);
  });
});

describe('let through', () => {
  it.each([
    [
      'a value once it is not null',
      [...lookup, insn(0x15, { off: 1 }), insn(0x79, { dst: 1, src: 0, off: 8 }), ZERO, EXIT],
    ],
    [
      'a copy of it',
      [...lookup, movReg(6, 0), insn(0x15, { off: 1 }), insn(0x79, { dst: 1, src: 6 }), ZERO, EXIT],
    ],
    [
      'a pointer that was on the stack meanwhile',
      [
        insn(0x7b, { dst: 10, src: 1, off: -8 }),
        insn(0x79, { dst: 2, src: 10, off: -8 }),
        insn(0x79, { dst: 2, src: 2 }),
        ZERO,
        EXIT,
      ],
    ],
    [
      'a loop whose end is not known',
      [insn(0x79, { dst: 2, src: 1 }), add(2, -1), insn(0x55, { dst: 2, off: -2 }), ZERO, EXIT],
    ],
    ['a long loop', [mov(2, 0), add(2, 1), insn(0xa5, { dst: 2, off: -2, imm: 1_000_000 }), ZERO, EXIT]],
    ['32 bits of 0', [insn(0xb4), EXIT]],
  ])('%s', (_, insns) => {
    expect(() => check(insns)).not.toThrow();
  });

  it('what fmod_ret and older LSM programs return', () => {
    expect(() => check([mov(0, 7), EXIT], { env: { entry: entry('fmod_ret') } })).not.toThrow();
    expect(() => check([mov(0, 7), EXIT], { env: { entry: entry('lsm'), revision: 'v6.1' } })).not.toThrow();
    expect(() => check([insn(0xb4, { imm: -1 }), EXIT], { env: { entry: entry('lsm') } })).not.toThrow();
    // The result that was so far, handed on.
    expect(() =>
      check([insn(0x79, { src: 1, off: 16 }), EXIT], { env: { entry: entry('lsm') } }),
    ).not.toThrow();
  });
});

describe('what is dead', () => {
  const poison = helper(0xbad2310);

  it('a branch that a constant decides', () => {
    const insns = [
      ...global(1, 0),
      insn(0x71, { dst: 2, src: 1 }),
      insn(0x15, { dst: 2, off: 1, imm: 5 }),
      poison,
      ZERO,
      EXIT,
    ];
    const [program] = check(insns).functions;
    expect(program?.insns.map(({ code }) => code)).toEqual([0x18, 0, 0x71, 0xb7, 0x95]);
    expect(program?.origins).toEqual([0, 0, 2, 5, 6]);
    const other = insns.map((one) => (one.code === 0x15 ? { ...one, imm: 6 } : one));
    expect(() => check(other)).toThrow(/instruction 4, .*CO-RE/);
  });

  it('a function that only dead code calls', () => {
    const insns = [mov(0, 0), insn(0x15, { off: 1 }), call(1), EXIT, ZERO, EXIT];
    expect(check(insns, { functions: [4] }).functions.map(({ name }) => name)).toEqual(['prog']);
  });

  it('a kernel function that is missing, behind a question for it', () => {
    const insns = [...load64(0), insn(0x15, { dst: 1, off: 1 }), insn(0x85, { src: 2 }), ZERO, EXIT];
    expect(() => check(insns)).not.toThrow();
  });

  it('a relocation without an answer in the fixture, which is never reached', () => {
    const object = bpfFixture('core.bpf.o');
    const [program] = object.programs;
    if (program === undefined) throw new Error('no program');
    const { code, env } = loadable(object, program, 'v6.12', targetBtf());
    expect(code.insns.some(({ code, imm }) => code === 0x85 && imm === 0xbad2310)).toBe(true);
    const [checked] = checkProgram(code, env).functions;
    expect(checked?.insns.some(({ imm }) => imm === 0xbad2310)).toBe(false);
  });
});
