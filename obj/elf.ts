import { type Kaddr, kaddr } from '../lib/index.ts';
import { ByteReader, StringTable } from './reader.ts';
import { shown } from './text.ts';

/*
 * ELF64 little-endian, as far as a compiler's objects and static images need it. A reader only: it
 * checks every offset, size, index and name against the file and gives plain data; what is loaded
 * where is decided in link.ts.
 */

/** A machine this reader knows by name. */
export type ElfMachine = 'x86-64' | 'bpf';

/** ET_REL (an object as gcc writes it) or ET_EXEC (an image linked at fixed addresses). */
export type ElfType = 'rel' | 'exec';

/** `sh_type` values that matter here. */
export const SectionType = {
  NULL: 0,
  PROGBITS: 1,
  SYMTAB: 2,
  STRTAB: 3,
  RELA: 4,
  NOBITS: 8,
  REL: 9,
  SYMTAB_SHNDX: 18,
} as const;

/** `sh_flags` bits that matter here. */
export const SectionFlag = { WRITE: 1, ALLOC: 2, EXECINSTR: 4, TLS: 0x400 } as const;

export interface ElfSection {
  /** Position in the section header table; what symbols refer to. */
  readonly index: number;
  readonly name: string;
  /** One of {@link SectionType}, or a value without a name there. */
  readonly type: number;
  /** Bits of {@link SectionFlag}, and others. */
  readonly flags: number;
  /** Where the section lives in an image; 0 in an object. */
  readonly address: Kaddr;
  /** Bytes, a power of two. */
  readonly alignBytes: number;
  /** Bytes in memory. Equals `data.length` except for NOBITS, which has no data. */
  readonly sizeBytes: number;
  /** Offset of `data` in the file. */
  readonly fileOffset: number;
  /** The contents, a view of the file's bytes. */
  readonly data: Uint8Array;
}

/** A section index, or why a symbol has none: not defined here, an absolute value, or a common block. */
export type SymbolPlace = number | 'undef' | 'abs' | 'common';

export interface ElfSymbol {
  readonly index: number;
  readonly name: string;
  /** Object: offset in its section (`common`: alignment). Image: address. */
  readonly value: bigint;
  readonly sizeBytes: number;
  readonly binding: 'local' | 'global' | 'weak';
  readonly type: 'notype' | 'object' | 'func' | 'section' | 'file' | 'common' | 'tls' | 'ifunc';
  readonly section: SymbolPlace;
}

export interface ElfReloc {
  /** Where in the target section, bytes. */
  readonly offset: number;
  /** `R_X86_64_*` (or the other machine's) number. */
  readonly type: number;
  readonly symbol: ElfSymbol;
  /** 0 in a SHT_REL table, as eBPF objects have: there the addend lies in the bytes that are changed. */
  readonly addend: bigint;
}

/** A PT_LOAD program header. */
export interface ElfSegment {
  readonly address: Kaddr;
  /** Bytes in memory; at least `data.length`, the rest is zero. */
  readonly sizeBytes: number;
  readonly read: boolean;
  readonly write: boolean;
  readonly execute: boolean;
  readonly data: Uint8Array;
}

export interface ElfObject {
  /** As its user named it, for messages. */
  readonly file: string;
  readonly type: ElfType;
  readonly machine: ElfMachine;
  /** `e_entry`; 0 in an object. */
  readonly entry: Kaddr;
  /** By section index; `[0]` is the null section. */
  readonly sections: readonly ElfSection[];
  /** By symbol index; `[0]` is the null symbol. Empty when the file is stripped. */
  readonly symbols: readonly ElfSymbol[];
  /**
   * Relocations by index of the section they change: RELA entries of x86-64, REL entries of eBPF. Empty
   * for an image, whose linker applied them.
   */
  readonly relocations: ReadonlyMap<number, readonly ElfReloc[]>;
  /** PT_LOAD only, in file order. Empty for an object. */
  readonly segments: readonly ElfSegment[];
}

