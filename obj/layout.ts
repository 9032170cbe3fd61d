import { InputError, type Kaddr } from '../lib/index.ts';
import { type ElfObject, type ElfSection, type ElfSymbol, SectionFlag, SectionType } from './elf.ts';
import { RELOC_FORMS } from './reloc.ts';
import { shown } from './text.ts';

/*
 * Which parts of a file go into memory, together, under which protection. Objects are grouped as
 * the kernel groups a module's sections; an image keeps the segments its linker made.
 */

/** text is r-x, rodata r--, data and bss rw-. */
export type GroupKind = 'text' | 'rodata' | 'data' | 'bss';

/** Where one section lies in its group. */
export interface PlacedSection {
  readonly section: ElfSection;
  /** Bytes from the start of the group. */
  readonly offset: number;
}

/** Memory of one protection, to be allocated as a whole. */
export interface LayoutGroup {
  readonly kind: GroupKind;
  /** The address an image insists on; undefined when the caller chooses. */
  readonly fixed: Kaddr | undefined;
  /** Greater than 0. */
  readonly sizeBytes: number;
  /** A power of two. */
  readonly alignBytes: number;
  /** In address order. For an image these are the sections its segment covers. */
  readonly sections: readonly PlacedSection[];
}

export interface ObjectLayout {
  readonly object: ElfObject;
  /** Only groups that have bytes. For an object at most one of each kind, in the order of {@link GroupKind}. */
  readonly groups: readonly LayoutGroup[];
  /** Offset in the bss group of each common symbol, by symbol index. */
  readonly commons: ReadonlyMap<number, number>;
  /** Offset in the rodata group of each global offset table slot (8 bytes), by symbol index. */
  readonly gotSlots: ReadonlyMap<number, number>;
}

/** Sections that list trace sites: read (sites.ts), not loaded from an object. */
export const SITE_TABLES: readonly string[] = ['__mcount_loc', '__patchable_function_entries'];

/** Largest group that is laid out: far above any real target, far below what would hurt the host. */
const MAX_GROUP_BYTES = 64 * 1024 * 1024;
const PAGE_BYTES = 4096n;

/**
 * Lays out what a file wants in memory.
 *
 * @throws InputError for thread-local or writable executable sections, groups over 64 MiB, and
 *   images whose segments overlap or share a page under different protections
 */
export function layoutObject(object: ElfObject): ObjectLayout {
  return object.type === 'rel' ? layoutSections(object) : layoutSegments(object);
}

/** A group that is still growing. */
interface OpenGroup {
  readonly kind: GroupKind;
  sizeBytes: number;
  alignBytes: number;
  readonly sections: PlacedSection[];
}

function layoutSections(object: ElfObject): ObjectLayout {
  const open = (kind: GroupKind): OpenGroup => ({ kind, sizeBytes: 0, alignBytes: 1, sections: [] });
  const groups = { text: open('text'), rodata: open('rodata'), data: open('data'), bss: open('bss') };

  for (const section of object.sections) {
    const kind = groupOf(object, section);
    if (kind === undefined) continue;
    const group = groups[kind];
    const offset = reserve(
      object,
      group,
      section.sizeBytes,
      section.alignBytes,
      `section ${shown(section.name)}`,
    );
    group.sections.push({ section, offset });
  }

  const commons = new Map<number, number>();
  for (const symbol of object.symbols) {
    if (symbol.section !== 'common') continue;
    const what = `common symbol ${shown(symbol.name)}`;
    commons.set(
      symbol.index,
      reserve(object, groups.bss, symbol.sizeBytes, commonAlign(object, symbol), what),
    );
  }

  const gotSlots = new Map<number, number>();
  for (const { section } of Object.values(groups).flatMap((group) => group.sections)) {
    for (const { type, symbol } of object.relocations.get(section.index) ?? []) {
      if (RELOC_FORMS.get(type)?.usesGot !== true || gotSlots.has(symbol.index)) continue;
      gotSlots.set(symbol.index, reserve(object, groups.rodata, 8, 8, 'the global offset table'));
    }
  }

  const filled = Object.values(groups).filter((group) => group.sizeBytes > 0);
  return { object, groups: filled.map((group) => ({ ...group, fixed: undefined })), commons, gotSlots };
}

