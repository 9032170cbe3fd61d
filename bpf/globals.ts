import { InputError } from '../lib/index.ts';
import { type Btf, type BtfType, shown, typeBytes } from '../obj/index.ts';
import type { BpfGlobals, BpfVariable } from './model.ts';
import type { BpfSections, DataSection } from './sections.ts';

/*
 * Sections of variables. Each becomes the only value of an array map; BTF says which variable lies
 * where. libbpf: bpf_object__init_global_data_maps.
 */

/** The sections of variables, in the object's order. @throws InputError for variables outside their section */
export function readGlobals(sections: BpfSections): BpfGlobals[] {
  return sections.data.map((data) => globalsOf(sections, data));
}

function globalsOf({ elf, btf }: BpfSections, { section, kind }: DataSection): BpfGlobals {
  const { name, sizeBytes, data } = section;
  return {
    section: name,
    kind,
    mapName: internalMapName(elf.file, name),
    readOnly: kind === 'rodata',
    sizeBytes,
    contents: data,
    variables: btf === undefined ? [] : variablesOf(btf, name, sizeBytes),
  };
}

/** The types of a section's variables as BTF lists them, or undefined when it does not know the section. */
export function dataSection(btf: Btf, name: string): Extract<BtfType, { kind: 'datasec' }> | undefined {
  for (const type of btf.types) if (type.kind === 'datasec' && type.name === name) return type;
  return undefined;
}

const LINKAGES: readonly BpfVariable['linkage'][] = ['static', 'global', 'extern'];

/**
 * The variables of a section, by offset.
 *
 * @throws InputError when one has no size or lies outside the section
 */
export function variablesOf(btf: Btf, name: string, sectionBytes: number): BpfVariable[] {
  const variables: BpfVariable[] = [];
  for (const { type: id, offset, sizeBytes: listed } of dataSection(btf, name)?.vars ?? []) {
    const variable = btf.types[id];
    if (variable?.kind !== 'var') continue;
    const sizeBytes = typeBytes(btf, variable.type) ?? listed;
    if (offset + sizeBytes > sectionBytes) {
      const where = `0x${sizeBytes.toString(16)} bytes at 0x${offset.toString(16)}`;
      throw new InputError(
        btf.file,
        `type ${id}`,
        `variable ${shown(variable.name)} is ${where} of ${shown(name)}, which has 0x${sectionBytes.toString(16)}`,
      );
    }
    variables.push({
      name: variable.name,
      offset,
      sizeBytes,
      type: variable.type,
      linkage: LINKAGES[variable.linkage] ?? 'global',
      weak: false,
    });
  }
  return variables.sort((a, b) => a.offset - b.offset);
}

/** Kernel: BPF_OBJ_NAME_LEN, its terminating 0 included. */
const OBJ_NAME_BYTES = 16;

/**
 * What the kernel shows as the name of a section's map. The plain sections share their names among all
 * objects, so the object's own name goes before them as far as there is room.
 *
 * libbpf: internal_map_name.
 */
export function internalMapName(file: string, section: string): string {
  if (section.indexOf('.', 1) > 0) return section.slice(0, OBJ_NAME_BYTES - 1);
  const base = /[^/]*$/.exec(file)?.[0] ?? '';
  const object = base.replace(/\..*/s, '').slice(0, OBJ_NAME_BYTES - 1);
  const suffixBytes = Math.max(7, section.length);
  return (object.slice(0, OBJ_NAME_BYTES - 1 - suffixBytes) + section).replace(/[^A-Za-z0-9_.]/g, '_');
}
