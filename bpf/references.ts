import {
  BPF_CALL,
  BPF_INSN_BYTES,
  BPF_JMP,
  BPF_PSEUDO_BTF_ID,
  BPF_PSEUDO_CALL,
  BPF_PSEUDO_FUNC,
  BPF_PSEUDO_KFUNC_CALL,
  BPF_PSEUDO_MAP_FD,
  BPF_PSEUDO_MAP_VALUE,
  type BpfInsn,
  isLdImm64,
} from '../jit/index.ts';
import { InputError } from '../lib/index.ts';
import { type ElfReloc, shown } from '../obj/index.ts';
import type { ExternPlace, Externs } from './externs.ts';
import type { SourceFunction, SourceFunctions } from './functions.ts';
import type { MapDefs } from './map-defs.ts';
import type { BpfGlobals, BpfReferent } from './model.ts';
import { type BpfSections, R_BPF_64_32, R_BPF_64_64, relocName } from './sections.ts';

/*
 * What the relocations of code mean. libbpf: bpf_program__record_reloc, bpf_object__relocate_data.
 *
 *   R_BPF_64_64 on ld_imm64:  a map, a variable, a kernel symbol, the address of a subprogram
 *   R_BPF_64_32 on call:      a subprogram, a kernel function
 */

/** What an instruction of a function in its section refers to: a callee has no place in a program yet. */
type SourceReferent =
  | Exclude<BpfReferent, { readonly kind: 'subprog-call' | 'subprog-addr' }>
  | { readonly kind: 'subprog-call' | 'subprog-addr'; readonly callee: SourceFunction };

/** A reference of one function; calls within `.text`, which need no relocation, included. */
export type SourceReference = { readonly insn: number } & SourceReferent;

/** What the relocations may point at. */
export interface Definitions {
  readonly sections: BpfSections;
  readonly functions: SourceFunctions;
  readonly maps: MapDefs;
  readonly globals: readonly BpfGlobals[];
  /** Index in `globals` by section index. */
  readonly globalOfSection: ReadonlyMap<number, number>;
  /** Index in `globals` of `.kconfig`. */
  readonly kconfig: number | undefined;
  readonly externs: Externs;
}

/** The references of every function, by instruction. @throws InputError naming function and instruction */
export function readReferences(definitions: Definitions): Map<SourceFunction, readonly SourceReference[]> {
  const { sections, functions } = definitions;
  const found = new Map<SourceFunction, Map<number, SourceReference>>();
  for (const one of functions.all) found.set(one, new Map());
  for (const section of sections.code) {
    for (const reloc of sections.elf.relocations.get(section.index) ?? []) {
      // Code that no symbol covers: of a weak function that another one has taken the place of.
      const one = functions.covering(section.index, Math.floor(reloc.offset / BPF_INSN_BYTES));
      const references = one && found.get(one);
      if (one === undefined || references === undefined) continue;
      const reference = resolve(definitions, one, reloc);
      if (references.has(reference.insn))
        new Place(definitions, one, reference.insn).fail('is relocated twice');
      references.set(reference.insn, reference);
    }
  }
  const all = new Map<SourceFunction, readonly SourceReference[]>();
  for (const [one, references] of found) {
    addLocalCalls(definitions, one, references);
    all.set(
      one,
      [...references.values()].sort((a, b) => a.insn - b.insn),
    );
  }
  return all;
}

/** An instruction of a function, to refuse it. */
class Place {
  readonly #file: string;
  readonly #at: number;
  readonly #what: string;

  constructor({ sections }: Definitions, { name, section, start }: SourceFunction, insn: number) {
    this.#file = sections.elf.file;
    this.#at = section.fileOffset + (start + insn) * BPF_INSN_BYTES;
    this.#what = `${shown(name)}, instruction ${insn},`;
  }

