import { BPF_INSN_BYTES, type BpfInsn, decodeInsns } from '../jit/index.ts';
import { InputError } from '../lib/index.ts';
import { type ElfSection, type ElfSymbol, shown } from '../obj/index.ts';
import type { ExtCore, ExtLine } from './btf-ext.ts';
import type { BpfSections } from './sections.ts';

/*
 * The functions of an object, where its compiler put them: programs in sections of their own,
 * subprograms in `.text`. libbpf: bpf_object__add_programs.
 */

/** A function in its section. All instruction numbers are relative to its first slot. */
export interface SourceFunction {
  readonly name: string;
  readonly section: ElfSection;
  /** First slot in the section. */
  readonly start: number;
  readonly insns: readonly BpfInsn[];
  /** In `.text`: a subprogram, never a program by itself. */
  readonly isSubprog: boolean;
  readonly global: boolean;
  /** Its BTF_KIND_FUNC. */
  readonly type: number | undefined;
  readonly lines: readonly ExtLine[];
  readonly cores: readonly ExtCore[];
}

/** How a kernel's loader counts: longer programs are refused (BPF_COMPLEXITY_LIMIT_INSNS). */
export const MAX_INSNS = 1_000_000;

/** The functions of an object and the way from an address to the one that lies there. */
export interface SourceFunctions {
  /** By section, then by place. */
  readonly all: readonly SourceFunction[];
  /** The function that begins at this slot of a section. */
  startingAt(sectionIndex: number, slot: number): SourceFunction | undefined;
  /** The function that a slot belongs to; undefined for code that no symbol covers. */
  covering(sectionIndex: number, slot: number): SourceFunction | undefined;
}

/**
 * Cuts the code into functions, as the symbols say.
 *
 * @throws InputError for static functions outside `.text`, functions that overlap, and code that is no
 *   whole number of instructions
 */
export function readFunctions(sections: BpfSections): SourceFunctions {
  const all: SourceFunction[] = [];
  const bySection = new Map<number, readonly SourceFunction[]>();
  const starts = new Map<string, SourceFunction>();
  for (const section of sections.code) {
    const functions = functionsOf(sections, section);
    bySection.set(section.index, functions);
    for (const one of functions) starts.set(`${section.index}:${one.start}`, one);
    all.push(...functions);
  }
  return {
    all,
    startingAt: (sectionIndex, slot) => starts.get(`${sectionIndex}:${slot}`),
    covering: (sectionIndex, slot) => {
      const functions = bySection.get(sectionIndex) ?? [];
      const one = functions[lastIndex(functions, (other) => other.start <= slot)];
      return one !== undefined && slot < one.start + one.insns.length ? one : undefined;
    },
  };
}

function functionsOf(sections: BpfSections, section: ElfSection): SourceFunction[] {
  const { elf, textIndex } = sections;
  const fail = (message: string, at = 0): never => {
    throw new InputError(elf.file, section.fileOffset + at, `${shown(section.name)}: ${message}`);
  };
  if (section.data.length % BPF_INSN_BYTES !== 0) {
    fail(`${section.data.length} bytes are no whole number of instructions (${BPF_INSN_BYTES} bytes each)`);
  }
  const slots = decodeInsns(section.data);
  const ext = sections.ext.section(section.name);
  const types = new Map(ext.funcs.map(({ insn, type }) => [insn, type]));
  const isSubprog = section.index === textIndex;
  const symbols = elf.symbols
    .filter((symbol) => symbol.section === section.index && symbol.type === 'func' && symbol.sizeBytes > 0)
    .sort((a, b) => Number(a.value - b.value) || a.index - b.index);

  const functions: SourceFunction[] = [];
  let end = 0;
  for (const { name, value, sizeBytes, binding } of symbols) {
    const at = Number(value);
    if (at % BPF_INSN_BYTES !== 0 || sizeBytes % BPF_INSN_BYTES !== 0) {
      fail(`${shown(name)} is ${sizeBytes} bytes at ${at}, no whole instructions`, at);
    }
    if (binding === 'local' && !isSubprog) {
      fail(
        `the static function ${shown(name)} is in a program's section: make it global, or leave out its SEC()`,
        at,
      );
    }
    if (at < end) fail(`${shown(name)} overlaps the function before it`, at);
    end = at + sizeBytes;
    const start = at / BPF_INSN_BYTES;
    const length = sizeBytes / BPF_INSN_BYTES;
    functions.push({
      name,
      section,
      start,
      insns: slots.slice(start, start + length),
      isSubprog,
      global: binding !== 'local',
      type: funcType(sections, types.get(start)),
      lines: within(ext.lines, start, length),
      cores: within(ext.cores, start, length),
    });
  }
  return functions;
}

/** A type id of func_info, if it is a function's. */
function funcType({ btf }: BpfSections, id: number | undefined): number | undefined {
  return id !== undefined && btf?.types[id]?.kind === 'func' ? id : undefined;
}

/** The records of one function, counted from its start. */
function within<T extends { readonly insn: number }>(
  records: readonly T[],
  start: number,
  length: number,
): T[] {
  const first = lastIndex(records, ({ insn }) => insn < start) + 1;
  const last = lastIndex(records, ({ insn }) => insn < start + length);
  return records.slice(first, last + 1).map((record) => ({ ...record, insn: record.insn - start }));
}

/** Binary search: the index of the last item that `holds`, which all earlier ones do too; -1 when none does. */
export function lastIndex<T>(items: readonly T[], holds: (item: T) => boolean): number {
  let low = -1;
  let high = items.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (holds(items[middle] as T)) low = middle;
    else high = middle - 1;
  }
  return low;
}

/** The function that a symbol is, for the slots of program arrays. */
export function functionOf(functions: SourceFunctions, symbol: ElfSymbol): SourceFunction | undefined {
  if (typeof symbol.section !== 'number') return undefined;
  const slot = Number(symbol.value) / BPF_INSN_BYTES;
  return functions.startingAt(symbol.section, slot);
}
