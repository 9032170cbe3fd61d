import { Decoder, DecoderOptions, Code as IcedCode } from 'iced-x86';
import { describe, expect, test } from 'vitest';
import {
  Assembler,
  al,
  byte,
  disassemble,
  dword,
  eax,
  ecx,
  edx,
  gsAt,
  gsPtr,
  gsRip,
  type Label,
  LONG_NOPS,
  Mem,
  NOPS,
  OutOfRange,
  piece,
  ptr,
  ptrIndexed,
  qword,
  r8,
  r9,
  r10,
  r12,
  r13,
  r15,
  rax,
  rbp,
  rbx,
  rcx,
  rdi,
  rdx,
  ripTo,
  rsi,
  rsp,
  Sym,
  step,
  stepPath,
  word,
} from '../../jit/index.ts';
import { addrAdd, Bug, EmitError, type Kaddr, kaddr, toHex } from '../../lib/index.ts';
import { CONDITIONS } from './forms.ts';

const ORIGIN = kaddr(0xffff_ffff_a020_1000n);

function open(origin: Kaddr = ORIGIN, record = true): Assembler {
  const asm = new Assembler(origin, { record });
  asm.enter('test', undefined);
  return asm;
}

/** Bytes of what `emit` emits, as hex. */
function hex(emit: (asm: Assembler) => void): string {
  const asm = open();
  emit(asm);
  return toHex(asm.bytes());
}

