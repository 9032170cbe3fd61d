import { InputError } from '../lib/index.ts';
import type { ArgModel, FuncModel, RetModel } from '../obj/index.ts';

/*
 * C values and the 64-bit words that carry them: how an argument is passed, how a word is read back
 * at its type's width, and how it is shown.
 */

/** The word that a caller puts into the register for an integer argument. @throws InputError when it does not fit the type */
export function passArgument(fn: string, index: number, model: ArgModel, value: bigint): bigint {
  const bits = model.sizeBytes * 8;
  const low = model.pointer ? -(1n << 63n) : -(1n << BigInt(bits - 1));
  const high = (1n << BigInt(bits)) - 1n;
  if (model.struct === true) {
    if (value < 0n || value > high) {
      throw new InputError(
        'call',
        undefined,
        `${fn}: argument ${index + 1} (${model.type}) cannot hold ${value}`,
      );
    }
    return value;
  }
  const isBool = /^(_Bool|bool)$/.test(model.type);
  if (value < low || value > high || (isBool && value !== 0n && value !== 1n)) {
    const what = model.name === undefined ? `argument ${index + 1}` : `argument ${model.name}`;
    throw new InputError('call', undefined, `${fn}: ${what} (${model.type}) cannot hold ${value}`);
  }
  // A C caller extends small integers to 32 bits by their sign and leaves the rest of the register alone.
  const narrow = model.signed ? BigInt.asIntN(bits, value) : BigInt.asUintN(bits, value);
  return BigInt.asUintN(Math.max(bits, 32), narrow);
}

/** A struct that is passed by value, as a number, its first byte lowest. @throws InputError for another size */
export function structValue(fn: string, index: number, model: ArgModel, bytes: Uint8Array): bigint {
  if (bytes.length !== model.sizeBytes) {
    const what = `${fn}: argument ${index + 1} (${model.type}) has ${model.sizeBytes} bytes`;
    throw new InputError('call', undefined, `${what}, not ${bytes.length}`);
  }
  return bytes.reduceRight((value, byte) => (value << 8n) | BigInt(byte), 0n);
}

/** A C integer or pointer. */
export type Scalar = Pick<ArgModel | RetModel, 'sizeBytes' | 'signed' | 'pointer'> & Pick<ArgModel, 'struct'>;

/** The value that a word holds at a type's width, as an unsigned integer of that width. */
export function atWidth(model: { readonly sizeBytes: number }, word: bigint): bigint {
  return BigInt.asUintN(model.sizeBytes * 8, word);
}

/** A value as C would print it: decimal and signed for signed integers, hex for pointers, bytes of a struct. */
export function show(model: Scalar, word: bigint): string {
  const bits = model.sizeBytes * 8;
  if (bits === 0) return 'void';
  if (model.struct === true) {
    const bytes = Array.from({ length: model.sizeBytes }, (_, i) => (word >> BigInt(8 * i)) & 0xffn);
    return `{${bytes.map((byte) => byte.toString(16).padStart(2, '0')).join(' ')}}`;
  }
  if (model.pointer) return `0x${BigInt.asUintN(64, word).toString(16)}`;
  return String(model.signed ? BigInt.asIntN(bits, word) : BigInt.asUintN(bits, word));
}

/** `int f(int a, u64 b)`. */
export function showPrototype(model: FuncModel): string {
  const declare = (type: string, name: string): string =>
    `${type}${type.endsWith('*') || name === '' ? '' : ' '}${name}`;
  const args = model.args.map(({ type, name }) => declare(type, name ?? ''));
  return `${declare(model.ret.type, model.name)}(${args.length === 0 ? 'void' : args.join(', ')})`;
}
