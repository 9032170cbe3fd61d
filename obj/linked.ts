import type { Kaddr } from '../lib/index.ts';
import type { ElfObject, ElfSymbol } from './elf.ts';
import type { GroupKind } from './layout.ts';

/** What a link gives (link.ts), and how to find things in it. */

/** Memory with its address and first contents. */
export interface LinkedGroup {
  readonly kind: GroupKind;
  readonly address: Kaddr;
  readonly sizeBytes: number;
  /** A power of two. */
  readonly alignBytes: number;
  /** The first `bytes.length` bytes; all others of `sizeBytes` are zero. */
  readonly bytes: Uint8Array;
}

/** A defined symbol. */
export interface LinkedSymbol {
  readonly name: string;
  readonly address: Kaddr;
  readonly sizeBytes: number;
  readonly binding: ElfSymbol['binding'];
  readonly type: ElfSymbol['type'];
}

/** One record of `__mcount_loc` or `__patchable_function_entries`: what may be a trace site. */
export interface SiteRecord {
  readonly table: string;
  /** Offset of the record in its table, bytes. */
  readonly offset: number;
  readonly address: Kaddr;
}

/** A call of `__fentry__`, found by its relocation. */
export interface FentryCall {
  /** Of the call's displacement: the opcode lies before it. */
  readonly displacement: Kaddr;
  /** Through the global offset table (`-fpic`), not directly. */
  readonly throughGot: boolean;
}

export interface LinkedObject {
  readonly object: ElfObject;
  readonly groups: readonly LinkedGroup[];
  /** Defined and named, by address; at one address global ones first. */
  readonly symbols: readonly LinkedSymbol[];
  /** Those of {@link symbols} that are functions of at least a byte. */
  readonly functions: readonly LinkedSymbol[];
  readonly siteRecords: readonly SiteRecord[];
  /** Of an object; an image has no relocations left. */
  readonly fentryCalls: readonly FentryCall[];
}

/**
 * The defined symbol with this name. Of several, a global one; otherwise the first in memory.
 */
export function findSymbol(linked: LinkedObject, name: string): LinkedSymbol | undefined {
  const found = linked.symbols.filter((symbol) => symbol.name === name);
  return found.find((symbol) => symbol.binding !== 'local') ?? found[0];
}

/**
 * The function whose bytes include `address`: the one that starts nearest before it, and of several
 * names for that one a global name.
 */
export function functionAt({ functions }: LinkedObject, address: Kaddr): LinkedSymbol | undefined {
  const after = firstIndex(functions, (symbol) => symbol.address > address);
  const nearest = functions[after - 1];
  if (nearest === undefined) return undefined;
  const symbol = functions[firstIndex(functions, (other) => other.address >= nearest.address)];
  return symbol !== undefined && address - symbol.address < BigInt(symbol.sizeBytes) ? symbol : undefined;
}

/** Binary search: the index of the first symbol that `holds`, which all later ones do too. */
function firstIndex(symbols: readonly LinkedSymbol[], holds: (symbol: LinkedSymbol) => boolean): number {
  let low = 0;
  let high = symbols.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    const symbol = symbols[middle];
    if (symbol !== undefined && holds(symbol)) high = middle;
    else low = middle + 1;
  }
  return low;
}

/** The contents of `length` bytes at `address`, or undefined when they are not all in one group's bytes. */
export function linkedBytes(
  groups: readonly LinkedGroup[],
  address: Kaddr,
  length: number,
): Uint8Array | undefined {
  for (const group of groups) {
    if (address < group.address || address - group.address > BigInt(group.bytes.length - length)) continue;
    const offset = Number(address - group.address);
    return group.bytes.subarray(offset, offset + length);
  }
  return undefined;
}
