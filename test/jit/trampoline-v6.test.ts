/*
 * What is new in the images of v6.1 and v6.12, and what the kernels' vectors do not pin: each rule by itself,
 * with bytes written down here by hand.
 */

import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  cfiOffset,
  disassemble,
  HelperPair,
  isEndbr,
  type ProgRef,
  prepareTrampoline,
  TrampFlag,
  type TrampolineConfig,
  type TrampolineImage,
  type TrampolineRequest,
  trampolineSize,
} from '../../jit/index.ts';
import { addrAdd, Bug, InputError, type Kaddr, kaddr, toHex } from '../../lib/index.ts';
import { trampolineVectors } from '../vectors.ts';

const {
  RESTORE_REGS,
  CALL_ORIG,
  SKIP_FRAME,
  IP_ARG,
  RET_FENTRY_RET,
  ORIG_STACK,
  SHARE_IPMODIFY,
  TAIL_CALL_CTX,
  INDIRECT,
} = TrampFlag;

const V6 = ['v6.1', 'v6.12'] as const;
type V6Name = (typeof V6)[number];

const IMAGE = kaddr(0xffff_ffff_a020_1000n);
const ORIG = kaddr(0xffff_ffff_81a2_b3c0n);
const FAR = kaddr(0x1234_5678_9abc_def0n);
const HELPERS = trampolineVectors('v6.12')[0]?.request.helpers ?? {};

const PROG: ProgRef = {
  prog: kaddr(0xffff_c900_001d_5000n),
  bpfFunc: kaddr(0xffff_ffff_a000_3000n),
  insnsi: kaddr(0xffff_c900_001d_5048n),
  sleepable: false,
  jited: true,
  kind: HelperPair.RECUR,
  cookie: 0n,
};

const BASE: TrampolineRequest = {
  image: IMAGE,
  imageSize: 4096,
  im: kaddr(0xffff_8881_03c4_a400n),
  origCall: ORIG,
  argSizes: [],
  flags: 0,
  fentry: [],
  fmodRet: [],
  fexit: [],
  helpers: HELPERS,
};

function image(revision: V6Name, change: Partial<TrampolineRequest>): TrampolineImage {
  const result = prepareTrampoline(revision, { ...BASE, ...change }, { provenance: true });
  if (result.bytes === undefined) throw new Bug(`refused: ${result.ret}, ${result.why}`);
  return result;
}

const hex = (revision: V6Name, change: Partial<TrampolineRequest>): string =>
  toHex(image(revision, change).bytes);

/** The instructions of an image, spaces made single. */
const text = (revision: V6Name, change: Partial<TrampolineRequest>): string[] => {
  const { bytes } = image(revision, change);
  return disassemble(bytes, change.image ?? IMAGE).map((insn) => insn.text.replace(/\s+/g, ' ').trim());
};

/** Instructions that are in one image and not in the other: `-` gone, `+` come. */
function difference(before: readonly string[], after: readonly string[]): string[] {
  const left = [...after];
  const gone = before.filter((line) => {
    const at = left.indexOf(line);
    if (at >= 0) left.splice(at, 1);
    return at < 0;
  });
  return [...gone.map((line) => `- ${line}`), ...left.map((line) => `+ ${line}`)];
}

describe('the whole of the smallest image', () => {
  test('v6.1: a frame of count and run_ctx', () => {
    //                      push rbp, mov rbp rsp, sub rsp 24, push rbx, xor eax eax, mov [-8] rax, pop rbx, leave, ret
    expect(hex('v6.1', {})).toBe('554889e54883ec1853' + '31c0488945f8' + '5bc9c3');
  });
  test('v6.12: rbx has a place in the frame, between count and run_ctx', () => {
    expect(hex('v6.12', {})).toBe('554889e54883ec2048895df0' + '31c0488945f8' + '488b5df0c9c3');
  });
});