describe('bytes by hand, from the Intel manual', () => {
  const cl = rcx.as(1);
  const dl = rdx.as(1);
  const spl = rsp.as(1);
  const sil = rsi.as(1);
  const r10b = r10.as(1);
  const cases: readonly (readonly [bytes: string, emit: (asm: Assembler) => void])[] = [
    // the frame of a trampoline
    ['55', (a) => a.push(rbp)],
    ['4889e5', (a) => a.mov(rbp, rsp)],
    ['4883ec18', (a) => a.aluImm8('sub', rsp, 24)],
    ['53', (a) => a.push(rbx)],
    ['5b', (a) => a.pop(rbx)],
    ['c9', (a) => a.leave64()],
    ['4883c408', (a) => a.aluImm8('add', rsp, 8)],
    ['c3', (a) => a.ret()],
    ['4155', (a) => a.push(r13)],
    ['415d', (a) => a.pop(r13)],
    // arguments of each width, into and out of their slots
    ['48897df0', (a) => a.mov(ptr(rbp, -16), rdi)],
    ['4c8945f8', (a) => a.mov(ptr(rbp, -8), r8)],
    ['8975f8', (a) => a.mov(ptr(rbp, -8), rsi.as(4))],
    ['44894df8', (a) => a.mov(ptr(rbp, -8), r9.as(4))],
    ['66897df8', (a) => a.mov(ptr(rbp, -8), rdi.as(2))],
    ['66448945f8', (a) => a.mov(ptr(rbp, -8), r8.as(2))],
    ['40887df8', (a) => a.mov(ptr(rbp, -8), rdi.as(1))],
    ['8855f8', (a) => a.mov(ptr(rbp, -8), dl)],
    ['448845f8', (a) => a.mov(ptr(rbp, -8), r8.as(1))],
    ['488b7df0', (a) => a.mov(rdi, ptr(rbp, -16))],
    ['480fb67df8', (a) => a.movzx(rdi, ptr(rbp, -8), 1)],
    ['4c0fb745f8', (a) => a.movzx(r8, ptr(rbp, -8), 2)],
    // byte registers: spl and sil take a bare REX, al and cl none
    ['4088e0', (a) => a.mov(al, spl)],
    ['88c8', (a) => a.mov(al, cl)],
    ['4488d1', (a) => a.mov(cl, r10b)],
    ['4080fe80', (a) => a.aluImm8('cmp', sil, -128)],
    ['80d101', (a) => a.aluImm8('adc', cl, 1)],
    ['410fb6d2', (a) => a.movzx(edx, r10b, 1)],
    // immediates
    ['bf00026000', (a) => a.movImm32(rdi.as(4), 0x600200)],
    ['41b8ffffffff', (a) => a.movImm32(r8.as(4), 0xffff_ffff)],
    ['48bf00501d0000c9ffff', (a) => a.movImm64(rdi, 0xffff_c900_001d_5000n)],
    ['49b80100000000000000', (a) => a.movImm64(r8, 1n)],
    ['48c7c0ffffffff', (a) => a.movImm(rax, -1)],
    ['66c745f83412', (a) => a.movImm(word(ptr(rbp, -8)), 0x1234)],
    ['c645f87f', (a) => a.movImm(byte(ptr(rbp, -8)), 127)],
    ['48837df800', (a) => a.aluImm8('cmp', qword(ptr(rbp, -8)), 0)],
    ['4881f900000080', (a) => a.aluImm32('cmp', rcx, -0x8000_0000)],
    ['6681c1ffff', (a) => a.aluImm32('add', rcx.as(2), 0xffff)],
    ['f7c103000000', (a) => a.testImm(ecx, 3)],
    ['31c0', (a) => a.alu('xor', eax, eax)],
    ['4885c0', (a) => a.test(rax, rax)],
    ['488d7d00', (a) => a.lea(rdi, ptr(rbp))],
    // displacements: none, 8 bits, 32 bits, and on demand
    ['488b00', (a) => a.mov(rax, ptr(rax))],
    ['488b4000', (a) => a.mov(rax, ptr(rax, 0, 'disp8'))],
    ['488b8000000000', (a) => a.mov(rax, ptr(rax, 0, 'disp32'))],
    ['488b407f', (a) => a.mov(rax, ptr(rax, 127))],
    ['488b8080000000', (a) => a.mov(rax, ptr(rax, 128))],
    ['488b4080', (a) => a.mov(rax, ptr(rax, -128))],
    ['488b807fffffff', (a) => a.mov(rax, ptr(rax, -129))],
    ['498b4500', (a) => a.mov(rax, ptr(r13))],
    // a SIB byte for rsp and r12, and for an index
    ['488b0424', (a) => a.mov(rax, ptr(rsp))],
    ['498b442408', (a) => a.mov(rax, ptr(r12, 8))],
    ['488b04c8', (a) => a.mov(rax, ptrIndexed(rax, rcx, 8))],
    ['4a8b44a510', (a) => a.mov(rax, ptrIndexed(rbp, r12, 4, 16))],
    ['4b8b443d00', (a) => a.mov(rax, ptrIndexed(r13, r15, 1))],
    ['488b048d34120000', (a) => a.mov(rax, new Mem({ index: rcx, scale: 4, disp: 0x1234 }))],
    // per-CPU data, atomics
    ['65488b1425005d0100', (a) => a.mov(rdx, gsAt(0x15d00))],
    ['65ff09', (a) => a.dec(dword(gsPtr(rcx)))],
    ['65480109', (a) => a.alu('add', gsPtr(rcx), rcx)],
    ['650fc101', (a) => a.xadd(gsPtr(rcx), eax)],
    ['f048ff4710', (a) => a.lockInc(qword(ptr(rdi, 16)))],
    ['f0480fb10f', (a) => a.lockCmpxchg(ptr(rdi), rcx)],
    ['f0480fc107', (a) => a.lockXadd(ptr(rdi), rax)],
    ['488707', (a) => a.xchg(ptr(rdi), rax)],
    // indirect branches
    ['ffd0', (a) => a.callIndirect(rax)],
    ['41ffe7', (a) => a.jmpIndirect(r15)],
    ['ff5730', (a) => a.callIndirect(ptr(rdi, 48))],
    ['0f0b', (a) => a.ud2()],
  ];
  test.each(cases)('%s', (bytes, emit) => {
    expect(hex(emit)).toBe(bytes);
  });

  test('the nops decode to nops of their length', () => {
    const nops = [IcedCode.Nopd, IcedCode.Nopw, IcedCode.Nop_rm16, IcedCode.Nop_rm32];
    expect([NOPS.length, LONG_NOPS.length]).toEqual([9, 12]);
    for (const [size, bytes] of [...NOPS.entries(), ...LONG_NOPS.entries()]) {
      if (size === 0) continue;
      const decoder = new Decoder(64, Uint8Array.from(bytes), DecoderOptions.None);
      const insn = decoder.decode();
      expect(nops).toContain(insn.code);
      expect(insn.length).toBe(size);
      insn.free();
      decoder.free();
    }
  });
});

