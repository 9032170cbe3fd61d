/** What a program was compiled to, instruction by instruction of eBPF. */

import { addrAdd, hex16, hex64 } from '../../lib/index.ts';
import { type ListingRow, listCode, type Paint } from '../listing.ts';
import { disasmInsn } from './disasm.ts';
import { BPF_CALL, BPF_JMP, type BpfInsn } from './insn.ts';
import type { BpfImage, BpfJitConfig, BpfProgram } from './program.ts';
import type { ByteRange } from './provenance.ts';

/** One eBPF instruction, or the prologue, and what it became. */
export interface BpfListingPart {
  /** Index of the instruction; undefined for the prologue. */
  readonly insn: number | undefined;
  /** The instruction as text; `prologue`. */
  readonly text: string;
  /** Empty for what needs no bytes. */
  readonly rows: readonly ListingRow[];
}

/**
 * Lists a compiled program.
 *
 * @param image compiled with provenance from this program and configuration; without provenance there is nothing.
 */
export function listBpf(program: BpfProgram, image: BpfImage, config: BpfJitConfig): BpfListingPart[] {
  if (image.provenance === undefined) return [];
  const { code, ranges } = image.provenance;
  const insns = program.final ?? program.insns;
  const rows = listCode(code, program.image);
  let next = 0;
  return ranges.map((range) => {
    const start = next;
    while ((rows[next]?.offset ?? Number.POSITIVE_INFINITY) < range.end) next++;
    return { insn: range.insn, text: textOf(range, insns, config), rows: rows.slice(start, next) };
  });
}

function textOf({ insn: index }: ByteRange, insns: readonly BpfInsn[], config: BpfJitConfig): string {
  if (index === undefined) return 'prologue';
  // what the verifier has left in imm is a distance
  const callee = ({ code, imm }: BpfInsn): string | undefined =>
    code === (BPF_JMP | BPF_CALL) ? hex64(addrAdd(config.callBase, imm)) : undefined;
  return `${index}: ${disasmInsn(insns[index] as BpfInsn, insns[index + 1], { callee })}`;
}

/** The listing as text: the eBPF instruction, then a line for each of the machine's. */
export function formatBpfListing(
  parts: readonly BpfListingPart[],
  paint: (kind: Paint, text: string) => string = (_kind, text) => text,
): string {
  const rows = parts.flatMap((part) => part.rows);
  const widest = (pick: (row: ListingRow) => string): number =>
    rows.reduce((width, row) => Math.max(width, pick(row).length), 0);
  const bytesWidth = widest((row) => row.bytes);
  const insnWidth = widest((row) => row.instruction);
  const lines = parts.flatMap((part) => [
    paint('heading', part.text),
    ...part.rows.map((row) => {
      const cells = [
        paint('address', hex16(row.address)),
        paint('bytes', row.bytes.padEnd(bytesWidth)),
        row.instruction.padEnd(insnWidth),
        paint('note', row.note),
      ];
      return `  ${cells.join('  ')}`.trimEnd();
    }),
  ]);
  return `${lines.join('\n')}\n`;
}