const MACHINES: Readonly<Record<number, ElfMachine>> = { 62: 'x86-64', 247: 'bpf' };
const TYPES: Readonly<Record<number, ElfType>> = { 1: 'rel', 2: 'exec' };
const TYPE_HINTS: Readonly<Record<number, string>> = {
  3: 'a shared object or position-independent executable: compile with -fno-pic, or link with -static -no-pie',
  4: 'a core dump',
};
const BINDINGS: Readonly<Record<number, ElfSymbol['binding']>> = {
  0: 'local',
  1: 'global',
  2: 'weak',
  10: 'global',
};
const SYMBOL_TYPES: Readonly<Record<number, ElfSymbol['type']>> = {
  0: 'notype',
  1: 'object',
  2: 'func',
  3: 'section',
  4: 'file',
  5: 'common',
  6: 'tls',
  10: 'ifunc',
};

const EHDR_BYTES = 64;
const SHDR_BYTES = 64;
const PHDR_BYTES = 56;
const SYM_BYTES = 24;
/** The one kind of relocation table that a machine's compilers write. */
const RELOC_TABLES: Readonly<Record<ElfMachine, { name: string; type: number; entryBytes: number }>> = {
  'x86-64': { name: 'SHT_RELA', type: SectionType.RELA, entryBytes: 24 },
  bpf: { name: 'SHT_REL', type: SectionType.REL, entryBytes: 16 },
};
const PT_LOAD = 1;
const PT_INTERP = 3;
const SHN_LORESERVE = 0xff00;
const SHN_ABS = 0xfff1;
const SHN_COMMON = 0xfff2;
/** Alignments beyond a huge page are taken for a damaged header. */
const MAX_ALIGN_BYTES = 2 * 1024 * 1024;

/**
 * Reads an ELF64 little-endian object or static image.
 *
 * @param bytes the whole file; the result keeps views of it, nothing is copied
 * @param file its name, for messages
 * @param machines the machines to accept
 * @throws InputError with the offset and name of the field that is wrong
 */
export function parseElf(
  bytes: Uint8Array,
  file: string,
  machines: readonly ElfMachine[] = ['x86-64'],
): ElfObject {
  const reader = new ByteReader(bytes, file, 'file');
  const { type, machine } = parseIdentity(reader, machines);
  const headers = parseSectionHeaders(reader);
  refuseOverlaps(reader, headers);
  const sections = nameSections(reader, headers);
  const symbols = parseSymbols(reader, headers, sections, type);
  return {
    file,
    type,
    machine,
    entry: kaddr(reader.u64(24, 'e_entry')),
    sections,
    symbols,
    relocations: type === 'rel' ? parseRelocations(reader, headers, sections, symbols, machine) : new Map(),
    segments: type === 'exec' ? parseSegments(reader) : [],
  };
}

/** The first section with this name. */
export function findSection(object: ElfObject, name: string): ElfSection | undefined {
  return object.sections.find((section) => section.name === name);
}

function parseIdentity(
  reader: ByteReader,
  machines: readonly ElfMachine[],
): { type: ElfType; machine: ElfMachine } {
  if (reader.bytes.length < EHDR_BYTES) {
    reader.fail(reader.bytes.length, `no ELF file: shorter than an ELF64 header (${EHDR_BYTES} bytes)`);
  }
  if (reader.u32(0, 'the ELF magic') !== 0x464c457f)
    reader.fail(0, 'no ELF file: it does not begin with 7f 45 4c 46');
  const elfClass = reader.u8(4, 'EI_CLASS');
  if (elfClass !== 2)
    reader.fail(4, `EI_CLASS is ${elfClass}; only 64-bit ELF (2) is read, compile with -m64`);
  const order = reader.u8(5, 'EI_DATA');
  if (order === 2) {
    reader.fail(5, 'EI_DATA is 2, big-endian: compile for a little-endian machine (clang --target=bpfel)');
  }
  if (order !== 1) reader.fail(5, `EI_DATA is ${order}; only little-endian ELF (1) is read`);
  const version = reader.u32(20, 'e_version');
  if (version !== 1) reader.fail(20, `e_version is ${version}; the only version is 1`);

  const machineCode = reader.u16(18, 'e_machine');
  const machine = MACHINES[machineCode];
  if (machine === undefined || !machines.includes(machine)) {
    reader.fail(
      18,
      `e_machine is ${machineCode}${machine ? ` (${machine})` : ''}; expected ${machines.join(' or ')}`,
    );
  }
  const typeCode = reader.u16(16, 'e_type');
  const type = TYPES[typeCode];
  if (type === undefined) {
    const hint = TYPE_HINTS[typeCode];
    reader.fail(
      16,
      `e_type is ${typeCode}${hint ? ` (${hint})` : ''}; expected a relocatable object (1) or a static executable (2)`,
    );
  }
  return { type, machine };
}

