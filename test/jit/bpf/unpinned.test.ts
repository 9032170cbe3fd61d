/* What no vector of the kernels shows, by reasoning from the rules. */

import { describe, expect, test } from 'vitest';
import {
  BPF_ADD,
  BPF_ALU,
  BPF_ALU64,
  BPF_AND,
  BPF_ATOMIC,
  BPF_CALL,
  BPF_CMPXCHG,
  BPF_DW,
  BPF_FETCH,
  BPF_JA,
  BPF_JEQ,
  BPF_JMP,
  BPF_JMP32,
  BPF_LDX,
  BPF_MEMSX,
  BPF_NEG,
  BPF_OR,
  BPF_PROBE_ATOMIC,
  BPF_PROBE_MEM,
  BPF_PROBE_MEM32,
  BPF_PROBE_MEMSX,
  BPF_STX,
  BPF_SUB,
  BPF_W,
  BPF_X,
  BPF_XCHG,
  BPF_XOR,
  type BpfInsn,
  bpfJitRevisions,
  exFixups,
  type InsnEmitter,
} from '../../../jit/index.ts';
import { InputError, kaddr, toHex } from '../../../lib/index.ts';
import { bytesOf, compile, exit, image, insn, ja, ldImm64, movImm } from './programs.ts';

const REVISIONS = ['v5.15', 'v6.1', 'v6.12'] as const;
const EVERY_REVISION = ['v5.15.0', ...REVISIONS] as const;

describe('opcodes that no JIT knows', () => {
  test.each(EVERY_REVISION)('%s: neg with the X bit', (revision) => {
    for (const code of [BPF_ALU | BPF_NEG | BPF_X, BPF_ALU64 | BPF_NEG | BPF_X]) {
      expect(compile(revision, [insn(code), exit])).toEqual({
        fail: `1 unknown opcode ${code.toString(16)}`,
      });
    }
  });

  test.each(EVERY_REVISION)('%s: sign-extending loads of 8 bytes', (revision) => {
    for (const mode of [BPF_MEMSX, BPF_PROBE_MEMSX]) {
      const load = insn(BPF_LDX | mode | BPF_DW);
      expect(compile(revision, [load, exit], { numExentries: 1 })).toMatchObject({
        fail: expect.stringMatching(/^1 unknown opcode/),
      });
    }
  });

  test('fetching and, or and xor on the arena: what it does is known, how is not', () => {
    for (const size of [BPF_W, BPF_DW]) {
      const atomic = (imm: number) =>
        compile('v6.12', [insn(BPF_STX | BPF_PROBE_ATOMIC | size, { dst: 1, src: 2, imm }), exit], {
          numExentries: 1,
        });
      for (const op of [BPF_AND, BPF_OR, BPF_XOR]) {
        expect(atomic(op | BPF_FETCH)).toEqual({
          fail: `1 unknown atomic opcode ${(op | BPF_FETCH).toString(16)}`,
        });
        expect(atomic(op)).not.toHaveProperty('fail');
      }
      expect(atomic(BPF_ADD | BPF_FETCH)).not.toHaveProperty('fail');
    }
  });

  test('the JIT looks at one byte of what an atomic operation is, except for the loops', () => {
    const atomic = (revision: (typeof REVISIONS)[number], imm: number) =>
      compile(revision, [insn(BPF_STX | BPF_ATOMIC | BPF_DW, { dst: 1, src: 2, imm }), exit]);
    for (const revision of REVISIONS) {
      for (const imm of [BPF_ADD, BPF_XCHG, BPF_CMPXCHG]) {
        expect(atomic(revision, 0x100 | imm)).toEqual(atomic(revision, imm));
      }
      expect(atomic(revision, 0x100 | BPF_AND | BPF_FETCH)).toEqual({ fail: '1 unknown atomic opcode 51' });
    }
    expect(atomic('v5.15', BPF_SUB)).not.toHaveProperty('fail');
    expect(atomic('v6.1', BPF_SUB)).toEqual({ fail: '1 unknown atomic opcode 10' });
    expect(atomic('v5.15', BPF_SUB | BPF_FETCH)).toEqual({ fail: '1 unknown atomic opcode 11' });
  });
});

