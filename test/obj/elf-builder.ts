/*
 * Writes small ELF64 objects by hand, so that tests can have any relocation, flag or symbol that no
 * compiler would give them on demand.
 */

export interface SectionSpec {
  readonly name: string;
  /** PROGBITS unless said otherwise. */
  readonly type?: number;
  readonly flags?: number;
  readonly align?: number;
  readonly data?: Uint8Array;
  /** For NOBITS. */
  readonly size?: number;
}

export interface SymbolSpec {
  readonly name: string;
  /** Index into the sections given (from 0), or a special place. */
  readonly section: number | 'undef' | 'abs' | 'common';
  readonly value?: bigint;
  readonly size?: number;
  readonly binding?: 'local' | 'global' | 'weak';
  readonly type?: number;
}

export interface RelocSpec {
  /** Index into the sections given. */
  readonly section: number;
  readonly offset: number;
  readonly type: number;
  /** Index into the symbols given; -1 for none. */
  readonly symbol: number;
  readonly addend?: bigint;
}

const SHT = { PROGBITS: 1, SYMTAB: 2, STRTAB: 3, RELA: 4, REL: 9 };
const MACHINES = { 'x86-64': 62, bpf: 247 };
const PLACES = { undef: 0, abs: 0xfff1, common: 0xfff2 };
const BINDINGS = { local: 0, global: 1, weak: 2 };

/**
 * An ET_REL object: the sections in order, then relocations, symbols and names. x86-64 has RELA tables,
 * eBPF has REL tables without addends.
 */
export function buildObject(
  sections: readonly SectionSpec[],
  symbols: readonly SymbolSpec[] = [],
  relocs: readonly RelocSpec[] = [],
  machine: 'x86-64' | 'bpf' = 'x86-64',
): Uint8Array {
  const withAddends = machine === 'x86-64';
  const strings = new Strings();
  const symtab = new Bytes();
  symtab.zero(24);
  for (const symbol of symbols) {
    symtab.u32(strings.add(symbol.name));
    symtab.u8((BINDINGS[symbol.binding ?? 'global'] << 4) | (symbol.type ?? 0));
    symtab.u8(0);
    symtab.u16(typeof symbol.section === 'number' ? symbol.section + 1 : PLACES[symbol.section]);
    symtab.u64(symbol.value ?? 0n);
    symtab.u64(BigInt(symbol.size ?? 0));
  }

  const relocated = [...new Set(relocs.map((reloc) => reloc.section))];
  const symtabIndex = 1 + sections.length + relocated.length;
  const headers: { spec: SectionSpec; link?: number; info?: number; entry?: number }[] = sections.map(
    (spec) => ({
      spec,
    }),
  );
  for (const section of relocated) {
    const rela = new Bytes();
    for (const reloc of relocs.filter((one) => one.section === section)) {
      rela.u64(BigInt(reloc.offset));
      rela.u32(reloc.type);
      rela.u32(reloc.symbol + 1);
      if (withAddends) rela.u64(BigInt.asUintN(64, reloc.addend ?? 0n));
    }
    const name = `.rel${withAddends ? 'a' : ''}${sections[section]?.name ?? ''}`;
    headers.push({
      spec: { name, type: withAddends ? SHT.RELA : SHT.REL, data: rela.done() },
      link: symtabIndex,
      info: section + 1,
      entry: withAddends ? 24 : 16,
    });
  }
  headers.push({
    spec: { name: '.symtab', type: SHT.SYMTAB, data: symtab.done() },
    link: symtabIndex + 1,
    entry: 24,
  });
  headers.push({ spec: { name: '.strtab', type: SHT.STRTAB, data: strings.done() } });
  const names = new Strings();
  const nameOffsets = headers.map(({ spec }) => names.add(spec.name));
  const shstrtabName = names.add('.shstrtab');
  headers.push({ spec: { name: '.shstrtab', type: SHT.STRTAB, data: names.done() } });
  nameOffsets.push(shstrtabName);

  const file = new Bytes();
  file.zero(64);
  const table = new Bytes();
  table.zero(64);
  headers.forEach(({ spec, link, info, entry }, index) => {
    file.zero((16 - (file.length % 16)) % 16);
    const data = spec.data ?? new Uint8Array();
    table.u32(nameOffsets[index] ?? 0);
    table.u32(spec.type ?? SHT.PROGBITS);
    table.u64(BigInt(spec.flags ?? 0));
    table.u64(0n);
    table.u64(BigInt(file.length));
    table.u64(BigInt(spec.size ?? data.length));
    table.u32(link ?? 0);
    table.u32(info ?? 0);
    table.u64(BigInt(spec.align ?? 1));
    table.u64(BigInt(entry ?? 0));
    file.add(data);
  });
  file.zero((8 - (file.length % 8)) % 8);
  const shoff = file.length;
  file.add(table.done());

  const bytes = file.done();
  const header = new Bytes();
  header.add(Uint8Array.of(0x7f, 0x45, 0x4c, 0x46, 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0));
  header.u16(1);
  header.u16(MACHINES[machine]);
  header.u32(1);
  header.u64(0n);
  header.u64(0n);
  header.u64(BigInt(shoff));
  header.u32(0);
  header.u16(64);
  header.u16(0);
  header.u16(0);
  header.u16(64);
  header.u16(headers.length + 1);
  header.u16(headers.length);
  bytes.set(header.done(), 0);
  return bytes;
}

/** Little-endian fields, one after the other. */
export class Bytes {
  readonly #bytes: number[] = [];

  get length(): number {
    return this.#bytes.length;
  }

  u8(value: number): void {
    this.#bytes.push(value & 0xff);
  }

  u16(value: number): void {
    this.u8(value);
    this.u8(value >>> 8);
  }

  u32(value: number): void {
    this.u16(value);
    this.u16(value >>> 16);
  }

  u64(value: bigint): void {
    this.u32(Number(value & 0xffff_ffffn));
    this.u32(Number(value >> 32n));
  }

  zero(count: number): void {
    for (let i = 0; i < count; i++) this.u8(0);
  }

  add(bytes: Uint8Array): void {
    for (const byte of bytes) this.u8(byte);
  }

  done(): Uint8Array {
    return Uint8Array.from(this.#bytes);
  }
}

/** A string table. */
export class Strings {
  readonly #bytes = new Bytes();

  constructor() {
    this.#bytes.u8(0);
  }

  add(name: string): number {
    if (name === '') return 0;
    const at = this.#bytes.length;
    this.#bytes.add(new TextEncoder().encode(name));
    this.#bytes.u8(0);
    return at;
  }

  done(): Uint8Array {
    return this.#bytes.done();
  }
}