describe('branches to labels', () => {
  interface Form {
    readonly code: string;
    readonly emit: (asm: Assembler, label: Label) => void;
    readonly short: boolean;
  }
  const capital = (cond: string): string => `J${cond}`;
  const forms: readonly Form[] = [
    { code: 'Jmp_rel8_64', emit: (a, l) => a.jmpShort(l), short: true },
    { code: 'Jmp_rel32_64', emit: (a, l) => a.jmpNear(l), short: false },
    { code: 'Call_rel32_64', emit: (a, l) => a.callLabel(l), short: false },
    ...CONDITIONS.flatMap((cond): Form[] => [
      { code: `${capital(cond)}_rel8_64`, emit: (a, l) => a.jccShort(cond, l), short: true },
      { code: `${capital(cond)}_rel32_64`, emit: (a, l) => a.jccNear(cond, l), short: false },
    ]),
  ];

  /** The instruction at `offset` and where it goes, by iced. */
  function branchAt(asm: Assembler, offset: number): { code: string | undefined; target: bigint } {
    const decoder = new Decoder(64, asm.bytes(), DecoderOptions.None);
    decoder.position = offset;
    decoder.ip = ORIGIN + BigInt(offset);
    const insn = decoder.decode();
    const seen = { code: IcedCode[insn.code], target: insn.nearBranchTarget };
    insn.free();
    decoder.free();
    return seen;
  }

  test.each(forms)('$code forwards and backwards', ({ code, emit, short }) => {
    for (const distance of short ? [0, 1, 127] : [0, 1, 127, 128, 1000]) {
      const asm = open();
      const label = asm.label('ahead');
      emit(asm, label);
      for (let i = 0; i < distance; i++) asm.int3();
      asm.bind(label);
      asm.ret();
      expect(branchAt(asm, 0)).toEqual({ code, target: ORIGIN + BigInt(asm.offset - 1) });
    }
    for (const distance of short ? [0, 1, 126] : [0, 1, 126, 127, 1000]) {
      const asm = open();
      const label = asm.label('behind');
      asm.bind(label);
      for (let i = 0; i < distance; i++) asm.int3();
      emit(asm, label);
      expect(branchAt(asm, distance)).toEqual({ code, target: ORIGIN });
    }
  });

  const byDistance = [
    { code: 'Jmp_rel8_64', short: true, emit: (a: Assembler, by: number) => a.jmpShortBy(by) },
    { code: 'Jmp_rel32_64', short: false, emit: (a: Assembler, by: number) => a.jmpNearBy(by) },
    ...CONDITIONS.flatMap((cond) => [
      {
        code: `${capital(cond)}_rel8_64`,
        short: true,
        emit: (a: Assembler, by: number) => a.jccShortBy(cond, by),
      },
      {
        code: `${capital(cond)}_rel32_64`,
        short: false,
        emit: (a: Assembler, by: number) => a.jccNearBy(cond, by),
      },
    ]),
  ];

  test.each(byDistance)(
    '$code over a distance, and no further than its field holds',
    ({ code, short, emit }) => {
      const [low, high] = short ? [-0x80, 0x7f] : [-0x8000_0000, 0x7fff_ffff];
      for (const distance of [low, -2, 0, 1, high]) {
        const asm = open();
        emit(asm, distance);
        expect(branchAt(asm, 0)).toEqual({ code, target: addrAdd(ORIGIN, asm.offset + distance) });
      }
      for (const distance of [low - 1, high + 1]) {
        const asm = open();
        expect(() => emit(asm, distance)).toThrow(OutOfRange);
        expect(asm.offset).toBe(0);
      }
    },
  );

  test('a short branch reaches -128 .. 127 and no further', () => {
    const behind = (distance: number) => (): void => {
      const asm = open();
      const label = asm.label('behind');
      asm.bind(label);
      for (let i = 0; i < distance - 2; i++) asm.int3();
      try {
        asm.jmpShort(label);
      } finally {
        expect(asm.offset).toBe(distance === 128 ? 128 : distance - 2);
      }
    };
    expect(behind(128)).not.toThrow();
    expect(behind(129)).toThrow(OutOfRange);
    expect(behind(129)).toThrow('short branch to behind: -129 does not fit');
    const asm = open();
    const label = asm.label('ahead');
    asm.jmpNear(label);
    asm.jccShort('ne', label);
    for (let i = 0; i < 128; i++) asm.int3();
    expect(() => asm.bind(label)).toThrow(OutOfRange);
    // the label is still unbound: a place that all its branches reach may yet be found, but not here
    expect(label.offset).toBe(-1);
    expect(() => asm.bytes()).toThrow(Bug);
  });

  test('one label serves many branches', () => {
    const asm = open();
    const label = asm.label('meet');
    asm.jccShort('e', label);
    asm.jccNear('ne', label);
    asm.callLabel(label);
    asm.bind(label);
    asm.jmpShort(label);
    expect(disassemble(asm.bytes(), ORIGIN).map((row) => row.target)).toEqual(
      Array.from({ length: 4 }, () => ORIGIN + 13n),
    );
  });

  test('a label bound twice, and one never bound, are our own mistakes', () => {
    const asm = open();
    const label = asm.label('once');
    asm.bind(label);
    expect(() => asm.bind(label)).toThrow(Bug);
    const never = asm.label('never');
    asm.jmpNear(never);
    expect(() => asm.bytes()).toThrow(Bug);
    expect(() => asm.finish()).toThrow('1 branches wait for labels that were never bound');
    asm.bind(never);
    expect(asm.bytes().length).toBe(5);
  });
});

