import { expect, test } from 'vitest';
import { BPF_CALL, BPF_JMP, decodeInsns, disasmInsn } from '../../../jit/index.ts';
import { fromHex } from '../../../lib/index.ts';

// Texts as bpftool and the verifier's log show them.
test.each([
  ['b700000001000000', '(b7) r0 = 1'],
  ['b4010000ffffffff', '(b4) w1 = -1'],
  ['bf61000000000000', '(bf) r1 = r6'],
  ['bc21000000000000', '(bc) w1 = w2'],
  ['bf21080000000000', '(bf) r1 = (s8)r2'],
  ['bc21100000000000', '(bc) w1 = (s16)w2'],
  ['bf21010000000100', '(bf) r1 = addr_space_cast(r2, 1, 0)'],
  ['bf21ffff00000000', '(bf) r1 = &(void __percpu *)(r2)'],
  ['07010000f8ffffff', '(07) r1 += -8'],
  ['0f21000000000000', '(0f) r1 += r2'],
  ['1c21000000000000', '(1c) w1 -= w2'],
  ['2701000005000000', '(27) r1 *= 5'],
  ['3f21000000000000', '(3f) r1 /= r2'],
  ['3f21010000000000', '(3f) r1 s/= r2'],
  ['9401010003000000', '(94) w1 s%= 3'],
  ['4f21000000000000', '(4f) r1 |= r2'],
  ['57010000ff000000', '(57) r1 &= 255'],
  ['a721000000000000', '(a7) r1 ^= 0'],
  ['6701000020000000', '(67) r1 <<= 32'],
  ['7701000020000000', '(77) r1 >>= 32'],
  ['c701000020000000', '(c7) r1 s>>= 32'],
  ['8701000000000000', '(87) r1 = -r1'],
  ['8401000000000000', '(84) w1 = -w1'],
  ['dc01000010000000', '(dc) r1 = be16 r1'],
  ['d401000020000000', '(d4) r1 = le32 r1'],
  ['d701000040000000', '(d7) r1 = bswap64 r1'],
  ['e701000000000000', '(e7) BUG_e7'],

  ['7110040000000000', '(71) r0 = *(u8 *)(r1 +4)'],
  ['61a1f8ff00000000', '(61) r1 = *(u32 *)(r10 -8)'],
  ['9121000000000000', '(91) r1 = *(s8 *)(r2 +0)'],
  ['3921080000000000', '(39) r1 = *(u64 *)(r2 +8) ; probe'],
  ['4121080000000000', '(41) r1 = *(s32 *)(r2 +8) ; probe'],
  ['b921080000000000', '(b9) r1 = *(u64 *)(r2 +8) ; arena'],
  ['e121080000000000', '(e1) BUG_e1'],
  ['7b1af8ff00000000', '(7b) *(u64 *)(r10 -8) = r1'],
  ['6b1af8ff00000000', '(6b) *(u16 *)(r10 -8) = r1'],
  ['bb1af8ff00000000', '(bb) *(u64 *)(r10 -8) = r1 ; arena'],
  ['620afcff05000000', '(62) *(u32 *)(r10 -4) = 5'],
  ['b20afcff05000000', '(b2) *(u8 *)(r10 -4) = 5 ; arena'],
  ['c200000000000000', '(c2) nospec'],
  ['1a00000000000000', '(1a) BUG_1a'],
  ['1b00000000000000', '(1b) BUG_1b'],
  ['db21000000000000', '(db) lock *(u64 *)(r1 +0) += r2'],
  ['c321000050000000', '(c3) lock *(u32 *)(r1 +0) &= r2'],
  ['db21000041000000', '(db) r2 = atomic64_fetch_or((u64 *)(r1 +0), r2)'],
  ['c3210800a1000000', '(c3) r2 = atomic_fetch_xor((u32 *)(r1 +8), r2)'],
  ['db210000e1000000', '(db) r2 = atomic64_xchg((u64 *)(r1 +0), r2)'],
  ['db210000f1000000', '(db) r0 = atomic64_cmpxchg((u64 *)(r1 +0), r0, r2)'],
  ['fb21000001000000', '(fb) r2 = atomic64_fetch_add((u64 *)(r1 +0), r2) ; arena'],
  ['db21000010000000', '(db) BUG_db'],
  ['3000000004000000', '(30) r0 = *(u8 *)skb[4]'],
  ['4810000004000000', '(48) r0 = *(u16 *)skb[r1 + 4]'],
  ['0000000004000000', '(00) BUG_00'],

  ['0500030000000000', '(05) goto pc+3'],
  ['0500ffff00000000', '(05) goto pc-1'],
  ['06000000fdffffff', '(06) gotol pc-3'],
  ['1500030000000000', '(15) if r0 == 0x0 goto pc+3'],
  ['a60003000a000000', '(a6) if w0 < 0xa goto pc+3'],
  ['65000300ffffffff', '(65) if r0 s> 0xffffffff goto pc+3'],
  ['dd21030000000000', '(dd) if r1 s<= r2 goto pc+3'],
  ['4d21030000000000', '(4d) if r1 & r2 goto pc+3'],
  ['8510000005000000', '(85) call pc+5'],
  ['8500000005000000', '(85) call unknown#5'],
  ['f500000000000000', '(f5) tail_call'],
  ['f500000002000000', '(f5) tail_call poke#2'],
  ['9500000000000000', '(95) exit'],
  ['e500000000000000', '(e5) BUG_e5'],
])('%s is %s', (hex, text) => {
  const [insn, next] = decodeInsns(fromHex(hex) as Uint8Array);
  expect(disasmInsn(insn as NonNullable<typeof insn>, next)).toBe(text);
});

test('a 64-bit immediate takes both slots', () => {
  const [first, second] = decodeInsns(fromHex('18010000f0debc9a0000000078563412') as Uint8Array);
  expect(disasmInsn(first as NonNullable<typeof first>, second)).toBe('(18) r1 = 0x123456789abcdef0');
});

test('what is called can be named', () => {
  const [call] = decodeInsns(fromHex('8500000005000000') as Uint8Array);
  const callee = ({ code, imm }: { code: number; imm: number }): string | undefined =>
    code === (BPF_JMP | BPF_CALL) ? `bpf_ktime_get_ns#${imm}` : undefined;
  expect(disasmInsn(call as NonNullable<typeof call>, undefined, { callee })).toBe(
    '(85) call bpf_ktime_get_ns#5',
  );
});
