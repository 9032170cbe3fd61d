import { type BtfType, bareType, typeBytes } from '../obj/index.ts';
import { isEnum } from './core-match.ts';
import type { CoreSpec } from './core-spec.ts';
import type { CoreKind } from './model.ts';

/*
 * The number that a relocation asks for, in one BTF. libbpf: bpf_core_calc_relo, relo_core.c.
 */

/** A number and what else has to be known to put it into an instruction. */
export interface CoreValue {
  readonly value: bigint;
  /** Whether the compiler's own number must stand in the instruction: it need not where it may choose. */
  readonly checked: boolean;
  /** Offsets of whole fields: the field, since a load or store of it may need another size. */
  readonly field: { readonly sizeBytes: number; readonly type: BtfType } | undefined;
}

/** Why there is none: the instruction must never run. Any other absence is a plain 0. */
export type CoreAbsence = { readonly poison: string };

export const isAbsence = (value: CoreValue | CoreAbsence): value is CoreAbsence => 'poison' in value;

const plain = (value: bigint | number, checked = true): CoreValue => ({
  value: BigInt.asUintN(64, BigInt(value)),
  checked,
  field: undefined,
});

/**
 * What the relocation asks of `spec`; undefined stands for what the target does not have.
 *
 * @returns a text instead, when the question cannot be answered at all
 */
export function coreValue(kind: CoreKind, spec: CoreSpec | undefined): CoreValue | CoreAbsence | string {
  switch (kind) {
    case 'field_exists':
    case 'type_exists':
    case 'type_matches':
    case 'enumval_exists':
      return plain(spec === undefined ? 0 : 1);
    case 'type_id_local':
      return plain(spec?.root ?? 0);
    case 'type_id_target':
      // The number of a type is never the same in two BTFs.
      return plain(spec?.root ?? 0, false);
    case 'type_size': {
      const sizeBytes = spec === undefined ? 0 : typeBytes(spec.btf, spec.root);
      return sizeBytes === undefined ? 'a type without a size' : plain(sizeBytes);
    }
    case 'enumval_value':
      return spec === undefined ? { poison: 'the target has no such enumerator' } : enumeratorValue(spec);
    default:
      return spec === undefined ? { poison: 'the target has no such field' } : fieldValue(kind, spec);
  }
}

function enumeratorValue({ btf, steps: [step] }: CoreSpec): CoreValue | string {
  const type = btf.types[step?.type ?? 0];
  const value = type !== undefined && isEnum(type) ? type.values[step?.index ?? 0]?.value : undefined;
  if (value === undefined || type === undefined || !isEnum(type)) return 'no enumerator';
  const bits = 8 * (type.kind === 'enum' ? 4 : 8);
  return plain(type.signed ? value : BigInt.asUintN(bits, value));
}

/** Where a field's bits lie: in `storageBytes` bytes at `offset` that can be loaded at once. */
interface Storage {
  readonly offset: number;
  readonly storageBytes: number;
  /** From the start of the struct. */
  readonly bitOffset: number;
  readonly bits: number;
  readonly isBitfield: boolean;
  readonly type: BtfType;
}

function fieldValue(kind: CoreKind, spec: CoreSpec): CoreValue | string {
  const last = spec.steps.at(-1);
  if (last === undefined) return 'no field';
  if (last.name === undefined) {
    const sizeBytes = typeBytes(spec.btf, last.type) ?? 0;
    const field = { sizeBytes, type: bareType(spec.btf, last.type).type };
    if (kind === 'field_byte_offset') return { ...plain(spec.bitOffset / 8), field };
    return kind === 'field_byte_size'
      ? plain(sizeBytes)
      : 'only offset and size of an array element can be asked for';
  }
  const storage = storageOf(spec, last.type, last.index);
  if (typeof storage === 'string') return storage;
  const { offset, storageBytes, bitOffset, bits, isBitfield, type } = storage;
  switch (kind) {
    case 'field_byte_offset': {
      const field = isBitfield ? undefined : { sizeBytes: storageBytes, type };
      return { ...plain(offset, !isBitfield), field };
    }
    case 'field_byte_size':
      return plain(storageBytes, !isBitfield);
    case 'field_signed':
      return plain((type.kind === 'int' || isEnum(type)) && type.signed ? 1 : 0);
    // How far to shift a 64-bit register that holds the storage, so that only the field is left.
    case 'field_lshift_u64':
      return plain(64 - (bitOffset + bits - 8 * offset), !isBitfield);
    case 'field_rshift_u64':
      return plain(64 - bits);
    default:
      return 'no question about a field';
  }
}

function storageOf({ btf, bitOffset }: CoreSpec, struct: number, index: number): Storage | string {
  const of = btf.types[struct];
  const member = of?.kind === 'struct' || of?.kind === 'union' ? of.members[index] : undefined;
  if (member === undefined) return 'no member';
  const { id, type } = bareType(btf, member.type);
  const sizeBytes = typeBytes(btf, id);
  if (sizeBytes === undefined) return 'a field of a type without a size';
  if (member.bitSize === 0) {
    const offset = Math.floor(bitOffset / 8);
    return { offset, storageBytes: sizeBytes, bitOffset, bits: 8 * sizeBytes, isBitfield: false, type };
  }
  // The smallest power of two from the declared type on, at a multiple of itself, that holds all bits.
  for (let storageBytes = sizeBytes; storageBytes >= 1 && storageBytes <= 8; storageBytes *= 2) {
    const offset = Math.floor(bitOffset / 8 / storageBytes) * storageBytes;
    if (bitOffset + member.bitSize <= 8 * (offset + storageBytes)) {
      return { offset, storageBytes, bitOffset, bits: member.bitSize, isBitfield: true, type };
    }
  }
  return 'a bit-field that no load of up to 8 bytes holds';
}
