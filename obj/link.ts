import { addrAdd, Bug, InputError, type Kaddr, kaddr } from '../lib/index.ts';
import type { ElfObject, ElfReloc, ElfSection, ElfSymbol } from './elf.ts';
import { type LayoutGroup, type ObjectLayout, SITE_TABLES } from './layout.ts';
import type { FentryCall, LinkedGroup, LinkedObject, LinkedSymbol, SiteRecord } from './linked.ts';
import { RELOC_64, RELOC_FORMS, RELOC_NONE, type RelocForm, relocFits, relocName } from './reloc.ts';
import { shown } from './text.ts';

/*
 * From a layout and the addresses its groups were given to bytes that can run. Two phases, so that
 * the caller allocates between them:
 *
 *   parseElf -> layoutObject -> (caller allocates each group) -> linkObject -> (caller writes bytes)
 */

/**
 * The profiling hook that `-pg -mfentry` calls at function entry. A call of it may stay unresolved:
 * the loader turns every such call into a nop.
 */
export const FENTRY = '__fentry__';

/**
 * Gives every section its bytes and applies the relocations.
 *
 * @param place the address of each group, aligned to its `alignBytes`; not asked for a group of an
 *   image (`fixed`)
 * @param resolve the address of a symbol that the object leaves undefined. Undefined means unknown;
 *   an unknown weak symbol is 0, as in ELF, and an unknown `__fentry__` is let pass
 * @throws InputError naming all undefined symbols at once; or a relocation, its place and its symbol,
 *   when its type is unknown or its value does not fit
 */
export function linkObject(
  layout: ObjectLayout,
  place: (group: LayoutGroup) => Kaddr,
  resolve: (name: string) => Kaddr | undefined,
): LinkedObject {
  const groups = layout.groups.map((group) => placeGroup(layout.object, group, place));
  const linker = new Linker(layout, groups, resolve);
  linker.refuseUndefined();
  const fentryCalls = linker.relocateGroups();
  linker.fillGot();
  const symbols = linker.definedSymbols();
  return {
    object: layout.object,
    groups: groups.map(({ layout: _, ...group }) => group),
    symbols,
    functions: symbols.filter((symbol) => symbol.type === 'func' && symbol.sizeBytes > 0),
    siteRecords: linker.siteRecords(),
    fentryCalls,
  };
}

/** A group with its address and unrelocated bytes. */
interface PlacedGroup extends LinkedGroup {
  readonly layout: LayoutGroup;
}

/** The byte between functions, as the kernel pads: running into it is an int3. */
const TEXT_PADDING = 0xcc;

function placeGroup(
  object: ElfObject,
  layout: LayoutGroup,
  place: (group: LayoutGroup) => Kaddr,
): PlacedGroup {
  const address = layout.fixed ?? place(layout);
  if (address % BigInt(layout.alignBytes) !== 0n) {
    throw new Bug(
      `the ${layout.kind} group was placed at 0x${address.toString(16)}, alignment ${layout.alignBytes}`,
    );
  }
  const { kind, sizeBytes, alignBytes } = layout;
  return { kind, address, sizeBytes, alignBytes, bytes: firstContents(object, layout), layout };
}

/** The bytes of a group before relocation, a copy. */
function firstContents(object: ElfObject, { kind, fixed, sizeBytes, sections }: LayoutGroup): Uint8Array {
  if (fixed !== undefined) {
    const segment = object.segments.find(({ address, sizeBytes: size }) => address === fixed && size > 0);
    return segment === undefined ? new Uint8Array() : segment.data.slice();
  }
  if (kind === 'bss') return new Uint8Array();
  const bytes = new Uint8Array(sizeBytes);
  if (kind === 'text') bytes.fill(TEXT_PADDING);
  for (const { section, offset } of sections) bytes.set(section.data, offset);
  return bytes;
}

/** One link of one object: where its sections are, and what its symbols are worth. */
class Linker {
  readonly #object: ElfObject;
  readonly #layout: ObjectLayout;
  readonly #groups: readonly PlacedGroup[];
  readonly #resolve: (name: string) => Kaddr | undefined;
  /** Address of each loaded section, by section index. */
  readonly #sections: ReadonlyMap<number, Kaddr>;