  fail(message: string): never {
    throw new InputError(this.#file, this.#at, `${this.#what} ${message}`);
  }
}

const isCall = ({ code }: BpfInsn): boolean => code === (BPF_JMP | BPF_CALL);

function resolve(definitions: Definitions, from: SourceFunction, reloc: ElfReloc): SourceReference {
  const insn = Math.floor(reloc.offset / BPF_INSN_BYTES) - from.start;
  const place = new Place(definitions, from, insn);
  const slot = from.insns[insn];
  if (slot === undefined || reloc.offset % BPF_INSN_BYTES !== 0)
    return place.fail('is relocated in its middle');
  const extern = definitions.externs.places.get(reloc.symbol.index);
  if (isCall(slot)) {
    if (reloc.type !== R_BPF_64_32) place.fail(`is a call with ${relocName(reloc.type)}`);
    if (extern !== undefined) return { insn, ...calledExtern(place, extern, reloc) };
    return { insn, kind: 'subprog-call', callee: calledSubprog(definitions, place, reloc, slot) };
  }
  if (!isLdImm64(slot) || from.insns[insn + 1] === undefined) {
    return place.fail(
      `(opcode 0x${slot.code.toString(16)}) is relocated, but loads no 64-bit immediate and calls nothing`,
    );
  }
  if (reloc.type !== R_BPF_64_64) place.fail(`loads a 64-bit immediate with ${relocName(reloc.type)}`);
  if (extern !== undefined) return { insn, ...loadedExtern(definitions, extern) };
  return { insn, ...loadedSymbol(definitions, place, reloc, slot) };
}

function calledExtern(place: Place, extern: ExternPlace, { symbol }: ElfReloc): SourceReferent {
  if (extern.kind === 'ksym' && extern.function) return { kind: 'kfunc-call', extern: extern.extern };
  return place.fail(`calls ${shown(symbol.name)}, which is no function`);
}

function loadedExtern({ kconfig = 0 }: Definitions, extern: ExternPlace): SourceReferent {
  return extern.kind === 'kconfig'
    ? { kind: 'global', global: kconfig, offset: extern.offset }
    : { kind: 'ksym', extern: extern.extern };
}

/** What a ld_imm64 loads: told by the section of its symbol; what stands in the immediate is added. */
function loadedSymbol(
  { sections, functions, maps, globals, globalOfSection }: Definitions,
  place: Place,
  { symbol }: ElfReloc,
  slot: BpfInsn,
): SourceReferent {
  const name = shown(symbol.name === '' ? `symbol ${symbol.index}` : symbol.name);
  if (typeof symbol.section !== 'number')
    return place.fail(`loads the address of ${name}, which lies in no section`);
  const offset = Number(symbol.value) + slot.imm;
  if (symbol.section === sections.maps?.index) {
    const map = maps.byOffset.get(offset);
    return map === undefined
      ? place.fail(`loads the address of ${name}, where no map begins`)
      : { kind: 'map', map };
  }
  if (symbol.section === sections.textIndex) {
    const callee = functions.startingAt(symbol.section, offset / BPF_INSN_BYTES);
    if (callee === undefined)
      return place.fail(`loads the address 0x${offset.toString(16)} of .text, where no function begins`);
    return { kind: 'subprog-addr', callee };
  }
  const global = globalOfSection.get(symbol.section);
  const data = globals[global ?? -1];
  if (global === undefined || data === undefined) {
    const where = shown(sections.elf.sections[symbol.section]?.name ?? '');
    return place.fail(`loads the address of ${name} in section ${where}, which programs cannot reach`);
  }
  if (offset < 0 || offset >= data.sizeBytes) {
    place.fail(
      `loads the address of offset ${offset} of ${shown(data.section)}, which has ${data.sizeBytes} bytes`,
    );
  }
  return { kind: 'global', global, offset };
}

/** The subprogram that a relocated call reaches: in slots, as for any call, the imm counts from the next one. */
function calledSubprog(
  { sections, functions }: Definitions,
  place: Place,
  { symbol }: ElfReloc,
  { src, imm }: BpfInsn,
): SourceFunction {
  if (src !== BPF_PSEUDO_CALL) place.fail('is a relocated call of a helper');
  if (symbol.section !== sections.textIndex || sections.textIndex === 0) {
    place.fail(
      `calls ${shown(symbol.name)} outside .text: a program can call only subprograms, which have no SEC() of their own`,
    );
  }
  const slot = Number(symbol.value) / BPF_INSN_BYTES + imm + 1;
  return (
    functions.startingAt(sections.textIndex, slot) ??
    place.fail(`calls slot ${slot} of .text, where no function begins`)
  );
}

/** Calls from one function of `.text` to another are complete already: the compiler knew the distance. */
function addLocalCalls(
  definitions: Definitions,
  from: SourceFunction,
  references: Map<number, SourceReference>,
): void {
  for (const [insn, slot] of from.insns.entries()) {
    if (!isCall(slot) || slot.src !== BPF_PSEUDO_CALL || references.has(insn)) continue;
    const target = from.start + insn + slot.imm + 1;
    const where = from.isSubprog
      ? 'where no function begins'
      : 'in a section of programs, not of subprograms';
    const callee =
      (from.isSubprog ? definitions.functions.startingAt(from.section.index, target) : undefined) ??
      new Place(definitions, from, insn).fail(
        `calls slot ${target} of ${shown(from.section.name)}, ${where}`,
      );
    references.set(insn, { insn, kind: 'subprog-call', callee });
  }
}

/**
 * The slots of a referring instruction as a loader expects them (the table at `BpfReference`).
 *
 * @param distance for subprograms: slots from the one behind the instruction to the callee
 */
export function markedSlots(
  reference: SourceReference,
  first: BpfInsn,
  externs: Externs,
  distance: number,
): Pick<BpfInsn, 'src' | 'imm'> & { readonly second?: number } {
  switch (reference.kind) {
    case 'map':
      return { src: BPF_PSEUDO_MAP_FD, imm: reference.map, second: 0 };
    case 'global':
      return { src: BPF_PSEUDO_MAP_VALUE, imm: reference.global, second: reference.offset };
    case 'ksym': {
      const typed = externs.ksyms[reference.extern]?.type !== undefined;
      return { src: typed ? BPF_PSEUDO_BTF_ID : 0, imm: 0, second: 0 };
    }
    case 'kfunc-call':
      return { src: BPF_PSEUDO_KFUNC_CALL, imm: reference.extern };
    case 'subprog-call':
      return { src: first.src, imm: distance };
    case 'subprog-addr':
      return { src: BPF_PSEUDO_FUNC, imm: distance, second: 0 };
  }
}
