import { hex64 } from './addr.ts';

/** A value as JSON can carry it: 64-bit integers as hex text, everything else as it is. */
export function asJson(value: unknown): unknown {
  return JSON.parse(JSON.stringify(value, (_, inner) => (typeof inner === 'bigint' ? hex64(inner) : inner)));
}