describe('argument words', () => {
  const sizes = fc.array(fc.oneof(fc.constantFrom(1, 2, 4, 8, 16), fc.nat(255)), { maxLength: 14 });
  const wordsOf = (argSizes: readonly number[]): number =>
    argSizes.reduce((sum, size) => sum + Math.floor((size + 7) / 8), 0);

  test.each([
    ['v6.1', 6],
    ['v6.12', 12],
  ] as const)('%s takes %d words, however they are cut into arguments', (revision, most) => {
    fc.assert(
      fc.property(sizes, (argSizes) => {
        const { ret } = prepareTrampoline(revision, { ...BASE, argSizes });
        expect(ret < 0 ? ret : 0).toBe(wordsOf(argSizes) <= most ? 0 : -524);
      }),
      { numRuns: 300 },
    );
    const ret = (argSizes: number[]): number => prepareTrampoline(revision, { ...BASE, argSizes }).ret;
    expect(ret(Array(most / 2).fill(16))).toBeGreaterThan(0);
    expect(ret(Array(most / 2 + 1).fill(16))).toBe(-524);
    // an argument of no bytes takes no word
    expect(ret([...Array(most).fill(8), 0, 0])).toBeGreaterThan(0);
  });

  test.each(V6)('%s saves every word whole: small sizes make no difference', (revision) => {
    for (const small of [1, 2, 3, 4, 5, 7]) {
      expect(hex(revision, { argSizes: [small, 8, small], flags: RESTORE_REGS })).toBe(
        hex(revision, { argSizes: [8, 8, 8], flags: RESTORE_REGS }),
      );
    }
    // and two words are two words
    expect(hex(revision, { argSizes: [16, 9, 8], flags: 6 })).toBe(
      hex(revision, { argSizes: [8, 8, 8, 8, 8], flags: 6 }),
    );
  });

  test('a struct that does not fit into the registers left is read from the stack, what follows is not', () => {
    // five words, then a struct of two, then one: rdi rsi rdx rcx r8, stack stack, r9
    const moves = text('v6.12', { argSizes: [8, 8, 8, 8, 8, 16, 8] }).slice(6, -3);
    expect(moves).toEqual([
      'mov [rbp-0x40], rdi',
      'mov [rbp-0x38], rsi',
      'mov [rbp-0x30], rdx',
      'mov [rbp-0x28], rcx',
      'mov [rbp-0x20], r8',
      'mov rax, [rbp+0x18]',
      'mov [rbp-0x18], rax',
      'mov rax, [rbp+0x20]',
      'mov [rbp-0x10], rax',
      'mov [rbp-8], r9',
    ]);
  });

  test('the original gets its stack words from the caller, at the bottom of the frame, below the registers', () => {
    const all = text('v6.12', { argSizes: Array(8).fill(8), flags: CALL_ORIG });
    const call = all.indexOf(`call 0x${ORIG.toString(16)}`);
    // frame: return value 8, words 64, count 8, rbx 8, run_ctx 16 = 104, stack words 16 = 120: no free word
    expect(all.slice(0, 3)).toEqual(['push rbp', 'mov rbp, rsp', 'sub rsp, 0x78']);
    expect(all.slice(call - 5, call)).toEqual([
      'mov r9, [rbp-0x20]',
      'mov rax, [rbp+0x18]',
      'mov [rbp-0x78], rax',
      'mov rax, [rbp+0x20]',
      'mov [rbp-0x70], rax',
    ]);
  });

  test('a free word keeps rsp on 16 bytes at the call, whatever the frame holds', () => {
    const flags = fc.constantFrom(CALL_ORIG, CALL_ORIG | SKIP_FRAME, CALL_ORIG | IP_ARG, 14, 3);
    fc.assert(
      fc.property(sizes, flags, (argSizes, bits) => {
        fc.pre(wordsOf(argSizes) > 6 && wordsOf(argSizes) <= 12);
        const [sub] = text('v6.12', { argSizes, flags: bits }).filter((line) => line.startsWith('sub rsp'));
        // rbp lies 8 below a multiple of 16
        expect(Number(sub?.split(' ')[2]) % 16).toBe(8);
      }),
      { numRuns: 200 },
    );
  });

  test('without the call of the original there is nothing to pass on', () => {
    const plain = text('v6.12', { argSizes: Array(9).fill(8), flags: RESTORE_REGS });
    expect(plain).toContain('sub rsp, 0x68');
    expect(plain.filter((line) => line.startsWith('mov rax, [rbp+'))).toHaveLength(3);
  });

  describe('garbage above a lone stack word', () => {
    const cleared = (argSizes: number[], flags: number = CALL_ORIG): string[] =>
      text('v6.12', { argSizes, flags }).filter((line) => line.startsWith('mov dword'));
    const six = [8, 8, 8, 8, 8, 8];

    test('is cleared in ctx and on the stack of the original, when the last argument has 4 bytes or less', () => {
      expect(cleared([...six, 4])).toEqual(['mov dword ptr [rbp-0xc], 0', 'mov dword ptr [rbp-0x64], 0']);
      for (const size of [1, 2, 3]) expect(cleared([...six, size])).toHaveLength(2);
      expect(cleared([...six, 4], RESTORE_REGS)).toEqual(['mov dword ptr [rbp-4], 0']);
    });
    test('is kept above 5 bytes and more, and where two words come from the stack', () => {
      for (const size of [5, 8]) expect(cleared([...six, size])).toEqual([]);
      expect(cleared([...six, 4, 4])).toEqual([]);
      expect(cleared([8, 8, 8, 8, 8, 16, 4])).toEqual([]);
    });
    test('goes by the last argument literally: one of no bytes counts, and the word before it is cut', () => {
      expect(cleared([...six, 8, 0])).toEqual(['mov dword ptr [rbp-0xc], 0', 'mov dword ptr [rbp-0x64], 0']);
    });
  });

  test('the count says words, and stands one below the first', () => {
    expect(text('v6.12', { argSizes: [16, 4, 16] })).toEqual(
      expect.arrayContaining(['mov eax, 5', 'mov [rbp-0x30], rax', 'mov [rbp-0x28], rdi']),
    );
  });

  test('listings name every word, those of a struct by their offset in it', () => {
    const { code } = image('v6.12', { argSizes: [16, 4, 8, 8, 8, 8, 16] });
    const notes = code?.insns.filter((insn) => insn.step.name === 'save_args').map((insn) => insn.note);
    expect(notes?.filter((note) => note !== undefined)).toEqual([
      'arg0',
      'arg0+8',
      'arg1',
      'arg2',
      'arg3',
      'arg4',
      'arg5',
      'arg6',
      'arg6+8',
    ]);
  });
});

