import { InputError } from '../lib/index.ts';
import type { CFunction, CParam, CType } from './ctype.ts';
import { integerOf } from './ctype.ts';
import { type ElfObject, findSection } from './elf.ts';
import { distill, type FuncModel, partName } from './model.ts';
import { ByteReader, StringTable } from './reader.ts';
import { shown } from './text.ts';

/*
 * BTF, the kernel's compact debug types: all kinds up to BTF_KIND_ENUM64.
 * Source: Documentation/bpf/btf.rst; the checks are those of btf_parse, kernel/bpf/btf.c, as far as
 * compilers keep to them.
 */

export interface BtfMember {
  readonly name: string;
  readonly type: number;
  readonly bitOffset: number;
  /** 0 when it is no bit-field. */
  readonly bitSize: number;
}

export interface BtfParam {
  readonly name: string;
  /** 0 in the last place: variable arguments. */
  readonly type: number;
}

export interface BtfEnumerator {
  readonly name: string;
  readonly value: bigint;
}

/** One variable of a section. */
export interface BtfSecVar {
  readonly type: number;
  readonly offset: number;
  readonly sizeBytes: number;
}

/** One type; numbers called `type` are type ids. */
export type BtfType =
  | { readonly kind: 'void' }
  | {
      readonly kind: 'int';
      readonly name: string;
      readonly sizeBytes: number;
      readonly bits: number;
      readonly signed: boolean;
      readonly bool: boolean;
    }
  | { readonly kind: 'ptr' | 'const' | 'volatile' | 'restrict'; readonly type: number }
  | { readonly kind: 'array'; readonly type: number; readonly index: number; readonly length: number }
  | {
      readonly kind: 'struct' | 'union';
      readonly name: string;
      readonly sizeBytes: number;
      readonly members: readonly BtfMember[];
    }
  | {
      readonly kind: 'enum' | 'enum64';
      readonly name: string;
      readonly sizeBytes: number;
      readonly signed: boolean;
      readonly values: readonly BtfEnumerator[];
    }
  | { readonly kind: 'fwd'; readonly name: string; readonly union: boolean }
  | { readonly kind: 'typedef' | 'type_tag'; readonly name: string; readonly type: number }
  | { readonly kind: 'func'; readonly name: string; readonly type: number; readonly linkage: number }
  | { readonly kind: 'func_proto'; readonly type: number; readonly params: readonly BtfParam[] }
  | { readonly kind: 'var'; readonly name: string; readonly type: number; readonly linkage: number }
  | {
      readonly kind: 'datasec';
      readonly name: string;
      readonly sizeBytes: number;
      readonly vars: readonly BtfSecVar[];
    }
  | { readonly kind: 'float'; readonly name: string; readonly sizeBytes: number }
  | { readonly kind: 'decl_tag'; readonly name: string; readonly type: number; readonly component: number };

/** Kernel: BTF_KIND_*, include/uapi/linux/btf.h; the position is the number. */
const KINDS = [
  'void',
  'int',
  'ptr',
  'array',
  'struct',
  'union',
  'enum',
  'fwd',
  'typedef',
  'volatile',
  'const',
  'restrict',
  'func',
  'func_proto',
  'var',
  'datasec',
  'float',
  'decl_tag',
  'type_tag',
  'enum64',
] as const;

const HEADER_BYTES = 24;
/** Kernel: BTF_MAX_TYPE. */
const MAX_TYPES = 0x000f_ffff;

/** The types of one file. */
export class Btf {
  /** As its user named it, for messages. */
  readonly file: string;
  /** By type id; `[0]` is void. */
  readonly types: readonly BtfType[];
  readonly #functions: Map<string, number> = new Map<string, number>();
  readonly #strings: Uint8Array;

  constructor(file: string, types: readonly BtfType[], strings: Uint8Array = new Uint8Array()) {
    this.file = file;
    this.types = types;
    this.#strings = strings;
    types.forEach((type, id) => {
      // gcc 12 writes nameless functions for some indirect calls.
      if (type.kind === 'func' && type.name !== '' && !this.#functions.has(type.name)) {
        this.#functions.set(type.name, id);
      }
    });
  }

