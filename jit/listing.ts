import { addrAdd, hex16, type Kaddr, toHex } from '../lib/index.ts';
import { type Code, insnAt, type Reloc, type Step } from './x86/code.ts';
import { disassemble, MNEMONIC_COLUMNS } from './x86/disasm.ts';

/** One line of a listing. */
export interface ListingRow {
  readonly address: Kaddr;
  readonly offset: number;
  /** Hex, two digits a byte; `..` for bytes that depend on an address, when masked. */
  readonly bytes: string;
  /** As an independent decoder reads the bytes; targets by name where known. */
  readonly instruction: string;
  /** Which piece of the emitter made it, outermost first: `fentry/invoke_bpf_prog/enter`; empty when unknown. */
  readonly step: string;
  readonly note: string;
}

export interface ListingOptions {
  /** Print address-dependent bytes as `..`, so that a listing can be compared between places. */
  readonly maskRelocs?: boolean;
  /** Names an address that the code itself has no name for. */
  readonly nameOf?: ((address: Kaddr) => string | undefined) | undefined;
}

/** Lists what an emitter made: bytes and instructions from the bytes alone, steps and notes from the emitter. */
export function listCode(code: Code, base: Kaddr, options: ListingOptions = {}): ListingRow[] {
  const relocs = [...code.relocs].sort((a, b) => a.offset - b.offset);
  let next = 0;
  return disassemble(code.bytes, base).map((decoded): ListingRow => {
    const end = decoded.offset + decoded.sizeBytes;
    const inside: Reloc[] = [];
    for (let reloc = relocs[next]; reloc !== undefined && reloc.offset < end; reloc = relocs[++next]) {
      inside.push(reloc);
    }
    const bytes = code.bytes.subarray(decoded.offset, end);
    const insn = insnAt(code, decoded.offset);
    const branch = inside.find((reloc) => reloc.kind === 'pc32' && decoded.target !== undefined);
    const target = branch?.symbol ?? nameOutside(code, base, decoded.target, options);
    const note = insn?.note ?? '';
    const pointers = inside.filter((reloc) => reloc !== branch && !note.endsWith(reloc.symbol));
    return {
      address: addrAdd(base, decoded.offset),
      offset: decoded.offset,
      bytes: options.maskRelocs === true ? masked(bytes, decoded.offset, inside) : toHex(bytes),
      instruction:
        target === undefined ? decoded.text : `${decoded.mnemonic.padEnd(MNEMONIC_COLUMNS)}${target}`,
      step: insn === undefined ? '' : pathWithSubjects(insn.step),
      note: [note, ...pointers.map((reloc) => reloc.symbol)].join(' ').trim(),
    };
  });
}

/** Names a branch target; places within the code stay addresses, to be found in the address column. */
function nameOutside(
  code: Code,
  base: Kaddr,
  target: Kaddr | undefined,
  { nameOf }: ListingOptions,
): string | undefined {
  if (target === undefined || (target >= base && target - base < BigInt(code.bytes.length))) return undefined;
  return nameOf?.(target);
}

/** Lists bytes of unknown origin. */
export function listBytes(bytes: Uint8Array, base: Kaddr, options: ListingOptions = {}): ListingRow[] {
  return listCode({ bytes, insns: [], relocs: [], sites: [], symbols: [] }, base, options);
}

/**
 * The listing as text: a heading per piece (and per program within it), one line per instruction.
 * Columns: address, bytes, instruction, step within the piece, note.
 */
export function formatListing(
  rows: readonly ListingRow[],
  paint: (kind: Paint, text: string) => string = plain,
): string {
  const wide = (pick: (row: ListingRow) => string): number =>
    rows.reduce((widest, row) => Math.max(widest, pick(row).length), 0);
  const bytesWidth = wide((row) => row.bytes);
  const insnWidth = wide((row) => row.instruction);
  const innerWidth = wide((row) => split(row.step).inner);
  const lines: string[] = [];
  let heading = '';
  for (const row of rows) {
    const { outer, inner } = split(row.step);
    if (outer !== heading) {
      heading = outer;
      lines.push(paint('heading', heading));
    }
    const line = [
      paint('address', hex16(row.address)),
      paint('bytes', row.bytes.padEnd(bytesWidth)),
      row.instruction.padEnd(insnWidth),
      paint('step', inner.padEnd(innerWidth)),
      paint('note', row.note),
    ];
    lines.push(`  ${line.join('  ')}`.trimEnd());
  }
  return `${lines.join('\n')}\n`;
}

/** Parts of a listing that a terminal may colour. */
export type Paint = 'heading' | 'address' | 'bytes' | 'step' | 'note';

const plain = (_kind: Paint, text: string): string => text;

/** `fentry/invoke_bpf_prog probe/enter` is headed `fentry  probe` and followed by `enter`. */
function split(step: string): { outer: string; inner: string } {
  const [outer = '', ...rest] = step.split('/');
  const program = rest.findIndex((part) => part.includes(' '));
  if (program < 0) return { outer, inner: rest.join('/') };
  const about = (rest[program] as string).replace(/^\S+ /, '');
  return { outer: `${outer}  ${about}`, inner: rest.slice(program + 1).join('/') };
}

function pathWithSubjects(step: Step): string {
  const name = step.about === undefined ? step.name : `${step.name} ${step.about}`;
  return step.parent === undefined ? name : `${pathWithSubjects(step.parent)}/${name}`;
}

function masked(bytes: Uint8Array, start: number, relocs: readonly Reloc[]): string {
  const hidden = (offset: number): boolean =>
    relocs.some(
      (reloc) => offset >= reloc.offset && offset < reloc.offset + (reloc.kind === 'abs64' ? 8 : 4),
    );
  return Array.from(bytes, (byte, i) => (hidden(start + i) ? '..' : toHex(Uint8Array.of(byte)))).join('');
}
