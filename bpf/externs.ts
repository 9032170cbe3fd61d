import { InputError } from '../lib/index.ts';
import { type Btf, type BtfType, bareType, type ElfSymbol, shown, typeBytes } from '../obj/index.ts';
import { internalMapName } from './globals.ts';
import type { BpfExtern, BpfGlobals, BpfVariable } from './model.ts';
import type { BpfSections } from './sections.ts';

/*
 * What an object leaves undefined: kernel symbols (`__ksym`) and values of the kernel's configuration
 * (`__kconfig`). BTF says by their section which of both they are.
 * libbpf: bpf_object__collect_externs.
 */

/** What an undefined symbol stands for. */
export type ExternPlace =
  | { readonly kind: 'ksym'; readonly extern: number; readonly function: boolean }
  | { readonly kind: 'kconfig'; readonly offset: number };

export interface Externs {
  readonly ksyms: readonly BpfExtern[];
  readonly kconfig: BpfGlobals | undefined;
  /** By symbol index. */
  readonly places: ReadonlyMap<number, ExternPlace>;
}

type Declared = {
  readonly section: string;
  readonly type: Extract<BtfType, { kind: 'var' | 'func' }>;
  readonly id: number;
};

/**
 * Sorts the undefined symbols.
 *
 * @throws InputError for one that BTF does not declare as `__ksym` or `__kconfig`
 */
export function readExterns({ elf, btf }: BpfSections): Externs {
  const undefinedSymbols = elf.symbols.filter(
    ({ section, binding, name }) => section === 'undef' && binding !== 'local' && name !== '',
  );
  const ksyms: BpfExtern[] = [];
  const places = new Map<number, ExternPlace>();
  if (btf === undefined) {
    const [first] = undefinedSymbols;
    if (first !== undefined) {
      throw new InputError(
        elf.file,
        undefined,
        `${shown(first.name)} is not defined, and without BTF nothing says what it is: compile with -g`,
      );
    }
    return { ksyms, kconfig: undefined, places };
  }
  const declared = declarations(btf);
  const config: { symbol: ElfSymbol; type: number; sizeBytes: number; align: number }[] = [];
  for (const symbol of undefinedSymbols) {
    const found = declared.get(symbol.name);
    if (found === undefined) {
      throw new InputError(
        elf.file,
        undefined,
        `${shown(symbol.name)} is not defined: define it, or declare it with __ksym or __kconfig`,
      );
    }
    if (found.section === '.kconfig') {
      config.push({ symbol, ...configType(btf, found, symbol.name) });
      continue;
    }
    const isFunction = found.type.kind === 'func';
    const type = isFunction ? found.id : found.type.type;
    const typed = isFunction || bareType(btf, type).type.kind !== 'void';
    places.set(symbol.index, { kind: 'ksym', extern: ksyms.length, function: isFunction });
    ksyms.push({
      name: symbol.name,
      kind: isFunction ? 'function' : 'variable',
      weak: symbol.binding === 'weak',
      type: typed ? type : undefined,
    });
  }
  return { ksyms, kconfig: layoutConfig(elf.file, config, places), places };
}

/** Functions and variables that BTF declares in `.ksyms` and `.kconfig`, by name. */
function declarations(btf: Btf): Map<string, Declared> {
  const found = new Map<string, Declared>();
  for (const section of btf.types) {
    if (section.kind !== 'datasec' || (section.name !== '.ksyms' && section.name !== '.kconfig')) continue;
    for (const { type: id } of section.vars) {
      const type = btf.types[id];
      if (type?.kind !== 'var' && !(type?.kind === 'func' && section.name === '.ksyms')) continue;
      found.set(type.name, { section: section.name, type, id });
    }
  }
  return found;
}

/**
 * Type, size and alignment of a configuration value: an integer, `enum libbpf_tristate`, or an array of
 * characters. libbpf: find_kcfg_type.
 */
function configType(
  btf: Btf,
  { type: { type } }: Declared,
  name: string,
): { type: number; sizeBytes: number; align: number } {
  const bare = bareType(btf, type).type;
  const element = bare.kind === 'array' ? bareType(btf, bare.type).type : bare;
  const isText = bare.kind === 'array' && element.kind === 'int' && element.sizeBytes === 1;
  const isInteger = bare.kind === 'int' && bare.sizeBytes <= 8;
  const isTristate = bare.kind === 'enum' && bare.name === 'libbpf_tristate';
  const sizeBytes = typeBytes(btf, type);
  if (!(isText || isInteger || isTristate) || !('sizeBytes' in element) || sizeBytes === undefined) {
    throw new InputError(
      btf.file,
      `type ${type}`,
      `the __kconfig variable ${shown(name)} is no integer, enum libbpf_tristate or array of char`,
    );
  }
  return { type, sizeBytes, align: element.sizeBytes };
}

/** Places the configuration values: widest alignment first, then by size, then by name. libbpf: cmp_externs. */
function layoutConfig(
  file: string,
  config: readonly { symbol: ElfSymbol; type: number; sizeBytes: number; align: number }[],
  places: Map<number, ExternPlace>,
): BpfGlobals | undefined {
  if (config.length === 0) return undefined;
  const ordered = [...config].sort(
    (a, b) => b.align - a.align || a.sizeBytes - b.sizeBytes || (a.symbol.name < b.symbol.name ? -1 : 1),
  );
  const variables: BpfVariable[] = [];
  let end = 0;
  for (const { symbol, type, sizeBytes, align } of ordered) {
    const offset = Math.ceil(end / align) * align;
    places.set(symbol.index, { kind: 'kconfig', offset });
    const weak = symbol.binding === 'weak';
    variables.push({ name: symbol.name, offset, sizeBytes, type, linkage: 'extern', weak });
    end = offset + sizeBytes;
  }
  if (end > MAX_CONFIG_BYTES) {
    throw new InputError(
      file,
      undefined,
      `the __kconfig variables have 0x${end.toString(16)} bytes; at most 0x${MAX_CONFIG_BYTES.toString(16)} are taken`,
    );
  }
  return {
    section: '.kconfig',
    kind: 'kconfig',
    mapName: internalMapName(file, '.kconfig'),
    readOnly: true,
    sizeBytes: end,
    contents: new Uint8Array(),
    variables,
  };
}

/** A configuration is a few hundred values; one that names more memory than this is damaged. */
const MAX_CONFIG_BYTES = 1024 * 1024;
