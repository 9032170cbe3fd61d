import { InputError } from '../lib/index.ts';
import { type Btf, type BtfMember, bareType, type ElfSymbol, shown, typeBytes } from '../obj/index.ts';
import { dataSection } from './globals.ts';
import type { BpfMapDef, BpfMapSlot } from './model.ts';
import { type BpfSections, R_BPF_64_ABS64, relocName } from './sections.ts';

/*
 * `.maps`: each variable is a struct whose members are never stored; their types speak.
 *
 *   __uint(max_entries, 16)    int (*max_entries)[16]     a number is the length of an array
 *   __ulong(map_extra, 1)      enum { ... = 1 } map_extra a large number is an enumerator
 *   __type(key, u32)           u32 *key                   a type is what a pointer points to
 *   __array(values, struct m)  struct m *values[]         what the values are like, and which ones there are
 *
 * libbpf: parse_btf_map_def, bpf_object__init_user_btf_map, bpf_object__collect_map_relos.
 */

/** Kernel: enum bpf_map_type, by number. */
const MAP_TYPES: readonly string[] = [
  ...['UNSPEC', 'HASH', 'ARRAY', 'PROG_ARRAY', 'PERF_EVENT_ARRAY', 'PERCPU_HASH', 'PERCPU_ARRAY'],
  ...['STACK_TRACE', 'CGROUP_ARRAY', 'LRU_HASH', 'LRU_PERCPU_HASH', 'LPM_TRIE', 'ARRAY_OF_MAPS'],
  ...['HASH_OF_MAPS', 'DEVMAP', 'SOCKMAP', 'CPUMAP', 'XSKMAP', 'SOCKHASH', 'CGROUP_STORAGE'],
  ...['REUSEPORT_SOCKARRAY', 'PERCPU_CGROUP_STORAGE', 'QUEUE', 'STACK', 'SK_STORAGE', 'DEVMAP_HASH'],
  ...['STRUCT_OPS', 'RINGBUF', 'INODE_STORAGE', 'TASK_STORAGE', 'BLOOM_FILTER', 'USER_RINGBUF'],
  ...['CGRP_STORAGE', 'ARENA'],
];

const PROG_ARRAY = MAP_TYPES.indexOf('PROG_ARRAY');
const OUTER_MAPS: readonly number[] = ['ARRAY_OF_MAPS', 'HASH_OF_MAPS'].map((name) =>
  MAP_TYPES.indexOf(name),
);

/** Maps as defined, and where they lie in `.maps`. */
export interface MapDefs {
  readonly maps: readonly BpfMapDef[];
  /** Index in `maps` by offset in `.maps`. */
  readonly byOffset: ReadonlyMap<number, number>;
}

/**
 * Reads the definitions.
 *
 * @param programAt the index of the program that a symbol is, for the slots of program arrays
 * @throws InputError naming map and field
 */
export function readMapDefs(
  sections: BpfSections,
  programAt: (symbol: ElfSymbol) => number | undefined,
): MapDefs {
  const { maps: section, btf, elf } = sections;
  const maps: BpfMapDef[] = [];
  const byOffset = new Map<number, number>();
  if (section === undefined || btf === undefined) return { maps, byOffset };
  const listed = dataSection(btf, '.maps')?.vars;
  if (listed === undefined) {
    throw new InputError(elf.file, section.fileOffset, 'BTF has no types for section .maps: compile with -g');
  }

  const places: { offset: number; valuesOffset: number | undefined }[] = [];
  for (const { type: id, offset } of listed) {
    const variable = btf.types[id];
    if (variable?.kind !== 'var') continue;
    const sizeBytes = typeBytes(btf, variable.type);
    if (sizeBytes === undefined || offset + sizeBytes > section.sizeBytes) {
      throw new InputError(btf.file, `type ${id}`, `map ${shown(variable.name)} does not lie within .maps`);
    }
    const parser = new MapParser(btf, variable.name);
    byOffset.set(offset, maps.length);
    maps.push(parser.read(variable.type));
    places.push({ offset, valuesOffset: parser.valuesOffset });
  }
  const slots = readSlots(sections, maps, places, byOffset, programAt);
  return { maps: maps.map((map, index) => ({ ...map, slots: slots[index] ?? [] })), byOffset };
}

