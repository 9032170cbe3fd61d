import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  disassemble,
  type Prepared,
  type ProgRef,
  prepareTrampoline,
  REVISIONS,
  type RevisionName,
  TrampFlag,
  type TrampolineImage,
  type TrampolineRequest,
} from '../../jit/index.ts';
import { addrAdd, InputError, type Kaddr, kaddr, toHex } from '../../lib/index.ts';
import { type TrampolineVector, trampolineVectors } from '../vectors.ts';

const { RESTORE_REGS, CALL_ORIG, SKIP_FRAME, IP_ARG, RET_FENTRY_RET } = TrampFlag;

const VECTORS: Readonly<Record<RevisionName, readonly TrampolineVector[]>> = {
  'v5.13': trampolineVectors('v5.13'),
  'v5.15': trampolineVectors('v5.15'),
  'v6.1': trampolineVectors('v6.1'),
  'v6.12': trampolineVectors('v6.12'),
};

/** What is the same in both is compared for both; v6 has tests of its own in trampoline-v6.test.ts. */
const V5 = ['v5.13', 'v5.15'] as const;

/** Bytes that the return value counts on top of the code. */
const SPARE = { 'v5.13': 0, 'v5.15': 0, 'v6.1': 0, 'v6.12': 64 } as const;

/** Names of the checks that fail, over all vectors, as `group: id id`. */
function failing(
  vectors: readonly TrampolineVector[],
  holds: (vector: TrampolineVector) => boolean,
): readonly string[] {
  const ids = new Map<string, number[]>();
  for (const vector of vectors) {
    if (!holds(vector)) ids.set(vector.group, [...(ids.get(vector.group) ?? []), vector.id]);
  }
  return [...ids].map(([group, list]) => `${group}: ${list.join(' ')}`);
}

function prepared(revision: RevisionName, request: TrampolineRequest): TrampolineImage {
  const result = prepareTrampoline(revision, request, { provenance: true });
  if (result.bytes === undefined) throw new Error(`refused: ${result.ret}, ${result.why}`);
  return result;
}

describe.each(REVISIONS)('kernel vectors of %s', (revision) => {
  const vectors = VECTORS[revision];
  const images = vectors.filter((vector) => vector.bytes !== undefined);

  test('the file is whole', () => {
    expect(vectors.length).toBe({ 'v5.13': 393, 'v5.15': 552, 'v6.1': 655, 'v6.12': 696 }[revision]);
    expect(new Set(vectors.map((vector) => vector.group)).size).toBeGreaterThanOrEqual(11);
    expect(images.length).toBeGreaterThan(vectors.length / 2);
  });

  test('return value, bytes and both offsets', () => {
    const equal = ({ request, ...vector }: TrampolineVector): boolean => {
      const result = prepareTrampoline(revision, request);
      if (result.bytes === undefined) return vector.bytes === undefined && result.ret === vector.ret;
      return (
        result.ret === vector.ret &&
        vector.bytes !== undefined &&
        toHex(result.bytes) === toHex(vector.bytes) &&
        result.ipAfterCall === vector.ipAfterCall &&
        result.ipEpilogue === vector.ipEpilogue
      );
    };
    expect(failing(vectors, equal)).toEqual([]);
  });

  test('provenance changes no byte and no errno', () => {
    const same = ({ request }: TrampolineVector): boolean => {
      const bare = prepareTrampoline(revision, request);
      const full = prepareTrampoline(revision, request, { provenance: true });
      if (bare.bytes === undefined || full.bytes === undefined) return bare.ret === full.ret;
      return toHex(bare.bytes) === toHex(full.bytes) && bare.code === undefined && full.code !== undefined;
    };
    expect(failing(vectors, same)).toEqual([]);
  });

  test('an independent decoder sees the instructions that the emitter recorded', () => {
    const same = ({ request }: TrampolineVector): boolean => {
      const { code, bytes } = prepared(revision, request);
      const decoded = disassemble(bytes, request.image);
      const recorded = code?.insns ?? [];
      return (
        decoded.length === recorded.length &&
        decoded.every((insn, i) => insn.valid && insn.offset === recorded[i]?.offset) &&
        recorded.every(({ step }) => step.name.length > 0)
      );
    };
    expect(failing(images, same)).toEqual([]);
  });

  test('every relocation names a field that holds its address', () => {
    const truthful = ({ request }: TrampolineVector): boolean => {
      const { code, bytes } = prepared(revision, request);
      const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
      return (code?.relocs ?? []).every(({ kind, offset, target }) => {
        if (kind === 'abs64') return view.getBigUint64(offset, true) === target;
        if (kind === 'abs32') return BigInt(view.getUint32(offset, true)) === target;
        if (kind === 'abs32s') return kaddr(BigInt(view.getInt32(offset, true))) === target;
        return addrAdd(request.image, offset + 4 + view.getInt32(offset, true)) === target;
      });
    };
    expect(failing(images, truthful)).toEqual([]);
  });

  test('ip_after_call is a patch site over a 5-byte nop, ip_epilogue an instruction', () => {
    const sound = ({ request }: TrampolineVector): boolean => {
      const { code, bytes, ipAfterCall, ipEpilogue } = prepared(revision, request);
      if (ipAfterCall === null || ipEpilogue === null) return code?.sites.length === 0;
      const [site] = code?.sites ?? [];
      return (
        site?.offset === ipAfterCall &&
        toHex(bytes.subarray(ipAfterCall, ipAfterCall + site.sizeBytes)) === '0f1f440000' &&
        (code?.insns.some((insn) => insn.offset === ipEpilogue) ?? false)
      );
    };
    expect(failing(images, sound)).toEqual([]);
  });
});