describe('branches to addresses', () => {
  const MAX = 2n ** 64n;

  test.each([
    ['forwards', 0x7fff_ffffn, true],
    ['forwards, one too far', 0x8000_0000n, false],
    ['backwards', -0x8000_0000n, true],
    ['backwards, one too far', -0x8000_0001n, false],
    ['to itself', -5n, true],
    ['half the address space away', 2n ** 63n, false],
    ['half the address space away, backwards', -(2n ** 63n), false],
  ])('%s', (_, distance, reaches) => {
    for (const origin of [0n, 5n, 0x1_0000_0000n, 0x7fff_ffff_ffffn, ORIGIN, MAX - 5n, MAX - 0x4000_0000n]) {
      for (const before of [0, 1, 300]) {
        const asm = open(kaddr(origin));
        for (let i = 0; i < before; i++) asm.int3();
        const after = origin + BigInt(before + 5);
        const target = kaddr(after + distance);
        expect(asm.reaches(target)).toBe(reaches);
        if (!reaches) {
          expect(() => asm.call(target, 'far')).toThrow(OutOfRange);
          expect(() => asm.jmp(target, 'far')).toThrow('jmp far: the target is more than 2 GiB away');
          expect(asm.offset).toBe(before);
          continue;
        }
        asm.call(target, 'near');
        const bytes = asm.bytes().subarray(before);
        expect(bytes[0]).toBe(0xe8);
        expect(BigInt(new DataView(bytes.buffer, bytes.byteOffset).getInt32(1, true))).toBe(distance);
        const jump = open(kaddr(origin));
        for (let i = 0; i < before; i++) jump.int3();
        jump.jmp(target, 'near');
        expect(toHex(jump.bytes().subarray(before))).toBe(`e9${toHex(bytes.subarray(1))}`);
      }
    }
  });

  test('distances count modulo 2^64: from the top of the address space to the bottom', () => {
    const asm = open(ORIGIN);
    asm.call(kaddr(0x40_0000n), 'low');
    expect(disassemble(asm.bytes(), ORIGIN)[0]?.target).toBe(0x40_0000n);
    const back = open(kaddr(0x40_0000n));
    back.call(ORIGIN, 'high');
    expect(disassemble(back.bytes(), kaddr(0x40_0000n))[0]?.target).toBe(ORIGIN);
  });
});