describe('displacements and immediates', () => {
  test('v6.12: sub rsp takes 32 bits from 128 on, a slot at rbp-128 still 8', () => {
    // words 96, count 8, rbx 8, run_ctx 16: 128 without a return value
    const bytes = hex('v6.12', { argSizes: Array(12).fill(8), fentry: [PROG] });
    expect(bytes).toContain('4881ec80000000');
    expect(bytes).toContain('48897d80'); // the cookie, rbp-128
    const more = hex('v6.12', { argSizes: Array(12).fill(8), fentry: [PROG], flags: IP_ARG });
    expect(more).toContain('4881ec88000000');
    expect(more).toContain('4889bd78ffffff');
    expect(more).toContain('488db578ffffff');
    expect(more).toContain('488d9578ffffff');
  });

  test.each([
    [0n, '31ff', '31ff'],
    [1n, 'bf01000000', 'bf01000000'],
    [0xffff_ffffn, 'bfffffffff', 'bfffffffff'],
    [0x1_0000_0000n, '48bf0000000001000000', '48bf0000000001000000'],
    [0xffff_ffff_7fff_ffffn, '48bfffffff7fffffffff', '48bfffffff7fffffffff'],
    [0xffff_ffff_8000_0000n, '48bf00000080ffffffff', '48c7c700000080'],
    [0xffff_ffff_ffff_ffffn, '48bfffffffffffffffff', '48c7c7ffffffff'],
  ])('a cookie of %s', (cookie, early, late) => {
    expect(hex('v6.1', { fentry: [{ ...PROG, cookie }] })).toContain(`${early}48897de8`);
    expect(hex('v6.12', { fentry: [{ ...PROG, cookie }] })).toContain(`${late}48897de0`);
  });

  test('an image near the top of memory keeps its relocations true', () => {
    const { code, bytes } = image('v6.12', { flags: IP_ARG });
    const reloc = code?.relocs.find(({ symbol }) => symbol === 'orig_call');
    expect(reloc).toMatchObject({ kind: 'abs32s', target: ORIG });
    expect(new DataView(bytes.buffer).getInt32(reloc?.offset ?? 0, true)).toBe(
      Number(BigInt.asIntN(64, ORIG)),
    );
  });
});

