import type { GuestMemory } from '../emu/index.ts';
import type { Btf, BtfType } from '../obj/index.ts';
import type { KModule } from '../tramp/index.ts';
import type { Scalar } from './values.ts';

/** A variable of a program object, as it is now. */
export interface GlobalVariable {
  readonly name: string;
  readonly bytes: Uint8Array;
  /** What it is, or what each element of an array is; undefined for structs and the like. */
  readonly scalar: Scalar | undefined;
  readonly isArray: boolean;
}

/** The variables of a module that guests may write, by address. */
export function globalVariables(
  memory: GuestMemory,
  module: KModule,
  btf: Btf | undefined,
): GlobalVariable[] {
  return module.contents.symbols
    .filter(({ type, sizeBytes }) => type === 'object' && sizeBytes > 0)
    .filter(({ address }) => memory.regionAt(address)?.perms === 'rw')
    .map(({ name, address, sizeBytes }) => ({
      name,
      bytes: memory.bytes(address, sizeBytes).slice(),
      ...typeOf(btf, name, sizeBytes),
    }));
}

/** What BTF says of a variable; without BTF, the size of an integer makes one. */
function typeOf(
  btf: Btf | undefined,
  name: string,
  sizeBytes: number,
): Pick<GlobalVariable, 'scalar' | 'isArray'> {
  const variable = btf?.types.find((type) => type.kind === 'var' && type.name === name);
  if (btf === undefined || variable?.kind !== 'var') {
    return { scalar: scalarOfSize(sizeBytes, false), isArray: false };
  }
  return typeById(btf, variable.type);
}

/** What a type is, as far as values are shown by it. */
export function typeById(btf: Btf, id: number): Pick<GlobalVariable, 'scalar' | 'isArray'> {
  const type = bare(btf, id);
  if (type?.kind === 'array') return { scalar: scalarOf(bare(btf, type.type)), isArray: true };
  return { scalar: scalarOf(type), isArray: false };
}

/** Longest chain of typedefs and qualifiers that is followed: BTF from outside may be a circle. */
const MAX_CHAIN = 32;

/** The type behind typedefs and qualifiers. */
function bare(btf: Btf, id: number): BtfType | undefined {
  let type = btf.types[id];
  for (let left = MAX_CHAIN; left > 0; left--) {
    switch (type?.kind) {
      case 'typedef':
      case 'type_tag':
      case 'const':
      case 'volatile':
      case 'restrict':
        type = btf.types[type.type];
        break;
      default:
        return type;
    }
  }
  return undefined;
}

function scalarOf(type: BtfType | undefined): Scalar | undefined {
  switch (type?.kind) {
    case 'int':
    case 'enum':
    case 'enum64':
      return scalarOfSize(type.sizeBytes, type.signed);
    case 'ptr':
      return { sizeBytes: 8, signed: false, pointer: true };
    default:
      return undefined;
  }
}

function scalarOfSize(sizeBytes: number, signed: boolean): Scalar | undefined {
  return sizeBytes === 1 || sizeBytes === 2 || sizeBytes === 4 || sizeBytes === 8
    ? { sizeBytes, signed, pointer: false }
    : undefined;
}
