import { addrAdd, InputError, type Kaddr, toHex } from '../lib/index.ts';
import { FENTRY } from './link.ts';
import { findSymbol, functionAt, type LinkedObject, linkedBytes, type SiteRecord } from './linked.ts';
import { shown } from './text.ts';

/*
 * Trace sites: the five bytes at a function's entry that ftrace owns. The compiler lists them in
 * __mcount_loc (-mrecord-mcount) or __patchable_function_entries; an object without a list is
 * scanned for calls of __fentry__, which is what the kernel's build does with recordmcount.
 */

/** Bytes of a site: a call, or the nop that takes its place. */
export const SITE_BYTES = 5;

/** One site a trampoline can be attached to. */
export interface FtraceSite {
  readonly address: Kaddr;
  /** The function that contains it, when the symbols tell. */
  readonly function: string | undefined;
  /** Bytes from the start of that function (4 after an endbr64); 0 without one. */
  readonly offset: number;
  /** What the compiler left there. Either way the loader writes the five-byte nop. */
  readonly kind: 'call' | 'nop';
}

/**
 * The trace sites of a linked file, by address.
 *
 * Kernel: ftrace_process_locs, kernel/trace/ftrace.c, and ftrace_init_nop, which check the same.
 *
 * @throws InputError when a record points at anything but a call of `__fentry__` or five bytes of nops
 */
export function ftraceSites(linked: LinkedObject): FtraceSite[] {
  const calls = new Set<bigint>();
  for (const { displacement, throughGot } of linked.fentryCalls) {
    const address = addrAdd(displacement, -1);
    if (throughGot) throw throughGotError(linked, address);
    calls.add(address);
  }
  const fentry = findSymbol(linked, FENTRY)?.address;
  const sites = new Map<bigint, FtraceSite>();
  for (const record of linked.siteRecords) sites.set(record.address, siteOf(linked, record, calls, fentry));
  for (const address of calls) {
    if (!sites.has(address)) sites.set(address, named(linked, address as Kaddr, 'call'));
  }
  const sorted = [...sites.values()].sort((a, b) => (a.address < b.address ? -1 : 1));
  refuseOverlaps(linked, sorted);
  return sorted;
}

function refuseOverlaps(linked: LinkedObject, sites: readonly FtraceSite[]): void {
  sites.forEach(({ address }, index) => {
    const last = sites[index - 1];
    if (last === undefined || address - last.address >= BigInt(SITE_BYTES)) return;
    const both = `0x${last.address.toString(16)} and 0x${address.toString(16)}`;
    throw new InputError(linked.object.file, undefined, `the trace sites at ${both} overlap (5 bytes each)`);
  });
}

const CALL = 0xe8;

/** The nops that a compiler or assembler may combine to five bytes. Intel SDM, NOP, recommended forms. */
const NOPS: readonly string[] = ['90', '6690', '0f1f00', '0f1f4000', '0f1f440000'];

function siteOf(
  linked: LinkedObject,
  record: SiteRecord,
  calls: ReadonlySet<bigint>,
  fentry: Kaddr | undefined,
): FtraceSite {
  const { address } = record;
  const text = linked.groups.filter((group) => group.kind === 'text');
  const bytes = linkedBytes(text, address, SITE_BYTES);
  if (bytes === undefined) throw recordError(linked, record, 'which is not in loaded text');
  // An image has no relocations left: there the call itself must lead to the symbol.
  const isCall = calls.has(address) || (bytes[0] === CALL && callTarget(address, bytes) === fentry);
  if (isCall) return named(linked, address, 'call');
  if (isNops(toHex(bytes))) return named(linked, address, 'nop');
  // `call *__fentry__@GOTPCREL(%rip)`, and what a linker makes of it.
  if (bytes[0] === 0xff && bytes[1] === 0x15) throw throughGotError(linked, addrAdd(address, 1));
  throw recordError(
    linked,
    record,
    `where ${toHex(bytes)} is neither a call of ${FENTRY} nor five bytes of nops`,
  );
}

/** Where a direct call leads. */
function callTarget(address: Kaddr, bytes: Uint8Array): Kaddr {
  const displacement = new DataView(bytes.buffer, bytes.byteOffset).getInt32(1, true);
  return addrAdd(address, SITE_BYTES + displacement);
}

function isNops(hex: string): boolean {
  return hex === '' || NOPS.some((nop) => hex.startsWith(nop) && isNops(hex.slice(nop.length)));
}

function named(linked: LinkedObject, address: Kaddr, kind: FtraceSite['kind']): FtraceSite {
  const symbol = functionAt(linked, address);
  return {
    address,
    function: symbol?.name,
    offset: symbol === undefined ? 0 : Number(address - symbol.address),
    kind,
  };
}

function recordError(linked: LinkedObject, { table, offset, address }: SiteRecord, why: string): InputError {
  const symbol = functionAt(linked, address);
  const where = `0x${address.toString(16)}${symbol ? ` (${shown(symbol.name)})` : ''}`;
  return new InputError(
    linked.object.file,
    `${table}+0x${offset.toString(16)}`,
    `the record is ${where}, ${why}`,
  );
}

function throughGotError(linked: LinkedObject, address: Kaddr): InputError {
  const symbol = functionAt(linked, address);
  return new InputError(
    linked.object.file,
    undefined,
    `${symbol ? shown(symbol.name) : `0x${address.toString(16)}`} calls ${FENTRY} through the global offset table ` +
      '(6 bytes, ff 15), which ftrace cannot patch: compile with -fno-pic',
  );
}