describe('rip-relative operands whose address is known', () => {
  const CASES: readonly (readonly [name: string, bytes: number, emit: (asm: Assembler, mem: Mem) => void])[] =
    [
      ['without an immediate', 8, (asm, mem) => asm.mov(rax, mem)],
      ['with 8 bits behind the displacement', 9, (asm, mem) => asm.shiftImm8('sar', qword(mem), 5)],
      ['with 32 bits behind it', 12, (asm, mem) => asm.movImm(qword(mem), 7)],
    ];

  test.each(CASES)('%s: counted from the end of the instruction, as iced reads it', (_, size, emit) => {
    for (const before of [0, 3]) {
      for (const distance of [0n, 1n, -1n, 0x7fff_ffffn, -0x8000_0000n]) {
        const asm = open();
        for (let i = 0; i < before; i++) asm.int3();
        const target = kaddr(ORIGIN + BigInt(before + size) + distance);
        emit(asm, gsRip(target, 'counter'));
        const decoder = new Decoder(64, asm.bytes(), DecoderOptions.None);
        decoder.position = before;
        decoder.ip = ORIGIN + BigInt(before);
        const insn = decoder.decode();
        expect([insn.length, kaddr(insn.ipRelMemoryAddress)]).toEqual([size, target]);
        insn.free();
        decoder.free();
        // what is left to the linker is nothing
        const [reloc] = asm.finish().relocs;
        expect(reloc).toMatchObject({ kind: 'pc32', symbol: 'counter', target });
      }
    }
  });

  test.each(CASES)('%s: refused whole when it does not reach', (_, size, emit) => {
    for (const distance of [0x8000_0000n, -0x8000_0001n]) {
      const asm = open();
      const far = gsRip(kaddr(ORIGIN + BigInt(size) + distance), 'counter');
      expect(() => emit(asm, far)).toThrow(OutOfRange);
      expect(() => emit(asm, far)).toThrow('counter: more than 2 GiB away');
      asm.ret();
      expect(toHex(asm.bytes())).toBe('c3');
      expect(asm.finish().relocs).toEqual([]);
    }
  });
});

describe('relocations', () => {
  test('of every form that names a symbol', () => {
    const asm = open();
    asm.callSym(new Sym('f', 3));
    asm.movImm64(rdi, new Sym('a'));
    asm.movImm(rsi, new Sym('b'));
    asm.movImm(rsi.as(4), new Sym('c', 1));
    asm.mov(rax, ripTo('d', 8));
    asm.movImm(dword(ripTo('e')), 1);
    asm.aluImm8('cmp', qword(ripTo('g')), 1);
    asm.movImm(qword(ripTo('h')), new Sym('i'));
    // P of a pc32 field is the field; the CPU counts from behind the instruction, immediate included
    expect(
      asm.finish().relocs.map(({ kind, offset, symbol, addend }) => [kind, offset, symbol, addend]),
    ).toEqual([
      ['pc32', 1, 'f', -1],
      ['abs64', 7, 'a', 0],
      ['abs32s', 18, 'b', 0],
      ['abs32', 24, 'c', 1],
      ['pc32', 31, 'd', 4],
      ['pc32', 37, 'e', -8],
      ['pc32', 48, 'g', -5],
      ['abs32s', 60, 'i', 0],
      ['pc32', 56, 'h', -8],
    ]);
  });

  test('of a pointer and of a branch that are written already', () => {
    const asm = open();
    asm.call(kaddr(ORIGIN + 0x100n), 'here');
    asm.movImm64(rdi, 5n);
    asm.pointer('abs64', kaddr(5), 'five');
    expect(asm.finish().relocs).toEqual([
      { kind: 'pc32', offset: 1, symbol: 'here', addend: -4, target: ORIGIN + 0x100n },
      { kind: 'abs64', offset: 7, symbol: 'five', addend: 0, target: 5n },
    ]);
  });
});

