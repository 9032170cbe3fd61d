/*
 * What a format makes of values, each of 64 bits.
 *
 *   %d %i %u %x %X with l or ll, 0, -, +, space, a width       integers
 *   %s %pks %pus                                                text of the kernel or the user
 *   %c                                                          a character
 *   %p %pK %px                                                  an address in hex; simplified: %p is not hashed
 *   %ps %pS %pB                                                 a symbol, with its offset (S, B)
 *   %pi4 %pI4 %pi6 %pI6                                         network addresses, by address
 *
 * Anything else refuses. Kernel: bpf_bprintf_prepare, kernel/bpf/helpers.c; bstr_printf, lib/vsprintf.c
 */

import { hex16, kaddr } from '../../lib/index.ts';
import { MemoryFault } from '../interp/memory.ts';
import type { HelperWorld } from './helper.ts';

const SPEC = /%(%|([0+\- ]*)(\d*)(pks|pus|p[iI][46]|p[KxsSB]?(?![a-zA-Z])|s|c|l{0,2}[diuxX]))/y;
/** Longest text that a %s takes. Kernel: MAX_BPRINTF_BUF, roughly */
const MAX_TEXT = 512;

/** The text, or undefined when the format is refused or wants more values than there are. */
export function format(world: HelperWorld, text: string, values: readonly bigint[]): string | undefined {
  if (/[^\x20-\x7e\t\n\v\f\r]/.test(text)) return undefined;
  let out = '';
  let next = 0;
  for (let at = 0; at < text.length; ) {
    if (text[at] !== '%') {
      out += text[at++];
      continue;
    }
    SPEC.lastIndex = at;
    const match = SPEC.exec(text);
    if (match === null) return undefined;
    const [whole, what, flags = '', width = '', kind] = match;
    at += whole.length;
    if (what === '%') {
      out += '%';
      continue;
    }
    const value = values[next++];
    if (value === undefined || kind === undefined) return undefined;
    out += padded(shown(world, kind, value, flags), flags, Number(width), /[diuxX]$/.test(kind));
  }
  return out;
}

function padded(text: string, flags: string, width: number, isNumber: boolean): string {
  if (flags.includes('-')) return text.padEnd(width);
  if (!flags.includes('0') || !isNumber) return text.padStart(width);
  const sign = /^[-+ ]/.exec(text)?.[0] ?? '';
  return sign + text.slice(sign.length).padStart(width - sign.length, '0');
}

function shown(world: HelperWorld, kind: string, value: bigint, flags: string): string {
  switch (kind) {
    case 's':
    case 'pks':
    case 'pus':
      return textAt(world, value);
    case 'c':
      return String.fromCharCode(Number(value & 0xffn));
    case 'p':
    case 'pK':
    case 'px':
      return hex16(value);
    case 'ps':
    case 'pS':
    case 'pB':
      return symbol(world, value, kind !== 'ps');
    case 'pi4':
    case 'pI4':
    case 'pi6':
    case 'pI6':
      return network(world, kind, value);
    default:
      return integer(kind, value, flags);
  }
}

function integer(kind: string, value: bigint, flags: string): string {
  const bits = kind.startsWith('l') ? 64 : 32;
  const letter = kind.at(-1) as string;
  if (letter === 'x') return BigInt.asUintN(bits, value).toString(16);
  if (letter === 'X') return BigInt.asUintN(bits, value).toString(16).toUpperCase();
  if (letter === 'u') return String(BigInt.asUintN(bits, value));
  const number = BigInt.asIntN(bits, value);
  const plus = number < 0n ? '' : flags.includes('+') ? '+' : flags.includes(' ') ? ' ' : '';
  return plus + String(number);
}

/** What cannot be read is no text at all. Kernel: bpf_trace_copy_string */
function textAt(world: HelperWorld, address: bigint): string {
  try {
    return String.fromCharCode(...world.guest.text(address, MAX_TEXT - 1));
  } catch (error) {
    if (error instanceof MemoryFault) return '';
    throw error;
  }
}

function symbol({ kernel }: HelperWorld, address: bigint, withOffset: boolean): string {
  const hit = kernel.kallsyms.lookup(kaddr(address));
  if (hit === undefined) return `0x${address.toString(16)}`;
  const { name, sizeBytes } = hit.ksym;
  return withOffset ? `${name}+0x${hit.offset.toString(16)}/0x${sizeBytes.toString(16)}` : name;
}

function network(world: HelperWorld, kind: string, address: bigint): string {
  const isV4 = kind.endsWith('4');
  const bytes = bytesAt(world, address, isV4 ? 4 : 16);
  if (isV4)
    return [...bytes].map((byte) => (kind === 'pi4' ? String(byte).padStart(3, '0') : byte)).join('.');
  const groups = Array.from({ length: 8 }, (_, i) =>
    (((bytes[2 * i] ?? 0) << 8) | (bytes[2 * i + 1] ?? 0)).toString(16).padStart(4, '0'),
  );
  return groups.join(kind === 'pI6' ? ':' : '');
}

function bytesAt(world: HelperWorld, address: bigint, sizeBytes: number): Uint8Array {
  try {
    return world.guest.copy(address, sizeBytes);
  } catch (error) {
    if (error instanceof MemoryFault) return new Uint8Array(sizeBytes);
    throw error;
  }
}