// -- random requests ----------------------------------------------------------------------------

const HELPERS: TrampolineRequest['helpers'] = (VECTORS['v6.12'][0] as TrampolineVector).request.helpers;
const IMAGE = kaddr(0xffff_ffff_a020_1000n);

const nearText = fc.bigInt({ min: 0xffff_ffff_8100_0000n, max: 0xffff_ffff_c000_0000n }).map(kaddr);
const pointer: fc.Arbitrary<Kaddr> = fc
  .oneof(
    fc.constantFrom(0n, 1n, 0xffff_ffffn, 0x1_0000_0000n, 0xffff_ffff_8000_0000n),
    fc.bigInt({ min: 0n, max: 0xffff_ffff_ffff_ffffn }),
  )
  .map(kaddr);
const prog: fc.Arbitrary<ProgRef> = fc.record({
  prog: pointer,
  bpfFunc: nearText,
  insnsi: pointer,
  sleepable: fc.boolean(),
  jited: fc.boolean(),
});
const argSizes = fc.array(fc.constantFrom(1, 2, 4, 8), { maxLength: 6 });
const progs = fc.array(prog, { maxLength: 4 });
const requests: fc.Arbitrary<TrampolineRequest> = fc.record({
  image: fc.nat(15).map((skew) => addrAdd(IMAGE, skew)),
  imageSize: fc.constant(4096),
  im: pointer,
  origCall: nearText,
  argSizes,
  flags: fc.constantFrom(0, RESTORE_REGS, CALL_ORIG, SKIP_FRAME, CALL_ORIG | SKIP_FRAME, 3, 8, 9, 10, 14, 16),
  fentry: progs,
  fmodRet: progs,
  fexit: progs,
  helpers: fc.constant(HELPERS),
});

const BASE: TrampolineRequest = {
  image: IMAGE,
  imageSize: 4096,
  im: kaddr(0xffff_8881_03c4_a400n),
  origCall: kaddr(0xffff_ffff_81a2_b3c0n),
  argSizes: [8, 4],
  flags: CALL_ORIG | SKIP_FRAME,
  fentry: [],
  fmodRet: [],
  fexit: [
    {
      prog: kaddr(0xffff_c900_001d_5000n),
      bpfFunc: kaddr(0xffff_ffff_a000_3000n),
      insnsi: kaddr(0xffff_c900_001d_5048n),
      sleepable: false,
      jited: true,
    },
  ],
  helpers: HELPERS,
};
const FAR = kaddr(0x1234_5678_9abc_def0n);
const sevenArgs = [8, 8, 8, 8, 8, 8, 8];