describe('an instruction is emitted whole or not at all', () => {
  const missing = undefined as unknown as Mem;
  const refusals: readonly (readonly [what: string, emit: (asm: Assembler) => void, error: unknown])[] = [
    ['memory to memory', (a) => a.mov(ptr(rax), ptr(rcx)), EmitError],
    ['memory to memory', (a) => a.alu('add', ptr(rax), ptr(rcx)), EmitError],
    ['different width, registers', (a) => a.mov(rax, ecx), EmitError],
    ['different width, memory', (a) => a.mov(dword(ptr(rax)), rcx), EmitError],
    ['different width, load', (a) => a.alu('xor', rax, dword(ptr(rcx))), EmitError],
    ['different width, test', (a) => a.test(al, eax), EmitError],
    ['different width, locked', (a) => a.lockXadd(qword(ptr(rax)), ecx), EmitError],
    ['no width', (a) => a.inc(ptr(rax)), EmitError],
    ['no width, locked', (a) => a.lockDec(ptr(rax)), EmitError],
    ['no width, immediate', (a) => a.aluImm8('cmp', ptr(rax), 1), EmitError],
    ['mov r32 into 64 bits', (a) => a.movImm32(rax, 1), EmitError],
    ['mov r32 of 33 bits', (a) => a.movImm32(eax, 0x1_0000_0000), OutOfRange],
    ['mov r32, negative', (a) => a.movImm32(eax, -1), OutOfRange],
    ['mov r32, a fraction', (a) => a.movImm32(eax, 1.5), OutOfRange],
    ['mov r64 into 32 bits', (a) => a.movImm64(eax, 1n), EmitError],
    ['imm8 above', (a) => a.aluImm8('sub', rsp, 128), OutOfRange],
    ['imm8 below', (a) => a.aluImm8('sub', rsp, -129), OutOfRange],
    ['imm8 of a byte, above', (a) => a.aluImm8('sub', al, 256), OutOfRange],
    ['imm8, a fraction', (a) => a.aluImm8('sub', rsp, 0.5), OutOfRange],
    ['imm8, not a number', (a) => a.aluImm8('sub', rsp, Number.NaN), OutOfRange],
    ['imm16 above', (a) => a.aluImm32('sub', rax.as(2), 0x1_0000), OutOfRange],
    ['imm32 above, sign-extended', (a) => a.aluImm32('sub', rax, 0x8000_0000), OutOfRange],
    ['imm32 above', (a) => a.movImm(eax, 0x1_0000_0000), OutOfRange],
    ['imm32 below', (a) => a.testImm(rax, -0x8000_0001), OutOfRange],
    ['imm32 of a byte', (a) => a.aluImm32('sub', al, 1), EmitError],
    ['a symbol in a byte', (a) => a.movImm(al, new Sym('x')), EmitError],
    ['a symbol in a word', (a) => a.movImm(word(ptr(rax)), new Sym('x')), EmitError],
    ['movzx to the same width', (a) => a.movzx(rax.as(2), rcx.as(2), 2), EmitError],
    ['movzx from another width', (a) => a.movzx(rax, ecx, 2), EmitError],
    ['movzx from memory of another width', (a) => a.movzx(rax, word(ptr(rcx)), 1), EmitError],
    ['lea of a byte', (a) => a.lea(al, ptr(rax)), EmitError],
    ['lea with a segment', (a) => a.lea(rax, gsPtr(rax)), EmitError],
    ['push of 32 bits', (a) => a.push(eax), EmitError],
    ['pop of 16 bits', (a) => a.pop(rax.as(2)), EmitError],
    ['an indirect call of 32 bits', (a) => a.callIndirect(eax), EmitError],
    ['an indirect jump through 32 bits', (a) => a.jmpIndirect(dword(ptr(rax))), EmitError],
    ['nothing', (a) => a.raw([]), EmitError],
    ['sixteen bytes', (a) => a.raw(new Array<number>(16).fill(0x90)), EmitError],
    ['an operand that is not there', (a) => a.mov(rax, missing), TypeError],
    ['a call too far', (a) => a.call(kaddr(0x1234_5678_9abcn), 'far'), OutOfRange],
  ];

  test.each(refusals)('%s', (_, emit, error) => {
    const asm = open();
    asm.push(rbp);
    asm.mov(rax, ripTo('before'));
    const before = JSON.stringify(asm.finish());
    expect(() => emit(asm)).toThrow(error as typeof EmitError);
    expect(asm.offset).toBe(8);
    expect(JSON.stringify(asm.finish())).toBe(before);
    asm.ret();
    expect(toHex(asm.bytes())).toBe('55488b0500000000c3');
    expect(asm.finish().insns.map((insn) => insn.offset)).toEqual([0, 1, 8]);
  });

  test.each([
    ['rsp as index', () => ptrIndexed(rax, rsp, 2), 'rsp cannot be an index'],
    ['a 32-bit base', () => ptr(eax), 'a 64-bit base register, not eax'],
    ['a 32-bit index', () => ptrIndexed(rax, ecx, 1), 'a 64-bit index register, not ecx'],
    ['disp8 above', () => ptr(rax, 128, 'disp8'), 'displacement 128 does not fit 8 bits'],
    ['disp8 below', () => ptr(rax, -129, 'disp8'), 'displacement -129 does not fit 8 bits'],
    ['disp8 without base', () => new Mem({ disp: 1, form: 'disp8' }), 'without a base'],
    ['disp32 above', () => ptr(rax, 0x8000_0000), 'does not fit 32 bits'],
    ['disp32 below', () => ptrIndexed(rax, rcx, 1, -0x8000_0001), 'does not fit 32 bits'],
    ['a fraction', () => ptr(rax, 0.5), 'displacement 0.5 does not fit'],
    [
      'rip and a base',
      () => new Mem({ base: rax, rip: new Sym('x') }),
      'rip-relative excludes base and index',
    ],
    ['rip and an index', () => new Mem({ index: rax, rip: new Sym('x') }), 'rip-relative excludes'],
    ['rip and a displacement', () => new Mem({ disp: 8, rip: new Sym('x') }), 'the symbol alone'],
  ])('an address that does not exist cannot even be named: %s', (_, make, message) => {
    expect(make).toThrow(EmitError);
    expect(make).toThrow(message);
  });
});