describe('programs', () => {
  test.each([
    [HelperPair.RECUR, false, '_recur'],
    [HelperPair.RECUR, true, '_sleepable_recur'],
    [HelperPair.LSM_CGROUP, false, '_lsm_cgroup'],
    [HelperPair.LSM_CGROUP, true, '_lsm_cgroup'],
    [HelperPair.PLAIN, false, ''],
    [HelperPair.PLAIN, true, '_sleepable'],
  ])('kind %d, sleepable %s: __bpf_prog_enter%s', (kind, sleepable, suffix) => {
    for (const revision of V6) {
      const { code } = image(revision, { fentry: [{ ...PROG, kind, sleepable }] });
      const called = code?.relocs.filter(({ kind: how }) => how === 'pc32').map(({ symbol }) => symbol);
      expect(called).toEqual([`__bpf_prog_enter${suffix}`, 'prog', `__bpf_prog_exit${suffix}`]);
    }
  });

  test('without a kind, recursion is checked; without a cookie, it is 0', () => {
    const { kind: _, cookie: __, ...bare } = PROG;
    for (const revision of V6)
      expect(hex(revision, { fexit: [bare] })).toBe(hex(revision, { fexit: [PROG] }));
  });

  test('fentry keeps what it returns under RET_FENTRY_RET, now beside other flags too', () => {
    for (const revision of V6) {
      const kept = (flags: number): number =>
        text(revision, { fentry: [PROG], flags }).filter((line) => line === 'mov [rbp-8], rax').length;
      expect(kept(RET_FENTRY_RET)).toBe(1);
      expect(kept(RET_FENTRY_RET | RESTORE_REGS)).toBe(1);
      // the original's value goes there as well
      expect(kept(RET_FENTRY_RET | CALL_ORIG)).toBe(2);
      expect(kept(CALL_ORIG)).toBe(1);
    }
  });
});

describe('flags', () => {
  const any = fc.integer({ min: 0, max: 511 });

  test.each(V6)('%s refuses no combination', (revision) => {
    fc.assert(
      fc.property(any, (flags) => {
        expect(
          prepareTrampoline(revision, { ...BASE, argSizes: [8, 4], fexit: [PROG], flags }).ret,
        ).toBeGreaterThan(0);
      }),
      { numRuns: 200 },
    );
  });

  test.each(V6)('%s does not look at SHARE_IPMODIFY, nor at bits from 9 on', (revision) => {
    fc.assert(
      fc.property(any, fc.integer({ min: 0, max: 1000 }), (flags, high) => {
        const request = { argSizes: [8], fentry: [PROG] };
        expect(hex(revision, { ...request, flags: flags | SHARE_IPMODIFY | (high << 9) })).toBe(
          hex(revision, { ...request, flags: flags & ~SHARE_IPMODIFY }),
        );
      }),
      { numRuns: 100 },
    );
  });

  test('INDIRECT is nothing to v6.1; v6.12 warns of it beside all but RET_FENTRY_RET, and goes on', () => {
    expect(hex('v6.1', { flags: CALL_ORIG | INDIRECT })).toBe(hex('v6.1', { flags: CALL_ORIG }));
    expect(image('v6.1', { flags: CALL_ORIG | INDIRECT }).warning).toBeUndefined();
    expect(image('v6.12', { flags: INDIRECT }).warning).toBeUndefined();
    expect(image('v6.12', { flags: INDIRECT | RET_FENTRY_RET }).warning).toBeUndefined();
    for (const beside of [RESTORE_REGS, CALL_ORIG, IP_ARG, TAIL_CALL_CTX, SHARE_IPMODIFY]) {
      expect(image('v6.12', { flags: INDIRECT | beside }).warning).toMatch(/^INDIRECT together with/);
    }
  });

  test.each(V6)(
    '%s: ORIG_STACK calls the return address through rbx, wherever the original is',
    (revision) => {
      const flags = CALL_ORIG | SKIP_FRAME;
      const before = text(revision, { flags });
      const after = text(revision, { flags: flags | ORIG_STACK });
      // pcs after the call move by 2 bytes; only calls show them
      const calls = (lines: readonly string[]): string[] =>
        lines.filter((line) => !line.startsWith('call 0x'));
      expect(difference(calls(before), calls(after))).toEqual(['+ mov rbx, [rbp+8]', '+ call rbx']);
      expect(
        prepareTrampoline(revision, { ...BASE, flags: flags | ORIG_STACK, origCall: FAR }).ret,
      ).toBeGreaterThan(0);
      expect(prepareTrampoline(revision, { ...BASE, flags, origCall: FAR }).ret).toBe(-22);
    },
  );

  test.each(V6)('%s: TAIL_CALL_CTX pushes rax, and gives it to the original or back', (revision) => {
    const frame = revision === 'v6.1' ? 24 : 32;
    const slot = `mov rax, [rbp-0x${(frame + 8).toString(16)}]`;
    const alone = difference(text(revision, {}), text(revision, { flags: TAIL_CALL_CTX }));
    expect(alone).toEqual(['+ push rax', `+ ${slot}`]);
    // with CALL_ORIG it is loaded before the call and not once more at the end; the frame has a return value
    const calling = text(revision, { flags: CALL_ORIG | TAIL_CALL_CTX });
    const loads = calling.filter((line) => line === `mov rax, [rbp-0x${(frame + 16).toString(16)}]`);
    expect(loads).toHaveLength(1);
    const original = calling.indexOf(`call 0x${ORIG.toString(16)}`);
    expect(calling[original - 1]).toBe(loads[0]);
    // always with 32 bits of displacement
    expect(hex(revision, { flags: TAIL_CALL_CTX })).toContain(
      `488b85${(256 - frame - 8).toString(16)}ffffff`,
    );
    // what RET_FENTRY_RET returns is loaded over it
    const both = text(revision, { flags: RET_FENTRY_RET | TAIL_CALL_CTX });
    expect(both.indexOf('mov rax, [rbp-8]')).toBeGreaterThan(
      both.findIndex((line) => line.startsWith('mov rax, [rbp-0x')),
    );
  });
});

