/*
 * Machine code as a listing: each row is an instruction's text and its bytes, a row of its own names a
 * place. The text is not decoration: a test decodes the bytes with an independent decoder and compares.
 */

import { Bug } from '../../lib/index.ts';

/** A byte, or a distance that is known when all places are: 8 or 32 bits, from the end of the instruction. */
export type Part = number | { readonly place: string; readonly widthBytes: 1 | 4 };
/** `name:`, or an instruction. */
export type Row = string | readonly [text: string, ...parts: Part[]];

export interface MachineCode {
  readonly bytes: Uint8Array;
  /** Offsets of the places, constants included. */
  readonly places: ReadonlyMap<string, number>;
  readonly instructions: readonly {
    readonly offset: number;
    readonly sizeBytes: number;
    readonly text: string;
  }[];
}

/** The distance to a place, in one byte. */
export function to(place: string): Part {
  return { place, widthBytes: 1 };
}

/** The distance to a place, in four bytes. */
export function far(place: string): Part {
  return { place, widthBytes: 4 };
}

/** A value as little-endian bytes. */
export function le(value: bigint | number, bytes: number): number[] {
  const wide = BigInt.asUintN(64, BigInt(value));
  return Array.from({ length: bytes }, (_, i) => Number((wide >> BigInt(8 * i)) & 0xffn));
}

/**
 * Puts rows together, then the constants, each on a multiple of 8.
 * @throws Bug for a place that is not there, or out of reach
 */
export function machineCode(
  rows: readonly Row[],
  constants: Readonly<Record<string, readonly number[]>>,
): MachineCode {
  const places = new Map<string, number>();
  const placed: { offset: number; sizeBytes: number; text: string; parts: readonly Part[] }[] = [];
  let end = 0;
  for (const row of rows) {
    if (typeof row === 'string') {
      places.set(row.replace(/:$/, ''), end);
      continue;
    }
    const [text, ...parts] = row;
    const sizeBytes = parts.reduce<number>(
      (sum, part) => sum + (typeof part === 'number' ? 1 : part.widthBytes),
      0,
    );
    placed.push({ offset: end, sizeBytes, text, parts });
    end += sizeBytes;
  }
  for (const [name, bytes] of Object.entries(constants)) {
    end = (end + 7) & ~7;
    places.set(name, end);
    end += bytes.length;
  }

  const image = new Uint8Array(end);
  for (const { offset, sizeBytes, parts } of placed) {
    const bytes = parts.flatMap((part) => {
      if (typeof part === 'number') return [part];
      const place = places.get(part.place);
      const distance = (place ?? Number.NaN) - (offset + sizeBytes);
      const reach = 2 ** (8 * part.widthBytes - 1);
      if (!(distance >= -reach && distance < reach)) throw new Bug(`${part.place} is not in reach`);
      return le(distance, part.widthBytes);
    });
    image.set(bytes, offset);
  }
  for (const [name, bytes] of Object.entries(constants)) image.set(bytes, places.get(name) as number);
  return { bytes: image, places, instructions: placed };
}