/** A section header before the names are known. */
interface SectionHeader {
  readonly at: number;
  readonly nameOffset: number;
  readonly section: Omit<ElfSection, 'name'>;
  readonly link: number;
  readonly info: number;
  readonly entryBytes: number;
}

function parseSectionHeaders(reader: ByteReader): SectionHeader[] {
  const count = reader.u16(60, 'e_shnum');
  if (count === 0)
    reader.fail(60, 'e_shnum is 0: no section headers (or more than 65279, which is not read)');
  const entryBytes = reader.u16(58, 'e_shentsize');
  if (entryBytes !== SHDR_BYTES) reader.fail(58, `e_shentsize is ${entryBytes}; ELF64 has ${SHDR_BYTES}`);
  const start = reader.size(40, 'e_shoff');
  reader.range(start, count * SHDR_BYTES, `the section header table (e_shoff, ${count} entries)`, 40);
  return Array.from({ length: count }, (_, index) =>
    parseSectionHeader(reader, start + index * SHDR_BYTES, index),
  );
}

function parseSectionHeader(reader: ByteReader, at: number, index: number): SectionHeader {
  const of = `of section ${index}`;
  const type = reader.u32(at + 4, `sh_type ${of}`);
  const fileOffset = reader.size(at + 24, `sh_offset ${of}`);
  const sizeBytes = reader.size(at + 32, `sh_size ${of}`);
  const hasData = type !== SectionType.NOBITS && type !== SectionType.NULL;
  const align = reader.u64(at + 48, `sh_addralign ${of}`);
  if (align > MAX_ALIGN_BYTES || (align & (align - 1n)) !== 0n) {
    reader.fail(
      at + 48,
      `sh_addralign ${of} is 0x${align.toString(16)}; expected a power of two up to 2 MiB`,
    );
  }
  return {
    at,
    nameOffset: reader.u32(at, `sh_name ${of}`),
    link: reader.u32(at + 40, `sh_link ${of}`),
    info: reader.u32(at + 44, `sh_info ${of}`),
    entryBytes: reader.size(at + 56, `sh_entsize ${of}`),
    section: {
      index,
      type,
      flags: Number(reader.u64(at + 8, `sh_flags ${of}`) & 0xffff_ffffn),
      address: kaddr(reader.u64(at + 16, `sh_addr ${of}`)),
      alignBytes: Math.max(1, Number(align)),
      sizeBytes,
      fileOffset,
      data: hasData ? reader.range(fileOffset, sizeBytes, `section ${index}`, at + 24) : new Uint8Array(),
    },
  };
}

/**
 * No two sections may share bytes of the file. No toolchain writes such a file, and a hostile one
 * could make a few bytes stand for any number of symbols or relocations.
 */
function refuseOverlaps(reader: ByteReader, headers: readonly SectionHeader[]): void {
  const spans = headers
    .filter(({ section }) => section.data.length > 0)
    .sort((a, b) => a.section.fileOffset - b.section.fileOffset);
  let last: SectionHeader | undefined;
  for (const span of spans) {
    if (last !== undefined && last.section.fileOffset + last.section.data.length > span.section.fileOffset) {
      reader.fail(
        span.at + 24,
        `sections ${last.section.index} and ${span.section.index} share bytes of the file`,
      );
    }
    last = span;
  }
}

function nameSections(reader: ByteReader, headers: readonly SectionHeader[]): ElfSection[] {
  const names = stringTable(reader, headers, reader.u16(62, 'e_shstrndx'), 'e_shstrndx', 62);
  return headers.map(({ section, nameOffset }) => ({
    ...section,
    name: section.index === 0 ? '' : names.name(nameOffset, `the name of section ${section.index}`),
  }));
}