  constructor(
    layout: ObjectLayout,
    groups: readonly PlacedGroup[],
    resolve: (name: string) => Kaddr | undefined,
  ) {
    this.#object = layout.object;
    this.#layout = layout;
    this.#groups = groups;
    this.#resolve = resolve;
    this.#sections = new Map(
      groups.flatMap((group) =>
        group.layout.sections.map(
          ({ section, offset }) => [section.index, addrAdd(group.address, offset)] as const,
        ),
      ),
    );
  }

  /** Every undefined symbol that is used and cannot be resolved, in one error. */
  refuseUndefined(): void {
    const names = new Set<string>();
    for (const { section, reloc } of this.#loadedRelocations()) {
      if (reloc.symbol.section !== 'undef' || isFentryCall(section, reloc)) continue;
      if (this.#addressOf(reloc.symbol) === undefined) names.add(shown(reloc.symbol.name));
    }
    if (names.size === 0) return;
    throw new InputError(
      this.#object.file,
      undefined,
      `undefined symbol${names.size === 1 ? '' : 's'} ${[...names].sort().join(', ')}: load first what defines ` +
        `${names.size === 1 ? 'it' : 'them'}${adviceOn(names)}`,
    );
  }

  /** Applies all relocations of loaded sections; gives the calls of `__fentry__` it met. */
  relocateGroups(): FentryCall[] {
    const fentryCalls: FentryCall[] = [];
    for (const { group, section, sectionOffset, reloc } of this.#loadedRelocations()) {
      const form = this.#formOf(section, reloc);
      if (form === undefined) continue;
      const offset = sectionOffset + reloc.offset;
      const place = addrAdd(group.address, offset);
      if (isFentryCall(section, reloc)) {
        fentryCalls.push({ displacement: place, throughGot: form.usesGot });
        if (this.#addressOf(reloc.symbol) === undefined) continue;
      }
      this.#apply(form, section, reloc, place, group.bytes, offset);
    }
    return fentryCalls;
  }

  /** Writes the addresses into the global offset table. */
  fillGot(): void {
    const rodata = this.#groups.find((group) => group.kind === 'rodata');
    if (rodata === undefined) return;
    const view = new DataView(rodata.bytes.buffer);
    for (const [index, offset] of this.#layout.gotSlots) {
      const symbol = this.#object.symbols[index];
      view.setBigUint64(offset, (symbol && this.#addressOf(symbol)) ?? 0n, true);
    }
  }

  definedSymbols(): LinkedSymbol[] {
    const symbols: LinkedSymbol[] = [];
    for (const symbol of this.#object.symbols) {
      const { name, sizeBytes, binding, type, section } = symbol;
      if (name === '' || section === 'undef' || type === 'file' || type === 'section') continue;
      const address = this.#addressOf(symbol);
      if (address !== undefined) symbols.push({ name, address, sizeBytes, binding, type });
    }
    return symbols.sort(byAddress);
  }

  /** The records of the site tables, relocated; a zero is no record (the kernel skips it as well). */
  siteRecords(): SiteRecord[] {
    const records: SiteRecord[] = [];
    for (const section of this.#object.sections) {
      if (!SITE_TABLES.includes(section.name)) continue;
      const { data, name } = section;
      if (data.length % 8 !== 0) {
        const message = `${name} is ${data.length} bytes; its records are 8 bytes each`;
        throw new InputError(this.#object.file, section.fileOffset, message);
      }
      const bytes = data.slice();
      for (const reloc of this.#object.relocations.get(section.index) ?? []) {
        const form = this.#formOf(section, reloc);
        if (form === undefined) continue;
        if (reloc.type !== RELOC_64) {
          throw this.#error(section, reloc, 'a table of trace sites holds only addresses (R_X86_64_64)');
        }
        this.#apply(form, section, reloc, kaddr(0), bytes, reloc.offset);
      }
      const view = new DataView(bytes.buffer);
      for (let offset = 0; offset < bytes.length; offset += 8) {
        const address = kaddr(view.getBigUint64(offset, true));
        if (address !== 0n) records.push({ table: name, offset, address });
      }
    }
    return records;
  }

  *#loadedRelocations(): Generator<{
    group: PlacedGroup;
    section: ElfSection;
    sectionOffset: number;
    reloc: ElfReloc;
  }> {
    for (const group of this.#groups) {
      for (const { section, offset: sectionOffset } of group.layout.sections) {
        for (const reloc of this.#object.relocations.get(section.index) ?? []) {
          yield { group, section, sectionOffset, reloc };
        }
      }
    }
  }

  /** The form of a relocation, once it is known to lie within its section; undefined for R_X86_64_NONE. */
  #formOf(section: ElfSection, reloc: ElfReloc): RelocForm | undefined {
    if (reloc.type === RELOC_NONE) return undefined;
    const form = RELOC_FORMS.get(reloc.type);
    if (form === undefined) {
      throw this.#error(
        section,
        reloc,
        'not used by kernel-style code: compile with -mcmodel=kernel -fno-pic',
      );
    }
    if (reloc.offset + form.widthBytes > section.data.length) {
      const size = `0x${section.data.length.toString(16)}`;
      throw this.#error(section, reloc, `its ${form.widthBytes} bytes are not within the section's ${size}`);
    }
    return form;
  }

  #apply(
    form: RelocForm,
    section: ElfSection,
    reloc: ElfReloc,
    place: Kaddr,
    bytes: Uint8Array,
    offset: number,
  ): void {
    const symbol = this.#addressOf(reloc.symbol);
    if (symbol === undefined && reloc.symbol.name !== FENTRY) {
      throw this.#error(section, reloc, 'the symbol is not in a section that is loaded');
    }
    const slot = this.#slotOf(reloc.symbol);
    const value = form.value({ symbol: symbol ?? 0n, addend: reloc.addend, place, slot });
    if (!relocFits(form, value)) {
      const meant = form.fit === 'signed' ? BigInt.asIntN(64, value) : BigInt.asUintN(64, value);
      const why = `the value ${signedHex(meant)} does not fit ${form.widthBytes} bytes (${form.fit})`;
      throw this.#error(section, reloc, why);
    }
    const view = new DataView(bytes.buffer);
    if (form.widthBytes === 8) view.setBigUint64(offset, BigInt.asUintN(64, value), true);
    else view.setUint32(offset, Number(BigInt.asUintN(32, value)), true);
  }

  #slotOf(symbol: ElfSymbol): bigint {
    const offset = this.#layout.gotSlots.get(symbol.index);
    const rodata = this.#groups.find((group) => group.kind === 'rodata');
    return offset === undefined || rodata === undefined ? 0n : addrAdd(rodata.address, offset);
  }

  /** What a symbol is worth, or undefined when nobody knows. */
  #addressOf(symbol: ElfSymbol): Kaddr | undefined {
    // The null symbol stands for "no symbol": zero.
    if (symbol.index === 0) return kaddr(0);
    if (symbol.type === 'tls' || symbol.type === 'ifunc') {
      const what = symbol.type === 'tls' ? 'thread-local' : 'an indirect function';
      throw new InputError(
        this.#object.file,
        undefined,
        `symbol ${shown(symbol.name)} is ${what}; kernel code has none`,
      );
    }
    switch (symbol.section) {
      case 'undef':
        return this.#resolve(symbol.name) ?? (symbol.binding === 'weak' ? kaddr(0) : undefined);
      case 'abs':
        return kaddr(symbol.value);
      case 'common': {
        const bss = this.#groups.find((group) => group.kind === 'bss');
        return bss && addrAdd(bss.address, this.#layout.commons.get(symbol.index) ?? 0);
      }
      default: {
        if (this.#object.type === 'exec') return kaddr(symbol.value);
        const base = this.#sections.get(symbol.section);
        return base && kaddr(base + symbol.value);
      }
    }
  }

  #error(section: ElfSection, { offset, type, symbol, addend }: ElfReloc, why: string): InputError {
    const name = symbol.name === '' ? `symbol ${symbol.index}` : shown(symbol.name);
    const plus = `${addend < 0n ? '' : '+'}${signedHex(addend)}`;
    return new InputError(
      this.#object.file,
      `${shown(section.name)}+0x${offset.toString(16)}`,
      `${relocName(type)} against ${name}${plus}: ${why}`,
    );
  }
}

