import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  decidePoke,
  disassemble,
  POKE_BYTES,
  type PokeRequest,
  type PokeType,
  patchBytes,
  REVISIONS,
} from '../../jit/index.ts';
import { addrAdd, type Kaddr, kaddr, toHex } from '../../lib/index.ts';
import { type PokeVector, pokeVectors } from '../vectors.ts';

describe.each(REVISIONS)('kernel vectors of %s', (revision) => {
  const vectors = pokeVectors(revision);

  test('the file is whole', () => {
    expect(vectors.length).toBe({ 'v5.13': 245, 'v5.15': 280, 'v6.1': 243, 'v6.12': 253 }[revision]);
  });

  test('return value and bytes afterwards', () => {
    const failing = vectors.filter(({ request, prior, ret, after }: PokeVector) => {
      const decided = decidePoke(revision, request, prior);
      const bytes = prior.slice();
      if (decided.write !== undefined) bytes.set(decided.write, decided.offset);
      return decided.ret !== ret || toHex(bytes) !== toHex(after);
    });
    expect(failing.map(({ group, id }) => `${group}: ${id}`)).toEqual([]);
  });
});

const IP = kaddr(0xffff_ffff_81a2_b3c0n);
const NEAR = kaddr(0xffff_ffff_a020_1000n);
const OTHER = kaddr(0xffff_ffff_a020_2000n);
const FAR = kaddr(0x1234_5678_9abc_def0n);
const NOP = Uint8Array.of(0x0f, 0x1f, 0x44, 0x00, 0x00);
const INT3S = Uint8Array.of(0xcc, 0xcc, 0xcc, 0xcc, 0xcc);

const request = (change: Partial<PokeRequest>): PokeRequest => ({
  ip: IP,
  type: 'CALL',
  oldAddr: null,
  newAddr: NEAR,
  isText: true,
  ...change,
});
const ret = (change: Partial<PokeRequest>, prior: Uint8Array): number =>
  decidePoke('v5.15', request(change), prior).ret;

describe('the order of checks', () => {
  test('text before distance before bytes before nothing-to-do', () => {
    expect(ret({ isText: false, oldAddr: FAR, newAddr: FAR }, INT3S)).toBe(-22);
    expect(ret({ oldAddr: FAR }, INT3S)).toBe(-34);
    expect(ret({ newAddr: FAR }, INT3S)).toBe(-34);
    expect(ret({}, INT3S)).toBe(-16);
    expect(ret({ newAddr: null }, INT3S)).toBe(-16);
    expect(ret({ newAddr: null }, NOP)).toBe(1);
    expect(ret({}, NOP)).toBe(0);
  });

  test('a distance is looked at before memory is, so that too few bytes do not matter', () => {
    expect(ret({ newAddr: FAR }, new Uint8Array(0))).toBe(-34);
    expect(ret({}, NOP.subarray(0, 4))).toBe(-16);
  });

  test('only the kernel’s own nop is a nop', () => {
    for (const bytes of ['9090909090', '660f1f4400', '0f1f440001', '0f1f4000cc', 'e900000000']) {
      expect(ret({}, Uint8Array.from(Buffer.from(bytes, 'hex')))).toBe(-16);
    }
  });

  test('a jump is not a call', () => {
    const call = patchBytes('CALL', IP, NEAR) ?? NOP;
    expect(ret({ type: 'JUMP', oldAddr: NEAR, newAddr: null }, call)).toBe(-16);
    expect(ret({ type: 'CALL', oldAddr: NEAR, newAddr: null }, call)).toBe(0);
    expect(ret({ type: 'CALL', oldAddr: OTHER, newAddr: null }, call)).toBe(-16);
  });
});