describe('how the kernel was built', () => {
  const config = (fields: TrampolineConfig): { config: TrampolineConfig } => ({ config: fields });

  test('ENDBR: v6.1 puts it in front of every image, v6.12 of those reached by pointer', () => {
    expect(hex('v6.1', config({ ibt: true }))).toBe(`f30f1efa${hex('v6.1', {})}`);
    expect(hex('v6.12', config({ ibt: true }))).toBe(hex('v6.12', {}));
    expect(hex('v6.12', { flags: INDIRECT, ...config({ ibt: true }) })).toBe(`f30f1efa${hex('v6.12', {})}`);
    expect(hex('v6.12', { flags: INDIRECT })).toBe(hex('v6.12', {}));
  });

  test.each(V6)(
    '%s calls the original behind its ENDBR and its site, with SKIP_FRAME and IBT only',
    (revision) => {
      const target = (flags: number, fields: TrampolineConfig): bigint => {
        const { code } = image(revision, { flags, ...config(fields) });
        return (code?.relocs.find(({ symbol }) => symbol.startsWith('orig_call'))?.target ?? 0n) - ORIG;
      };
      const endbr = { ibt: true, origCallStartsWithEndbr: true };
      expect(target(CALL_ORIG | SKIP_FRAME, endbr)).toBe(9n);
      expect(target(CALL_ORIG | SKIP_FRAME, { ibt: true })).toBe(5n);
      expect(target(CALL_ORIG | SKIP_FRAME, { origCallStartsWithEndbr: true })).toBe(5n);
      expect(target(CALL_ORIG, endbr)).toBe(0n);
    },
  );

  test('an ENDBR is any of three forms', () => {
    for (const form of ['f30f1efa', 'f30f1efb', '660f1f00'])
      expect(isEndbr(Buffer.from(`${form}90`, 'hex'))).toBe(true);
    for (const other of ['f30f1ef9', '660f1f40', '0f1f4000', 'f30f1e', '']) {
      expect(isEndbr(Buffer.from(other, 'hex'))).toBe(false);
    }
  });

  test.each(V6)(
    '%s returns by ret, ret and int3, or a jump to the thunk and nothing behind it',
    (revision) => {
      const plain = hex(revision, {});
      expect(hex(revision, config({ sls: true }))).toBe(`${plain}cc`);
      for (const sls of [false, true]) {
        const thunk = image(revision, config({ rethunk: true, sls }));
        expect(thunk.bytes.length).toBe(plain.length / 2 + 4);
        expect(disassemble(thunk.bytes, IMAGE).at(-1)).toMatchObject({
          mnemonic: 'jmp',
          target: HELPERS['x86_return_thunk'],
        });
      }
      expect(() => image(revision, { helpers: {}, ...config({ rethunk: true }) })).toThrow(
        'no address for x86_return_thunk',
      );
    },
  );

  test.each(V6)('%s leaves out the jump to a thunk out of reach, which is no error', (revision) => {
    const change = { flags: CALL_ORIG | SKIP_FRAME, fexit: [PROG], ...config({ rethunk: true, sls: true }) };
    const near = image(revision, change);
    const far = image(revision, { ...change, helpers: { ...HELPERS, x86_return_thunk: FAR } });
    expect(far.ret).toBe(near.ret - 5);
    expect(toHex(far.bytes)).toBe(toHex(near.bytes.subarray(0, -5)));
    // reach is counted from where the jump would stand, to the byte
    const at = addrAdd(IMAGE, near.bytes.length);
    for (const [distance, short] of [
      [0x7fff_ffff, 0],
      [0x8000_0000, 5],
      [-0x8000_0000, 0],
      [-0x8000_0001, 5],
    ] as const) {
      const edge = image(revision, {
        ...change,
        helpers: { ...HELPERS, x86_return_thunk: addrAdd(at, distance) },
      });
      expect([distance, near.ret - edge.ret]).toEqual([distance, short]);
    }
  });
});