const pointerBytes = (value: Kaddr): number => (value === 0n ? 2 : value < 0x1_0000_0000n ? 5 : 10);
const sum = (numbers: readonly number[]): number => numbers.reduce((total, n) => total + n, 0);

/** Bytes of an image by the lengths of its instructions, alignment left out. */
function unpaddedLength(revision: (typeof V5)[number], request: TrampolineRequest): number {
  const flags = request.flags & (revision === 'v5.13' ? 7 : 31);
  const has = (flag: number): boolean => (flags & flag) !== 0;
  const argBytes = (store: boolean): number =>
    sum(
      request.argSizes.map((size, i) => {
        const extended = i >= 4; // r8, r9
        if (size === 8) return 4;
        if (size === 4) return extended ? 4 : 3;
        if (!store) return 5; // movzx
        if (size === 2) return extended ? 5 : 4;
        return i <= 1 || extended ? 4 : 3; // dil and sil need a prefix, dl and cl none
      }),
    );
  const block = (ref: ProgRef, keepReturn: boolean): number => {
    const enter = pointerBytes(ref.prog) + 5 + 3 + 3 + 2;
    const run = 4 + (ref.jited ? 0 : pointerBytes(ref.insnsi)) + 5 + (keepReturn ? 4 : 0);
    return enter + run + pointerBytes(ref.prog) + 3 + 5;
  };
  const im = pointerBytes(request.im) + 5;
  return sum([
    1 + 3 + 4 + 1,
    has(IP_ARG) ? 12 : 0,
    argBytes(true),
    has(CALL_ORIG) ? im + argBytes(false) + 5 + 4 + 5 + im : 0,
    ...request.fentry.map((ref) => block(ref, has(RET_FENTRY_RET))),
    request.fmodRet.length > 0 ? 2 + 4 : 0,
    ...request.fmodRet.map((ref) => block(ref, true) + 5 + 6),
    ...request.fexit.map((ref) => block(ref, false)),
    has(RESTORE_REGS) ? argBytes(false) : 0,
    has(CALL_ORIG) || has(RET_FENTRY_RET) ? 4 : 0,
    1 + 1 + (has(SKIP_FRAME) ? 4 : 0) + 1,
  ]);
}

describe.each(REVISIONS)('any request, %s', (revision) => {
  test('the image decodes into the recorded instructions and ends in ret', () => {
    fc.assert(
      fc.property(requests, (request) => {
        const { bytes, code, ret } = prepared(revision, request);
        const decoded = disassemble(bytes, request.image);
        expect(decoded.map((insn) => insn.offset)).toEqual(code?.insns.map((insn) => insn.offset));
        expect(decoded.every((insn) => insn.valid)).toBe(true);
        expect(decoded.at(-1)?.mnemonic).toBe('ret');
        expect(bytes.length).toBe(ret - SPARE[revision]);
      }),
      { numRuns: 150 },
    );
  });

  test('fmod_ret branches go to one address that is a multiple of 16', () => {
    fc.assert(
      fc.property(requests, prog, (request, one) => {
        const { bytes } = prepared(revision, { ...request, fmodRet: [one, ...request.fmodRet] });
        const branches = disassemble(bytes, request.image).filter((insn) => insn.mnemonic === 'jne');
        expect(branches.length).toBe(1 + request.fmodRet.length);
        expect(new Set(branches.map((insn) => insn.target)).size).toBe(1);
        // v6.12 aligns within its scratch memory, wherever the image goes
        const target = (branches[0]?.target ?? 1n) - (revision === 'v6.12' ? request.image : 0n);
        expect(target % 16n).toBe(0n);
      }),
      { numRuns: 150 },
    );
  });

  test('the same request gives the same bytes, whatever was emitted in between', () => {
    fc.assert(
      fc.property(requests, requests, (request, other) => {
        const first = prepared(revision, request);
        const kept = toHex(first.bytes);
        prepareTrampoline(revision, other);
        expect(toHex(prepared(revision, request).bytes)).toBe(kept);
        expect(toHex(first.bytes)).toBe(kept);
      }),
      { numRuns: 100 },
    );
  });

  test('the room must exceed the image by 64 bytes, exactly', () => {
    fc.assert(
      fc.property(requests, fc.integer({ min: -3, max: 3 }), (request, slack) => {
        const { ret, bytes } = prepared(revision, request);
        const tight = prepareTrampoline(revision, { ...request, imageSize: bytes.length + 64 + slack });
        expect(tight.ret).toBe(slack >= 0 ? ret : -14);
      }),
      { numRuns: 100 },
    );
  });

  test('an image that outgrows the scratch memory is still measured and refused', () => {
    const many = Array.from({ length: 400 }, () => BASE.fexit[0] as ProgRef);
    expect(prepareTrampoline(revision, { ...BASE, fexit: many }).ret).toBe(-14);
    const roomy = prepared(revision, { ...BASE, imageSize: 1 << 20, fexit: many });
    const one = prepared(revision, BASE);
    expect(roomy.ret).toBeGreaterThan(16384);
    expect(disassemble(roomy.bytes, IMAGE).every((insn) => insn.valid)).toBe(true);
    expect(toHex(roomy.bytes.subarray(0, one.ipEpilogue ?? 0))).toBe(
      toHex(one.bytes.subarray(0, one.ipEpilogue ?? 0)),
    );
  });
});

