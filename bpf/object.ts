import { InputError } from '../lib/index.ts';
import { parseElf, shown } from '../obj/index.ts';
import { assembleProgram, type InsnBudget } from './assemble.ts';
import { readExterns } from './externs.ts';
import { functionOf, MAX_INSNS, readFunctions, type SourceFunction } from './functions.ts';
import { readGlobals } from './globals.ts';
import { readMapDefs } from './map-defs.ts';
import type { BpfObject, BpfProgram } from './model.ts';
import { type Definitions, readReferences } from './references.ts';
import { sectionMeaning, TRAMPOLINE_SECTIONS } from './section-name.ts';
import { sortSections } from './sections.ts';

/*
 * An eBPF object as clang makes it, read in the order in which one part needs another:
 *
 *   parseElf         sections, symbols, relocations                      (room obj/)
 *   sortSections     which section is what; BTF and BTF.ext
 *   readFunctions    code cut into functions
 *   readExterns      undefined symbols: kernel symbols, configuration
 *   readGlobals      sections of variables
 *   readMapDefs      `.maps`
 *   readReferences   the relocations of code
 *   assembleProgram  each program, its subprograms behind it
 *
 * Kernel: tools/lib/bpf/libbpf.c is what users know; where it warns and goes on, `notes` says so.
 */

/** How to read an object. */
export interface ReadBpfOptions {
  /** Its name, for messages; its map names begin with it. */
  readonly file: string;
}

/**
 * Reads an eBPF object. Nothing is loaded, nothing is resolved: see model.ts for what comes next.
 *
 * @param bytes the whole file; the result keeps views of it
 * @throws InputError in one line: what is wrong, where, what to do
 */
export function readBpfObject(bytes: Uint8Array, { file }: ReadBpfOptions): BpfObject {
  const elf = parseElf(bytes, file, ['bpf']);
  const sections = sortSections(elf);
  const functions = readFunctions(sections);
  const mains = functions.all.filter(({ isSubprog }) => !isSubprog);
  const indexOfMain = new Map(mains.map((main, index) => [main, index]));
  const externs = readExterns(sections);
  const globals = readGlobals(sections);
  const maps = readMapDefs(sections, (symbol) => {
    const target = functionOf(functions, symbol);
    return target && indexOfMain.get(target);
  });
  const definitions: Definitions = {
    sections,
    functions,
    maps,
    globals: externs.kconfig === undefined ? globals : [...globals, externs.kconfig],
    globalOfSection: new Map(sections.data.map(({ section }, index) => [section.index, index])),
    kconfig: externs.kconfig && globals.length,
    externs,
  };
  const references = readReferences(definitions);
  const budget: InsnBudget = { left: MAX_INSNS };
  return {
    file,
    license: sections.license,
    programs: mains.map((main) => ({
      ...headOf(file, main),
      ...assembleProgram(file, main, references, externs, budget),
    })),
    maps: maps.maps,
    globals: definitions.globals,
    externs: externs.ksyms,
    btf: sections.btf,
    notes: [...sections.notes, ...pointerNotes(definitions)],
  };
}

type Head = Omit<BpfProgram, 'insns' | 'subprogs' | 'references' | 'coreRelocs' | 'lineInfo' | 'funcInfo'>;

function headOf(file: string, { name, section }: SourceFunction): Head {
  const meaning = sectionMeaning(section.name);
  if (meaning !== undefined) return { name, section: section.name.replace(/^\?/, ''), ...meaning };
  throw new InputError(
    file,
    section.fileOffset,
    `section ${shown(section.name)} of ${shown(name)} names no kind of program; write SEC("fentry/function") ` +
      `or another of ${TRAMPOLINE_SECTIONS.join(', ')}`,
  );
}

/** Pointers among variables: nobody relocates them, in libbpf neither. */
function pointerNotes({ sections: { data, elf } }: Definitions): string[] {
  return data.flatMap(({ section }) => {
    const count = elf.relocations.get(section.index)?.length ?? 0;
    return count === 0
      ? []
      : [
          `section ${shown(section.name)}: ${count} pointers to variables or strings stay offsets, as with libbpf`,
        ];
  });
}