describe('exception entries', () => {
  const probe = insn(BPF_LDX | BPF_PROBE_MEM | BPF_W, { dst: 1, src: 2, off: 8 });

  test.each(EVERY_REVISION)('%s: none announced, one needed: refused as the image is written', (revision) => {
    expect(compile(revision, [probe, exit])).toEqual({
      fail: '3 more probe accesses than exception entries',
    });
    expect(compile(revision, [probe, exit], { numExentries: 1 })).not.toHaveProperty('fail');
    expect(compile(revision, [probe, exit], { numExentries: 2 })).toEqual({
      fail: '3 1 probe accesses; 2 exception entries',
    });
    expect(compile(revision, [exit], { numExentries: 1 })).toEqual({
      fail: '3 0 probe accesses; 1 exception entries',
    });
  });

  test('a load from the arena into what no fixup can clear is refused as a probe load is', () => {
    const load = (dst: number) =>
      compile('v6.12', [insn(BPF_LDX | BPF_PROBE_MEM32 | BPF_W, { dst, src: 1 }), exit], { numExentries: 1 });
    expect(load(9)).not.toHaveProperty('fail');
    expect(load(10)).toMatchObject({ fail: expect.stringMatching(/^3 /) });
    expect(load(11)).toMatchObject({ fail: expect.stringMatching(/^3 /) });
  });
});

describe('v5.15.0', () => {
  test('guards probe loads against NULL alone, and skips too much', () => {
    const load = insn(BPF_LDX | BPF_PROBE_MEM | BPF_DW, { dst: 9, src: 5, off: -8 });
    const made = image('v5.15.0', [load, exit], { numExentries: 1 });
    // test r8, r8; jne +5; xor r15d, r15d; jmp +4; mov r15, [r8 - 8]
    expect(bytesOf(made, 0)).toBe('4d85c0' + '7505' + '4531ff' + 'eb04' + '4d8b78f8');
    const start = made.addrs[0] as number;
    // from the load on, as many bytes as guard and load have: 10 too far
    expect(made.exTable).toEqual([{ insn: start + 10, fixup: 14, handler: expect.any(Number) }]);
    const mended = image('v5.15', [load, exit], { numExentries: 1 });
    expect((mended.exTable[0]?.fixup ?? 0) & 0xff).toBe(4);
  });

  test('goes on so far behind that whole instructions are left out', () => {
    const load = insn(BPF_LDX | BPF_PROBE_MEM | BPF_W, { dst: 9, src: 5, off: 0x1000 });
    const made = image('v5.15.0', [load, exit], { numExentries: 1 });
    const [entry] = made.exTable;
    // the load ends the instruction; from its end on, the 10 bytes of the guard once more
    expect(exFixups(made.exTable).get(entry?.insn ?? 0)?.resume).toBe((made.addrs[1] as number) + 10);
  });

  test('is v5.15 in everything else', () => {
    const { 'v5.15.0': first, 'v5.15': later } = bpfJitRevisions;
    const changed = Object.keys(later.opcodes).filter((c) => first.opcodes[+c] !== later.opcodes[+c]);
    const probes = [0x20, 0x28, 0x30, 0x38].map((size) => String(BPF_LDX | size));
    expect(changed).toEqual(probes);
    expect({ ...first, opcodes: {} }).toEqual({ ...later, opcodes: {} });
  });
});

