/*
 * The x86-64 relocations that kernel-style code uses, one row each.
 * Source: System V ABI, AMD64 supplement, "Relocation Types"; S, A, P and G are its letters.
 */

/** What a relocation is computed from. */
export interface RelocInputs {
  /** S: the symbol's address. */
  readonly symbol: bigint;
  /** A: the addend. */
  readonly addend: bigint;
  /** P: the address that is changed. */
  readonly place: bigint;
  /** Address of the symbol's slot in the global offset table (the ABI's G + GOT). */
  readonly slot: bigint;
}

/** How the value must fit the field. */
export type RelocFit = 'signed' | 'unsigned' | 'wraps';

export interface RelocForm {
  readonly name: string;
  readonly widthBytes: 4 | 8;
  readonly fit: RelocFit;
  /** Needs a slot in the global offset table. */
  readonly usesGot: boolean;
  value(inputs: RelocInputs): bigint;
}

const absolute = ({ symbol, addend }: RelocInputs): bigint => symbol + addend;
const relative = ({ symbol, addend, place }: RelocInputs): bigint => symbol + addend - place;
const gotRelative = ({ slot, addend, place }: RelocInputs): bigint => slot + addend - place;

const form = (
  name: string,
  widthBytes: 4 | 8,
  fit: RelocFit,
  value: (inputs: RelocInputs) => bigint,
): RelocForm => ({ name: `R_X86_64_${name}`, widthBytes, fit, usesGot: value === gotRelative, value });

/** The relocations that are applied, by number. */
export const RELOC_FORMS: ReadonlyMap<number, RelocForm> = new Map([
  [1, form('64', 8, 'wraps', absolute)],
  [2, form('PC32', 4, 'signed', relative)],
  [4, form('PLT32', 4, 'signed', relative)], // no PLT in kernel code: the function itself
  [9, form('GOTPCREL', 4, 'signed', gotRelative)],
  [10, form('32', 4, 'unsigned', absolute)],
  [11, form('32S', 4, 'signed', absolute)],
  [24, form('PC64', 8, 'wraps', relative)],
  [41, form('GOTPCRELX', 4, 'signed', gotRelative)], // never relaxed: the slot is always made
  [42, form('REX_GOTPCRELX', 4, 'signed', gotRelative)],
]);

/** R_X86_64_NONE: nothing to do. */
export const RELOC_NONE = 0;
/** R_X86_64_64, the only form that a table of addresses uses. */
export const RELOC_64 = 1;

/** Relocations of other code models, to name them when they are refused. */
const OTHERS: Readonly<Record<number, string>> = {
  3: 'GOT32',
  5: 'COPY',
  6: 'GLOB_DAT',
  7: 'JUMP_SLOT',
  8: 'RELATIVE',
  12: '16',
  13: 'PC16',
  14: '8',
  15: 'PC8',
  16: 'DTPMOD64',
  17: 'DTPOFF64',
  18: 'TPOFF64',
  19: 'TLSGD',
  20: 'TLSLD',
  21: 'DTPOFF32',
  22: 'GOTTPOFF',
  23: 'TPOFF32',
  25: 'GOTOFF64',
  26: 'GOTPC32',
  27: 'GOT64',
  28: 'GOTPCREL64',
  29: 'GOTPC64',
  31: 'PLTOFF64',
  32: 'SIZE32',
  33: 'SIZE64',
  34: 'GOTPC32_TLSDESC',
  35: 'TLSDESC_CALL',
  36: 'TLSDESC',
  37: 'IRELATIVE',
};

/** The ABI's name of a relocation number. */
export function relocName(type: number): string {
  const known = RELOC_FORMS.get(type)?.name;
  if (known !== undefined) return known;
  const other = OTHERS[type];
  return other === undefined ? `relocation type ${type}` : `R_X86_64_${other}`;
}

/** Whether a relocated value fits its field. `value` is taken modulo 2^64, as the machine adds. */
export function relocFits({ fit }: RelocForm, value: bigint): boolean {
  switch (fit) {
    case 'wraps':
      return true;
    case 'signed': {
      const signed = BigInt.asIntN(64, value);
      return signed >= -(2n ** 31n) && signed < 2n ** 31n;
    }
    case 'unsigned':
      return BigInt.asUintN(64, value) < 2n ** 32n;
  }
}
