/**
 * x86-64 assembly text, as a person writes it, to bytes.
 *
 * Intel syntax, one instruction a line, `label:` before it or on a line of its own, comments after
 * `;`, `#` or `//`. The dialect is the one gcc -masm=intel and GNU as share: `qword ptr [rdi + 8]`,
 * `gs:[0x10]`, `offset name` for an address, `[rip + name]` for what is there.
 *
 * keystone assembles; iced-x86 decodes what came out, and every part of it is compared with what was
 * written. Nothing is trusted that does not read back.
 */

import type { Kaddr } from '../lib/index.ts';

/** How to assemble a text. */
export interface AsmTextOptions {
  /** What error messages call the text: a file name, or an option such as `--asm`. */
  readonly file: string;
  /** Where the first byte will stand. */
  readonly address: Kaddr;
  /**
   * Addresses that the text may name: as the target of a call or a jump, after `offset`, and in a
   * memory operand. A label of the text hides a symbol of the same name.
   */
  readonly symbols?: ReadonlyMap<string, Kaddr>;
}

/** One instruction of the text and the bytes it became. */
export interface AssembledLine {
  /** Line number in the text, from 1. */
  readonly line: number;
  /** The instruction as written, without label and comment. */
  readonly text: string;
  /** First byte, counted from the beginning of the bytes. */
  readonly offset: number;
  /** Bytes. */
  readonly length: number;
}

/** A text assembled for one address. */
export interface AssembledText {
  readonly bytes: Uint8Array;
  /** Every instruction, in order, without gaps. */
  readonly lines: readonly AssembledLine[];
  /** Label to offset from the beginning of the bytes; a label at the very end is `bytes.length`. */
  readonly labels: ReadonlyMap<string, number>;
}

/**
 * Assembles `source` at `options.address`.
 *
 * The length does not depend on the address: jumps within the text are as short as they can be, and
 * whatever names an outside address takes its wide form. So, when the size must be known before the
 * address, assemble twice: first at any address within 2 GiB of the symbols, to read `bytes.length`;
 * then at the address that was allocated.
 *
 * The directives `.text`, `.globl` / `.global NAME` and `.intel_syntax noprefix` say what is so anyway
 * and are accepted; every other directive is refused.
 *
 * @throws InputError naming the file and the line (`at` is `line N`): text that is not an instruction,
 *   an unknown mnemonic or symbol, a value too wide for its place, an operand of ambiguous size, a
 *   target out of reach, or an instruction that reads back as something else. Nothing is returned then.
 */
export async function assembleText(source: string, options: AsmTextOptions): Promise<AssembledText> {
  // Two WebAssembly modules stand behind this: only those who assemble wait for them.
  const { layoutText } = await import('./asm-text-layout.ts');
  return layoutText(source, options);
}
