import { describe, expect, it } from 'vitest';
import {
  type BpfEnvironment,
  type BpfWord,
  type CheckedProgram,
  checkProgram,
  compileProgram,
  FlatMemory,
  interpret,
  interpretable,
} from '../../bpf/index.ts';
import { type BpfInsn, type BpfJitRevisionName, encodeInsns, PLAIN_BPF_JIT_CONFIG } from '../../jit/index.ts';
import { addrAdd, kaddr, toHex } from '../../lib/index.ts';
import { Btf, type BtfType } from '../../obj/index.ts';
import { CALL_BASE, EMPTY_ENVIRONMENT, loadable } from './fixup-support.ts';
import { bpfFixture, call, EXIT, helper, insn, load64, targetBtf, ZERO } from './object-support.ts';

/*
 * What the JIT gets: slots in hex, worked out by hand from what the kernels' verifiers write (kernel/bpf/verifier.c).
 */

const NUMBERS: BpfWord[] = [1, 2, 3, 4, 5].map(() => ({ kind: 'scalar' }));
const FUNCTION: BpfEnvironment['entry'] = { kind: 'function', params: NUMBERS };
const traced = (attach: 'fentry' | 'fexit' | 'fmod_ret', args: BpfWord[] = []): BpfEnvironment['entry'] => ({
  kind: 'trampoline',
  attach,
  args,
  result: { kind: 'scalar' },
});

function check(
  insns: readonly BpfInsn[],
  revision: BpfJitRevisionName,
  env: Partial<BpfEnvironment> = {},
  functions: readonly number[] = [],
): CheckedProgram {
  const starts = [0, ...functions];
  const subprogs = starts.map((start, i) => ({
    start,
    length: (starts[i + 1] ?? insns.length) - start,
    name: i === 0 ? 'prog' : `sub_${i}`,
    global: false,
    type: undefined,
  }));
  return checkProgram(
    { name: 'prog', insns, subprogs, references: [] },
    { ...EMPTY_ENVIRONMENT, entry: FUNCTION, revision, ...env },
  );
}

/** The slots of the program itself. */
const slots = (checked: CheckedProgram): string[] =>
  (checked.functions[0]?.insns ?? []).map((one) => toHex(encodeInsns([one])));

describe('divisions', () => {
  const rows: readonly (readonly [string, BpfInsn, readonly string[]])[] = [
    [
      'div64',
      insn(0x3f, { dst: 1, src: 2 }),
      ['5502020000000000', 'ac11000000000000', '0500010000000000', '3f21000000000000'],
    ],
    [
      'div32',
      insn(0x3c, { dst: 1, src: 2 }),
      ['5602020000000000', 'ac11000000000000', '0500010000000000', '3c21000000000000'],
    ],
    ['mod64', insn(0x9f, { dst: 1, src: 2 }), ['1502010000000000', '9f21000000000000']],
    [
      'mod32',
      insn(0x9c, { dst: 1, src: 2 }),
      ['1602020000000000', '9c21000000000000', '0500010000000000', 'bc11000000000000'],
    ],
    [
      'sdiv64',
      insn(0x3f, { dst: 1, src: 2, off: 1 }),
      [
        'bf2b000000000000',
        '070b000001000000',
        '250b040001000000',
        '150b010000000000',
        'b701000000000000',
        '8701000000000000',
        '0500010000000000',
        '3f21010000000000',
      ],
    ],
    [
      'sdiv32',
      insn(0x3c, { dst: 1, src: 2, off: 1 }),
      [
        'bf2b000000000000',
        '040b000001000000',
        '260b040001000000',
        '160b010000000000',
        'b401000000000000',
        '8401000000000000',
        '0500010000000000',
        '3c21010000000000',
      ],
    ],
    [
      'smod64',
      insn(0x9f, { dst: 1, src: 2, off: 1 }),
      [
        'bf2b000000000000',
        '070b000001000000',
        '250b030001000000',
        '150b030001000000',
        'b401000000000000',
        '0500010000000000',
        '9f21010000000000',
      ],
    ],
    [
      'smod32',
      insn(0x9c, { dst: 1, src: 2, off: 1 }),
      [
        'bf2b000000000000',
        '040b000001000000',
        '260b030001000000',
        '160b040001000000',
        'b401000000000000',
        '0500010000000000',
        '9c21010000000000',
        '0500010000000000',
        'bc11000000000000',
      ],
    ],
    ['sdiv64 by -1', insn(0x37, { dst: 1, off: 1, imm: -1 }), ['8701000000000000']],
    ['sdiv32 by -1', insn(0x34, { dst: 1, off: 1, imm: -1 }), ['8401000000000000']],
    ['smod64 by -1', insn(0x97, { dst: 1, off: 1, imm: -1 }), ['b401000000000000']],
    ['div64 by a constant', insn(0x37, { dst: 1, imm: -1 }), ['37010000ffffffff']],
  ];
  it.each(rows)('%s', (_, division, wanted) => {
    const isSigned = division.off === 1;
    for (const revision of isSigned ? (['v6.12'] as const) : (['v5.15', 'v6.1', 'v6.12'] as const)) {
      expect(slots(check([division, ZERO, EXIT], revision)).slice(0, -2)).toEqual(wanted);
    }
  });

  it('jumps over and to a guarded division keep their aim', () => {
    const insns = [
      insn(0x15, { dst: 1, off: 2 }),
      insn(0x3f, { dst: 1, src: 2 }),
      insn(0x1d, { dst: 1, src: 2, off: -2 }),
      ZERO,
      EXIT,
    ];
    const done = slots(check(insns, 'v6.1'));
    // Forward over four slots and the jump; back to the guard, not to the division.
    expect(done[0]).toBe('1501050000000000');
    expect(done[5]).toBe('1d21fbff00000000');
  });
});