describe('CFI preambles of images reached by pointer (v6.12)', () => {
  const hash = 0x89ab_cdef;
  const preamble = (fields: TrampolineConfig): string => {
    const whole = hex('v6.12', { flags: INDIRECT, config: fields });
    const rest = hex('v6.12', {});
    expect(whole.endsWith(rest)).toBe(true);
    return whole.slice(0, -rest.length);
  };

  test('FineIBT: landing place, comparison, trap, sealed landing place', () => {
    const bytes = preamble({ ibt: true, cfi: { scheme: 'fineibt', hash } });
    expect(bytes).toBe('f30f1efa' + '4181eaefcdab89' + '7407' + '0f0b' + '90' + '660f1f00');
    expect(cfiOffset({ scheme: 'fineibt', hash })).toBe(16);
    // the branch goes to the code behind
    const rows = disassemble(
      image('v6.12', { flags: INDIRECT, config: { ibt: true, cfi: { scheme: 'fineibt', hash } } }).bytes,
      IMAGE,
    );
    expect(rows[2]?.target).toBe(addrAdd(IMAGE, 20));
  });

  test('kCFI: the hash, padding if calls have it, the landing place if built for IBT', () => {
    expect(preamble({ cfi: { scheme: 'kcfi', hash } })).toBe('b8efcdab89');
    expect(preamble({ ibt: true, cfi: { scheme: 'kcfi', hash } })).toBe('b8efcdab89f30f1efa');
    const padded = preamble({ ibt: true, cfi: { scheme: 'kcfi', hash, callPadding: true } });
    expect(padded).toBe(`b8efcdab89${'90'.repeat(11)}f30f1efa`);
    expect(cfiOffset({ scheme: 'kcfi', hash })).toBe(5);
    expect(cfiOffset({ scheme: 'kcfi', hash, callPadding: true })).toBe(16);
    expect(cfiOffset(undefined)).toBe(0);
  });

  test('FineIBT without IBT is no kernel that can be built', () => {
    expect(() => preamble({ cfi: { scheme: 'fineibt', hash } })).toThrow(InputError);
  });

  test('no preamble without INDIRECT, nor in v6.1', () => {
    const fields: TrampolineConfig = { cfi: { scheme: 'kcfi', hash } };
    expect(hex('v6.12', { config: fields })).toBe(hex('v6.12', {}));
    expect(hex('v6.1', { flags: INDIRECT, config: fields })).toBe(hex('v6.1', {}));
  });

  test('the preamble counts for the alignment of fexit programs', () => {
    const { bytes } = image('v6.12', {
      flags: INDIRECT,
      fmodRet: [PROG],
      config: { cfi: { scheme: 'kcfi', hash } },
    });
    const [branch] = disassemble(bytes, IMAGE).filter((insn) => insn.mnemonic === 'jne');
    expect(Number((branch?.target ?? 1n) - IMAGE) % 16).toBe(0);
  });
});

