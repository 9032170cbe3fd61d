/*
 * What an operand in ModRM's r/m field comes to: a register, or memory by base, index and displacement.
 * Encoded once, when the operand is made; operands that have no encoding cannot be made.
 */

import { EmitError } from '../../lib/index.ts';
import type { DispForm, OpSize, Reg, Sym } from './operand.ts';

/** A displacement, immediate or branch distance that does not fit its field. */
export class OutOfRange extends EmitError {
  override readonly name: string = 'OutOfRange';
}

/** The bytes of an r/m operand, apart from ModRM.reg, which belongs to the other operand or the opcode. */
export interface Rm {
  /** REX bits that it needs (X, B, or the bare prefix of spl .. dil); 0 when none. */
  readonly rex: number;
  readonly modrm: number;
  /** The SIB byte, or -1 without one. */
  readonly sib: number;
  readonly dispBytes: 0 | 1 | 4;
  readonly disp: number;
  /** Takes the gs prefix. */
  readonly gs: boolean;
  /** What a rip-relative displacement points at. */
  readonly rip: Sym | undefined;
}

/** What addresses memory. */
export interface Address {
  readonly base?: Reg | undefined;
  readonly index?: Reg | undefined;
  readonly scale: 1 | 2 | 4 | 8;
  readonly disp: number;
  readonly form: DispForm;
  readonly gs: boolean;
  readonly rip?: Sym | undefined;
}

export const fits8 = (value: number): boolean => value >= -0x80 && value <= 0x7f;
export const fits32 = (value: number): boolean => value >= -0x8000_0000 && value <= 0x7fff_ffff;

const SIB_SCALE = { 1: 0x00, 2: 0x40, 4: 0x80, 8: 0xc0 } as const;
/** ModRM.rm that announces a SIB byte; as SIB.index it means: no index. */
const SIB = 4;
/** SIB.base, and ModRM.rm, that with mod 00 means: no base. */
const NO_BASE = 5;

/** A byte register from spl on needs a REX prefix to be told from ah .. bh. */
export const byteRex = (num: number, size: OpSize): number => (size === 1 && num >= 4 ? 0x40 : 0);

export function registerRm(num: number, size: OpSize): Rm {
  const rex = byteRex(num, size) | (num >= 8 ? 0x41 : 0);
  return { rex, modrm: 0xc0 | (num & 7), sib: -1, dispBytes: 0, disp: 0, gs: false, rip: undefined };
}

/**
 * @throws EmitError for an address that x86 cannot express.
 * @throws OutOfRange for a displacement that does not fit its field.
 */
export function memoryRm(address: Address): Rm {
  const { base, index, disp, form, gs, rip } = address;
  if (!Number.isInteger(disp) || !fits32(disp)) {
    throw new OutOfRange(`displacement ${disp} does not fit 32 bits`);
  }
  if (rip !== undefined) {
    if (base !== undefined || index !== undefined)
      throw new EmitError('rip-relative excludes base and index');
    if (disp !== 0 || form === 'disp8')
      throw new EmitError('a rip-relative displacement is the symbol alone');
    return { rex: 0, modrm: NO_BASE, sib: -1, dispBytes: 4, disp: 0, gs, rip };
  }
  if (base !== undefined && base.size !== 8) throw new EmitError(`a 64-bit base register, not ${base.name}`);
  if (index !== undefined && index.size !== 8) {
    throw new EmitError(`a 64-bit index register, not ${index.name}`);
  }
  if (index !== undefined && index.num === SIB) throw new EmitError('rsp cannot be an index');
  const rex =
    (base !== undefined && base.num >= 8 ? 0x41 : 0) | (index !== undefined && index.num >= 8 ? 0x42 : 0);
  const scaled = SIB_SCALE[address.scale] | ((index === undefined ? SIB : index.num & 7) << 3);
  if (base === undefined) {
    if (form === 'disp8') throw new EmitError('without a base, a displacement takes 32 bits');
    return { rex, modrm: SIB, sib: scaled | NO_BASE, dispBytes: 4, disp, gs, rip };
  }
  const low = base.num & 7;
  const withSib = index !== undefined || low === SIB;
  const dispBytes = displacementBytes(disp, form, low);
  return {
    rex,
    modrm: MOD[dispBytes] | (withSib ? SIB : low),
    sib: withSib ? scaled | low : -1,
    dispBytes,
    disp,
    gs,
    rip,
  };
}

const MOD = { 0: 0x00, 1: 0x40, 4: 0x80 } as const;

function displacementBytes(disp: number, form: DispForm, baseLow: number): 0 | 1 | 4 {
  if (form === 'disp8' && !fits8(disp)) throw new OutOfRange(`displacement ${disp} does not fit 8 bits`);
  // mod 00 with rbp or r13 as base means something else, so those always carry a displacement
  if (form === 'fit' && disp === 0 && baseLow !== NO_BASE) return 0;
  return form !== 'disp32' && fits8(disp) ? 1 : 4;
}