describe.each(V5)('the length of any image of %s', (revision) => {
  test('is the sum of its pieces, up to the padding before fexit', () => {
    fc.assert(
      fc.property(requests, (request) => {
        const { ret } = prepared(revision, request);
        const padding = ret - unpaddedLength(revision, request);
        if (request.fmodRet.length === 0) expect(padding).toBe(0);
        else expect(padding).toSatisfy((bytes: number) => bytes >= 0 && bytes <= 15);
      }),
      { numRuns: 300 },
    );
  });
});

describe.each(V5)('refusals, %s', (revision) => {
  const ret = (change: Partial<TrampolineRequest>): number =>
    prepareTrampoline(revision, { ...BASE, ...change }).ret;

  test('each by itself', () => {
    expect(ret({ argSizes: sevenArgs })).toBe(-524);
    expect(ret({ flags: RESTORE_REGS | SKIP_FRAME })).toBe(-22);
    expect(ret({ flags: RESTORE_REGS | SKIP_FRAME | CALL_ORIG })).toBe(-22);
    expect(ret({ origCall: FAR })).toBe(-22);
    expect(ret({ imageSize: 100 })).toBe(-14);
  });

  test('too many arguments before flags before distance before room', () => {
    const bothFlags = RESTORE_REGS | SKIP_FRAME | CALL_ORIG;
    expect(ret({ argSizes: sevenArgs, flags: bothFlags })).toBe(-524);
    expect(ret({ argSizes: sevenArgs, origCall: FAR, imageSize: 0 })).toBe(-524);
    expect(ret({ flags: bothFlags, origCall: FAR, imageSize: 0 })).toBe(-22);
    expect(ret({ origCall: FAR, imageSize: 0 })).toBe(-22);
    // the room is looked at last, so that even a room of nothing does not hide the distance
    expect(ret({ imageSize: 0 })).toBe(-14);
  });

  test('a refusal says why', () => {
    const refused = (change: Partial<TrampolineRequest>): Prepared =>
      prepareTrampoline(revision, { ...BASE, ...change });
    expect(refused({ argSizes: sevenArgs })).toMatchObject({ why: '7 arguments; registers hold 6' });
    expect(refused({ origCall: FAR })).toMatchObject({ why: expect.stringContaining('2 GiB') });
    expect(refused({ imageSize: 0 })).toMatchObject({ why: expect.stringContaining('the room takes -64') });
  });

  test.each([-8, 1.5, Number.NaN, 256])('an argument of %d bytes is bad input', (size) => {
    expect(() => ret({ argSizes: [8, size] })).toThrow(InputError);
    expect(() => ret({ argSizes: [8, size] })).toThrow(`an argument of ${size} bytes; wanted 0 to 255`);
  });

  test.each([0, 3, 5, 6, 7, 9, 16, 255])(
    'an argument of %d bytes has no opcode: its ModRM and displacement come out alone, saved and restored',
    (size) => {
      const bytes = (argSizes: readonly number[]): string =>
        toHex(prepared(revision, { ...BASE, argSizes, flags: RESTORE_REGS, fexit: [] }).bytes);
      // push rbp; mov rbp, rsp; sub rsp, 16; push rbx ... pop rbx; leave; ret
      expect(bytes([8, size])).toBe(
        '554889e54883ec1053' + '48897df0' + '75f8' + '488b7df0' + '75f8' + '5bc9c3',
      );
      // r8 and r9 lose their REX prefix with it
      const six = bytes([size, size, size, size, size, size]);
      expect(six).toBe(`554889e54883ec3053${'7dd075d855e04de845f04df8'.repeat(2)}5bc9c3`);
    },
  );

  test('what the kernel refuses, it refuses whatever the argument sizes are', () => {
    expect(ret({ argSizes: [...sevenArgs, 3] })).toBe(-524);
    expect(ret({ argSizes: [3], flags: RESTORE_REGS | SKIP_FRAME })).toBe(-22);
    expect(() => ret({ argSizes: [...sevenArgs, -3] })).toThrow(InputError);
  });

  test.each(['__bpf_prog_enter', '__bpf_prog_exit', '__bpf_tramp_enter', '__bpf_tramp_exit'])(
    'without an address for %s',
    (name) => {
      const { [name]: _, ...helpers } = HELPERS;
      expect(() => ret({ helpers })).toThrow(InputError);
      expect(() => ret({ helpers })).toThrow(`no address for ${name}; give one`);
      // one that no call needs may be missing
      const { __bpf_prog_enter_sleepable: __, ...enough } = HELPERS;
      expect(ret({ helpers: enough })).toBeGreaterThan(0);
    },
  );

  test('a request refused in the middle leaves nothing behind for the next', () => {
    const before = toHex(prepared(revision, BASE).bytes);
    ret({ origCall: FAR });
    expect(() => ret({ helpers: {} })).toThrow(InputError);
    expect(toHex(prepared(revision, BASE).bytes)).toBe(before);
  });
});

