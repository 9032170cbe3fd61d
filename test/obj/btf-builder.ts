import { Bytes, Strings } from './elf-builder.ts';

/* Writes BTF by hand: any type, also those that no compiler writes. */

/** Kernel: BTF_KIND_*. */
export const KIND = {
  INT: 1,
  PTR: 2,
  ARRAY: 3,
  STRUCT: 4,
  UNION: 5,
  ENUM: 6,
  FWD: 7,
  TYPEDEF: 8,
  VOLATILE: 9,
  CONST: 10,
  RESTRICT: 11,
  FUNC: 12,
  FUNC_PROTO: 13,
  VAR: 14,
  DATASEC: 15,
  FLOAT: 16,
  DECL_TAG: 17,
  TYPE_TAG: 18,
  ENUM64: 19,
} as const;

export interface BtfSpec {
  readonly kind: number;
  readonly name?: string;
  readonly flag?: boolean;
  /** `vlen`; the number of items when left out. */
  readonly count?: number;
  /** `size` or `type`. */
  readonly value?: number;
  /** Words after the first three; a string is a name. */
  readonly tail?: readonly (number | string)[];
  /** Words of each of the `vlen` items. */
  readonly items?: readonly (readonly (number | string)[])[];
}

/** A BTF section; the first type has id 1. */
export function buildBtf(types: readonly BtfSpec[]): Uint8Array {
  const strings = new Strings();
  const body = new Bytes();
  const word = (value: number | string): void =>
    body.u32(typeof value === 'string' ? strings.add(value) : value);
  for (const { kind, name = '', flag = false, count, value = 0, tail = [], items = [] } of types) {
    word(name);
    body.u32((((flag ? 1 : 0) << 31) | (kind << 24) | (count ?? items.length)) >>> 0);
    body.u32(value);
    tail.forEach(word);
    for (const item of items) item.forEach(word);
  }
  const names = strings.done();
  const file = new Bytes();
  file.u16(0xeb9f);
  file.u8(1);
  file.u8(0);
  file.u32(24);
  file.u32(0);
  file.u32(body.length);
  file.u32(body.length);
  file.u32(names.length);
  file.add(body.done());
  file.add(names);
  return file.done();
}

const SIGNED = 1 << 24;

export const int = (name: string, sizeBytes: number, signed = false): BtfSpec => ({
  kind: KIND.INT,
  name,
  value: sizeBytes,
  tail: [(signed ? SIGNED : 0) | (8 * sizeBytes)],
});

export const to = (kind: number, value: number, name = ''): BtfSpec => ({ kind, value, name });

export const proto = (ret: number, ...params: (readonly [string, number])[]): BtfSpec => ({
  kind: KIND.FUNC_PROTO,
  value: ret,
  items: params,
});

export const func = (name: string, type: number): BtfSpec => ({
  kind: KIND.FUNC,
  name,
  value: type,
  count: 1,
});