describe('helpers in the place of their calls', () => {
  const body = (
    insns: readonly BpfInsn[],
    revision: BpfJitRevisionName,
    attach: 'fentry' | 'fexit' = 'fexit',
  ): string[] =>
    slots(check([...insns, ZERO, EXIT], revision, { entry: traced(attach) })).slice(insns.length - 1, -2);
  const stack = (dst: number): BpfInsn[] => [insn(0xbf, { dst, src: 10 }), insn(0x07, { dst, imm: -8 })];

  it('bpf_get_func_ip', () => {
    expect(body([helper(173)], 'v5.15')).toEqual(['7910f8ff00000000']);
    expect(body([helper(173)], 'v6.1')).toEqual(['7910f0ff00000000']);
    expect(check([helper(173), ZERO, EXIT], 'v6.12', { entry: traced('fentry') }).callsGetFuncIp).toBe(true);
    expect(check([ZERO, EXIT], 'v6.12').callsGetFuncIp).toBe(false);
  });

  it('bpf_get_func_arg_cnt', () => {
    expect(body([helper(185)], 'v6.12')).toEqual(['7910f8ff00000000']);
  });

  it('bpf_get_func_arg', () => {
    expect(body([insn(0xb7, { dst: 2 }), ...stack(3), helper(183)], 'v6.1')).toEqual([
      '7910f8ff00000000', // r0 = nr_args
      '3e02060000000000', // if w2 >= w0 goto +6
      '6702000003000000',
      '0f12000000000000',
      '7920000000000000',
      '7b03000000000000',
      'b700000000000000',
      '0500010000000000',
      'b7000000eaffffff', // -EINVAL
    ]);
  });

  it('bpf_get_func_ret', () => {
    expect(body([...stack(2), helper(184)], 'v6.12')).toEqual([
      '7910f8ff00000000',
      '6700000003000000',
      '0f10000000000000',
      '7903000000000000',
      '7b32000000000000',
      'b700000000000000',
    ]);
  });

  it('bpf_get_func_ret where there is no result yet', () => {
    expect(body([...stack(2), helper(184)], 'v6.12', 'fentry')).toEqual(['b7000000a1ffffff']); // -EOPNOTSUPP
  });

  it('stay calls in LSM programs', () => {
    const lsm: BpfEnvironment['entry'] = {
      kind: 'trampoline',
      attach: 'lsm',
      args: [],
      result: { kind: 'scalar' },
    };
    // 64 * 185 behind __bpf_call_base
    expect(slots(check([helper(185), ZERO, EXIT], 'v6.12', { entry: lsm }))[0]).toBe('85000000402e0000');
  });

  it('bpf_get_smp_processor_id, from v6.12 on', () => {
    expect(body([helper(8)], 'v6.12')).toEqual(['b400000018000000', 'bf00ffff00000000', '6100000000000000']);
    // 64 * 8 behind __bpf_call_base
    expect(body([helper(8)], 'v6.1')).toEqual(['8500000000020000']);
  });
});

