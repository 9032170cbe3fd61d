import { InputError } from '../lib/index.ts';
import { type Btf, ByteReader } from '../obj/index.ts';
import { CORE_KINDS, type CoreKind } from './model.ts';

/*
 * `.BTF.ext`: what the compiler says about instructions, section by section. Three tables:
 *
 *   func_info   instruction -> function type
 *   line_info   instruction -> file, line, column, text
 *   core_relo   instruction -> what of a type it depends on (CO-RE)
 *
 * Each table is a record size, then for each section its name, a count and the records. Records may be
 * longer than what is known of them.
 *
 * Source: Documentation/bpf/btf.rst and llvm_reloc.rst.
 */

/** The record of a function; instructions count from the start of the section, in slots. */
export interface ExtFunc {
  readonly insn: number;
  readonly type: number;
}

export interface ExtLine {
  readonly insn: number;
  readonly file: string;
  readonly line: number;
  readonly column: number;
  readonly text: string;
}

export interface ExtCore {
  readonly insn: number;
  readonly type: number;
  readonly access: string;
  readonly kind: CoreKind;
}

/** All records of one section, by instruction. */
export interface ExtSection {
  readonly funcs: readonly ExtFunc[];
  readonly lines: readonly ExtLine[];
  readonly cores: readonly ExtCore[];
}

const NOTHING: ExtSection = { funcs: [], lines: [], cores: [] };

/** The contents of `.BTF.ext`. */
export class BtfExt {
  readonly #sections: ReadonlyMap<string, ExtSection>;

  constructor(sections: ReadonlyMap<string, ExtSection>) {
    this.#sections = sections;
  }

  section(name: string): ExtSection {
    return this.#sections.get(name) ?? NOTHING;
  }
}

/** Longest access string, path and source line that are kept; a longer line is cut. */
const MAX_TEXT = 512;
/** Text taken over from one object, in total: no source has that much, and shared tails could claim to. */
const MAX_ALL_TEXT = 16 * 1024 * 1024;
const HEADER_BYTES = 24;
const HEADER_WITH_CORE_BYTES = 32;
const SLOT_BYTES = 8;

/**
 * Reads a `.BTF.ext` section.
 *
 * @param btf the object's types, whose strings the records use
 * @param file whose it is, for messages; offsets in errors count from the start of `bytes`
 * @throws InputError for anything out of range
 */
export function parseBtfExt(bytes: Uint8Array, btf: Btf, file: string): BtfExt {
  const reader = new ByteReader(bytes, file, 'BTF.ext');
  const magic = reader.u16(0, 'the magic');
  if (magic !== 0xeb9f) reader.fail(0, `no BTF.ext: the magic is 0x${magic.toString(16)}, expected 0xeb9f`);
  const version = reader.u8(2, 'the version');
  if (version !== 1) reader.fail(2, `BTF.ext version ${version}; only version 1 is known`);
  const headerBytes = reader.u32(4, 'hdr_len');
  if (headerBytes < HEADER_BYTES) {
    reader.fail(4, `hdr_len is ${headerBytes}; the header has ${HEADER_BYTES} bytes`);
  }

  const texts = new Texts(btf, reader);
  const table = <T>(field: number, name: string, minBytes: number, read: (at: number) => T) =>
    readTable(reader, texts, headerBytes, field, name, minBytes, read);
  const funcs = table(8, 'func_info', 8, (at) => ({
    insn: insnIndex(reader, at),
    type: reader.u32(at + 4, 'type_id'),
  }));
  const lines = table(16, 'line_info', 16, (at) => {
    const lineColumn = reader.u32(at + 12, 'line_col');
    return {
      insn: insnIndex(reader, at),
      file: texts.get(reader.u32(at + 4, 'file_name_off'), at + 4),
      text: texts.get(reader.u32(at + 8, 'line_off'), at + 8),
      line: lineColumn >>> 10,
      column: lineColumn & 0x3ff,
    };
  });
  const cores =
    headerBytes < HEADER_WITH_CORE_BYTES
      ? new Map<string, ExtCore[]>()
      : table(24, 'core_relo', 16, (at) => {
          const kind = reader.u32(at + 12, 'kind');
          return {
            insn: insnIndex(reader, at),
            type: reader.u32(at + 4, 'type_id'),
            access: texts.get(reader.u32(at + 8, 'access_str_off'), at + 8),
            kind:
              CORE_KINDS[kind] ??
              reader.fail(
                at + 12,
                `CO-RE relocation of kind ${kind}; 0 to ${CORE_KINDS.length - 1} are known`,
              ),
          };
        });

  const sections = new Map<string, ExtSection>();
  for (const name of new Set([...funcs.keys(), ...lines.keys(), ...cores.keys()])) {
    sections.set(name, {
      funcs: byInsn(funcs.get(name)),
      lines: byInsn(lines.get(name)),
      cores: byInsn(cores.get(name)),
    });
  }
  return new BtfExt(sections);
}

function readTable<T>(
  reader: ByteReader,
  texts: Texts,
  headerBytes: number,
  field: number,
  name: string,
  minBytes: number,
  read: (at: number) => T,
): Map<string, T[]> {
  const bySection = new Map<string, T[]>();
  const start = headerBytes + reader.u32(field, `${name}_off`);
  const length = reader.u32(field + 4, `${name}_len`);
  if (length === 0) return bySection;
  reader.range(start, length, name, field);
  const end = start + length;
  const recordBytes = reader.u32(start, `the record size of ${name}`);
  if (recordBytes < minBytes || recordBytes % 4 !== 0) {
    reader.fail(
      start,
      `records of ${name} have ${recordBytes} bytes; expected ${minBytes} or more, by fours`,
    );
  }
  for (let at = start + 4; at < end; ) {
    const section = texts.get(reader.u32(at, `the section name in ${name}`), at);
    const count = reader.u32(at + 4, `the number of records in ${name}`);
    at += 8;
    if (count * recordBytes > end - at) {
      reader.fail(at - 4, `${count} records of ${recordBytes} bytes reach past the end of ${name}`);
    }
    const records = bySection.get(section) ?? [];
    for (let i = 0; i < count; i++, at += recordBytes) records.push(read(at));
    bySection.set(section, records);
  }
  return bySection;
}

function insnIndex(reader: ByteReader, at: number): number {
  const offset = reader.u32(at, 'insn_off');
  if (offset % SLOT_BYTES !== 0) reader.fail(at, `insn_off is ${offset}, no multiple of ${SLOT_BYTES}`);
  return offset / SLOT_BYTES;
}

/** A stable order, as a loader's binary search expects. */
function byInsn<T extends { readonly insn: number }>(records: readonly T[] = []): readonly T[] {
  return [...records].sort((a, b) => a.insn - b.insn);
}

/** Strings by offset, each read once. */
class Texts {
  readonly #btf: Btf;
  readonly #reader: ByteReader;
  readonly #known: Map<number, string> = new Map<number, string>();
  #total = 0;

  constructor(btf: Btf, reader: ByteReader) {
    this.#btf = btf;
    this.#reader = reader;
  }

  get(offset: number, at: number): string {
    const known = this.#known.get(offset);
    if (known !== undefined) return known;
    const text =
      this.#btf.text(offset, MAX_TEXT) ??
      this.#reader.fail(at, `a string at 0x${offset.toString(16)}, past the end of the string section`);
    this.#total += text.length;
    if (this.#total > MAX_ALL_TEXT) {
      throw new InputError(this.#reader.file, undefined, 'more than 16 MiB of file names and source lines');
    }
    this.#known.set(offset, text);
    return text;
  }
}