  /**
   * Text of the string section, which `.BTF.ext` refers to as well: file names and source lines.
   * Undefined when the offset lies outside; longer text is cut.
   *
   * @param maxBytes how much to take at most
   */
  text(offset: number, maxBytes: number): string | undefined {
    if (offset >= this.#strings.length) return undefined;
    const limit = this.#strings.subarray(offset, offset + maxBytes);
    const end = limit.indexOf(0);
    return new TextDecoder().decode(end < 0 ? limit : limit.subarray(0, end));
  }

  /** The functions that have a type, in file order. */
  functionNames(): string[] {
    return [...this.#functions.keys()];
  }

  /** The type id of a function (BTF_KIND_FUNC), part of a trampoline's key. Kernel: bpf_trampoline_compute_key. */
  funcId(name: string): number | undefined {
    return this.#functions.get(name);
  }

  /**
   * The model of a function, or undefined when there is no such function.
   *
   * @throws InputError naming function, parameter and reason when it cannot be traced
   */
  funcModel(name: string): FuncModel | undefined {
    const func = this.types[this.funcId(name) ?? 0];
    const proto = func?.kind === 'func' ? this.#functionType(func.type) : undefined;
    if (proto === undefined) return undefined;
    return distill(name, proto, (part, reason) => {
      throw new InputError(
        this.file,
        undefined,
        `${shown(name)}: ${shown(partName(proto, part))} ${shown(reason)}`,
      );
    });
  }

  /** A type as C has it. Types nested beyond the budget come out as an unknown name. */
  #cType(id: number, budget: { left: number }): CType {
    const type = this.types[id];
    if (type === undefined || budget.left <= 0) return { kind: 'typedef', name: '...', to: undefined };
    budget.left--;
    switch (type.kind) {
      case 'int': {
        const { name, sizeBytes, signed } = type;
        const known = integerOf(name.split(' '));
        return { kind: 'int', name: known?.kind === 'int' ? known.name : name, sizeBytes, signed };
      }
      case 'enum':
      case 'enum64':
        return { kind: 'enum', name: type.name, sizeBytes: type.sizeBytes, signed: type.signed };
      case 'ptr':
        return { kind: 'pointer', to: this.#cType(type.type, budget) };
      case 'const':
      case 'volatile':
      case 'restrict':
        return { kind: type.kind, to: this.#cType(type.type, budget) };
      case 'type_tag':
        return this.#cType(type.type, budget);
      case 'typedef':
        return { kind: 'typedef', name: type.name, to: this.#cType(type.type, budget) };
      case 'array':
        return { kind: 'array', of: this.#cType(type.type, budget), length: type.length };
      case 'struct':
        return { kind: 'struct', name: type.name, sizeBytes: type.sizeBytes };
      case 'union':
        return { kind: 'union', name: type.name };
      case 'fwd':
        return { kind: type.union ? 'union' : 'struct', name: type.name };
      case 'float':
        return { kind: 'float', name: type.name };
      case 'func_proto':
        return this.#functionType(id, budget) ?? { kind: 'void' };
      default:
        return { kind: 'void' };
    }
  }

  /** A prototype; without a budget of its own, one for each parameter and the result. */
  #functionType(id: number, budget?: { left: number }): CFunction | undefined {
    const proto = this.types[id];
    if (proto?.kind !== 'func_proto') return undefined;
    const variadic = proto.params.at(-1)?.type === 0;
    const named = variadic ? proto.params.slice(0, -1) : proto.params;
    const fresh = (): { left: number } => ({ left: MAX_TYPE_NODES });
    const params: CParam[] = [];
    for (const { name, type } of named) {
      if (budget !== undefined && budget.left <= 0) break;
      params.push({ name: name === '' ? undefined : name, type: this.#cType(type, budget ?? fresh()) });
    }
    return { kind: 'function', ret: this.#cType(proto.type, budget ?? fresh()), params, variadic };
  }
}

/** Types looked at for one parameter: more than people write, and a bound for endless ones. */
const MAX_TYPE_NODES = 64;

/** The BTF of an object or image, or undefined when it carries none. */
export function objectBtf(object: ElfObject): Btf | undefined {
  const section = findSection(object, '.BTF');
  return section && parseBtf(section.data, `${object.file} (.BTF)`);
}

/**
 * Reads a BTF section.
 *
 * @param bytes the section's contents
 * @param file whose it is, for messages; offsets in errors count from the start of `bytes`
 * @throws InputError for anything out of range, and for types that contain themselves
 */
export function parseBtf(bytes: Uint8Array, file: string): Btf {
  const reader = new ByteReader(bytes, file, 'BTF');
  const magic = reader.u16(0, 'the BTF magic');
  if (magic === 0x9feb) {
    reader.fail(0, 'the BTF is big-endian: compile for a little-endian machine (clang --target=bpfel)');
  }
  if (magic !== 0xeb9f) reader.fail(0, `no BTF: the magic is 0x${magic.toString(16)}, expected 0xeb9f`);
  const version = reader.u8(2, 'the BTF version');
  if (version !== 1) reader.fail(2, `BTF version ${version}; only version 1 is known`);
  const headerBytes = reader.u32(4, 'hdr_len');
  if (headerBytes < HEADER_BYTES)
    reader.fail(4, `hdr_len is ${headerBytes}; the header has ${HEADER_BYTES} bytes`);

  const typeStart = headerBytes + reader.u32(8, 'type_off');
  const typeBytes = reader.u32(12, 'type_len');
  const stringStart = headerBytes + reader.u32(16, 'str_off');
  const stringBytes = reader.u32(20, 'str_len');
  reader.range(typeStart, typeBytes, 'the type section', 8);
  const strings = reader.range(stringStart, stringBytes, 'the string section', 16);
  if (stringStart < typeStart + typeBytes)
    reader.fail(16, 'the string section begins inside the type section');
  if (stringStart + stringBytes !== bytes.length) {
    reader.fail(
      20,
      'bytes follow the string section: BTF of several objects must be merged (pahole), not appended',
    );
  }
  if (strings[0] !== 0 || strings.at(-1) !== 0) {
    reader.fail(20, 'the string section does not begin with an empty name and end with a NUL');
  }

  const names = new StringTable(new ByteReader(strings, file, 'string section', stringStart));
  const types = new TypeReader(reader, names, typeStart, typeStart + typeBytes).readAll();
  checkReferences(file, types);
  refuseCycles(file, types, chainEdges);
  refuseCycles(file, types, valueEdges);
  return new Btf(file, types, strings);
}

/** Reads the records of the type section one after the other. */
class TypeReader {
  readonly #reader: ByteReader;
  readonly #names: StringTable;
  readonly #end: number;
  #at: number;
  #id = 0;

  constructor(reader: ByteReader, names: StringTable, start: number, end: number) {
    this.#reader = reader;
    this.#names = names;
    this.#at = start;
    this.#end = end;
  }

  readAll(): BtfType[] {
    const types: BtfType[] = [{ kind: 'void' }];
    while (this.#at < this.#end) {
      this.#id = types.length;
      if (this.#id > MAX_TYPES) this.#reader.fail(this.#at, `more than ${MAX_TYPES} types`);
      types.push(this.#read());
    }
    return types;
  }

  #read(): BtfType {
    const start = this.#at;
    const name = this.#name('its name');
    const info = this.#u32('info');
    const last = this.#u32('size or type');
    const count = info & 0xffff;
    const kindFlag = info >>> 31 === 1;
    const kind = KINDS[(info >>> 24) & 0x1f];
    switch (kind) {
      case 'int':
        return this.#int(name, last, start);
      case 'ptr':
      case 'const':
      case 'volatile':
      case 'restrict':
        return { kind, type: last };
      case 'typedef':
      case 'type_tag':
        return { kind, name, type: last };
      case 'array':
        return { kind, type: this.#u32('type'), index: this.#u32('index_type'), length: this.#u32('nelems') };
      case 'struct':
      case 'union':
        return { kind, name, sizeBytes: last, members: this.#list(count, () => this.#member(kindFlag)) };
      case 'enum':
      case 'enum64':
        return this.#enum(kind, name, last, kindFlag, count);
      case 'fwd':
        return { kind, name, union: kindFlag };
      case 'func':
        return { kind, name, type: last, linkage: count };
      case 'func_proto':
        return {
          kind,
          type: last,
          params: this.#list(count, () => ({
            name: this.#name('a parameter name'),
            type: this.#u32('a parameter'),
          })),
        };
      case 'var':
        return { kind, name, type: last, linkage: this.#u32('linkage') };
      case 'datasec':
        return {
          kind,
          name,
          sizeBytes: last,
          vars: this.#list(count, () => ({
            type: this.#u32('a variable'),
            offset: this.#u32('its offset'),
            sizeBytes: this.#u32('its size'),
          })),
        };
      case 'float':
        return { kind, name, sizeBytes: last };
      case 'decl_tag':
        return { kind, name, type: last, component: this.#u32('component_idx') | 0 };
      default:
        return this.#reader.fail(
          start + 4,
          `type ${this.#id} is of the unknown kind ${(info >>> 24) & 0x1f}`,
        );
    }
  }

  #int(name: string, sizeBytes: number, start: number): BtfType {
    const data = this.#u32('the encoding');
    const bits = data & 0xff;
    const encoding = (data >>> 24) & 0xf;
    if (![1, 2, 4, 8, 16].includes(sizeBytes) || bits > 8 * sizeBytes) {
      this.#reader.fail(start + 8, `type ${this.#id} is an integer of ${bits} bits in ${sizeBytes} bytes`);
    }
    return { kind: 'int', name, sizeBytes, bits, signed: (encoding & 1) !== 0, bool: (encoding & 4) !== 0 };
  }

  #enum(kind: 'enum' | 'enum64', name: string, sizeBytes: number, kindFlag: boolean, count: number): BtfType {
    const values = this.#list(count, () => {
      const of = this.#name('an enumerator');
      const low = this.#u32('its value');
      const value = kind === 'enum' ? BigInt(low | 0) : (BigInt(this.#u32('its value')) << 32n) | BigInt(low);
      return { name: of, value: kind === 'enum64' && kindFlag ? BigInt.asIntN(64, value) : value };
    });
    // Compilers before the flag (gcc 12 among them) leave it clear: there a negative value tells.
    const signed = kindFlag || (kind === 'enum' && values.some(({ value }) => value < 0n));
    return { kind, name, sizeBytes, signed, values };
  }

  #member(kindFlag: boolean): BtfMember {
    const name = this.#name('a member name');
    const type = this.#u32('a member');
    const place = this.#u32('its offset');
    return kindFlag
      ? { name, type, bitOffset: place & 0xff_ffff, bitSize: place >>> 24 }
      : { name, type, bitOffset: place, bitSize: 0 };
  }

  #list<T>(count: number, item: () => T): T[] {
    return Array.from({ length: count }, item);
  }

  #name(field: string): string {
    return this.#names.name(this.#u32(field), `${field} of type ${this.#id}`);
  }

