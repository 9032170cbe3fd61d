/* A compiled program beside what it was made from: machine instructions, eBPF instructions, source lines. */

import { type BpfListingPart, listBpf } from '../../jit/index.ts';
import { hex64, type Kaddr, kaddr } from '../../lib/index.ts';
import type { Kernel } from '../../tramp/index.ts';
import { compileAt } from '../fixup/images.ts';
import type { BpfLineInfo } from '../model.ts';
import type { LoadedProgram } from './program.ts';

/** One eBPF instruction, or the prologue, and what it became. */
export interface ProgramListingPart extends BpfListingPart {
  /** The source line that begins here; undefined where the one before goes on. */
  readonly source: BpfLineInfo | undefined;
}

/** One function of a program. */
export interface ProgramListing {
  readonly ksym: string;
  readonly image: Kaddr;
  /** Of the code, bytes. */
  readonly length: number;
  readonly bytes: Uint8Array;
  readonly parts: readonly ProgramListingPart[];
}

/** Lists the functions of a compiled program; nothing for one that is interpreted. They are compiled again for it. */
export function listProgram(
  kernel: Kernel,
  { program, checked, placed, config }: LoadedProgram,
): ProgramListing[] {
  const images = placed.map(({ image }) => image);
  const options = { revision: kernel.revision, config, provenance: true };
  const again = placed.length === 0 ? [] : compileAt(checked, images, options);
  return again.map(({ image, compiled, program: given, function: one }) => {
    let line: BpfLineInfo | undefined;
    const parts = listBpf(given, compiled, config).map((part): ProgramListingPart => {
      const origin = part.insn === undefined ? undefined : one.origins[part.insn];
      const here = program.lineInfo.findLast(({ insn }) => origin !== undefined && insn <= origin);
      const source = here !== line ? here : undefined;
      if (here !== undefined) line = here;
      return { ...named(kernel, part), source };
    });
    const ksym = kernel.kallsyms.lookup(image)?.ksym.name ?? one.name;
    const length = compiled.bytes.length;
    return { ksym, image, length, bytes: kernel.machine.memory.bytes(image, length).slice(), parts };
  });
}

/** Addresses of functions by their names. */
function named({ kallsyms }: Kernel, part: BpfListingPart): BpfListingPart {
  const names = (text: string): string =>
    text.replace(/0x[0-9a-f]{7,16}\b/g, (digits) => {
      const address = kaddr(BigInt(digits));
      const hit = kallsyms.lookup(address);
      return hit?.offset === 0 ? hit.ksym.name : hex64(address);
    });
  return {
    ...part,
    text: names(part.text),
    rows: part.rows.map((row) => ({ ...row, instruction: names(row.instruction) })),
  };
}