function stringTable(
  reader: ByteReader,
  headers: readonly SectionHeader[],
  index: number,
  field: string,
  at: number,
): StringTable {
  const header = headers[index];
  if (header?.section.type !== SectionType.STRTAB) {
    return reader.fail(at, `${field} is ${index}, which is no string table section`);
  }
  const { data, fileOffset } = header.section;
  return new StringTable(new ByteReader(data, reader.file, 'string table', fileOffset));
}

/** Number of entries of a table section; its size must be a whole number of them. */
function entryCount(reader: ByteReader, header: SectionHeader, name: string, entryBytes: number): number {
  if (header.entryBytes !== entryBytes) {
    reader.fail(
      header.at + 56,
      `sh_entsize of ${shown(name)} is ${header.entryBytes}; expected ${entryBytes}`,
    );
  }
  const { length } = header.section.data;
  if (length % entryBytes !== 0) {
    reader.fail(header.at + 32, `sh_size of ${shown(name)} is ${length}, no multiple of ${entryBytes}`);
  }
  return length / entryBytes;
}

function parseSymbols(
  reader: ByteReader,
  headers: readonly SectionHeader[],
  sections: readonly ElfSection[],
  type: ElfType,
): ElfSymbol[] {
  const tables = headers.filter(({ section }) => section.type === SectionType.SYMTAB);
  const [table, second] = tables;
  if (table === undefined) return [];
  if (second !== undefined) reader.fail(second.at + 4, 'a second symbol table; ELF allows one');
  const count = entryCount(reader, table, '.symtab', SYM_BYTES);
  const names = stringTable(reader, headers, table.link, 'sh_link of .symtab', table.at + 40);
  return Array.from({ length: count }, (_, index) =>
    parseSymbol(reader, table.section.fileOffset + index * SYM_BYTES, index, names, sections, type),
  );
}

function parseSymbol(
  reader: ByteReader,
  at: number,
  index: number,
  names: StringTable,
  sections: readonly ElfSection[],
  elfType: ElfType,
): ElfSymbol {
  const name = names.name(reader.u32(at, 'st_name'), `the name of symbol ${index}`);
  const what = `symbol ${index}${name ? ` (${shown(name)})` : ''}`;
  const info = reader.u8(at + 4, 'st_info');
  const binding = BINDINGS[info >> 4];
  const type = SYMBOL_TYPES[info & 15];
  if (binding === undefined) reader.fail(at + 4, `${what} has the unknown binding ${info >> 4}`);
  if (type === undefined) reader.fail(at + 4, `${what} has the unknown type ${info & 15}`);
  const section = symbolPlace(reader, at + 6, what, sections);
  const value = reader.u64(at + 8, 'st_value');
  const sizeBytes = reader.size(at + 16, 'st_size');
  if (elfType === 'rel' && typeof section === 'number') {
    const limit = BigInt(sections[section]?.sizeBytes ?? 0);
    if (value + BigInt(sizeBytes) > limit) {
      reader.fail(
        at + 8,
        `${what} is 0x${sizeBytes.toString(16)} bytes at 0x${value.toString(16)} of a section of 0x${limit.toString(16)}`,
      );
    }
  }
  return { index, name, value, sizeBytes, binding, type, section };
}

function symbolPlace(
  reader: ByteReader,
  at: number,
  what: string,
  sections: readonly ElfSection[],
): SymbolPlace {
  const index = reader.u16(at, 'st_shndx');
  if (index === 0) return 'undef';
  if (index === SHN_ABS) return 'abs';
  if (index === SHN_COMMON) return 'common';
  if (index >= SHN_LORESERVE || index >= sections.length) {
    reader.fail(at, `${what} is in section ${index} of ${sections.length}`);
  }
  return index;
}