function signedHex(value: bigint): string {
  return value < 0n ? `-0x${(-value).toString(16)}` : `0x${value.toString(16)}`;
}

function byAddress(a: LinkedSymbol, b: LinkedSymbol): number {
  if (a.address !== b.address) return a.address < b.address ? -1 : 1;
  return Number(a.binding === 'local') - Number(b.binding === 'local');
}

/** Whether a relocation is the displacement of `call __fentry__` (e8) or of the call through the GOT (ff 15). */
function isFentryCall({ data }: ElfSection, { symbol, type, offset }: ElfReloc): boolean {
  if (symbol.name !== FENTRY) return false;
  const form = RELOC_FORMS.get(type);
  if (form?.usesGot === true) return data[offset - 2] === 0xff && data[offset - 1] === 0x15;
  return (form?.name === 'R_X86_64_PLT32' || form?.name === 'R_X86_64_PC32') && data[offset - 1] === 0xe8;
}

/** Symbols that no file defines but that a compiler was asked to use, and how not to ask it. */
const ADVICE: readonly (readonly [RegExp, string])[] = [
  [/^__stack_chk_/, '-fno-stack-protector'],
  [/^__fentry__$/, '-mcmodel=kernel'],
  [/^__x86_(indirect|return)_thunk/, '-mindirect-branch=keep -mfunction-return=keep'],
  [/^__(ubsan|asan)_/, '-fno-sanitize=all'],
];

function adviceOn(names: ReadonlySet<string>): string {
  const flags = ADVICE.filter(([pattern]) => [...names].some((name) => pattern.test(name))).map(
    ([, flag]) => flag,
  );
  return flags.length === 0 ? '' : `, or compile with ${flags.join(' ')}`;
}