describe('call depth accounting (v6.12)', () => {
  const counter = kaddr(0x2_c0d0n);
  const change: Partial<TrampolineRequest> = {
    flags: CALL_ORIG | SKIP_FRAME,
    fentry: [PROG],
    fexit: [{ ...PROG, jited: false }],
  };
  const counted = (thunks: readonly Kaddr[], more: Partial<TrampolineRequest> = {}): TrampolineImage =>
    image('v6.12', { ...change, ...more, config: { callDepth: { counter, thunks } } });
  const SAR = /^65 ?48 ?c1 ?3d/;

  test('before push rbp and before every call, on the counter of this CPU', () => {
    const { bytes, ret } = counted([]);
    const rows = disassemble(bytes, IMAGE);
    const sars = rows.filter((row) => row.mnemonic === 'sar');
    expect(rows[0]?.mnemonic).toBe('sar');
    for (const [i, row] of rows.entries())
      expect(row.mnemonic === 'call').toBe(rows[i - 1]?.mnemonic === 'sar' && i > 1);
    expect(sars).toHaveLength(1 + rows.filter((row) => row.mnemonic === 'call').length);
    const view = new DataView(bytes.buffer);
    for (const { offset, sizeBytes } of sars) {
      expect(sizeBytes).toBe(9);
      expect(toHex(bytes.subarray(offset, offset + 4))).toMatch(SAR);
      expect(addrAdd(IMAGE, offset + 9 + view.getInt32(offset + 4, true))).toBe(counter);
      expect(bytes[offset + 8]).toBe(5);
    }
    expect(ret).toBe(image('v6.12', change).ret + 9 * sars.length);
  });

  test('not before a target that counts by itself, and not before the call through rbx', () => {
    const enter = HELPERS['__bpf_prog_enter_recur'] as Kaddr;
    expect(counted([]).ret - counted([enter]).ret).toBe(2 * 9);
    expect(counted([]).ret - counted([addrAdd(ORIG, 5)]).ret).toBe(9);
    // `call rbx` and its load are 2 bytes longer than the call
    expect(counted([], { flags: CALL_ORIG | ORIG_STACK }).ret).toBe(
      counted([], { flags: CALL_ORIG }).ret - 9 + 1,
    );
  });

  test('not in front of an image reached by pointer', () => {
    const { bytes } = counted([], { flags: INDIRECT });
    expect(disassemble(bytes, IMAGE)[0]?.mnemonic).toBe('push');
  });

  test('the branch over a program spans its accounting', () => {
    const rows = disassemble(counted([]).bytes, IMAGE);
    for (const branch of rows.filter((row) => row.mnemonic === 'je')) {
      const target = rows.find((row) => addrAdd(IMAGE, row.offset) === branch.target);
      expect(target?.text).toMatch(/^mov +rdi/);
    }
    const distance = (revisionBytes: Uint8Array): number | undefined =>
      revisionBytes[revisionBytes.indexOf(0x74) + 1];
    expect(distance(image('v6.12', { fentry: [PROG] }).bytes)).toBe(9);
    const one = image('v6.12', { fentry: [PROG], config: { callDepth: { counter } } });
    expect(distance(one.bytes)).toBe(18);
  });

  test('relocations say what the counter is, and decoding follows what was recorded', () => {
    const { code, bytes } = counted([]);
    expect(disassemble(bytes, IMAGE).map((row) => row.offset)).toEqual(
      code?.insns.map((insn) => insn.offset),
    );
    expect(
      code?.relocs
        .filter(({ symbol }) => symbol === 'pcpu_hot+X86_call_depth')
        .every(({ target }) => target === counter),
    ).toBe(true);
  });

  test('v6.1 knows nothing of it; a counter out of reach is refused as a call is', () => {
    expect(hex('v6.1', { ...change, config: { callDepth: { counter } } })).toBe(hex('v6.1', change));
    expect(prepareTrampoline('v6.12', { ...BASE, config: { callDepth: { counter: FAR } } }).ret).toBe(-22);
  });
});

