import { InputError } from '../lib/index.ts';

/*
 * Little-endian fields of a file nobody vouches for. Every access names the field it wants, so that
 * a file that is cut short or lies about its offsets gives an error that says which field led there.
 */

/** Longest name read from a string table, bytes. Twice what the kernel allows a symbol (KSYM_NAME_LEN, 512). */
const MAX_NAME_BYTES = 1024;
/** Names of one table in total. Honest tables hold each byte for few names; shared tails could stand for any number. */
const MAX_ALL_NAMES_BYTES = 64 * 1024 * 1024;

const NAME_DECODER = new TextDecoder('utf-8');

/** Checked reads from the bytes of one file (or of one part of it, when `origin` is not 0). */
export class ByteReader {
  readonly bytes: Uint8Array;
  /** The file as its user named it, for messages. */
  readonly file: string;
  readonly #view: DataView;
  /** Offset of `bytes` in the file, so that messages give file offsets. */
  readonly #origin: number;
  readonly #what: string;

  constructor(bytes: Uint8Array, file: string, what: string, origin = 0) {
    // A Buffer's slice() shares its memory, a Uint8Array's copies: make it the latter.
    this.bytes = new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.file = file;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#origin = origin;
    this.#what = what;
  }

  u8(offset: number, field: string): number {
    this.#need(offset, 1, field);
    return this.#view.getUint8(offset);
  }

  u16(offset: number, field: string): number {
    this.#need(offset, 2, field);
    return this.#view.getUint16(offset, true);
  }

  u32(offset: number, field: string): number {
    this.#need(offset, 4, field);
    return this.#view.getUint32(offset, true);
  }

  i32(offset: number, field: string): number {
    this.#need(offset, 4, field);
    return this.#view.getInt32(offset, true);
  }

  u64(offset: number, field: string): bigint {
    this.#need(offset, 8, field);
    return this.#view.getBigUint64(offset, true);
  }

  i64(offset: number, field: string): bigint {
    this.#need(offset, 8, field);
    return this.#view.getBigInt64(offset, true);
  }

  /** A 64-bit field that must be a count of bytes a JavaScript number can hold exactly. */
  size(offset: number, field: string): number {
    const value = this.u64(offset, field);
    if (value > BigInt(Number.MAX_SAFE_INTEGER)) {
      this.fail(offset, `${field} is 0x${value.toString(16)}, larger than any file`);
    }
    return Number(value);
  }

  /** The `size` bytes at `offset`, not copied. `at` is where the two numbers were read. */
  range(offset: number, size: number, field: string, at: number): Uint8Array {
    if (offset > this.bytes.length || size > this.bytes.length - offset) {
      this.fail(
        at,
        `${field} is 0x${size.toString(16)} bytes at 0x${offset.toString(16)}, past the end of the ` +
          `${this.#what} (0x${this.bytes.length.toString(16)} bytes)`,
      );
    }
    return this.bytes.subarray(offset, offset + size);
  }

  /** Stops with an error at `offset` of these bytes. */
  fail(offset: number, message: string): never {
    throw new InputError(this.file, this.#origin + offset, message);
  }

  #need(offset: number, size: number, field: string): void {
    if (offset + size > this.bytes.length) {
      this.fail(
        offset,
        `the ${this.#what} ends (at 0x${this.bytes.length.toString(16)}) before or inside ${field}`,
      );
    }
  }
}

/** NUL-terminated names, read once each. */
export class StringTable {
  readonly #reader: ByteReader;
  readonly #names: Map<number, string> = new Map<number, string>();
  #totalBytes = 0;

  constructor(reader: ByteReader) {
    this.#reader = reader;
  }

  /** The name at `offset`; an absent or overlong end is an error that names `field`. */
  name(offset: number, field: string): string {
    const known = this.#names.get(offset);
    if (known !== undefined) return known;
    const { bytes } = this.#reader;
    if (offset >= bytes.length) {
      this.#reader.fail(
        0,
        `${field} is at 0x${offset.toString(16)} of a string table of 0x${bytes.length.toString(16)} bytes`,
      );
    }
    const limit = Math.min(bytes.length, offset + MAX_NAME_BYTES + 1);
    let end = offset;
    while (end < limit && bytes[end] !== 0) end++;
    if (end === limit) {
      const why = limit === bytes.length ? 'no terminating NUL' : `more than ${MAX_NAME_BYTES} bytes`;
      this.#reader.fail(offset, `${field} has ${why}`);
    }
    this.#totalBytes += end - offset;
    if (this.#totalBytes > MAX_ALL_NAMES_BYTES) {
      this.#reader.fail(offset, 'more than 64 MiB of names: they share their tails, which no compiler does');
    }
    const name = NAME_DECODER.decode(bytes.subarray(offset, end));
    this.#names.set(offset, name);
    return name;
  }
}