/** Takes `sizeBytes` at the end of a group; gives their offset. */
function reserve(
  object: ElfObject,
  group: OpenGroup,
  sizeBytes: number,
  alignBytes: number,
  what: string,
): number {
  const offset = Math.ceil(group.sizeBytes / alignBytes) * alignBytes;
  if (offset + sizeBytes > MAX_GROUP_BYTES) {
    throw new InputError(
      object.file,
      undefined,
      `${what} (0x${sizeBytes.toString(16)} bytes) makes ${group.kind} larger than 64 MiB, the most that is loaded`,
    );
  }
  group.sizeBytes = offset + sizeBytes;
  group.alignBytes = Math.max(group.alignBytes, alignBytes);
  return offset;
}

/** The group of a section of an object, or undefined when it is not loaded. */
function groupOf(object: ElfObject, { name, type, flags }: ElfSection): GroupKind | undefined {
  // Nobody unwinds and nobody reads notes here, and the kernel's linker scripts discard both as well.
  if ((flags & SectionFlag.ALLOC) === 0 || name.startsWith('.note') || name === '.eh_frame') return undefined;
  if (SITE_TABLES.includes(name)) return undefined;
  if ((flags & SectionFlag.TLS) !== 0) {
    throw new InputError(
      object.file,
      undefined,
      `section ${shown(name)} is thread-local; kernel code has no TLS`,
    );
  }
  const write = (flags & SectionFlag.WRITE) !== 0;
  if ((flags & SectionFlag.EXECINSTR) !== 0) {
    if (write || type === SectionType.NOBITS) {
      const what = write ? 'writable and executable' : 'executable and without contents';
      throw new InputError(
        object.file,
        undefined,
        `section ${shown(name)} is ${what}; text is read-only code`,
      );
    }
    return 'text';
  }
  if (type === SectionType.NOBITS) return 'bss';
  return write ? 'data' : 'rodata';
}

function commonAlign(object: ElfObject, symbol: ElfSymbol): number {
  const { value } = symbol;
  if (value === 0n || value > PAGE_BYTES || (value & (value - 1n)) !== 0n) {
    throw new InputError(
      object.file,
      undefined,
      `common symbol ${shown(symbol.name)} asks for the alignment 0x${value.toString(16)}; expected a power of two up to 4096`,
    );
  }
  return Number(value);
}

/** A group whose address is not the caller's to choose. */
type ImageGroup = LayoutGroup & { readonly fixed: Kaddr };

function layoutSegments(object: ElfObject): ObjectLayout {
  const groups = object.segments
    .filter((segment) => segment.sizeBytes > 0)
    .map(({ address, sizeBytes, write, execute }): ImageGroup => {
      const where = `the segment at 0x${address.toString(16)}`;
      if (write && execute) {
        throw new InputError(object.file, undefined, `${where} is writable and executable: link without -N`);
      }
      if (sizeBytes > MAX_GROUP_BYTES) {
        throw new InputError(
          object.file,
          undefined,
          `${where} is larger than 64 MiB, the most that is loaded`,
        );
      }
      return {
        kind: execute ? 'text' : write ? 'data' : 'rodata',
        fixed: address,
        sizeBytes,
        alignBytes: 1,
        sections: sectionsWithin(object, address, sizeBytes),
      };
    })
    .sort((a, b) => (a.fixed < b.fixed ? -1 : 1));
  if (groups.length === 0) throw new InputError(object.file, undefined, 'no segment to load (PT_LOAD)');
  refuseSharedPages(object, groups);
  return { object, groups, commons: new Map(), gotSlots: new Map() };
}

function sectionsWithin(object: ElfObject, address: Kaddr, sizeBytes: number): PlacedSection[] {
  return object.sections
    .filter(
      (section) =>
        (section.flags & SectionFlag.ALLOC) !== 0 &&
        section.address >= address &&
        section.address - address + BigInt(section.sizeBytes) <= BigInt(sizeBytes),
    )
    .map((section) => ({ section, offset: Number(section.address - address) }))
    .sort((a, b) => a.offset - b.offset);
}

/** Two segments may touch one page only under one protection: a page has but one. */
function refuseSharedPages(object: ElfObject, groups: readonly ImageGroup[]): void {
  let last: { kind: GroupKind; from: bigint; end: bigint } | undefined;
  for (const { kind, fixed: from, sizeBytes } of groups) {
    if (last !== undefined) {
      const samePage = from / PAGE_BYTES === (last.end - 1n) / PAGE_BYTES;
      if (from < last.end || (samePage && kind !== last.kind)) {
        throw new InputError(
          object.file,
          undefined,
          `the segments at 0x${last.from.toString(16)} and 0x${from.toString(16)} share ` +
            `${from < last.end ? 'memory' : 'a page under different protections: link with -z separate-code'}`,
        );
      }
    }
    last = { kind, from, end: from + BigInt(sizeBytes) };
  }
}
