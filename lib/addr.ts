/**
 * Kernel addresses: 64-bit, unsigned, branded, so that an address is never mistaken for a size,
 * an offset or a 64-bit value.
 */

/** A 64-bit kernel virtual address, always in 0 .. 2^64-1. */
export type Kaddr = bigint & { readonly __brand: 'Kaddr' };

const U64_MAX = 0xffff_ffff_ffff_ffffn;

/** Makes an address of any integer, modulo 2^64 (so that -1n is the last byte). */
export function kaddr(value: bigint | number): Kaddr {
  const wide = typeof value === 'bigint' ? value : BigInt(value);
  return (wide >= 0n && wide <= U64_MAX ? wide : BigInt.asUintN(64, wide)) as Kaddr;
}

/** The address `bytes` bytes after (negative: before) `base`, modulo 2^64. */
export function addrAdd(base: Kaddr, bytes: number): Kaddr {
  return kaddr(base + BigInt(bytes));
}

/** `to - from` in bytes as a signed 64-bit distance: what a relative call measures. */
export function addrDistance(from: Kaddr, to: Kaddr): bigint {
  return BigInt.asIntN(64, to - from);
}

/** The address rounded down to a multiple of `align` (a power of two, bytes). */
export function alignDown(address: Kaddr, align: number): Kaddr {
  return (address & ~(BigInt(align) - 1n)) as Kaddr;
}

/** The address rounded up to a multiple of `align` (a power of two, bytes). */
export function alignUp(address: Kaddr, align: number): Kaddr {
  return alignDown(kaddr(address + BigInt(align) - 1n), align);
}

/** `0x` and lower-case hex without leading zeros, as every JSON document here prints 64-bit values. */
export function hex64(value: bigint): string {
  return `0x${BigInt.asUintN(64, value).toString(16)}`;
}

/** Sixteen hex digits without prefix, as `/proc/kallsyms` prints an address. */
export function hex16(value: bigint): string {
  return BigInt.asUintN(64, value).toString(16).padStart(16, '0');
}
