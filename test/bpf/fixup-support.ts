import {
  type BpfEnvironment,
  type BpfMapDef,
  type BpfMapPlace,
  type BpfObject,
  type BpfProgram,
  entryAt,
  kconfigBytes,
  relocateCore,
} from '../../bpf/index.ts';
import type { BpfJitRevisionName } from '../../jit/index.ts';
import { addrAdd, type Kaddr, kaddr } from '../../lib/index.ts';
import type { Btf } from '../../obj/index.ts';

export const CALL_BASE: Kaddr = kaddr(0xffff_ffff_8120_0000n);
const MAPS = kaddr(0xffff_c900_0000_0000n);
const VARIABLES = kaddr(0xffff_c900_1000_0000n);
const SYMBOLS = kaddr(0xffff_ffff_8200_0000n);

/** A kernel where every helper is `64 * number` bytes behind __bpf_call_base. */
export const someHelper = (id: number): Kaddr => addrAdd(CALL_BASE, 64 * id);

export const EMPTY_ENVIRONMENT: BpfEnvironment = {
  revision: 'v6.12',
  entry: { kind: 'opaque' },
  sleepable: false,
  maps: [],
  globals: [],
  externs: [],
  helper: someHelper,
  callBase: CALL_BASE,
  cpuNumberOffset: 0x18,
};

const mapPlace = (map: BpfMapDef, index: number): BpfMapPlace => ({
  name: map.name,
  typeId: map.typeId,
  keyBytes: map.keyBytes,
  valueBytes: map.valueBytes,
  maxEntries: map.maxEntries,
  address: addrAdd(MAPS, index * 0x1000),
  inner: map.inner && mapPlace(map.inner, index + 500),
});

/** A program of an object as a loader would have it checked: CO-RE applied, everything somewhere. */
export function loadable(
  object: BpfObject,
  program: BpfProgram,
  revision: BpfJitRevisionName,
  target: Btf,
): { readonly code: BpfProgram; readonly env: BpfEnvironment } {
  const insns = relocateCore(object, program, [target]).insns;
  const replaces = program.kind === 'freplace';
  return {
    code: { ...program, insns },
    env: {
      ...EMPTY_ENVIRONMENT,
      revision,
      entry:
        program.attachTo === undefined
          ? { kind: 'opaque' }
          : replaces
            ? { kind: 'function', params: [{ kind: 'scalar' }] }
            : entryAt(program.kind, target, program.attachTo),
      sleepable: program.sleepable,
      maps: object.maps.map(mapPlace),
      globals: object.globals.map((globals, index) => ({
        name: globals.section,
        address: addrAdd(VARIABLES, index * 0x10000),
        sizeBytes: globals.sizeBytes,
        readOnly: globals.readOnly,
        contents:
          globals.kind === 'kconfig'
            ? kconfigBytes(object, globals, { version: [6, 12, 0], options: new Map(), hasBpfCookie: true })
            : globals.contents,
      })),
      externs: object.externs.map(({ name }, index) => ({
        name,
        address: name.startsWith('no_such') ? undefined : addrAdd(SYMBOLS, index * 64),
      })),
      objectBtf: object.btf,
      kernelBtf: target,
    },
  };
}