describe('steps', () => {
  const emitRet = piece('inner', ({ asm }: { asm: Assembler }) => asm.ret('back'));
  const fail = piece('failing', ({ asm }: { asm: Assembler }) => asm.push(eax));
  const outer = step(
    'outer',
    (context: { asm: Assembler }, count: number) => {
      for (let i = 0; i < count; i++) emitRet(context);
      context.asm.int3();
    },
    (count) => `${count} times`,
  );

  test('an instruction outside a step is our own mistake', () => {
    const asm = new Assembler(ORIGIN);
    expect(() => asm.ret()).toThrow(Bug);
    emitRet({ asm });
    expect(() => asm.ret()).toThrow(Bug);
    expect(toHex(asm.bytes())).toBe('c3');
  });

  test('nest, and say what they are about', () => {
    const asm = new Assembler(ORIGIN);
    outer({ asm }, 2);
    const { insns } = asm.finish();
    expect(insns.map((insn) => [insn.offset, stepPath(insn.step), insn.note])).toEqual([
      [0, 'outer/inner', 'back'],
      [1, 'outer/inner', 'back'],
      [2, 'outer', undefined],
    ]);
    expect(insns[2]?.step.about).toBe('2 times');
  });

  test('end even when the emitter throws', () => {
    const asm = new Assembler(ORIGIN);
    expect(() => fail({ asm })).toThrow(EmitError);
    expect(() => asm.ret()).toThrow(Bug);
    emitRet({ asm });
    expect(asm.finish().insns.map((insn) => stepPath(insn.step))).toEqual(['inner']);
  });
});

