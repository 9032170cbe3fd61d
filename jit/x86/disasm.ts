import { createRequire } from 'node:module';
import type * as Iced from 'iced-x86';
import { hex64, type Kaddr, kaddr } from '../../lib/index.ts';

/** One decoded instruction. */
export interface Disassembled {
  readonly offset: number;
  readonly sizeBytes: number;
  /** Intel syntax, numbers in hex; branch targets as absolute addresses. */
  readonly text: string;
  /** Mnemonic with prefixes, e.g. `call` or `lock xadd`. */
  readonly mnemonic: string;
  /** Where a direct call or branch goes. */
  readonly target: Kaddr | undefined;
  /** False when the bytes are no instruction. */
  readonly valid: boolean;
}

// The decoder is WebAssembly of more than a megabyte: loaded when the first listing is made, not before.
const require = createRequire(import.meta.url);
let loaded: { iced: typeof Iced; formatter: Iced.Formatter } | undefined;

function load(): { iced: typeof Iced; formatter: Iced.Formatter } {
  if (loaded !== undefined) return loaded;
  const iced = require('iced-x86') as typeof Iced;
  const formatter = new iced.Formatter(iced.FormatterSyntax.Intel);
  formatter.hexPrefix = '0x';
  formatter.hexSuffix = '';
  formatter.uppercaseHex = false;
  formatter.spaceAfterOperandSeparator = true;
  formatter.showBranchSize = false;
  formatter.branchLeadingZeros = false;
  formatter.firstOperandCharIndex = MNEMONIC_COLUMNS;
  loaded = { iced, formatter };
  return loaded;
}

/** Columns that the mnemonic takes before the first operand. */
export const MNEMONIC_COLUMNS = 8;

/**
 * The decoder's text, with 64-bit numbers written by ourselves: its formatter prints 0 for those whose
 * low half is zero (iced-x86 1.21).
 */
function textOf(insn: Iced.Instruction, formatter: Iced.Formatter, iced: typeof Iced): string {
  const mnemonic = mnemonicOf(insn, formatter, iced).padEnd(MNEMONIC_COLUMNS);
  if (insn.nearBranchTarget !== 0n) return `${mnemonic}${hex64(insn.nearBranchTarget)}`;
  if (insn.code === iced.Code.Nopw) return mnemonic.trim();
  const last = insn.opCount - 1;
  if (last === 1 && insn.opKind(last) === iced.OpKind.Immediate64) {
    return `${mnemonic}${formatter.formatOperand(insn, 0)}, ${hex64(insn.immediate64)}`;
  }
  return formatter.format(insn);
}

/** 66 90 is the 2-byte nop, which the formatter calls `xchg ax, ax`. */
function mnemonicOf(insn: Iced.Instruction, formatter: Iced.Formatter, iced: typeof Iced): string {
  return insn.code === iced.Code.Nopw ? 'nop' : formatter.formatMnemonic(insn);
}

/** Decodes bytes with a decoder that knows nothing of our assembler. Undecodable bytes come out one by one as `(bad)`. */
export function disassemble(bytes: Uint8Array, base: Kaddr): Disassembled[] {
  const { iced, formatter } = load();
  const decoder = new iced.Decoder(64, bytes, iced.DecoderOptions.None);
  const rows: Disassembled[] = [];
  try {
    decoder.ip = base;
    while (decoder.canDecode) {
      const offset = decoder.position;
      const insn = decoder.decode();
      const valid = insn.code !== iced.Code.INVALID;
      if (valid) {
        rows.push({
          offset,
          sizeBytes: insn.length,
          text: textOf(insn, formatter, iced),
          mnemonic: mnemonicOf(insn, formatter, iced),
          target: isNearBranch(iced, insn) ? kaddr(insn.nearBranchTarget) : undefined,
          valid,
        });
      } else {
        rows.push({ offset, sizeBytes: 1, text: '(bad)', mnemonic: '(bad)', target: undefined, valid });
        decoder.position = offset + 1;
        decoder.ip = kaddr(base + BigInt(offset + 1));
      }
      insn.free();
    }
  } finally {
    decoder.free();
  }
  return rows;
}

/** Whether the target is written in the instruction; an address of 0 is one too. */
function isNearBranch(iced: typeof Iced, insn: Iced.Instruction): boolean {
  return insn.opCount > 0 && insn.op0Kind === iced.OpKind.NearBranch64;
}