describe('padding', () => {
  /** As many jumps over each other: in every pass the last of those that are left turns out to go nowhere. */
  const chain = (length: number) => [...Array<BpfInsn>(length - 1).fill(ja(1)), ja(0)];

  test.each(REVISIONS)('%s: a jump over nothing keeps its 2 bytes from pass 16 on', (revision) => {
    const made = image(revision, [...chain(20), exit]);
    expect(made.passes).toBe(17);
    const bytes = Array.from({ length: 20 }, (_, slot) => bytesOf(made, slot));
    // 15 passes took one jump each; the sixteenth makes a nop, and those before jump over 2 bytes
    expect(bytes).toEqual([...Array(4).fill('eb02'), '6690', ...Array(15).fill('')]);
    const unpadded = image(revision, [...chain(15), exit]);
    expect(unpadded.addrs[15]).toBe(unpadded.addrs[0]);
    expect(unpadded.passes).toBe(17);
  });

  test.each(REVISIONS)('%s: and its 5 bytes', (revision) => {
    // 64 chains beside each other are 128 bytes until pass 14, and nothing after pass 15
    const body = Array.from({ length: 64 }, () => chain(15)).flat();
    const made = image(revision, [ja(body.length), ...body, exit]);
    expect(made.passes).toBe(17);
    expect(bytesOf(made, 0)).toBe('0f1f440000');
    expect(made.addrs.at(-2)).toBe((made.addrs[0] as number) + 5);
  });

  /** One instruction that is of another length in every pass, until a certain one. */
  const restless = (settlesInPass: number): InsnEmitter => {
    let pass = 0;
    return ({ asm }) => {
      pass++;
      for (let i = pass; i < settlesInPass; i++) asm.raw([0x90]);
    };
  };
  const RESTLESS = 0xe5;
  const GROWS = 0xed;
  const restlessJit = (settlesInPass: number) => ({
    ...bpfJitRevisions['v6.12'],
    opcodes: { ...bpfJitRevisions['v6.12'].opcodes, [RESTLESS]: restless(settlesInPass) },
  });

  test('a program that has not settled after 20 passes is not compiled', () => {
    const settled = (pass: number) => compile(restlessJit(pass), [insn(RESTLESS), exit]);
    // as long as in the pass before, one pass after the last change
    expect(settled(1)).toMatchObject({ passes: 3 });
    expect(settled(19)).toMatchObject({ passes: 21 });
    expect(settled(20)).toEqual({ fail: '20 lengths have not settled' });
  });

  test('an image whose ends are not where they were is refused', () => {
    let pass = 0;
    const fidgety: InsnEmitter = ({ asm, writing }) => {
      pass++;
      if (!writing) asm.raw([0x90]);
    };
    const rev = bpfJitRevisions['v6.12'];
    const jit = { ...rev, opcodes: { ...rev.opcodes, [RESTLESS]: fidgety } };
    expect(compile(jit, [insn(RESTLESS), exit])).toEqual({ fail: '3 slot 0 ends elsewhere than before' });
    expect(pass).toBe(3);
  });

  test('a jump that has grown under padding is not held, and one behind it fails', () => {
    // what grows by 3 from pass 16 on pushes the jump behind it away from the end that it had
    const grows: InsnEmitter = ({ asm, padding }) => {
      for (let i = 0; i < (padding ? 4 : 1); i++) asm.raw([0x90]);
    };
    const rev = bpfJitRevisions['v6.12'];
    const opcodes = { ...rev.opcodes, [RESTLESS]: restless(17), [GROWS]: grows };
    // what the restless one loses in pass 16 is 1
    expect(compile({ ...rev, opcodes }, [insn(RESTLESS), insn(GROWS), ja(1), movImm(0, 0), exit])).toEqual({
      fail: '16 unexpected jump padding: -2 bytes',
    });
  });
});

describe('padding that does not come out', () => {
  const RESTLESS = 0xe6;
  const SHRINKS = 0xe7;
  /** Runs into padding, and is shorter there by so many bytes than before: a jump behind it has too much room. */
  const shrinkingJit = (by: number) => {
    const rev = bpfJitRevisions['v6.12'];
    const shrinks: InsnEmitter = ({ asm, padding }) => {
      for (let i = padding ? by : 0; i <= by; i++) asm.raw([0x90]);
    };
    let pass = 0;
    const restless: InsnEmitter = ({ asm }) => {
      pass++;
      for (let i = Math.min(pass, 15); i < 17; i++) asm.raw([0x90]);
    };
    return { ...rev, opcodes: { ...rev.opcodes, [RESTLESS]: restless, [SHRINKS]: shrinks } };
  };
  const behind = (by: number, jump: BpfInsn) =>
    compile(shrinkingJit(by), [insn(RESTLESS), insn(SHRINKS), jump, movImm(0, 1), exit]);
  const je = insn(BPF_JMP | BPF_JEQ, { off: 1, imm: 1 });

  test.each([1, 2, 4, 5])('%d bytes in front of a short ja', (by) => {
    expect(behind(by, ja(1))).toEqual({ fail: `16 unexpected jump padding: ${by} bytes` });
  });

  test.each([1, 2, 3, 5])('%d bytes in front of a short conditional jump', (by) => {
    expect(behind(by, je)).toEqual({ fail: `16 unexpected jump padding: ${by} bytes` });
  });

  test.each([1, 3, 4])('%d bytes in place of a ja over nothing', (by) => {
    expect(behind(by, ja(0))).toEqual({ fail: `16 unexpected jump padding: ${by} bytes` });
  });

  test('as many as the longer jump had are nops', () => {
    expect(behind(3, ja(1))).not.toHaveProperty('fail');
    expect(behind(4, je)).not.toHaveProperty('fail');
    expect(behind(2, ja(0))).not.toHaveProperty('fail');
    expect(behind(5, ja(0))).not.toHaveProperty('fail');
  });
});