describe('compare and exchange of 4 bytes', () => {
  const exchange = insn(0xc3, { dst: 10, src: 1, off: -8, imm: 0xf1 });
  const before = [ZERO, insn(0x7a, { dst: 10, off: -8 }), exchange];

  it('is extended where the upper half of r0 is read', () => {
    const done = slots(check([...before, EXIT], 'v5.15'));
    expect(done.slice(2)).toEqual(['c31af8fff1000000', 'bc00000001000000', '9500000000000000']);
    expect(slots(check([...before, insn(0xbf, { dst: 2 }), ZERO, EXIT], 'v6.12'))).toContain(
      'bc00000001000000',
    );
  });

  it('is not where it is not', () => {
    for (const after of [insn(0xbc, { dst: 2 }), insn(0x56, { off: 0, imm: 5 })]) {
      expect(slots(check([...before, after, ZERO, EXIT], 'v6.12'))).not.toContain('bc00000001000000');
    }
    expect(
      slots(
        check(
          [...before, EXIT].map((one) => (one === exchange ? { ...one, code: 0xdb } : one)),
          'v6.12',
        ),
      ),
    ).not.toContain('bc00000001000000');
  });
});

describe('dead code', () => {
  it('certain branches become jumps or nothing, jumps over nothing go', () => {
    const never = [insn(0xb7, { dst: 6, imm: 1 }), insn(0x15, { dst: 6, off: 1 }), insn(0x05), ZERO, EXIT];
    // Both sides of the branch are reached in some way, so it stays; what it jumped over does not.
    expect(slots(check(never, 'v6.1'))).toEqual([
      'b706000001000000',
      '1506000000000000',
      'b700000000000000',
      '9500000000000000',
    ]);
    const always = [
      insn(0xb7, { dst: 6, imm: 1 }),
      insn(0x55, { dst: 6, off: 1 }),
      insn(0xb7, { imm: 9 }),
      ZERO,
      EXIT,
    ];
    expect(slots(check(always, 'v6.1'))).toEqual([
      'b706000001000000',
      'b700000000000000',
      '9500000000000000',
    ]);
  });
});

/** struct node { u64 id; struct node *next; }; int use(struct node *, int) */
const TYPES: readonly BtfType[] = [
  { kind: 'void' },
  { kind: 'int', name: 'long', sizeBytes: 8, bits: 64, signed: false, bool: false },
  {
    kind: 'struct',
    name: 'node',
    sizeBytes: 16,
    members: [
      { name: 'id', type: 1, bitOffset: 0, bitSize: 0 },
      { name: 'next', type: 3, bitOffset: 64, bitSize: 0 },
    ],
  },
  { kind: 'ptr', type: 2 },
];
const NODE: BpfWord = { kind: 'struct-pointer', btf: new Btf('kernel', TYPES), id: 2 };