type Fields = {
  -readonly [K in 'typeId' | 'keyBytes' | 'valueBytes' | 'keyType' | 'valueType']?: number;
} & { inner?: BpfMapDef };

/** Reads one map's struct. */
class MapParser {
  readonly #btf: Btf;
  readonly #name: string;
  /** Offset of `.values` in the struct, once seen. */
  valuesOffset: number | undefined;

  constructor(btf: Btf, name: string) {
    this.#btf = btf;
    this.#name = name;
  }

  read(type: number, isInner = false): BpfMapDef {
    const struct = bareType(this.#btf, type).type;
    if (struct.kind !== 'struct') return this.#fail(`is no struct but ${struct.kind}`);
    const numbers = new Map<string, bigint>();
    const fields: Fields = {};
    for (const [index, member] of struct.members.entries()) {
      switch (member.name) {
        case 'type':
        case 'max_entries':
        case 'map_flags':
        case 'numa_node':
        case 'pinning':
        case 'map_extra':
          numbers.set(member.name, this.#number(member));
          break;
        case 'key_size':
          this.#setSize(fields, 'keyBytes', member.name, Number(this.#number(member)));
          break;
        case 'value_size':
          this.#setSize(fields, 'valueBytes', member.name, Number(this.#number(member)));
          break;
        case 'key':
          fields.keyType = this.#typeOf(fields, 'keyBytes', member);
          break;
        case 'value':
          fields.valueType = this.#typeOf(fields, 'valueBytes', member);
          break;
        case 'values': {
          if (index !== struct.members.length - 1)
            this.#fail('has a member behind values, which must be the last');
          if (isInner) this.#fail('is an inner map with values of its own: maps nest only once');
          const inner = this.#values(member, Number(numbers.get('type') ?? 0n));
          if (inner !== undefined) fields.inner = inner;
          this.valuesOffset = member.bitOffset / 8;
          this.#setSize(fields, 'valueBytes', member.name, 4);
          break;
        }
        default:
          this.#fail(`has the unknown field ${shown(member.name)}`);
      }
    }
    return this.#definition(numbers, fields, isInner);
  }

  #definition(numbers: ReadonlyMap<string, bigint>, fields: Fields, isInner: boolean): BpfMapDef {
    const number = (name: string): number => Number(numbers.get(name) ?? 0n);
    const typeId = number('type');
    if (typeId === 0) this.#fail('does not say its type: add __uint(type, BPF_MAP_TYPE_...)');
    if (isInner && number('pinning') !== 0) this.#fail('is an inner map, which cannot be pinned');
    const { keyBytes = 0, valueBytes = 0, keyType, valueType, inner } = fields;
    const node = numbers.get('numa_node');
    return {
      name: isInner ? `${this.#name}.inner` : this.#name,
      type: MAP_TYPES[typeId] ?? String(typeId),
      typeId,
      keyBytes,
      valueBytes,
      maxEntries: number('max_entries'),
      flags: number('map_flags'),
      extra: numbers.get('map_extra') ?? 0n,
      numaNode: node === undefined ? undefined : Number(node),
      pinned: number('pinning') !== 0,
      keyType,
      valueType,
      spinLockOffset: valueType === undefined ? undefined : this.#spinLock(valueType),
      inner,
      slots: [],
    };
  }

  /** The number that a member's type stands for. */
  #number(member: BtfMember): bigint {
    const { type } = bareType(this.#btf, member.type);
    if ((type.kind === 'enum' || type.kind === 'enum64') && member.name === 'map_extra') {
      return BigInt.asUintN(64, type.values[0]?.value ?? 0n);
    }
    const array = type.kind === 'ptr' ? bareType(this.#btf, type.type).type : undefined;
    if (array?.kind !== 'array')
      return this.#fail(`: ${member.name} is no number, write __uint(${member.name}, ...)`);
    return BigInt(array.length);
  }

  /** The type that a member points to; its size is the key's or the value's. */
  #typeOf(fields: Fields, size: 'keyBytes' | 'valueBytes', member: BtfMember): number {
    const { type } = bareType(this.#btf, member.type);
    const bytes = type.kind === 'ptr' ? typeBytes(this.#btf, type.type) : undefined;
    if (type.kind !== 'ptr' || bytes === undefined) {
      return this.#fail(`: ${member.name} is no type with a size, write __type(${member.name}, ...)`);
    }
    this.#setSize(fields, size, member.name, bytes);
    return type.type;
  }

  #setSize(fields: Fields, size: 'keyBytes' | 'valueBytes', from: string, bytes: number): void {
    const known = fields[size];
    if (known !== undefined && known !== bytes) {
      this.#fail(`: ${from} makes it ${bytes} bytes, where ${known} were said before`);
    }
    fields[size] = bytes;
  }

  /** The inner map that `.values` describes, or undefined for programs. */
  #values(member: BtfMember, typeId: number): BpfMapDef | undefined {
    const takesMaps = OUTER_MAPS.includes(typeId);
    if (!takesMaps && typeId !== PROG_ARRAY)
      this.#fail('has values, which only maps of maps and program arrays may');
    const array = bareType(this.#btf, member.type).type;
    const pointer = array.kind === 'array' ? bareType(this.#btf, array.type).type : undefined;
    if (array.kind !== 'array' || pointer?.kind !== 'ptr' || member.bitOffset % 8 !== 0) {
      return this.#fail(': values is no array of pointers, write __array(values, ...)');
    }
    if (takesMaps) return new MapParser(this.#btf, this.#name).read(pointer.type, true);
    if (bareType(this.#btf, pointer.type).type.kind !== 'func_proto')
      this.#fail(': values of a program array must be functions');
    return undefined;
  }

  #spinLock(valueType: number): number | undefined {
    const { type } = bareType(this.#btf, valueType);
    if (type.kind !== 'struct') return undefined;
    const lock = type.members.find((member) => {
      const of = bareType(this.#btf, member.type).type;
      return of.kind === 'struct' && of.name === 'bpf_spin_lock';
    });
    return lock && lock.bitOffset / 8;
  }

  #fail(message: string): never {
    const space = message.startsWith(':') ? '' : ' ';
    throw new InputError(this.#btf.file, undefined, `map ${shown(this.#name)}${space}${message}`);
  }
}

/** What the relocations of `.maps` put into `.values`, for each map. */
function readSlots(
  { maps: section, elf }: BpfSections,
  maps: readonly BpfMapDef[],
  places: readonly { offset: number; valuesOffset: number | undefined }[],
  byOffset: ReadonlyMap<number, number>,
  programAt: (symbol: ElfSymbol) => number | undefined,
): BpfMapSlot[][] {
  const slots: BpfMapSlot[][] = maps.map(() => []);
  if (section === undefined) return slots;
  const starts = [...byOffset.keys()].sort((a, b) => a - b);
  for (const { offset, type, symbol } of elf.relocations.get(section.index) ?? []) {
    const fail = (message: string): never => {
      throw new InputError(elf.file, section.fileOffset + offset, `${relocName(type)} in .maps: ${message}`);
    };
    if (type !== R_BPF_64_ABS64) return fail('only the addresses of maps and programs are taken');
    const start = starts.findLast((one) => one <= offset);
    const index = byOffset.get(start ?? -1);
    const place = places[index ?? -1];
    const map = maps[index ?? -1];
    if (index === undefined || place === undefined || map === undefined) return fail('no map lies there');
    const at = offset - place.offset - (place.valuesOffset ?? Number.NaN);
    if (!(at >= 0) || at % 8 !== 0) return fail(`no slot of values of map ${shown(map.name)}`);
    const kind = map.inner === undefined ? 'program' : 'map';
    const target =
      kind === 'program'
        ? programAt(symbol)
        : symbol.section === section.index
          ? byOffset.get(Number(symbol.value))
          : undefined;
    if (target === undefined)
      return fail(`${shown(symbol.name)} is no ${kind}, which map ${shown(map.name)} takes`);
    slots[index]?.push({ slot: at / 8, kind, index: target });
  }
  return slots;
}