  #u32(field: string): number {
    if (this.#at + 4 > this.#end) {
      this.#reader.fail(this.#at, `the type section ends before or inside ${field} of type ${this.#id}`);
    }
    const value = this.#reader.u32(this.#at, field);
    this.#at += 4;
    return value;
  }
}

/** The type ids a type names. */
function references(type: BtfType): readonly number[] {
  switch (type.kind) {
    case 'array':
      return [type.type, type.index];
    case 'struct':
    case 'union':
      return type.members.map((member) => member.type);
    case 'func_proto':
      return [type.type, ...type.params.map((param) => param.type)];
    case 'datasec':
      return type.vars.map((variable) => variable.type);
    default:
      return 'type' in type ? [type.type] : [];
  }
}

function checkReferences(file: string, types: readonly BtfType[]): void {
  types.forEach((type, id) => {
    const fail = (message: string): never => {
      throw new InputError(file, `type ${id}`, `${type.kind}${nameOf(type)} ${message}`);
    };
    for (const to of references(type)) {
      const target = types[to];
      if (target === undefined) fail(`refers to type ${to} of ${types.length}`);
      // Functions, variables and sections are declarations: only declarations may name them.
      else if (DECLARATIONS.includes(target.kind) && type.kind !== 'datasec' && type.kind !== 'decl_tag') {
        fail(`uses the ${target.kind} ${to} as a type`);
      }
    }
    if (type.kind === 'func' && types[type.type]?.kind !== 'func_proto')
      fail(`has type ${type.type}, no func_proto`);
    if (type.kind === 'func_proto' && type.params.slice(0, -1).some((param) => param.type === 0)) {
      fail('has a parameter of type void');
    }
  });
}

