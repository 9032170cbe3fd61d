/*
 * An object loaded into a kernel: maps made, variables filled, programs checked, compiled and placed.
 *
 *   runtime.ts       what all objects share         helper-text.ts   helpers as guest functions
 *   program.ts       one program                    interpreter.ts   programs that are not compiled
 *
 * libbpf: bpf_object__load
 */

import { InputError, type Kaddr } from '../../lib/index.ts';
import type { Btf } from '../../obj/index.ts';
import { relocateCore } from '../core.ts';
import { checkProgram } from '../fixup/check.ts';
import { type KernelConfig, kconfigBytes } from '../kconfig.ts';
import type { ArrayMap } from '../maps/array.ts';
import { type BpfMap, MapFlag, type MapSpec } from '../maps/map.ts';
import { ProgArrayMap } from '../maps/prog-array.ts';
import { createMap } from '../maps/table.ts';
import type { BpfGlobals, BpfMapDef, BpfObject, BpfProgram } from '../model.ts';
import { entryAt } from '../verify/entry.ts';
import type { BpfEntry, BpfEnvironment, BpfExternPlace, BpfTypeRef } from '../verify/environment.ts';
import { type LoadedProgram, placeProgram } from './program.ts';
import type { BpfRuntime } from './runtime.ts';

const ARRAY = 2;
const PERF_EVENT_ARRAY = 4;
const RINGBUF = 27;
const PAGE = 4096;

/** What an object is loaded with: all that it can see of targets. */
export interface LoadBpfOptions {
  /** Types of targets, for CO-RE; what the first has hides what later ones have. */
  readonly types: readonly Btf[];
  /** A symbol of what is loaded: its address, and its type where that is known. */
  readonly symbol: (
    name: string,
  ) => { readonly address: Kaddr; readonly type?: BpfTypeRef | undefined } | undefined;
  /** In whose types the function is that a program attaches to. @throws InputError when there is none of that name */
  readonly attachTypes: (program: BpfProgram) => Btf;
  /** Options of the kernel's configuration, as `.config` has them. */
  readonly kconfig?: ReadonlyMap<string, string> | undefined;
  /** False leaves programs to the interpreter. Default true. Kernel: net.core.bpf_jit_enable */
  readonly jited?: boolean | undefined;
  /** Programs to load although their sections begin with `?`. */
  readonly also?: readonly string[] | undefined;
  /** Programs not to load. libbpf: bpf_program__set_autoload */
  readonly without?: readonly string[] | undefined;
}

/** An object in the kernel. */
export class LoadedBpf {
  readonly object: BpfObject;
  /** By name. */
  readonly maps: ReadonlyMap<string, BpfMap>;
  /** Of each section of variables: its map. */
  readonly globals: readonly { readonly globals: BpfGlobals; readonly map: ArrayMap }[];
  /** Those that were loaded, by name. */
  readonly programs: ReadonlyMap<string, LoadedProgram>;
  readonly #close: () => void;
  #closed = false;

  constructor(
    parts: Pick<LoadedBpf, 'object' | 'maps' | 'globals' | 'programs'> & { readonly close: () => void },
  ) {
    this.object = parts.object;
    this.maps = parts.maps;
    this.globals = parts.globals;
    this.programs = parts.programs;
    this.#close = parts.close;
  }

  /**
   * Lets go of programs and maps. They are freed when nothing uses them any more: programs that are attached stay
   * until they are detached, and maps as long as programs use them.
   */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#close();
  }
}

/**
 * Loads an object.
 * @throws InputError, KernelError what is wrong with it, for this kernel; nothing is loaded then
 */
export function loadBpfObject(runtime: BpfRuntime, object: BpfObject, options: LoadBpfOptions): LoadedBpf {
  const { kernel } = runtime;
  const made: BpfMap[] = [];
  let users = 1;
  /** The last user frees the maps. */
  const put = (): void => {
    if (--users > 0) return;
    for (const map of made) {
      runtime.maps.delete(map.address);
      map.free();
    }
  };
  const make = (spec: MapSpec): BpfMap => {
    const map = createMap(runtime.mapHome, spec);
    made.push(map);
    runtime.maps.set(map.address, map);
    return map;
  };
  const programs = new Map<string, LoadedProgram>();
  const close = (): void => {
    for (const map of made) if (map instanceof ProgArrayMap) map.clear();
    for (const { prog } of programs.values()) prog.put();
    put();
    kernel.settle();
  };
  try {
    const maps = object.maps.map((def) => make(specOf(runtime, def)));
    const globals = object.globals.map((section) => ({
      globals: section,
      map: fill(runtime, make(globalSpec(section)), contentsOf(runtime, object, section, options)),
    }));
    const shared = environment(runtime, object, { maps, globals, options });
    for (const program of object.programs) {
      if (!wanted(object, program, options)) continue;
      const code = { ...program, insns: relocateCore(object, program, options.types).insns };
      const checked = checkProgram(code, {
        ...shared,
        entry: entryOf(object, program, options),
        sleepable: program.sleepable,
      });
      users++;
      try {
        programs.set(
          program.name,
          placeProgram(runtime, { object, program, checked, maps, jited: options.jited ?? true, freed: put }),
        );
      } catch (error) {
        users--;
        throw error;
      }
    }
    object.maps.forEach((def, index) => {
      fillSlots(object, def, maps[index] as BpfMap, programs);
    });
    const byName = new Map(object.maps.map(({ name }, index) => [name, maps[index] as BpfMap]));
    return new LoadedBpf({ object, maps: byName, globals, programs, close });
  } catch (error) {
    close();
    throw error;
  }
}