describe('loads through pointers of the kernel', () => {
  const entry = traced('fentry', [NODE]);
  const follow = [
    insn(0x79, { dst: 2, src: 1 }),
    insn(0x79, { dst: 3, src: 2, off: 8 }),
    insn(0x61, { dst: 4, src: 3, off: 4 }),
    ZERO,
    EXIT,
  ];

  it.each(['v5.15', 'v6.1', 'v6.12'] as const)('probe, %s', (revision) => {
    const checked = check(follow, revision, { entry });
    expect(slots(checked).slice(0, 3)).toEqual(['7912000000000000', '3923080000000000', '2134040000000000']);
    expect(checked.functions[0]?.numExentries).toBe(2);
  });

  it('v6.12 trusts what LSM hooks are handed, not what that points to', () => {
    const lsm: BpfEnvironment['entry'] = {
      kind: 'trampoline',
      attach: 'lsm',
      args: [NODE],
      result: { kind: 'scalar' },
    };
    expect(slots(check(follow, 'v6.12', { entry: lsm })).slice(1, 3)).toEqual([
      '7923080000000000',
      '2134040000000000',
    ]);
    expect(check(follow, 'v6.1', { entry: lsm }).functions[0]?.numExentries).toBe(2);
  });

  it('sign-extending loads probe too', () => {
    const insns = [insn(0x79, { dst: 2, src: 1 }), insn(0x81, { dst: 3, src: 2 }), ZERO, EXIT];
    expect(slots(check(insns, 'v6.12', { entry }))[1]).toBe('4123000000000000');
  });

  it('refuses what lies behind the struct, and one load of two kinds', () => {
    const beyond = [insn(0x79, { dst: 2, src: 1 }), insn(0x79, { dst: 3, src: 2, off: 16 }), ZERO, EXIT];
    expect(() => check(beyond, 'v6.12', { entry })).toThrow(/offset 16 is not in the struct/);
    const both = [
      insn(0x79, { dst: 2, src: 1 }),
      insn(0x79, { dst: 4, src: 1, off: 8 }),
      insn(0x15, { dst: 4, off: 2 }),
      insn(0x7a, { dst: 10, off: -8 }),
      insn(0xbf, { dst: 2, src: 10 }),
      insn(0x79, { dst: 3, src: 2, off: 0 }),
      ZERO,
      EXIT,
    ];
    const mixed = both.flatMap((one, i) => (i === 4 ? [one, insn(0x07, { dst: 2, imm: -8 })] : [one]));
    mixed[2] = insn(0x15, { dst: 4, off: 3 });
    const words: BpfWord[] = [NODE, { kind: 'scalar' }];
    expect(() => check(mixed, 'v6.12', { entry: traced('fentry', words) })).toThrow(
      /on one path .* on another/,
    );
  });
});

describe('maps, variables, tail calls', () => {
  const map = {
    name: 'steps',
    typeId: 3,
    keyBytes: 4,
    valueBytes: 4,
    maxEntries: 4,
    address: kaddr(0xffff_c900_0000_1234n),
  };
  const env: Partial<BpfEnvironment> = {
    entry: traced('fentry'),
    maps: [map],
    globals: [
      {
        name: '.bss',
        address: kaddr(0xffff_c900_0000_4000n),
        sizeBytes: 64,
        readOnly: false,
        contents: new Uint8Array(),
      },
    ],
  };

  it('immediates hold addresses', () => {
    const insns = [
      insn(0x18, { dst: 2, src: 1 }),
      insn(0),
      insn(0x18, { dst: 3, src: 2 }),
      insn(0, { imm: 8 }),
      ZERO,
      EXIT,
    ];
    const checked = check(insns, 'v6.1', env);
    expect(slots(checked).slice(0, 4)).toEqual([
      '1802000034120000',
      '0000000000c9ffff',
      '1803000008400000',
      '0000000000c9ffff',
    ]);
    expect(checked).toMatchObject({ maps: [0], globals: [0] });
  });

  const tail = (index: readonly BpfInsn[]): BpfInsn[] => [
    insn(0x18, { dst: 2, src: 1 }),
    insn(0),
    ...index,
    helper(12),
    ZERO,
    EXIT,
  ];

  it('a tail call to a constant slot is direct', () => {
    const checked = check(tail([insn(0xb7, { dst: 3, imm: 2 })]), 'v6.1', env);
    expect(checked.pokes).toEqual([{ map: 0, slot: 2 }]);
    expect(slots(checked)[3]).toBe('f500000001000000');
  });

  it('any other is not', () => {
    const ways: readonly BpfInsn[][] = [
      [insn(0xb7, { dst: 3, imm: 4 })],
      [
        insn(0x79, { dst: 3, src: 1 }),
        insn(0xb7, { dst: 4, imm: 0 }),
        insn(0x2d, { dst: 3, src: 4, off: 1 }),
        insn(0xb7, { dst: 3, imm: 1 }),
      ],
    ];
    for (const way of ways) {
      const checked = check(tail(way), 'v6.1', { ...env, entry: traced('fentry', [{ kind: 'scalar' }]) });
      expect(checked.pokes).toEqual([]);
      expect(slots(checked)).toContain('f500000000000000');
    }
  });

  it('tells who can be tail-called below', () => {
    const insns = [call(2), ZERO, EXIT, ...tail([insn(0xb7, { dst: 3 })])];
    const told = (revision: BpfJitRevisionName): boolean[] =>
      check(insns, revision, env, [3]).functions.map(({ tailCallReachable }) => tailCallReachable);
    expect(told('v6.12')).toEqual([true, true]);
    // Before, the JIT looks at the function itself.
    expect(told('v6.1')).toEqual([true, false]);
  });
});