function parseRelocations(
  reader: ByteReader,
  headers: readonly SectionHeader[],
  sections: readonly ElfSection[],
  symbols: readonly ElfSymbol[],
  machine: ElfMachine,
): Map<number, ElfReloc[]> {
  const form = RELOC_TABLES[machine];
  const relocations = new Map<number, ElfReloc[]>();
  for (const header of headers) {
    const { index, type, fileOffset } = header.section;
    if (type !== SectionType.RELA && type !== SectionType.REL) continue;
    const name = sections[index]?.name ?? '';
    if (type !== form.type) {
      const found = type === SectionType.REL ? 'SHT_REL' : 'SHT_RELA';
      reader.fail(
        header.at + 4,
        `${shown(name)} is of type ${found}; ${machine} relocations are ${form.name}`,
      );
    }
    if (header.info === 0 || header.info >= sections.length || header.info === index) {
      reader.fail(
        header.at + 44,
        `sh_info of ${shown(name)} is ${header.info}, which is no section to relocate`,
      );
    }
    if (headers[header.link]?.section.type !== SectionType.SYMTAB) {
      reader.fail(header.at + 40, `sh_link of ${shown(name)} is ${header.link}, which is no symbol table`);
    }
    const list = relocations.get(header.info) ?? [];
    const count = entryCount(reader, header, name, form.entryBytes);
    for (let i = 0; i < count; i++) {
      list.push(parseReloc(reader, fileOffset + i * form.entryBytes, name, symbols, form.entryBytes));
    }
    relocations.set(header.info, list);
  }
  return relocations;
}

function parseReloc(
  reader: ByteReader,
  at: number,
  table: string,
  symbols: readonly ElfSymbol[],
  entryBytes: number,
): ElfReloc {
  const index = reader.u32(at + 12, 'the symbol of r_info');
  const symbol = symbols[index];
  if (symbol === undefined) {
    reader.fail(at + 12, `a relocation of ${shown(table)} names symbol ${index} of ${symbols.length}`);
  }
  return {
    offset: reader.size(at, `r_offset in ${shown(table)}`),
    type: reader.u32(at + 8, 'the type of r_info'),
    symbol,
    addend: entryBytes > 16 ? reader.i64(at + 16, 'r_addend') : 0n,
  };
}

function parseSegments(reader: ByteReader): ElfSegment[] {
  const count = reader.u16(56, 'e_phnum');
  if (count === 0) reader.fail(56, 'e_phnum is 0: an executable without segments');
  const entryBytes = reader.u16(54, 'e_phentsize');
  if (entryBytes !== PHDR_BYTES) reader.fail(54, `e_phentsize is ${entryBytes}; ELF64 has ${PHDR_BYTES}`);
  const start = reader.size(32, 'e_phoff');
  reader.range(start, count * PHDR_BYTES, `the program header table (e_phoff, ${count} entries)`, 32);
  const segments: ElfSegment[] = [];
  for (let index = 0; index < count; index++) {
    const at = start + index * PHDR_BYTES;
    const type = reader.u32(at, 'p_type');
    if (type === PT_INTERP) reader.fail(at, 'a dynamically linked executable (PT_INTERP): link with -static');
    if (type === PT_LOAD) segments.push(parseSegment(reader, at, index));
  }
  return segments;
}

function parseSegment(reader: ByteReader, at: number, index: number): ElfSegment {
  const flags = reader.u32(at + 4, 'p_flags');
  const offset = reader.size(at + 8, `p_offset of segment ${index}`);
  const address = reader.u64(at + 16, `p_vaddr of segment ${index}`);
  const fileBytes = reader.size(at + 32, `p_filesz of segment ${index}`);
  const sizeBytes = reader.size(at + 40, `p_memsz of segment ${index}`);
  if (fileBytes > sizeBytes) reader.fail(at + 32, `p_filesz of segment ${index} is larger than its p_memsz`);
  if (address + BigInt(sizeBytes) > 1n << 64n) {
    reader.fail(at + 16, `segment ${index} reaches past the end of the address space`);
  }
  return {
    address: kaddr(address),
    sizeBytes,
    read: (flags & 4) !== 0,
    write: (flags & 2) !== 0,
    execute: (flags & 1) !== 0,
    data: reader.range(offset, fileBytes, `segment ${index}`, at + 8),
  };
}
