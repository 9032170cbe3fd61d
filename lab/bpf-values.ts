import { InputError } from '../lib/index.ts';
import { type Btf, bareType, typeBytes } from '../obj/index.ts';

/*
 * Values of C types as JavaScript has them, told by BTF: integers, enums and pointers are bigints, bool is boolean,
 * arrays are arrays, structs and unions are objects by member, and what has no type stays bytes.
 */

/** A value of a C type. */
export type CValue =
  | bigint
  | boolean
  | readonly CValue[]
  | { readonly [member: string]: CValue }
  | Uint8Array;

/** What can be written where a value is wanted; numbers stand for integers. */
export type CInput =
  | bigint
  | number
  | boolean
  | readonly CInput[]
  | { readonly [member: string]: CInput }
  | Uint8Array;

/** The number in bytes, its first bit lowest. */
function number(bytes: Uint8Array): bigint {
  return bytes.reduceRight((value, byte) => (value << 8n) | BigInt(byte), 0n);
}

/** @param type undefined: bytes stay bytes */
export function decode(btf: Btf | undefined, type: number | undefined, bytes: Uint8Array): CValue {
  if (btf === undefined || type === undefined) return bytes.slice();
  const { type: what } = bareType(btf, type);
  switch (what.kind) {
    case 'int': {
      const value = number(bytes);
      if (what.bool) return value !== 0n;
      return what.signed ? BigInt.asIntN(8 * what.sizeBytes, value) : value;
    }
    case 'enum':
    case 'enum64':
      return what.signed ? BigInt.asIntN(8 * what.sizeBytes, number(bytes)) : number(bytes);
    case 'ptr':
      return number(bytes);
    case 'array': {
      const size = typeBytes(btf, what.type) ?? 0;
      return Array.from({ length: what.length }, (_, i) =>
        decode(btf, what.type, bytes.subarray(i * size, (i + 1) * size)),
      );
    }
    case 'struct':
    case 'union':
      return Object.fromEntries(
        what.members.flatMap((member): [string, CValue][] => {
          if (member.bitSize !== 0) {
            const bits = number(bytes) >> BigInt(member.bitOffset);
            const { type: of } = bareType(btf, member.type);
            const signed = of.kind === 'int' && of.signed;
            const value = signed ? BigInt.asIntN(member.bitSize, bits) : BigInt.asUintN(member.bitSize, bits);
            return [[member.name, value]];
          }
          const at = member.bitOffset / 8;
          const value = decode(btf, member.type, bytes.subarray(at, at + (typeBytes(btf, member.type) ?? 0)));
          // members of nameless ones are those of the struct around
          return member.name === '' ? Object.entries(value) : [[member.name, value]];
        }),
      );
    default:
      return bytes.slice();
  }
}

/**
 * The bytes of a value.
 * @param where what it is for, for messages
 * @throws InputError when the value is not one of the type
 */
export function encode(
  btf: Btf | undefined,
  type: number | undefined,
  sizeBytes: number,
  value: CInput,
  where: string,
): Uint8Array {
  const bytes = new Uint8Array(sizeBytes);
  fill(btf, type, bytes, value, where);
  return bytes;
}

function fill(
  btf: Btf | undefined,
  type: number | undefined,
  to: Uint8Array,
  value: CInput,
  where: string,
): void {
  const refusal = (wanted: string): InputError =>
    new InputError(
      where,
      undefined,
      `${typeof value === 'object' ? 'that' : String(value)} is not ${wanted}`,
    );
  if (value instanceof Uint8Array) {
    if (value.length !== to.length) throw refusal(`${to.length} bytes`);
    to.set(value);
    return;
  }
  if (typeof value === 'bigint' || typeof value === 'number' || typeof value === 'boolean') {
    const kind = btf === undefined || type === undefined ? 'int' : bareType(btf, type).type.kind;
    if (!['int', 'enum', 'enum64', 'ptr'].includes(kind)) throw refusal(`a value of a ${kind}`);
    if (typeof value === 'number' && !Number.isSafeInteger(value)) throw refusal('a whole number');
    const wide = BigInt(value);
    const bits = BigInt(8 * to.length);
    if (wide >= 1n << bits || wide < -(1n << (bits - 1n))) throw refusal(`a number of ${to.length} bytes`);
    for (let i = 0; i < to.length; i++) to[i] = Number(BigInt.asUintN(8, wide >> BigInt(8 * i)));
    return;
  }
  if (btf === undefined || type === undefined) throw refusal(`${to.length} bytes or a number`);
  const { type: what } = bareType(btf, type);
  if (Array.isArray(value)) {
    if (what.kind !== 'array' || value.length > what.length) throw refusal('a value of the type');
    const size = typeBytes(btf, what.type) ?? 0;
    value.forEach((element: CInput, i) => {
      fill(btf, what.type, to.subarray(i * size, (i + 1) * size), element, `${where}[${i}]`);
    });
    return;
  }
  if (what.kind !== 'struct' && what.kind !== 'union') throw refusal('a value of the type');
  for (const [name, part] of Object.entries(value)) {
    const member = what.members.find((one) => one.name === name && one.bitSize === 0);
    if (member === undefined) throw new InputError(where, undefined, `there is no member ${name} to write`);
    const at = member.bitOffset / 8;
    fill(
      btf,
      member.type,
      to.subarray(at, at + (typeBytes(btf, member.type) ?? 0)),
      part,
      `${where}.${name}`,
    );
  }
}