describe('memory', () => {
  /** A few thousand instructions of all lengths, with branches over the whole. */
  function long(asm: Assembler): Uint8Array {
    asm.enter('test', undefined);
    const end = asm.label('end');
    asm.jmpNear(end);
    for (let i = 0; i < 5000; i++) {
      asm.movImm64(rdi, BigInt(i));
      asm.call(ORIGIN, 'start');
      if (i % 3 === 0) asm.alu('xor', eax, eax);
      if (i % 100 === 0) asm.jccNear('e', end);
    }
    asm.bind(end);
    asm.ret();
    return asm.bytes();
  }

  test('grows as needed, with the same bytes', () => {
    const roomy = long(new Assembler(ORIGIN, { buffer: new Uint8Array(1 << 20) }));
    expect(roomy.length).toBeGreaterThan(75_000);
    expect(toHex(long(new Assembler(ORIGIN)))).toBe(toHex(roomy));
    for (const size of [0, 1, 15, 16, 17, 4096]) {
      expect(toHex(long(new Assembler(ORIGIN, { buffer: new Uint8Array(size) })))).toBe(toHex(roomy));
    }
    const rows = disassemble(roomy, ORIGIN);
    expect(rows.every((row) => row.valid)).toBe(true);
    expect(rows.at(-1)?.mnemonic).toBe('ret');
    expect(rows[0]?.target).toBe(ORIGIN + BigInt(roomy.length - 1));
  });

  test('recording or not, the bytes are the same; only a recording assembler can tell more', () => {
    const bare = new Assembler(ORIGIN, { record: false });
    const full = new Assembler(ORIGIN, { record: true });
    expect(toHex(long(bare))).toBe(toHex(long(full)));
    expect(() => bare.finish()).toThrow(Bug);
    expect(full.finish().insns.length).toBe(disassemble(full.bytes(), ORIGIN).length);
  });

  test('the result is the receiver’s own', () => {
    const asm = open();
    asm.ret();
    const first = asm.bytes();
    first[0] = 0;
    expect(toHex(asm.bytes())).toBe('c3');
  });

  test('bytesTo counts to the next multiple of an absolute address', () => {
    for (let skew = 0; skew < 32; skew++) {
      const asm = open(kaddr(ORIGIN + BigInt(skew)));
      asm.raw([0x0f, 0x1f, 0x00]);
      expect(asm.bytesTo(16)).toBe((32 - ((skew + 3) % 16)) % 16);
      expect(asm.bytesTo(1)).toBe(0);
    }
  });

  test('sites and symbols are where they were named', () => {
    const asm = open();
    const there = asm.label('there');
    const start = asm.offset;
    asm.push(rbp);
    asm.site('key', 5, there);
    asm.raw(NOPS[5] ?? []);
    asm.site('bare', 5);
    asm.raw(NOPS[5] ?? []);
    asm.bind(there);
    asm.ret();
    asm.symbol('f', start);
    const { sites, symbols } = asm.finish();
    expect(sites).toEqual([
      { name: 'key', offset: 1, sizeBytes: 5, targetOffset: 11 },
      { name: 'bare', offset: 6, sizeBytes: 5, targetOffset: undefined },
    ]);
    expect(symbols).toEqual([{ name: 'f', offset: 0, sizeBytes: 12 }]);
  });
});
