import { InputError } from '../lib/index.ts';
import {
  type Btf,
  type ElfObject,
  type ElfSection,
  findSection,
  parseBtf,
  SectionFlag,
  SectionType,
  shown,
} from '../obj/index.ts';
import { BtfExt, parseBtfExt } from './btf-ext.ts';

/*
 * What each section of an eBPF object is for. libbpf: bpf_object__elf_collect.
 */

/** A section by its part in the object. */
export interface BpfSections {
  readonly elf: ElfObject;
  /** With programs or subprograms. */
  readonly code: readonly ElfSection[];
  /** Index of `.text`, where subprograms live; 0 when there is none. */
  readonly textIndex: number;
  /** Sections of variables. */
  readonly data: readonly DataSection[];
  readonly maps: ElfSection | undefined;
  readonly license: string;
  readonly btf: Btf | undefined;
  readonly ext: BtfExt;
  readonly notes: readonly string[];
}

export interface DataSection {
  readonly section: ElfSection;
  readonly kind: 'data' | 'bss' | 'rodata';
}

/** Relocations of eBPF. LLVM: BPF.def. */
export const R_BPF_64_64 = 1;
export const R_BPF_64_ABS64 = 2;
export const R_BPF_64_ABS32 = 3;
export const R_BPF_64_NODYLD32 = 4;
export const R_BPF_64_32 = 10;

const RELOC_NAMES: Readonly<Record<number, string>> = {
  0: 'R_BPF_NONE',
  [R_BPF_64_64]: 'R_BPF_64_64',
  [R_BPF_64_ABS64]: 'R_BPF_64_ABS64',
  [R_BPF_64_ABS32]: 'R_BPF_64_ABS32',
  [R_BPF_64_NODYLD32]: 'R_BPF_64_NODYLD32',
  [R_BPF_64_32]: 'R_BPF_64_32',
};

export const relocName = (type: number): string => RELOC_NAMES[type] ?? `relocation type ${type}`;

/** Largest section of variables; far above what programs have, far below what would hurt the host. */
const MAX_DATA_BYTES = 64 * 1024 * 1024;
/** libbpf keeps this much of a license. */
const MAX_LICENSE_BYTES = 63;

/**
 * Sorts an object's sections, and reads those that describe the others.
 *
 * @throws InputError for legacy maps, sections of variables over 64 MiB, and damaged BTF
 */
export function sortSections(elf: ElfObject): BpfSections {
  if (elf.type !== 'rel') {
    throw new InputError(elf.file, undefined, 'an executable: give the object that clang -c makes');
  }
  const notes: string[] = [];
  const code: ElfSection[] = [];
  const data: DataSection[] = [];
  for (const section of elf.sections) {
    if (section.type === SectionType.PROGBITS && (section.flags & SectionFlag.EXECINSTR) !== 0) {
      if (section.data.length > 0) code.push(section);
    } else {
      const kind = dataKind(section);
      if (kind !== undefined && section.sizeBytes > 0) data.push({ section, kind });
    }
    if (section.name === 'maps' || section.name.startsWith('maps/')) refuseLegacyMaps(elf, section);
    if (section.name === '.struct_ops' || section.name === '.struct_ops.link') {
      notes.push(`section ${section.name}: no struct_ops map is made of it`);
    }
  }
  for (const { section } of data) refuseLarge(elf, section);
  const maps = findSection(elf, '.maps');
  const btfSection = findSection(elf, '.BTF');
  const btf = btfSection && parseBtf(relocatedBtf(elf, btfSection), `${elf.file} (${btfSection.name})`);
  if (btf === undefined && maps !== undefined) {
    throw new InputError(
      elf.file,
      maps.fileOffset,
      'maps without BTF, which says what they are: compile with -g',
    );
  }
  const ext = findSection(elf, '.BTF.ext');
  return {
    elf,
    code,
    textIndex: code.find(({ name }) => name === '.text')?.index ?? 0,
    data,
    maps,
    license: licenseText(findSection(elf, 'license')),
    btf,
    ext:
      btf === undefined || ext === undefined
        ? new BtfExt(new Map())
        : parseBtfExt(relocatedBtf(elf, ext), btf, `${elf.file} (.BTF.ext)`),
    notes,
  };
}

function dataKind({ name, type, flags }: ElfSection): DataSection['kind'] | undefined {
  const is = (base: string): boolean => name === base || name.startsWith(`${base}.`);
  if (type === SectionType.NOBITS) return is('.bss') ? 'bss' : undefined;
  if (type !== SectionType.PROGBITS || (flags & SectionFlag.ALLOC) === 0) return undefined;
  if (is('.data')) return 'data';
  return is('.rodata') ? 'rodata' : undefined;
}

function refuseLegacyMaps(elf: ElfObject, section: ElfSection): never {
  throw new InputError(
    elf.file,
    section.fileOffset,
    `legacy map definitions in section ${shown(section.name)}: define maps in SEC(".maps") with BTF types`,
  );
}

function refuseLarge(elf: ElfObject, { name, sizeBytes, index }: ElfSection): void {
  if (sizeBytes <= MAX_DATA_BYTES) return;
  const size = `0x${sizeBytes.toString(16)}`;
  throw new InputError(
    elf.file,
    undefined,
    `section ${index} (${shown(name)}) has ${size} bytes of variables; at most 64 MiB are taken`,
  );
}

function licenseText(section: ElfSection | undefined): string {
  const bytes = section?.data.subarray(0, MAX_LICENSE_BYTES) ?? new Uint8Array();
  const end = bytes.indexOf(0);
  return new TextDecoder().decode(end < 0 ? bytes : bytes.subarray(0, end));
}

/**
 * The bytes of `.BTF` or `.BTF.ext` as a linker would leave them. The compiler leaves the offsets of
 * variables and instructions open: each is a symbol's value plus what stands there. libbpf looks the
 * variables up by name instead, with the same result.
 */
function relocatedBtf(elf: ElfObject, section: ElfSection): Uint8Array {
  const relocs = elf.relocations.get(section.index) ?? [];
  if (relocs.length === 0) return section.data;
  const bytes = section.data.slice();
  const view = new DataView(bytes.buffer);
  for (const { offset, type, symbol } of relocs) {
    const fail = (message: string): never => {
      throw new InputError(elf.file, section.fileOffset + offset, message);
    };
    if (type !== R_BPF_64_NODYLD32 && type !== R_BPF_64_ABS32) {
      fail(`${relocName(type)} in ${section.name}, where only 32-bit fields are relocated`);
    }
    if (offset + 4 > view.byteLength) fail(`a relocation past the end of ${section.name}`);
    if (symbol.section === 'undef') continue;
    const value = view.getUint32(offset, true) + Number(BigInt.asUintN(32, symbol.value));
    view.setUint32(offset, value >>> 0, true);
  }
  return bytes;
}
