/*
 * Machine code as a listing: each row is an instruction's text and its bytes, a row of its own names a
 * place. The text is not decoration: a test decodes the bytes with an independent decoder and compares.
 */
import { Bug } from '../../lib/index.js';
/** The distance to a place, in one byte. */
export function to(place) {
    return { place, widthBytes: 1 };
}
/** The distance to a place, in four bytes. */
export function far(place) {
    return { place, widthBytes: 4 };
}
/** A value as little-endian bytes. */
export function le(value, bytes) {
    const wide = BigInt.asUintN(64, BigInt(value));
    return Array.from({ length: bytes }, (_, i) => Number((wide >> BigInt(8 * i)) & 0xffn));
}
/**
 * Puts rows together, then the constants, each on a multiple of 8.
 * @throws Bug for a place that is not there, or out of reach
 */
export function machineCode(rows, constants) {
    const places = new Map();
    const placed = [];
    let end = 0;
    for (const row of rows) {
        if (typeof row === 'string') {
            places.set(row.replace(/:$/, ''), end);
            continue;
        }
        const [text, ...parts] = row;
        const sizeBytes = parts.reduce((sum, part) => sum + (typeof part === 'number' ? 1 : part.widthBytes), 0);
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
            if (typeof part === 'number')
                return [part];
            const place = places.get(part.place);
            const distance = (place ?? Number.NaN) - (offset + sizeBytes);
            const reach = 2 ** (8 * part.widthBytes - 1);
            if (!(distance >= -reach && distance < reach))
                throw new Bug(`${part.place} is not in reach`);
            return le(distance, part.widthBytes);
        });
        image.set(bytes, offset);
    }
    for (const [name, bytes] of Object.entries(constants))
        image.set(bytes, places.get(name));
    return { bytes: image, places, instructions: placed };
}
//# sourceMappingURL=machine-code.js.map