describe('distances', () => {
  test('a jump into the second half of an immediate goes by the end that its first half never gets', () => {
    // the table keeps 64 * (k + 1) for the first half, here slot 2: 192
    const made = image('v6.1', [ja(1), ...ldImm64(0, 1n << 40n), exit]);
    expect(made.addrs[2]).toBe(192);
    const own = made.addrs[1] as number;
    expect(bytesOf(made, 0)).toBe(`e9${(192 - own).toString(16).padStart(2, '0')}000000`);
  });

  test.each([
    ['v5.15', 127],
    ['v6.1', 123],
    ['v6.12', 123],
  ] as const)('%s: a short jump forward reaches %d bytes', (revision, limit) => {
    // moves of 5 bytes and of 2
    const filler = (bytes: number) => {
      const twos = (bytes % 5) % 2 === 0 ? (bytes % 5) / 2 : ((bytes % 5) + 5) / 2;
      const fives = (bytes - 2 * twos) / 5;
      return [...Array<BpfInsn>(fives).fill(movImm(1, 7)), ...Array<BpfInsn>(twos).fill(movImm(1, 0))];
    };
    const jump = (bytes: number) => {
      const body = filler(bytes);
      return bytesOf(image(revision, [ja(body.length), ...body, exit]), 0);
    };
    expect(jump(limit)).toBe(`eb${limit.toString(16)}`);
    expect(jump(limit + 1)).toBe(`e9${(limit + 1).toString(16)}000000`);
  });

  test('out of the program there is nothing to jump to', () => {
    for (const off of [-2, 2]) {
      expect(() => image('v6.12', [ja(off), exit])).toThrow(InputError);
      expect(() => image('v6.12', [ja(off), exit])).toThrow('insns slot 0: a jump by');
    }
    expect(() => image('v6.12', [insn(BPF_JMP32 | BPF_JA, { imm: 2 }), exit])).toThrow('slot 0');
  });

  test('a call must reach from the image, and before there is one, from 0', () => {
    const call = insn(BPF_JMP | BPF_CALL, { imm: 1 });
    const from = (image: bigint, callBase: bigint) =>
      compile('v6.12', [call, exit], { image: kaddr(image), config: { callBase: kaddr(callBase) } });
    const text = 0xffff_ffff_8120_0000n;
    expect(from(0xffff_ffff_c000_0000n, text)).not.toHaveProperty('fail');
    expect(from(0x7f00_0000_0000n, text)).toMatchObject({ fail: expect.stringMatching(/^3 call .* 2 GiB/) });
    expect(from(0x7f00_0000_0000n, 0x7f00_0010_0000n)).toMatchObject({
      fail: expect.stringMatching(/^1 call/),
    });
  });
});

describe('inputs that no verifier lets through', () => {
  test('are told with the slot, in the extra pass too', () => {
    const insns = [movImm(0, 1), exit];
    const final = [movImm(0, 1), ja(7)];
    expect(() => image('v6.12', insns, { final })).toThrow(
      'final slot 1: a jump by 7 leaves the program of 2',
    );
    expect(() => image('v6.12', insns, { final: [exit] })).toThrow('final: 1 slots; the first run has 2');
    expect(() => image('v6.12', [movImm(13, 1), exit])).toThrow('insns slot 0: register r13');
    expect(() => image('v6.12', insns, { stackDepth: 0.5 })).toThrow('stack depth: 0.5');
    expect(() => image('v6.12', [movImm(0, 1), insn(0x18)])).toThrow('insns slot 1: half a 64-bit immediate');
  });

  test('a register that an instruction does not use is not looked at, except for what must be saved', () => {
    const made = image('v6.12', [insn(BPF_JMP | 0x90, { dst: 12, src: 15 })]);
    expect(toHex(made.bytes.subarray(made.addrs[0]))).toBe('c9c3');
    const saving = image('v6.12', [insn(BPF_JMP | 0x90, { dst: 6, src: 9 })]);
    expect(toHex(saving.bytes.subarray(12))).toBe('53' + '4157' + '415f' + '5b' + 'c9c3');
  });

  test.each(['v5.15', 'v6.1'] as const)('%s: off says nothing of division or moves', (revision) => {
    for (const code of [0x34, 0x37, 0x3c, 0x3f, 0x94, 0x97, 0x9c, 0x9f, 0xbc, 0xbf]) {
      const one = (off: number) =>
        bytesOf(image(revision, [insn(code, { dst: 1, src: 2, off, imm: 3 }), exit]), 0);
      for (const off of [1, 8, -1]) expect(one(off)).toBe(one(0));
    }
  });

  test('a move of a width that does not exist is nothing', () => {
    const move = (code: number, off: number) =>
      bytesOf(image('v6.12', [insn(code, { dst: 1, src: 2, off }), exit]), 0);
    expect(move(0xbf, 64)).toBe('');
    expect(move(0xbc, 32)).toBe('');
    // a cast towards the arena is left to the verifier, and a per-CPU address has 64 bits
    expect(move(0xbf, 1)).toBe('');
    expect(move(0xbc, -1)).toBe('');
    expect(move(0xbf, -2)).toBe('');
    expect(move(0xbf, 0)).toBe('4889f7');
  });
});