describe('what is written', () => {
  const type = fc.constantFrom<PokeType>('CALL', 'JUMP');
  const address = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }).map(kaddr);
  const near = fc.integer({ min: -0x8000_0000, max: 0x7fff_ffff });

  test('decodes to a call or jump to the target, wherever both are', () => {
    fc.assert(
      fc.property(type, address, near, (kind, ip, distance) => {
        const target = addrAdd(ip, POKE_BYTES + distance);
        // Address 0 is no target, but a nop.
        fc.pre(target !== 0n);
        const [insn] = disassemble(patchBytes(kind, ip, target) ?? INT3S, ip);
        expect(insn).toMatchObject({ sizeBytes: 5, mnemonic: kind === 'CALL' ? 'call' : 'jmp', target });
      }),
      { numRuns: 300 },
    );
  });

  test('reaches 2 GiB and not a byte further', () => {
    for (const ip of [IP, kaddr(0n), kaddr(2n ** 64n - 1n)]) {
      expect(patchBytes('CALL', ip, addrAdd(ip, 5 + 0x7fff_ffff))).toBeDefined();
      expect(patchBytes('CALL', ip, addrAdd(ip, 5 + 0x8000_0000))).toBeUndefined();
      expect(patchBytes('JUMP', ip, addrAdd(ip, 5 - 0x8000_0000))).toBeDefined();
      expect(patchBytes('JUMP', ip, addrAdd(ip, 4 - 0x8000_0000))).toBeUndefined();
    }
  });

  test('install, replace, remove come back to the nop; each step undone is refused', () => {
    fc.assert(
      fc.property(type, near, near, (kind, first, second) => {
        const one = addrAdd(IP, first);
        const two = addrAdd(IP, second);
        const text = NOP.slice();
        const poke = (oldAddr: typeof one | null, newAddr: typeof one | null): number => {
          const decided = decidePoke('v5.15', { ip: IP, type: kind, oldAddr, newAddr, isText: true }, text);
          if (decided.write !== undefined) text.set(decided.write);
          return decided.ret;
        };
        fc.pre(patchBytes(kind, IP, one) !== undefined && patchBytes(kind, IP, two) !== undefined);
        expect(poke(null, one)).toBe(0);
        expect(poke(null, one)).toBe(-16);
        expect(poke(one, two)).toBe(first === second ? 1 : 0);
        expect(poke(two, two)).toBe(1);
        expect(poke(two, null)).toBe(0);
        expect(text).toEqual(NOP);
      }),
      { numRuns: 200 },
    );
  });

  test('nothing is written when refused, and the bytes given are not touched', () => {
    const prior = INT3S.slice();
    expect(decidePoke('v5.15', request({}), prior)).toEqual({ ret: -16, write: undefined, offset: 0 });
    const nop = NOP.slice();
    expect(decidePoke('v5.15', request({}), nop).write).toHaveLength(5);
    expect([prior, nop]).toEqual([INT3S, NOP]);
  });
});

describe('behind an ENDBR', () => {
  const FORMS = { endbr64: 'f30f1efa', endbr32: 'f30f1efb', 'sealed endbr': '660f1f00' };
  const BEHIND = addrAdd(IP, 4);
  const bytes = (hex: string): Uint8Array => Uint8Array.from(Buffer.from(hex, 'hex'));
  const call = (from: Kaddr, to: Kaddr): string => toHex(patchBytes('CALL', from, to) ?? NOP);
  const V6 = ['v6.1', 'v6.12'] as const;

  describe.each(V6)('%s', (revision) => {
    test.each(Object.entries(FORMS))('%s is stepped over when built for IBT: nop, call, nop', (_, endbr) => {
      const install = request({ ibt: true });
      const done = decidePoke(revision, install, bytes(`${endbr}0f1f440000`));
      expect([done.ret, done.offset, toHex(done.write ?? NOP)]).toEqual([0, 4, call(BEHIND, NEAR)]);
      const remove = request({ ibt: true, oldAddr: NEAR, newAddr: null });
      const undone = decidePoke(revision, remove, bytes(endbr + call(BEHIND, NEAR)));
      expect([undone.ret, undone.offset, undone.write]).toEqual([0, 4, NOP]);
      // a distance counted from ip itself is another instruction
      expect(decidePoke(revision, remove, bytes(endbr + call(IP, NEAR))).ret).toBe(-16);
    });

    test('not stepped over: built without IBT, or another 4 bytes, or an ENDBR further on', () => {
      for (const endbr of Object.values(FORMS)) {
        expect(decidePoke(revision, request({}), bytes(`${endbr}0f1f440000`))).toMatchObject({
          ret: -16,
          offset: 0,
        });
      }
      for (const other of ['f30f1ef9', 'f20f1efa', '660f1f01', '670f1f00', '0f1f4000', '90909090']) {
        expect(decidePoke(revision, request({ ibt: true }), bytes(`${other}0f1f440000`)).ret).toBe(-16);
      }
      const late = bytes('0f1f440000f30f1efa');
      expect(decidePoke(revision, request({ ibt: true }), late)).toMatchObject({ ret: 0, offset: 0 });
    });

    test('memory is read before the distance is checked: from behind the ENDBR a call may just reach', () => {
      const edge = addrAdd(IP, 4 + 5 + 0x7fff_ffff);
      const withEndbr = bytes(`${FORMS.endbr64}0f1f440000`);
      expect(decidePoke(revision, request({ ibt: true, newAddr: edge }), withEndbr).ret).toBe(0);
      expect(decidePoke(revision, request({ ibt: true, newAddr: edge }), NOP).ret).toBe(-34);
      expect(decidePoke(revision, request({ ibt: true, newAddr: FAR }), withEndbr)).toMatchObject({
        ret: -34,
        offset: 4,
      });
      // but what is no text is not read at all
      expect(decidePoke(revision, request({ ibt: true, isText: false }), withEndbr)).toMatchObject({
        ret: -22,
        offset: 0,
      });
    });
  });

  test('v5 kernels know of no ENDBR, whatever is said of IBT', () => {
    for (const revision of ['v5.13', 'v5.15'] as const) {
      const prior = bytes(`${FORMS.endbr64}0f1f440000`);
      expect(decidePoke(revision, request({ ibt: true }), prior)).toMatchObject({ ret: -16, offset: 0 });
    }
  });
});