describe('functions', () => {
  it('are compiled apart, and reach each other', () => {
    const insns = [insn(0xb7, { dst: 1, imm: 7 }), call(1), EXIT, insn(0xbf, { src: 1 }), EXIT];
    for (const revision of ['v5.15', 'v6.1', 'v6.12'] as const) {
      const checked = check(insns, revision, {}, [3]);
      const placed = compileProgram(checked, {
        revision,
        config: { ...PLAIN_BPF_JIT_CONFIG, callBase: CALL_BASE },
        place: (() => {
          let at = kaddr(0xffff_ffff_a000_0000n);
          return (sizeBytes: number) => {
            const here = at;
            at = addrAdd(at, Math.ceil(sizeBytes / 16) * 16);
            return here;
          };
        })(),
      });
      const [main, sub] = placed;
      if (main === undefined || sub === undefined) throw new Error('no two functions');
      const code = main.bytes;
      const at = code.indexOf(0xe8);
      const rel = new DataView(code.buffer, code.byteOffset).getInt32(at + 1, true);
      expect(addrAdd(main.image, at + 5 + rel)).toBe(sub.address);
      const memory = new FlatMemory();
      const world = { memory, call: () => 0n };
      expect(interpret(interpretable(checked).insns, world, { args: [], stackTop: 0x1000n })).toMatchObject({
        r0: 7n,
      });
    }
  });

  it('have the stack that they use', () => {
    const insns = [
      insn(0x7a, { dst: 10, off: -24 }),
      call(2),
      ZERO,
      EXIT,
      insn(0x72, { dst: 10, off: -5 }),
      ZERO,
      EXIT,
    ];
    const depths = (revision: BpfJitRevisionName): number[] =>
      check(insns, revision, {}, [4]).functions.map(({ stackDepth }) => stackDepth);
    expect(depths('v6.1')).toEqual([24, 5]);
    // In whole slots.
    expect(depths('v6.12')).toEqual([24, 8]);
  });

  it('count the stack that a variable offset can reach', () => {
    const reach = [
      insn(0x57, { dst: 1, imm: 31 }),
      insn(0xbf, { dst: 2, src: 10 }),
      insn(0x1f, { dst: 2, src: 1 }),
      insn(0x72, { dst: 2, off: -8 }),
    ];
    expect(check([...reach, ZERO, EXIT], 'v6.1').functions[0]?.stackDepth).toBe(39);
  });

  it('their addresses are put in', () => {
    const insns = [
      ...load64(0).map((one, i) => (i === 0 ? { ...one, dst: 2, src: 4, imm: 6 } : one)),
      insn(0xb7, { dst: 1, imm: 3 }),
      insn(0xb7, { dst: 3 }),
      insn(0xb7, { dst: 4 }),
      helper(181),
      EXIT,
      ZERO,
      EXIT,
    ];
    const checked = check(insns, 'v6.1', {}, [7]);
    expect(checked.functions).toHaveLength(2);
    const places = [kaddr(0xffff_ffff_a000_0000n), kaddr(0xffff_ffff_a000_1000n)];
    let next = 0;
    const [main] = compileProgram(checked, {
      revision: 'v6.1',
      config: { ...PLAIN_BPF_JIT_CONFIG, callBase: CALL_BASE },
      place: () => places[next++] ?? kaddr(0),
    });
    expect(toHex(main?.bytes ?? new Uint8Array())).toContain('001000a0ffffffff');
  });
});

it('origins lead back to the object', () => {
  const object = bpfFixture('subprogs.bpf.o');
  for (const program of object.programs) {
    const { code, env } = loadable(object, program, 'v6.12', targetBtf());
    for (const one of checkProgram(code, env).functions) {
      expect(one.origins).toHaveLength(one.insns.length);
      const { start, length } = code.subprogs[one.subprog] ?? { start: 0, length: 0 };
      expect(one.origins.every((origin) => origin >= start && origin < start + length)).toBe(true);
      expect([...one.origins]).toEqual([...one.origins].sort((a, b) => a - b));
    }
  }
});