const DECLARATIONS: readonly BtfType['kind'][] = ['func', 'var', 'datasec', 'decl_tag'];

function nameOf(type: BtfType): string {
  return 'name' in type && type.name !== '' ? ` ${shown(type.name)}` : '';
}

/** What a chain of pointers and names leads through: a loop of these alone is no type at all. */
function chainEdges(type: BtfType): readonly number[] {
  switch (type.kind) {
    case 'ptr':
    case 'const':
    case 'volatile':
    case 'restrict':
    case 'typedef':
    case 'type_tag':
    case 'array':
      return [type.type];
    default:
      return [];
  }
}

/** What a type contains by value: a loop of these is a type of endless size. */
function valueEdges(type: BtfType): readonly number[] {
  if (type.kind === 'ptr') return [];
  return type.kind === 'struct' || type.kind === 'union' ? references(type) : chainEdges(type);
}

/** Depth-first search without recursion, since the chains are as long as the file allows. */
function refuseCycles(
  file: string,
  types: readonly BtfType[],
  edges: (type: BtfType) => readonly number[],
): void {
  const done = new Uint8Array(types.length);
  const OPEN = 1;
  const CLOSED = 2;
  for (let root = 0; root < types.length; root++) {
    if (done[root] !== 0) continue;
    const path: { id: number; rest: readonly number[]; next: number }[] = [];
    const enter = (id: number): void => {
      const type = types[id];
      done[id] = OPEN;
      path.push({ id, rest: type === undefined ? [] : edges(type), next: 0 });
    };
    enter(root);
    for (let top = path.at(-1); top !== undefined; top = path.at(-1)) {
      const to = top.rest[top.next++];
      if (to === undefined) {
        done[top.id] = CLOSED;
        path.pop();
      } else if (done[to] === OPEN) {
        throw new InputError(file, `type ${top.id}`, `contains itself through type ${to}: no type can`);
      } else if (done[to] === 0) {
        enter(to);
      }
    }
  }
}
