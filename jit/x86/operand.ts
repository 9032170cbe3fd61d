/** Operands of x86-64 instructions: registers, memory, symbols. All immutable. */

import type { Kaddr } from '../../lib/index.ts';
import { byteRex, memoryRm, type Rm, registerRm } from './rm.ts';

/** Operand width in bytes. */
export type OpSize = 1 | 2 | 4 | 8;

/** A general-purpose register at one of its four widths. The legacy high bytes (ah..bh) are left out. */
export class Reg {
  /** Encoding, 0..15 (rax rcx rdx rbx rsp rbp rsi rdi r8..r15). */
  readonly num: number;
  readonly size: OpSize;
  readonly name: string;
  /** As the r/m operand. */
  readonly rm: Rm;
  /** As the reg operand: ModRM.reg in place, and the REX bits that go with it. */
  readonly reg: number;
  readonly regRex: number;

  constructor(num: number, size: OpSize, name: string) {
    this.num = num;
    this.size = size;
    this.name = name;
    this.rm = registerRm(num, size);
    this.reg = (num & 7) << 3;
    this.regRex = byteRex(num, size) | (num >= 8 ? 0x44 : 0);
  }

  /** The same register at another width: `rdi.as(4)` is edi. */
  as(size: OpSize): Reg {
    return (BY_SIZE[size] as readonly Reg[])[this.num] as Reg;
  }
}

const LEGACY = ['ax', 'cx', 'dx', 'bx', 'sp', 'bp', 'si', 'di'];

function family(size: OpSize): readonly Reg[] {
  const legacy = (name: string): string => {
    if (size === 8) return `r${name}`;
    if (size === 4) return `e${name}`;
    if (size === 2) return name;
    return name.endsWith('x') ? `${name[0]}l` : `${name}l`;
  };
  const suffix = { 8: '', 4: 'd', 2: 'w', 1: 'b' }[size];
  return Array.from(
    { length: 16 },
    (_, num) => new Reg(num, size, num < 8 ? legacy(LEGACY[num] as string) : `r${num}${suffix}`),
  );
}

const BY_SIZE: Readonly<Record<OpSize, readonly Reg[]>> = {
  1: family(1),
  2: family(2),
  4: family(4),
  8: family(8),
};

/** All registers of a width, by encoding. */
export function registers(size: OpSize): readonly Reg[] {
  return BY_SIZE[size];
}

const R64 = registers(8);
export const rax: Reg = R64[0] as Reg;
export const rcx: Reg = R64[1] as Reg;
export const rdx: Reg = R64[2] as Reg;
export const rbx: Reg = R64[3] as Reg;
export const rsp: Reg = R64[4] as Reg;
export const rbp: Reg = R64[5] as Reg;
export const rsi: Reg = R64[6] as Reg;
export const rdi: Reg = R64[7] as Reg;
export const r8: Reg = R64[8] as Reg;
export const r9: Reg = R64[9] as Reg;
export const r10: Reg = R64[10] as Reg;
export const r11: Reg = R64[11] as Reg;
export const r12: Reg = R64[12] as Reg;
export const r13: Reg = R64[13] as Reg;
export const r14: Reg = R64[14] as Reg;
export const r15: Reg = R64[15] as Reg;
export const eax: Reg = rax.as(4);
export const ecx: Reg = rcx.as(4);
export const edx: Reg = rdx.as(4);
export const al: Reg = rax.as(1);

/** A symbol whose address is known only when the code is linked, plus a constant. */
export class Sym {
  readonly name: string;
  readonly addend: number;
  /** Where it is, if that is known already: rip-relative operands are then written at once. */
  readonly address: Kaddr | undefined;

  constructor(name: string, addend = 0, address?: Kaddr) {
    this.name = name;
    this.addend = addend;
    this.address = address;
  }
}

/**
 * How wide a displacement is written:
 * `fit` the shortest that holds it (none for 0 where x86 has that form), `disp8` and `disp32` that one and no other.
 */
export type DispForm = 'fit' | 'disp8' | 'disp32';

/** A memory operand: `segment:[base + index*scale + disp]`, `[rip + symbol]` or `[disp32]`. */
export class Mem {
  readonly base: Reg | undefined;
  readonly index: Reg | undefined;
  readonly scale: 1 | 2 | 4 | 8;
  /** Signed 32-bit displacement, bytes. */
  readonly disp: number;
  readonly form: DispForm;
  readonly gs: boolean;
  /** rip-relative operand: what it points at. Excludes base and index. */
  readonly rip: Sym | undefined;
  /** Width in bytes where no register operand tells it; 0 when unsaid. */
  readonly size: OpSize | 0;
  readonly rm: Rm;

  /**
   * @throws EmitError for an address that x86 cannot express.
   * @throws OutOfRange for a displacement that does not fit.
   */
  constructor(fields: {
    base?: Reg | undefined;
    index?: Reg | undefined;
    scale?: 1 | 2 | 4 | 8 | undefined;
    disp?: number | undefined;
    form?: DispForm | undefined;
    gs?: boolean | undefined;
    rip?: Sym | undefined;
    size?: OpSize | 0 | undefined;
  }) {
    this.base = fields.base;
    this.index = fields.index;
    this.scale = fields.scale ?? 1;
    this.disp = fields.disp ?? 0;
    this.form = fields.form ?? 'fit';
    this.gs = fields.gs ?? false;
    this.rip = fields.rip;
    this.size = fields.size ?? 0;
    this.rm = memoryRm(this);
  }
}

/** `[base + disp]`. */
export function ptr(base: Reg, disp = 0, form: DispForm = 'fit'): Mem {
  return new Mem({ base, disp, form });
}

/** `[base + index*scale + disp]`. */
export function ptrIndexed(
  base: Reg,
  index: Reg,
  scale: 1 | 2 | 4 | 8,
  disp = 0,
  form: DispForm = 'fit',
): Mem {
  return new Mem({ base, index, scale, disp, form });
}

/** `[rip + symbol]`. */
export function ripTo(name: string, addend = 0): Mem {
  return new Mem({ rip: new Sym(name, addend) });
}

/** `gs:[rip + distance]`: a per-CPU variable, at an offset that is known, named from where the code stands. */
export function gsRip(offset: Kaddr, name: string): Mem {
  return new Mem({ gs: true, rip: new Sym(name, 0, offset) });
}

/** `gs:[offset]`: a per-CPU variable at a fixed offset of the CPU's area. */
export function gsAt(offset: number): Mem {
  return new Mem({ gs: true, disp: offset });
}

/** `gs:[base + disp]`: a per-CPU allocation whose offset is in a register. */
export function gsPtr(base: Reg, disp = 0): Mem {
  return new Mem({ gs: true, base, disp });
}

function sized(mem: Mem, size: OpSize): Mem {
  return new Mem({ ...mem, size });
}

export const byte = (mem: Mem): Mem => sized(mem, 1);
export const word = (mem: Mem): Mem => sized(mem, 2);
export const dword = (mem: Mem): Mem => sized(mem, 4);
export const qword = (mem: Mem): Mem => sized(mem, 8);