/** Those of sections with `?` only when somebody asks: by name, or by the slot of a prog array. */
function wanted(
  object: BpfObject,
  program: BpfProgram,
  { also = [], without = [] }: LoadBpfOptions,
): boolean {
  if (without.includes(program.name)) return false;
  if (program.autoload || also.includes(program.name)) return true;
  const index = object.programs.indexOf(program);
  return object.maps.some(({ slots }) =>
    slots.some((slot) => slot.kind === 'program' && slot.index === index),
  );
}

// -- maps ---------------------------------------------------------------------------------------

/** libbpf: bpf_object__create_map */
function specOf({ kernel }: BpfRuntime, def: BpfMapDef): MapSpec {
  const { name, typeId, keyBytes, valueBytes, flags, spinLockOffset } = def;
  return {
    name,
    typeId,
    keyBytes,
    valueBytes,
    maxEntries: entriesOf(def, kernel.machine.cpus.length),
    flags,
    spinLockOffset,
  };
}

function entriesOf({ typeId, maxEntries }: BpfMapDef, cpus: number): number {
  if (typeId === PERF_EVENT_ARRAY && maxEntries === 0) return cpus;
  if (typeId !== RINGBUF || maxEntries === 0) return maxEntries;
  // libbpf: adjust_ringbuf_sz
  return PAGE * 2 ** Math.ceil(Math.log2(Math.ceil(maxEntries / PAGE)));
}

function globalSpec({ mapName, sizeBytes, readOnly }: BpfGlobals): MapSpec {
  const flags = MapFlag.MMAPABLE | (readOnly ? MapFlag.RDONLY_PROG : 0);
  return { name: mapName, typeId: ARRAY, keyBytes: 4, valueBytes: sizeBytes, maxEntries: 1, flags };
}

function contentsOf(
  { kernel }: BpfRuntime,
  object: BpfObject,
  section: BpfGlobals,
  { kconfig }: LoadBpfOptions,
): Uint8Array {
  if (section.kind !== 'kconfig') return section.contents;
  const [major = 0, minor = 0] = kernel.revision.slice(1).split('.').map(Number);
  const config: KernelConfig = {
    version: [major, minor, 0],
    options: kconfig ?? new Map(),
    hasBpfCookie: kernel.revision !== 'v5.13',
  };
  return kconfigBytes(object, section, config);
}

function fill({ kernel }: BpfRuntime, map: BpfMap, contents: Uint8Array): ArrayMap {
  const array = map as ArrayMap;
  kernel.machine.memory.write(array.values, contents);
  return array;
}

/** libbpf: init_prog_array_slots */
function fillSlots(
  object: BpfObject,
  def: BpfMapDef,
  map: BpfMap,
  programs: ReadonlyMap<string, LoadedProgram>,
): void {
  for (const { slot, kind, index } of def.slots) {
    const program = object.programs[index];
    const loaded = kind === 'program' && program !== undefined ? programs.get(program.name) : undefined;
    if (!(map instanceof ProgArrayMap) || loaded === undefined) {
      throw new InputError(
        object.file,
        undefined,
        `map ${def.name}: slot ${slot} holds what the lab does not have`,
      );
    }
    map.set(slot, loaded.prog);
  }
}

// -- what programs are checked against ----------------------------------------------------------

function environment(
  runtime: BpfRuntime,
  object: BpfObject,
  {
    maps,
    globals,
    options,
  }: {
    readonly maps: readonly BpfMap[];
    readonly globals: readonly { readonly globals: BpfGlobals; readonly map: ArrayMap }[];
    readonly options: LoadBpfOptions;
  },
): Omit<BpfEnvironment, 'entry' | 'sleepable'> {
  const { kernel, helperText } = runtime;
  return {
    revision: kernel.revision,
    maps: maps.map(({ address, spec }) => ({ ...spec, address })),
    globals: globals.map(({ globals: section, map }) => ({
      name: section.mapName,
      address: map.values,
      sizeBytes: section.sizeBytes,
      readOnly: section.readOnly,
      contents: kernel.machine.memory.bytes(map.values, section.sizeBytes).slice(),
    })),
    externs: object.externs.map(({ name, weak }): BpfExternPlace => {
      const found = options.symbol(name);
      if (found === undefined && !weak) {
        throw new InputError(
          object.file,
          undefined,
          `no symbol ${name} in what is loaded; load a target that has it, or declare it __weak`,
        );
      }
      return { name, address: found?.address, type: found?.type };
    }),
    helper: (id) => helperText.address(id),
    callBase: helperText.callBase,
    cpuNumberOffset: kernel.machine.percpu.vars.cpuNumber,
    objectBtf: object.btf,
    kernelBtf: options.types[0],
  };
}

function entryOf(object: BpfObject, program: BpfProgram, { attachTypes }: LoadBpfOptions): BpfEntry {
  if (program.kind === 'plain') return { kind: 'opaque' };
  if (program.attachTo === undefined) {
    throw new InputError(
      object.file,
      undefined,
      `${program.name}: section ${program.section} names no function; write SEC("${program.section}/function")`,
    );
  }
  return entryAt(program.kind, attachTypes(program), program.attachTo);
}