describe.each(V6)('refusals, %s', (revision) => {
  const sevenWords = revision === 'v6.1' ? [16, 16, 16, 8] : [...Array(6).fill(16), 1];
  const full: Partial<TrampolineRequest> = {
    flags: CALL_ORIG | SKIP_FRAME,
    argSizes: [8, 16],
    fentry: [PROG],
    fmodRet: [PROG],
    fexit: [PROG],
  };
  const prepare = (change: Partial<TrampolineRequest>) =>
    prepareTrampoline(revision, { ...BASE, ...full, ...change });
  const far = (name: string): Partial<TrampolineRequest> => ({ helpers: { ...HELPERS, [name]: FAR } });

  test('too many words before distance before room', () => {
    expect(prepare({ argSizes: sevenWords, origCall: FAR, imageSize: 0 }).ret).toBe(-524);
    expect(prepare({ argSizes: sevenWords, imageSize: 0 }).ret).toBe(-524);
    expect(prepare({ origCall: FAR, imageSize: 0 }).ret).toBe(-22);
    expect(prepare({ ...far('__bpf_tramp_exit'), imageSize: 0 }).ret).toBe(-22);
    expect(prepare({ imageSize: 0 }).ret).toBe(-14);
    // a thunk out of reach is none of them
    expect(prepare({ ...far('x86_return_thunk'), config: { rethunk: true } }).ret).toBeGreaterThan(0);
  });

  test('64 bytes must stay free, to the byte', () => {
    const { length } = image(revision, full).bytes;
    expect(prepare({ imageSize: length + 64 }).ret).toBe(image(revision, full).ret);
    expect(prepare({ imageSize: length + 63 }).ret).toBe(-14);
  });

  test('what was known of the image by then is noted in im all the same', () => {
    const { ipAfterCall, ipEpilogue } = image(revision, full);
    expect(prepare({ imageSize: 0 })).toMatchObject({ ret: -14, ipAfterCall, ipEpilogue });
    expect(prepare(far('__bpf_tramp_exit'))).toMatchObject({ ret: -22, ipAfterCall, ipEpilogue });
    const lateProg = { ...PROG, bpfFunc: FAR };
    expect(prepare({ fexit: [lateProg] })).toMatchObject({ ret: -22, ipAfterCall, ipEpilogue: null });
    for (const change of [
      { fentry: [lateProg] },
      { fmodRet: [lateProg] },
      { origCall: FAR },
      far('__bpf_tramp_enter'),
    ]) {
      expect(prepare(change)).toMatchObject({ ret: -22, ipAfterCall: null, ipEpilogue: null });
    }
    expect(prepare({ argSizes: sevenWords })).toMatchObject({
      ret: -524,
      ipAfterCall: null,
      ipEpilogue: null,
    });
  });

  test('v6.1 has written by then what came before; v6.12 leaves the image alone', () => {
    const { length } = image(revision, full).bytes;
    const inPlace = revision === 'v6.1';
    expect(prepare({ imageSize: 0 }).writtenBytes).toBe(inPlace ? length : 0);
    expect(prepare({ argSizes: sevenWords }).writtenBytes).toBe(0);
    const entered = prepare(far('__bpf_tramp_enter')).writtenBytes;
    expect(entered).toSatisfy((bytes: number) => (inPlace ? bytes > 20 && bytes < length : bytes === 0));
  });

  test('v6.12 copies all of its scratch memory, v6.1 writes the code alone', () => {
    for (const imageSize of [1024, 4096]) {
      const { writtenBytes, bytes } = image(revision, { ...full, imageSize });
      expect(writtenBytes).toBe(revision === 'v6.1' ? bytes.length : imageSize);
    }
  });
});

describe('the size query', () => {
  const PAGE = kaddr(0xffff_ffff_c000_0000n);
  const full: TrampolineRequest = {
    ...BASE,
    flags: 14,
    argSizes: Array(9).fill(8),
    fmodRet: [PROG],
    fexit: [PROG],
  };

  test('answers what the image will answer, wherever that stands: code and 64 bytes', () => {
    const size = trampolineSize('v6.12', full, PAGE);
    for (const at of [0, 8, 64, 100, 4095]) {
      const { ret, bytes } = image('v6.12', { ...full, image: addrAdd(IMAGE, at), imageSize: size });
      expect([ret, bytes.length]).toEqual([size, size - 64]);
    }
    // nothing less would do
    expect(prepareTrampoline('v6.12', { ...full, imageSize: size - 1 }).ret).toBe(-14);
  });

  test('refuses what does not fit a page, so that it is never more than 4096', () => {
    const sizes = Array.from({ length: 80 }, (_, n) =>
      trampolineSize('v6.12', { ...BASE, flags: RESTORE_REGS, fentry: Array(n).fill(PROG) }, PAGE),
    );
    const most = Math.max(...sizes);
    expect(most).toBeGreaterThan(4000);
    expect(most).toBeLessThanOrEqual(4096);
    expect(sizes.at(-1)).toBe(-14);
    expect(sizes).toEqual([...sizes.filter((size) => size > 0), ...sizes.filter((size) => size === -14)]);
  });

  test('refuses what does not reach from its page, though it would from the image', () => {
    expect(trampolineSize('v6.12', full, FAR)).toBe(-22);
    expect(trampolineSize('v6.12', { ...full, argSizes: Array(13).fill(8) }, PAGE)).toBe(-524);
  });

  test('is not asked of earlier revisions', () => {
    for (const revision of ['v5.13', 'v5.15', 'v6.1'] as const) {
      expect(() => trampolineSize(revision, full, PAGE)).toThrow(
        `${revision} has no size query; images take a page`,
      );
    }
  });
});
