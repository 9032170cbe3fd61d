import { describe, expect, test } from 'vitest';
import {
  Assembler,
  type Code,
  disassemble,
  dword,
  linkCode,
  OutOfRange,
  ptr,
  rax,
  rdi,
  ripTo,
  rsi,
  Sym,
} from '../../jit/index.ts';
import { addrAdd, InputError, type Kaddr, kaddr, toHex } from '../../lib/index.ts';

const BASE = kaddr(0xffff_ffff_a000_0000n);

function code(emit: (asm: Assembler) => void): Code {
  const asm = new Assembler(kaddr(0));
  asm.enter('test', undefined);
  emit(asm);
  return asm.finish();
}

const at =
  (addresses: Readonly<Record<string, Kaddr>>) =>
  (name: string): Kaddr | undefined =>
    addresses[name];

const target = (linked: Code, base: Kaddr): Kaddr | undefined => disassemble(linked.bytes, base)[0]?.target;

describe('each kind of relocation', () => {
  test('pc32: a call reaches the symbol, addend included', () => {
    const linked = linkCode(
      code((asm) => asm.callSym(new Sym('f', 2))),
      BASE,
      at({ f: addrAdd(BASE, 0x1000) }),
    );
    expect(target(linked, BASE)).toBe(addrAdd(BASE, 0x1002));
  });

  test('pc32: data, with and without an immediate behind the field', () => {
    const data = addrAdd(BASE, 0x2000);
    const both = code((asm) => {
      asm.mov(rax, ripTo('data', 8));
      asm.movImm(dword(ripTo('data')), 7);
    });
    const { bytes } = linkCode(both, BASE, at({ data }));
    const view = new DataView(bytes.buffer, bytes.byteOffset);
    expect(addrAdd(BASE, 7 + view.getInt32(3, true))).toBe(addrAdd(data, 8));
    expect(addrAdd(BASE, 17 + view.getInt32(9, true))).toBe(data);
  });

  test('abs64, abs32, abs32s', () => {
    const three = code((asm) => {
      asm.movImm64(rdi, new Sym('far', 1));
      asm.movImm(rsi.as(4), new Sym('low'));
      asm.movImm(rsi, new Sym('top'));
    });
    const addresses = {
      far: kaddr(0x1234_5678_9abc_def0n),
      low: kaddr(0xffff_ffffn),
      top: kaddr(0xffff_ffff_8000_0000n),
    };
    const { bytes, relocs } = linkCode(three, BASE, at(addresses));
    expect(toHex(bytes)).toBe('48bff1debc9a78563412c7c6ffffffff48c7c600000080');
    expect(relocs.map((reloc) => reloc.target)).toEqual([addresses.far, addresses.low, addresses.top]);
  });

  test.each([
    ['abs32 above 4 GiB', (asm: Assembler) => asm.movImm(rsi.as(4), new Sym('x')), 0x1_0000_0000n],
    ['abs32s between 2 GiB and the top', (asm: Assembler) => asm.movImm(rsi, new Sym('x')), 0x8000_0000n],
    [
      'abs32s just below the top 2 GiB',
      (asm: Assembler) => asm.movImm(rsi, new Sym('x')),
      0xffff_ffff_7fff_ffffn,
    ],
    ['pc32 too far ahead', (asm: Assembler) => asm.callSym(new Sym('x')), BASE + 5n + 0x8000_0000n],
    ['pc32 too far behind', (asm: Assembler) => asm.callSym(new Sym('x')), BASE + 5n - 0x8000_0001n],
  ])('%s does not fit', (_, emit, x) => {
    const open = code(emit);
    const before = toHex(open.bytes);
    expect(() => linkCode(open, BASE, at({ x: kaddr(x) }))).toThrow(OutOfRange);
    expect(() => linkCode(open, BASE, at({ x: kaddr(x) }))).toThrow(/to x at \+0x\d+ does not reach/);
    expect(toHex(open.bytes)).toBe(before);
  });

  test.each([[0x7fff_ffffn], [-0x8000_0000n]])('pc32 reaches a distance of %d', (distance) => {
    const x = kaddr(BASE + 5n + distance);
    expect(
      target(
        linkCode(
          code((asm) => asm.callSym(new Sym('x'))),
          BASE,
          at({ x }),
        ),
        BASE,
      ),
    ).toBe(x);
  });

  test('pc32 wraps around the address space', () => {
    const x = kaddr(0x1000n);
    const linked = linkCode(
      code((asm) => asm.callSym(new Sym('x'))),
      BASE,
      at({ x }),
    );
    expect(target(linked, BASE)).toBe(x);
  });
});

describe('symbols', () => {
  test('the code’s own come first', () => {
    const own = code((asm) => {
      asm.callSym(new Sym('f'));
      asm.ret();
      const start = asm.offset;
      asm.ret();
      asm.symbol('f', start);
    });
    const linked = linkCode(own, BASE, () => kaddr(0));
    expect(target(linked, BASE)).toBe(addrAdd(BASE, 6));
    expect(linked.relocs[0]?.target).toBe(addrAdd(BASE, 6));
  });

  test('all that nobody defines are named at once', () => {
    const open = code((asm) => {
      asm.callSym(new Sym('f'));
      asm.mov(rax, ripTo('here'));
      asm.callSym(new Sym('g'));
      asm.callSym(new Sym('f'));
    });
    const link = (): Code => linkCode(open, BASE, at({ here: BASE }));
    expect(link).toThrow(InputError);
    expect(link).toThrow('undefined symbols: f, g');
  });

  test('one that is at address 0 is defined', () => {
    const low = kaddr(0x1000n);
    const linked = linkCode(
      code((asm) => asm.callSym(new Sym('zero'))),
      low,
      at({ zero: kaddr(0) }),
    );
    expect(target(linked, low)).toBe(0n);
  });

  test('what was written at emission stays as it is, even when linked elsewhere', () => {
    const written = code((asm) => {
      asm.movImm64(rdi, 5n);
      asm.pointer('abs64', kaddr(5), 'f');
      asm.mov(rax, ptr(rdi));
    });
    const linked = linkCode(written, BASE, () => BASE);
    expect(toHex(linked.bytes)).toBe(toHex(written.bytes));
    expect(linked.bytes).not.toBe(written.bytes);
  });
});