describe('flags that a revision does not know', () => {
  test('v5.13 ignores bits 3 and up', () => {
    fc.assert(
      fc.property(requests, fc.integer({ min: 0, max: 2 ** 20 }), (request, high) => {
        const known = { ...request, flags: request.flags & 7 };
        const more = { ...request, flags: (request.flags & 7) | (high << 3) };
        expect(prepared('v5.13', more)).toMatchObject({
          bytes: prepared('v5.13', known).bytes,
          ret: prepared('v5.13', known).ret,
        });
      }),
      { numRuns: 100 },
    );
  });

  test('v5.15 ignores bits 5 and up, except beside RET_FENTRY_RET', () => {
    const plain = prepared('v5.15', BASE);
    expect(prepared('v5.15', { ...BASE, flags: BASE.flags | 0x20 }).bytes).toEqual(plain.bytes);
    for (const bit of [RESTORE_REGS, CALL_ORIG, SKIP_FRAME, IP_ARG, 0x20, 0x40]) {
      expect(prepareTrampoline('v5.15', { ...BASE, flags: RET_FENTRY_RET | bit }).ret).toBe(-22);
    }
    expect(prepareTrampoline('v5.15', { ...BASE, flags: RET_FENTRY_RET }).ret).toBeGreaterThan(0);
  });

  test('ret_size is never looked at', () => {
    for (const retSize of [0, 1, 3, 8, 16]) {
      expect(prepared('v5.15', { ...BASE, retSize }).bytes).toEqual(prepared('v5.15', BASE).bytes);
    }
  });
});
